"""Languages by the models that come with gristmill, and by a fastText model that settings pin."""

import hashlib
import http.server
import multiprocessing
import os
import random
import re
import threading
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.annotate import Annotate, annotate, embedded
from tasks.annotate.language import CLAIMED, Language, code, identify
from tasks.annotate.passages import PASSAGES, passages
from tasks.errors import UserError

SENTENCES = {
    "en": "The committee met on Tuesday to discuss whether the old bridge should be repaired or replaced.",
    "de": "Der Ausschuss traf sich am Dienstag, um über die Reparatur der alten Brücke zu sprechen.",
    "fr": "Le comité s'est réuni mardi pour savoir si le vieux pont devait être réparé ou remplacé.",
    "es": "El comité se reunió el martes para decidir si el viejo puente debía repararse.",
    "ru": "Комитет собрался во вторник, чтобы обсудить, следует ли отремонтировать старый мост.",
    "ja": "委員会は火曜日に集まり、古い橋を修理するべきかどうかを話し合いました。",
    "ar": "اجتمعت اللجنة يوم الثلاثاء لمناقشة ما إذا كان ينبغي إصلاح الجسر القديم.",
}


def told(texts, settings=None, worth=None) -> pa.Table:
    texts = pa.array(texts, pa.large_string())
    return identify(texts, np.ones(len(texts), bool) if worth is None else np.array(worth), settings or Language())


def test_the_embedded_model_tells_languages():
    found = told(SENTENCES.values())
    assert found["language"].to_pylist() == list(SENTENCES)
    assert all(0.9 < score <= 1 for score in found["language_score"].to_pylist())
    assert found["other_language_fraction"].to_pylist() == [0.0] * len(SENTENCES)
    assert found["second_language"].null_count == len(SENTENCES)


def test_languages_that_only_the_second_model_knows():
    found = told(["Palamente ya Aforika Borwa e tlhomilwe ka molao mme e dira melao ya naga yotlhe.",
                  "I te tau nei ka haere mātou ki te whare pukapuka ki te ako i te reo o ngā tīpuna.",
                  "Hulumendhe ya Afrika Dzonga yi endla milawu leyintshwa hikwalaho ka vanhu va tiko hinkwavo."])
    assert found["language"].to_pylist() == ["tn", "mi", "ts"]


def test_the_embedded_arithmetic_is_py3langids():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=False)
    models = embedded.model()
    for text in [*SENTENCES.values(), "SHOUTING TITLE OF A PAGE", "Cafe\u0301 au lait", "zażółć gęślą"]:
        ours = models.likelihoods([embedded.prepare(text)])[0] + models.prior
        ranked = theirs.rank(text)
        order = np.argsort(-ours)[:5]
        assert [code(label) for label, _ in ranked[:5]] == models.codes[models.language[order]].tolist(), text
        assert [score for _, score in ranked[:5]] == pytest.approx(ours[order].tolist(), abs=0.05), text


def test_a_passage_alone_counts_as_among_others():
    models = embedded.model()
    together = models.likelihoods([embedded.prepare(text) for text in [*SENTENCES.values(), "", "x"]])
    for index, text in enumerate(SENTENCES.values()):
        assert (models.likelihoods([embedded.prepare(text)])[0] == together[index]).all()
    assert not together[-2].any()


def test_what_neither_model_knows_is_undetermined():
    found = told(["?", "𒀀𒀁𒀂", "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ᛫ᚠᛁᚱᚪ᛫ᚷᛖᚻᚹᛦᛚᚳᚢᛗ", "\u2603 1984 \u2603"])
    assert found["language"].to_pylist()[:3] == ["und"] * 3
    assert found["language_score"].to_pylist()[:3] == [0.0] * 3 and found["language_score"][3].as_py() < 0.65


def test_the_temperature_grows_more_slowly_than_the_text():
    bytes_ = np.array([50.0, 100.0, 1000.0])
    grown = embedded.temperature(bytes_)
    assert (np.diff(grown) > 0).all() and (np.diff(grown / bytes_) < 0).all()
    assert embedded.temperature(np.zeros(1)) > 0


def test_a_short_text_is_less_sure_than_a_long_one():
    short, long = told(["die", " ".join([SENTENCES["de"]] * 3)])["language_score"].to_pylist()
    assert short < 0.9 < long


def test_a_page_in_two_languages_says_so():
    english = "\n".join([SENTENCES["en"]] * 6)
    german = "\n".join([SENTENCES["de"]] * 3)
    alone, mixed = told([english, f"{english}\n{german}"]).to_pylist()
    assert alone["other_language_fraction"] == 0 and alone["second_language"] is None
    assert (mixed["language"], mixed["second_language"]) == ("en", "de")
    assert mixed["other_language_fraction"] == pytest.approx(len(german.encode()) / len(f"{english}{german}".encode()),
                                                             abs=0.05)


def test_the_second_language_stays_where_the_first_is_the_second_models():
    tswana = "Palamente ya Aforika Borwa e tlhomilwe ka molao mme e dira melao ya naga yotlhe. Batho ba bua Setswana."
    german = "\n".join([SENTENCES["de"]] * 2)
    alone, mixed = told(["\n".join([tswana] * 8), "\n".join([tswana] * 6 + [german])]).to_pylist()
    assert (alone["language"], alone["other_language_fraction"], alone["second_language"]) == ("tn", 0, None)
    assert (mixed["language"], mixed["second_language"]) == ("tn", "de")
    assert 0 < mixed["other_language_fraction"] < 0.5


def test_names_in_latin_letters_before_a_text_do_not_hide_its_own():
    names = "GitHub Actions Docker Build Push Kubernetes Deploy Helm Chart "
    for language, letter in (("ja", "を"), ("ru", "и"), ("ar", "في")):
        found, = told([f"{names}{letter}\n" + "\n".join([SENTENCES[language]] * 8)]).to_pylist()
        assert found["language"] == language


def test_texts_without_words_are_undetermined():
    found = told(["...", "word"], worth=[False, True]).to_pylist()
    assert found[0] == {"language": "und", "language_score": 0.0, "other_language_fraction": 0.0,
                        "second_language": None}
    assert found[1]["language"] != "und"


def test_numbers_are_in_no_language():
    table = "\n".join(f"{n} {n * n % 977}.{n % 10} {n * 37 % 1009}" for n in range(400))
    found = identify(pa.array([table], pa.large_string()), np.ones(1, bool), Language())
    assert (found["language"].to_pylist(), found["language_score"].to_pylist()) == (["und"], [0.0])


def test_what_a_text_gets_does_not_depend_on_its_neighbours():
    texts = [*SENTENCES.values(), "\n".join(SENTENCES.values()), "x", "Mixed: " + SENTENCES["fr"]] * 150
    assert len(texts) > 1000
    together = told(texts).to_pylist()
    assert [told([text]).to_pylist()[0] for text in texts[:10]] == together[:10] == together[10:20]


@given(st.text(max_size=3000), st.integers(50, 1000))
def test_passages_are_short_lines_of_the_text(text, limit):
    found = passages(text, limit)
    assert sum(map(len, found)) <= limit + PASSAGES
    assert all(passage and passage == " ".join(passage.split()) for passage in found)
    assert bool(found) == bool(text[:limit].split()) or len(text) > limit
    if len(text) <= limit:
        assert "".join("".join(found).split()) == "".join(text.split())


def test_passages_are_spread_over_a_long_text_and_begin_with_a_line():
    text = "\n".join(f"{number:04d} " + "word " * 8 for number in range(500))
    found = passages(text, 800)
    assert len(found) == PASSAGES and all(len(passage) <= 100 and passage[:4].isdigit() for passage in found)
    numbers = [int(passage[:4]) for passage in found]
    assert numbers == sorted(numbers) and numbers[0] == 0 and numbers[-1] > 400


@given(st.text(max_size=300))
def test_any_text_has_a_language_and_a_probability(text):
    row = told([text]).to_pylist()[0]
    assert row["language"] and 0 <= row["language_score"] <= 1 and 0 <= row["other_language_fraction"] <= 1
    assert (row["second_language"] is None) == (row["other_language_fraction"] == 0)


def test_what_is_claimed_is_known():
    models = embedded.model()
    assert len(CLAIMED) == 75 and models.known | models.cld2_known >= CLAIMED
    assert set(embedded.ALONE) <= models.known


@pytest.mark.parametrize(("label", "expected"), [
    ("__label__en", "en"), ("__label__eng", "en"), ("__label__eng_Latn", "en"), ("__label__cmn_Hani", "zh"),
    ("__label__zh", "zh"), ("__label__arb_Arab", "ar"), ("__label__nob_Latn", "no"), ("__label__yue_Hant", "yue"),
    ("__label__als", "gsw"), ("__label__als_Latn", "sq"), ("__label__zxx_Zzzz", "zxx"), ("__label__swh_Latn", "sw"),
    ("__label__ceb", "ceb"), ("zh-Hant", "zh"), ("uzs", "uz")])
def test_labels_become_codes(label, expected):
    assert code(label) == expected


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny supervised model that tells two languages apart, with its sha256."""
    import fasttext

    folder = tmp_path_factory.mktemp("model")
    chance = random.Random(0)
    lines = [f"__label__{label} {' '.join(chance.choices(SENTENCES[language].lower().split(), k=8))}"
             for _ in range(200) for label, language in (("eng_Latn", "en"), ("deu_Latn", "de"))]
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    # fastText starts its input matrix in ten blocks, one a thread: fewer threads leave the rest uninitialised (NaN).
    trained = fasttext.train_supervised(str(folder / "train.txt"), dim=10, epoch=20, thread=10, verbose=0)
    path = folder / "model.bin"
    trained.save_model(str(path))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def pinned(model, uri=None) -> Language:
    path, digest = model
    return Language(model=str(uri or path), model_sha256=digest)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from tasks.annotate import fasttext_model

    fasttext_model.load.cache_clear()
    return tmp_path / "cache" / "gristmill" / "models"


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_pinned_fasttext_model_is_used(model, prefix):
    path, digest = model
    found = told([SENTENCES["en"], SENTENCES["de"] + "\n" + SENTENCES["de"],
                  "\n".join([SENTENCES["en"]] * 4 + [SENTENCES["de"]] * 2)],
                 Language(model=f"{prefix}{path}", model_sha256=digest.upper()))
    assert found["language"].to_pylist() == ["en", "de", "en"]
    assert all(0.5 < score <= 1 for score in found["language_score"].to_pylist()[:2])
    assert found["second_language"].to_pylist() == [None, None, "de"]
    assert 0.2 < found["other_language_fraction"][2].as_py() < 0.5


def test_a_text_without_letters_is_in_no_language_for_such_a_model_either(model):
    path, digest = model
    found = told(["1984 - 2001: 12.5 %", SENTENCES["de"]], Language(model=str(path), model_sha256=digest))
    assert found["language"].to_pylist() == ["und", "de"] and found["language_score"][0].as_py() == 0


def test_a_remote_model_is_checked_and_kept(model, cache):
    import fsspec

    path, digest = model
    with fsspec.open("memory://models/lid.bin", "wb") as file:
        file.write(path.read_bytes())
    assert told([SENTENCES["de"]], pinned(model, "memory://models/lid.bin"))["language"].to_pylist() == ["de"]
    assert (cache / f"{digest}.bin").read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="model_sha256"):
        told(["x"], Language(model="memory://models/lid.bin", model_sha256="1" * 64))
    assert not (cache / f"{'1' * 64}.bin").exists()


class Cut(http.server.BaseHTTPRequestHandler):
    """A server that knows ranges and hangs up in the middle of the first answer."""

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        data = self.server.data
        if data is None:
            self.send_error(404)
            return
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")
        start = int(begin[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:start + len(data) // 2] if len(self.server.asked) == 1 else data[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as running:
        running.asked, running.data = [], None
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def _copy(uri, sha256):
    from tasks.annotate.fasttext_model import local_copy

    return local_copy(uri, sha256)


def test_a_model_is_fetched_once_by_many_processes_and_goes_on_where_it_was_cut(model, cache, server):
    path, digest = model
    server.data = path.read_bytes()
    uri = f"http://127.0.0.1:{server.server_port}/lid.bin"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        places = pool.map(partial(_copy, sha256=digest), [uri] * 3, chunksize=1)
    assert set(places) == {str(cache / f"{digest}.bin")}
    assert server.asked == [None, f"bytes={len(server.data) // 2}-"]
    assert sorted(os.listdir(cache)) == [f"{digest}.bin", f"{digest}.lock"] or "cache" in os.listdir(cache)
    assert told([SENTENCES["de"]], pinned(model, uri))["language"].to_pylist() == ["de"]
    assert len(server.asked) == 2


def test_a_model_that_is_not_on_the_server_is_the_users_error(model, cache, server):
    with pytest.raises(UserError, match=r"cannot read language.model http://.*http_404.*fetch the file yourself"):
        told(["x"], pinned(model, f"http://127.0.0.1:{server.server_port}/lid.bin"))


def test_another_file_than_the_pinned_one_is_refused(model):
    path, digest = model
    with pytest.raises(UserError) as refused:
        told(["x"], Language(model=str(path), model_sha256="0" * 64))
    assert digest in str(refused.value) and "0" * 64 in str(refused.value)


def test_missing_and_wrong_files_are_the_users_errors(tmp_path, cache):
    with pytest.raises(UserError, match="cannot read language.model .*absent.bin"):
        told(["x"], Language(model=str(tmp_path / "absent.bin"), model_sha256="0" * 64))
    bogus = tmp_path / "bogus.bin"
    bogus.write_bytes(b"not a model")
    with pytest.raises(UserError, match="no fastText model"):
        told(["x"], Language(model=str(bogus), model_sha256=hashlib.sha256(b"not a model").hexdigest()))
    with pytest.raises(UserError, match="cannot read"):
        told(["x"], Language(model="nosuch://x/y.bin", model_sha256="0" * 64))


def test_model_and_sum_go_together():
    for half in ({"model": "x.bin"}, {"model_sha256": "0" * 64}):
        with pytest.raises(ValidationError, match="go together"):
            Language(**half)


def test_a_pinned_model_is_no_resource_since_its_sum_is_a_setting():
    pinned = Annotate(language=Language(model="http://x/m.bin", model_sha256="0" * 64))
    assert not annotate.resources(Annotate()) and not annotate.resources(pinned)

"""Languages by the embedded model, and by a fastText model that settings pin."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tasks.annotate import Annotate, annotate
from tasks.annotate.language import Language, code, embedded_classifier, identify, sample
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


def test_the_embedded_model_tells_languages():
    texts = pa.array(SENTENCES.values(), pa.large_string())
    codes, scores = identify(texts, np.ones(len(texts), bool), Language())
    assert codes.to_pylist() == list(SENTENCES)
    assert (scores > 0.5).all() and (scores <= 1).all()


def test_the_embedded_arithmetic_is_py3langids():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    classify = embedded_classifier()
    texts = [*SENTENCES.values(), "SHOUTING TITLE OF A PAGE", "Cafe\u0301 au lait", "zażółć gęślą",
             *(" ".join(pair) for pair in zip(SENTENCES.values(), reversed(SENTENCES.values()), strict=True))]
    for text in texts:
        shares: dict[str, float] = {}
        for label, share in theirs.rank(text):
            shares[code(label)] = shares.get(code(label), 0.0) + share
        best = max(shares, key=shares.get)
        assert classify(text) == (best, pytest.approx(shares[best], abs=2e-4)), text
    assert classify("?") == ("und", 0.0)                    # no feature: theirs falls back to the first label


def test_texts_without_words_are_undetermined():
    codes, scores = identify(pa.array(["...", "word"], pa.large_string()), np.array([False, True]), Language())
    assert codes[0].as_py() == "und" and scores[0] == 0


def test_sample_takes_the_beginning_and_the_middle():
    text = "a" * 1000 + "b" * 1000 + "c" * 1000
    taken = sample(text, 200)
    assert len(taken) == 201 and taken.startswith("a" * 100) and set(taken[101:]) == {"b"}
    assert sample("short\n text", 200) == "short text"
    assert len(sample("x" * 201, 200)) <= 201


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


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_pinned_fasttext_model_is_used(model, prefix):
    path, digest = model
    settings = Language(model=f"{prefix}{path}", model_sha256=digest.upper())
    texts = pa.array([SENTENCES["en"], SENTENCES["de"] + "\n" + SENTENCES["de"]], pa.large_string())
    codes, scores = identify(texts, np.ones(2, bool), settings)
    assert codes.to_pylist() == ["en", "de"] and (scores > 0.5).all() and (scores <= 1).all()


def test_a_remote_model_is_checked_and_used(model):
    import fsspec

    path, digest = model
    with fsspec.open("memory://models/lid.bin", "wb") as file:
        file.write(path.read_bytes())
    settings = Language(model="memory://models/lid.bin", model_sha256=digest)
    codes, _ = identify(pa.array([SENTENCES["de"]], pa.large_string()), np.ones(1, bool), settings)
    assert codes.to_pylist() == ["de"]
    with pytest.raises(UserError, match="model_sha256"):
        identify(pa.array(["x"]), np.ones(1, bool), Language(model="memory://models/lid.bin", model_sha256="1" * 64))


def test_another_file_than_the_pinned_one_is_refused(model):
    path, digest = model
    with pytest.raises(UserError) as refused:
        identify(pa.array(["x"]), np.ones(1, bool), Language(model=str(path), model_sha256="0" * 64))
    assert digest in str(refused.value) and "0" * 64 in str(refused.value)


def test_missing_and_wrong_files_are_the_users_errors(tmp_path):
    with pytest.raises(UserError, match="cannot read language.model .*absent.bin"):
        identify(pa.array(["x"]), np.ones(1, bool), Language(model=str(tmp_path / "absent.bin"), model_sha256="0" * 64))
    bogus = tmp_path / "bogus.bin"
    bogus.write_bytes(b"not a model")
    pinned = Language(model=str(bogus), model_sha256=hashlib.sha256(b"not a model").hexdigest())
    with pytest.raises(UserError, match="no fastText model"):
        identify(pa.array(["x"]), np.ones(1, bool), pinned)
    with pytest.raises(UserError, match="cannot read"):
        identify(pa.array(["x"]), np.ones(1, bool), Language(model="nosuch://x/y.bin", model_sha256="0" * 64))


def test_model_and_sum_go_together():
    for half in ({"model": "x.bin"}, {"model_sha256": "0" * 64}):
        with pytest.raises(ValidationError, match="go together"):
            Language(**half)


def test_the_model_is_a_resource_of_the_stage():
    assert annotate.resources(Annotate()) == []
    assert annotate.resources(Annotate(language=Language(model="m.bin", model_sha256="0" * 64))) == ["m.bin"]

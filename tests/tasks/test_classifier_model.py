"""Models as fastText has them, and the column that they give."""

import hashlib
import json
import re
import struct
import subprocess
import sys

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_classes import text_of

from tasks.annotate import Annotate, annotate, signals
from tasks.annotate.quality import Quality, quality_scores, threshold
from tasks.classifier import kernel
from tasks.classifier.model import (
    EOS,
    NEGATIVE,
    POSITIVE,
    Model,
    Vocabulary,
    from_bytes,
    logits,
    prepared,
    probabilities,
    to_bytes,
)
from tasks.classifier.training import Training, train
from tasks.errors import UserError
from tasks.schema import DOCUMENTS, LINES, id_array
from tasks.words import words as words_of


def large(texts) -> pa.Array:
    return pa.array(texts, pa.large_string())


def spelt(text: str) -> str:
    data, offsets = prepared(large(["before", text, "after"]), "words")
    return bytes(data[offsets[1]:offsets[2]]).decode()


@pytest.fixture(scope="module")
def model() -> Model:
    labels = np.array([i % 2 for i in range(300)])
    texts = large([text_of(bool(label), i) for i, label in enumerate(labels)])
    return train(texts, labels, Training(buckets=5000, min_count=2, epochs=40, rate=0.5))[0]


@pytest.fixture(scope="module")
def library(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.bin"
    path.write_bytes(to_bytes(model))
    return fasttext.load_model(str(path))


def by_library(library, texts) -> list[float]:
    labels, shares = library.predict(list(texts), k=2)
    return [dict(zip(*row, strict=True))[POSITIVE] - 1e-5 for row in zip(labels, shares, strict=True)]  # which it adds


TEXTS = st.text(st.sampled_from("ab é漢\u0301ß\u200b\0\t\n\r\x0b\x0c.,'-_0 <>/s"), max_size=60)
WORDS = st.lists(st.sampled_from(["word1", "word2", "thought3", "click5", "</s>", "__label__hq", "__label__x", "é"]),
                 max_size=20).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.one_of(TEXTS, WORDS), min_size=1, max_size=5))
def test_scores_are_those_of_the_library_on_the_same_file(model, library, texts):
    raw = model._replace(text="raw")
    one_line = [text.replace("\n", " ") for text in texts]      # the library takes a line
    ours = logits(raw, large(texts))
    theirs = by_library(library, one_line)
    for text, logit, score in zip(texts, ours, theirs, strict=True):
        tokens = [t for t in re.split("[ \t\n\r\x0b\x0c\0]+", text) if t and not t.startswith("__label__")]
        if "</s>" in tokens:                                    # where it takes the text to end
            continue
        assert np.isnan(logit) == (not tokens)
        if tokens:
            assert probabilities(logit) == pytest.approx(score, abs=2e-6)


def test_a_model_of_the_library_gives_its_own_scores(tmp_path):
    rows = [f"{POSITIVE if i % 2 else NEGATIVE} {text_of(bool(i % 2), i)}" for i in range(60)]
    (tmp_path / "rows.txt").write_text("\n".join(rows))
    # 12 threads: with fewer the library leaves a part of the matrix as the memory was
    theirs = fasttext.train_supervised(str(tmp_path / "rows.txt"), wordNgrams=3, bucket=1000, dim=10, thread=12,
                                       epoch=1, verbose=0, lr=0.01)
    theirs.save_model(str(tmp_path / "model.bin"))
    ours = from_bytes((tmp_path / "model.bin").read_bytes(), "model.bin", text="raw")
    texts = [text_of(bool(i % 2), 1000 + i) for i in range(40)]
    assert probabilities(logits(ours, large(texts))) == pytest.approx(by_library(theirs, texts), abs=2e-6)


def test_a_file_gives_the_model_back(model):
    again = from_bytes(to_bytes(model), "model.bin")
    assert np.array_equal(again.weights, model.weights) and again.vocabulary.words == model.vocabulary.words
    assert (again.buckets, again.ngrams) == (model.buckets, model.ngrams) and to_bytes(again) == to_bytes(model)
    other = from_bytes(to_bytes(model), "model.bin", label=NEGATIVE)
    text = large([text_of(True, 5)])
    assert logits(other, text) == pytest.approx(-logits(model, text))


def test_what_is_no_such_model_is_refused(model, tmp_path):
    data = to_bytes(model)
    for broken in (b"", b"no model at all, but long enough to be read as one" * 3, data[:200], data[:-9]):
        with pytest.raises(UserError, match="x.bin is no (whole )?fastText"):
            from_bytes(broken, "x.bin")
    with pytest.raises(UserError, match="labels __label__hq and __label__cc, and not __label__good"):
        from_bytes(data, "x.bin", label="__label__good")
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(f"__label__{i % 3} a b c d e{i}" for i in range(30)))
    given = dict(dim=4, thread=12, epoch=1, verbose=0, lr=0.01)
    for more in ({}, {"maxn": 3, "minn": 2, "bucket": 100}, {"loss": "ova"}):
        if more:
            rows.write_text("\n".join(f"__label__{i % 2} a b c d e{i}" for i in range(30)))
        fasttext.train_supervised(str(rows), **given, **more).save_model(str(tmp_path / "other.bin"))
        with pytest.raises(UserError, match="2 labels, the softmax loss .3., no subwords"):
            from_bytes((tmp_path / "other.bin").read_bytes(), "x.bin", label="__label__1")
    at = data.index(struct.pack("<?2q", False, len(model.weights), 1)) + 17
    with pytest.raises(UserError, match="no finite numbers"):
        from_bytes(data[:at] + struct.pack("<f", float("nan")) + data[at + 4:], "x.bin")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_words_are_runs_of_letters_digits_and_marks(text):
    found = spelt(text)
    assert spelt(found) == found, "spelling again changes nothing"
    assert found == found.strip() and "  " not in found
    # the words of annotate, which joins some of ours and divides scripts without spaces otherwise
    assert re.sub(r"[\s'.,]", "", found) == re.sub(r"[\s'.,]", "", "".join(words_of(text)))


@pytest.mark.parametrize(("text", "words"), [
    ("The  Mill, 1,000 times!", "the mill 1 000 times"), ("", ""), ("... -- !", ""), ("ÄRGER STRASSE", "ärger strasse"),
    ("漢字と", "漢 字 と"), ("x漢y", "x 漢 y"), ("cafe\u0301", "cafe\u0301"), ("\u0301a", "a"),
    ("__label__hq", "label hq"), ("a\nb\0c", "a b c"), ("㐀\u0300", "㐀\u0300"), ("ที่ดี", "ที่ ดี"), ("a\u00adb", "ab")])
def test_spelling(text, words):
    assert spelt(text) == words


def test_broken_utf8_is_read_within_its_bounds(model):
    rows = [b"\xf0\x9f", b"ok \xe6\x97", b"\xff\xfe\xc3", b"\xf7\xbf\xbf\xbf word1", b"\x80\x80 word2"]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    broken = pa.Array.from_buffers(pa.large_string(), len(rows), [None, pa.py_buffer(offsets.tobytes()),
                                                                  pa.py_buffer(b"".join(rows))])
    assert np.isnan(logits(model, broken)).tolist() == [True, False, True, False, False]


def test_a_slice_of_texts_has_the_scores_of_its_texts(model):
    texts = [text_of(bool(i % 2), i) for i in range(10)]
    assert np.array_equal(logits(model, large(texts).slice(3, 4)), logits(model, large(texts[3:7])))
    assert len(logits(model, large([]))) == 0


def test_counting_grows_its_table_and_keeps_the_order():
    texts = large([" ".join(f"w{i}" for i in range(start, start + 30_000)) for start in (0, 20_000, 40_000)])
    data, offsets = prepared(texts, "raw")
    found = kernel.count_words(data, offsets)
    words = [data[start:end].tobytes() for _, start, end in found]
    assert words == [b"w%d" % i for i in range(70_000)]
    assert found[:, 0].tolist() == [1 + (20_000 <= i < 30_000 or 40_000 <= i < 50_000) for i in range(70_000)]


def test_the_vocabulary_is_found_by_its_table():
    words = [EOS, *(f"w{i}".encode() for i in range(5000))]
    keys, rows = Vocabulary.of(words, [1] * len(words))[2:]
    assert sorted(rows[keys != 0].tolist()) == list(range(len(words))) and len(keys) >= 2 * len(words)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from test_classifier_model import digest_of_a_training
print(digest_of_a_training())
"""


def digest_of_a_training() -> str:
    labels = np.array([i % 2 for i in range(200)])
    texts = large([text_of(bool(label), i) for i, label in enumerate(labels)])
    return hashlib.sha256(to_bytes(train(texts, labels, Training(buckets=1000, min_count=1, epochs=5))[0])).hexdigest()


def test_the_same_texts_give_the_same_bytes_in_another_process():
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(folder=__file__.rsplit("/", 1)[0])], check=True,
                          env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert done.stdout.strip() == digest_of_a_training()


# The column of annotate.

@pytest.fixture
def classifier(model, tmp_path) -> dict:
    (tmp_path / "model.bin").write_bytes(to_bytes(model))
    about = {"sha256": hashlib.sha256(to_bytes(model)).hexdigest(), "label": POSITIVE, "text": "words",
             "keep": [{"keep": 0.1, "threshold": 0.9}, {"keep": 0.2, "threshold": 0.7}]}
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    return about | {"folder": str(tmp_path)}


def column(texts, quality) -> list:
    n = len(texts)
    documents = pa.table({name: id_array([bytes([i]) * 16 for i in range(n)]) if name == "doc_id" else
                          pa.array(texts if name == "text" else [None] * n, DOCUMENTS.field(name).type)
                          for name in ("doc_id", "text")})
    lines = pa.table({"doc_id": documents["doc_id"], "row": np.arange(n, dtype=np.int32), **{
        field.name: pa.array([[] if pa.types.is_list(field.type) else 0] * n, field.type)
        for field in LINES if field.name not in ("doc_id", "row")}}, schema=LINES)
    return signals(documents, lines, Annotate(quality=quality))["quality_score"].to_pylist()


def test_the_column_holds_the_score_and_nothing_without_a_model(classifier):
    texts = [text_of(True, 5000), text_of(False, 5001), "", "!!!", None]
    good, bad, *nothing = column(texts, {"classifier": classifier["folder"]})
    assert good > 0.9 > 0.1 > bad and nothing == [0.0] * 3
    assert column(texts, Quality()) == [None] * 5
    assert annotate.makes.field("quality_score").type == pa.float64()


def test_a_folder_stands_for_the_settings_that_it_holds(classifier):
    quality = Quality.model_validate({"classifier": classifier["folder"]})
    assert quality == Quality(model=f"{classifier['folder']}/model.bin", sha256=classifier["sha256"])
    assert Quality.model_validate(quality.model_dump()) == quality
    assert Quality.model_validate({"classifier": None}) == Quality()


@pytest.mark.parametrize(("given", "message"), [
    ({"model": "m.bin"}, "go together"), ({"sha256": "0" * 64}, "go together"),
    ({"classifier": "/none", "model": "x"}, "one or the other"), ({"classifier": "/none"}, "none holds no classifier")])
def test_settings_that_do_not_hold_together(given, message):
    with pytest.raises(ValueError, match=message):
        Quality.model_validate(given)


def test_a_model_that_is_gone_or_another(classifier, tmp_path):
    texts = large(["some words"])
    with pytest.raises(UserError, match="cannot read annotate.quality.model .*FileNotFoundError"):
        quality_scores(texts, Quality(model=str(tmp_path / "none.bin"), sha256="0" * 64))
    with pytest.raises(UserError, match=f"has sha256 {classifier['sha256']}, but annotate.quality.sha256 is 0000"):
        quality_scores(texts, Quality(model=str(tmp_path / "model.bin"), sha256="0" * 64))
    with pytest.raises(UserError, match="annotate.quality.model memory://none/x.bin"):
        quality_scores(texts, Quality(model="memory://none/x.bin", sha256="0" * 64))


def test_a_share_of_random_crawl_is_a_threshold(classifier):
    assert threshold(classifier["folder"], 0.1) == 0.9
    assert threshold(classifier["folder"], 0.15) == pytest.approx(0.8)
    for outside in (0.05, 0.3, float("nan"), "x"):
        with pytest.raises(UserError, match="from the best 0.1 to the best 0.2"):
            threshold(classifier["folder"], outside)

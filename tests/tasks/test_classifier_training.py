"""From examples to a classifier: what is read, what is left out, what is held out, and what is measured."""

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_classes import text_of

from tasks.classifier import measures
from tasks.classifier.examples import EXAMPLES, read_examples
from tasks.classifier.examples import text_of as row_text
from tasks.classifier.model import from_bytes, logits
from tasks.classifier.training import Training, clean, held_out, joined, make, union
from tasks.errors import UserError
from tasks.storage import Root

SMALL = {"buckets": 5000, "min_count": 2, "epochs": 40, "rate": 0.5}


def examples(texts, labels, groups=None) -> pa.Table:
    n = len(texts)
    hashes = [random.Random(text).getrandbits(64) for text in texts]
    return pa.table([texts, labels, [0] * n, groups or [f"row/{i}" for i in range(n)], hashes], schema=EXAMPLES)


def two_classes(n=240, first=0) -> tuple[list[str], list[int]]:
    return [text_of(bool(i % 2), first + i) for i in range(n)], [i % 2 for i in range(n)]


def about(table: pa.Table, **changed) -> dict:
    return json.loads(make(table, Training(**SMALL | changed))["data"][1].as_py())


# Reading.

@pytest.mark.parametrize(("row", "text"), [
    ({"text": "plain"}, "plain"), ({"content": "plain", "id": 1}, "plain"), ({"text": None}, ""),
    ({"instruction": "do", "input": "this", "output": "done"}, "do\n\nthis\n\ndone"),
    ({"instruction": "do", "input": "", "output": "done", "text": "other"}, "do\n\ndone"),
    ({"instruction": "do", "context": "this", "response": "done"}, "do\n\nthis\n\ndone"),
    ({"question": "why", "answer": "so"}, "why\n\nso"),
    ({"prompt": "Below is an instruction.\n\n### Instruction:\nwhy\n\n### Response:\n", "response": "so"}, "why\n\nso"),
    ({"prompt": "Below.\n\n### Instruction:\nwhy\n\n### Input:\nthis\n\n### Response:\n", "response": "so"},
     "why\n\nthis\n\nso"),
    ({"instruction": "do", "instances": [{"input": "this", "output": "done"}, {"output": "more"}]},
     "do\n\nthis\n\ndone"),
    ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]}, "hi\n\nyou"),
    ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": None}]}, "hi")])
def test_rows_of_many_forms(row, text):
    assert row_text(row, "here") == text


def test_a_row_without_a_text_names_the_place_and_the_columns():
    with pytest.raises(UserError, match="x.jsonl, line 3 is no text and no instruction; .* it has id, body"):
        row_text({"id": 1, "body": "x"}, "x.jsonl, line 3")
    assert row_text({"id": 1, "body": "x"}, "here", "body") == "x"
    with pytest.raises(UserError, match="here has no column 'page'; it has id"):
        row_text({"id": 1}, "here", "page")


def test_files_of_every_kind(tmp_path):
    root = Root(str(tmp_path / "home"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one", "domain": "a.example"}\n\n{"text": " "}\n'))
    pq.write_table(pa.table({"text": ["two", None], "domain": ["a.example", "b.example"]}), tmp_path / "b.parquet")
    (tmp_path / "c.txt").write_text("".join(f"paragraph {i} {'x' * 1500}\n\n" for i in range(8)))
    found = read_examples([str(tmp_path / "[a]?jsonl.gz"), str(tmp_path / "b.*"), str(tmp_path / "c.txt")], 1, root)
    groups = dict(zip(found.table["text"].to_pylist(), found.table["group"].to_pylist(), strict=True))
    assert groups["one"] == groups["two"] == "domain/a.example"
    assert len({group for text, group in groups.items() if "paragraph" in text}) == 1
    assert sorted(len(t.split("paragraph")) - 1 for t in groups if "paragraph" in t) == [2, 3, 3]
    assert [(s["source"].rsplit("/", 1)[1], s["rows"], s["texts"]) for s in found.sources] == [
        ("a.jsonl.gz", 2, 1), ("b.parquet", 2, 1), ("c.txt", 3, 3)]
    assert all(len(s["sha256"]) == 64 for s in found.sources) and set(found.table["label"].to_pylist()) == {1}


def test_a_sample_hangs_on_the_texts_and_not_on_their_order(tmp_path):
    texts = [f"text {i}" for i in range(100)]
    for name, ordered in (("a", texts), ("b", texts[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ordered))
    root = Root(str(tmp_path))
    a, b = (read_examples([str(tmp_path / f"{name}.jsonl")], 1, root, limit=10).table["text"] for name in "ab")
    assert a.equals(b) and len(a) == 10
    everything = read_examples([str(tmp_path / "a.jsonl")], 1, root).table["text"]
    assert everything.slice(0, 10).equals(a)


def test_sources_that_give_nothing_say_why(tmp_path):
    root = Root(str(tmp_path))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 99)[:-9])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    (tmp_path / "page.html").write_text("x")
    for source, message in {
            "none*.jsonl": "matches no file", "none.jsonl": "matches no file", "empty.jsonl": "positives .* no rows",
            "blank.jsonl": "hold no text", "broken.jsonl": "line 1: this is not JSON",
            "list.jsonl": "line 1: a row is a JSON object", "cut.jsonl.gz": "cannot read .*cut.jsonl.gz .EOFError",
            "no.parquet": "cannot read .*no.parquet .ArrowInvalid", "latin.jsonl": "cannot read .*UnicodeDecodeError",
            "page.html": "no example file", "gone://x/*.jsonl": "cannot read gone"}.items():
        with pytest.raises(UserError, match=message):
            read_examples([source if "://" in source else str(tmp_path / source)], 1, root)


# Cleaning and holding out.

def test_a_class_that_is_too_small_or_missing():
    texts, labels = two_classes(240)
    with pytest.raises(UserError, match="0 positives are left .* 120 are the least"):
        make(examples(texts, [0] * 240), Training(**SMALL))
    with pytest.raises(UserError, match="positives are left"):
        make(examples(texts[:150], labels[:150]), Training(**SMALL))
    with pytest.raises(UserError, match="1 negatives are left with words, each once"):
        make(examples([t if label else "same text" for t, label in zip(texts, labels, strict=True)], labels),
             Training(**SMALL))


def test_copies_and_empty_texts_are_left_out_and_counted():
    texts, labels = two_classes(300)
    extra = [texts[0].upper(), texts[1] + " !", "...", ""]
    counts = about(examples(texts + extra, labels + [0, 1, 1, 0]))["examples"]
    assert counts["read"] == 304 and counts["copies"] == 2 and counts["empty"] == 2 and counts["used"] == 300


def test_what_is_in_both_classes_is_taken_out_of_both():
    texts, labels = two_classes(300)
    near = texts[7][:-1] + " indeed"                    # nearly the same, of the other class
    counts = about(examples([*texts, texts[0], near], [*labels, 1, 0]))["examples"]
    assert counts["in_both"] == 4 and counts["used"] == 298


def test_sources_that_overlap_are_refused():
    texts, labels = two_classes(400)
    with pytest.raises(UserError, match="of 220 positives are negatives too, or nearly; .* take those sources out"):
        make(examples(texts + texts[:40:2], labels + [1] * 20), Training(**SMALL))


def test_a_word_that_tells_the_classes_apart_is_a_leak():
    texts, labels = two_classes(300)
    marked = [t + " subscribed" * (1 - label) for t, label in zip(texts, labels, strict=True)]
    with pytest.raises(UserError, match="one word stands in 0% of the positives and 100% of the negatives") as raised:
        make(examples(marked, labels), Training(**SMALL))
    assert "subscribed" not in str(raised.value)
    assert about(examples(marked, labels), word_gap=2)["metrics"]["auc"] == 1


def test_as_many_of_one_class_as_of_the_other_or_not():
    texts, labels = two_classes(300)
    more = [text_of(False, 1000 + i) for i in range(100)]
    counts = about(examples(texts + more, labels + [0] * 100))["examples"]
    assert counts["used"] == 300 and counts["held_out_positives"] == counts["held_out_negatives"] == 30
    assert about(examples(texts + more, labels + [0] * 100), balance=False)["examples"]["used"] == 400


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), max_size=60), st.sampled_from([0.1, 0.2, 0.5]))
def test_groups_are_held_out_whole_and_no_more_than_asked(rows, share):
    groups, labels = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    held = held_out(groups, labels, share)
    assert not set(groups[held]) & set(groups[~held])
    for label in (0, 1):
        assert (held & (labels == label)).sum() <= round(share * (labels == label).sum())


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.lists(
    st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30))))
def test_union_joins_what_pairs_connect(case):
    n, pairs = case
    found = union(n, [a for a, _ in pairs], [b for _, b in pairs])
    reach = [{i} for i in range(n)]
    for _ in range(n):
        for a, b in pairs:
            reach[a] |= reach[b]
            reach[b] |= reach[a]
    assert found.tolist() == [min(reached) for reached in reach]


def test_groups_join_by_domain_and_by_likeness():
    assert joined(np.array([5, 6, 5, 7, 8]), ["a", "b", "b", "c", "c"]).tolist() == [0, 0, 0, 3, 3]


def test_near_copies_are_held_out_together():
    texts, labels = two_classes(300)
    copies = [text + " extra" for text in texts]        # each nearly the same as another
    rows, clusters, _ = clean(pa.array(texts + copies, pa.large_string()), np.array(labels * 2), Training(**SMALL))
    assert len(rows) == 600 and np.array_equal(clusters[:300], clusters[300:]) and len(set(clusters)) == 300
    held = held_out(joined(clusters[rows], [f"row/{i}" for i in rows]), np.array(labels * 2)[rows], 0.2)
    assert np.array_equal(held[:300], held[300:]) and held.sum() == 120


# The whole.

def test_a_classifier_ranks_texts_that_it_has_not_seen():
    texts, labels = two_classes(400)
    files = make(examples(texts, labels), Training(**SMALL))
    said = json.loads(files["data"][1].as_py())
    assert said["metrics"]["auc"] > 0.99 and said["metrics"]["auc_low"] <= said["metrics"]["auc"]
    assert said["training"]["window"] == 60 and said["metrics"]["ece"] < 0.2
    confusion = said["confusion"]
    assert confusion["true_positive"] >= 38 and confusion["false_positive"] == 4    # the best tenth of 40 negatives
    fresh, truth = two_classes(60, first=9000)
    scores = logits(from_bytes(files["data"][0].as_py(), "model.bin"), pa.array(fresh, pa.large_string()))
    assert measures.auc(scores, np.array(truth)) > 0.99


def test_neither_the_order_of_the_examples_nor_of_their_sources_counts():
    texts, labels = two_classes(300)
    table = examples(texts, labels)
    shuffled = table.take(pa.array(random.Random(1).sample(range(300), 300)))
    assert make(table, Training(**SMALL)).equals(make(shuffled, Training(**SMALL)))
    assert not make(table, Training(**SMALL, seed=2)).equals(make(table, Training(**SMALL)))


def test_personal_data_is_in_neither_file():
    texts, labels = two_classes(300)
    secret = [f"{text} jonas.planted@example.org" if i % 3 else text for i, text in enumerate(texts)]
    files = make(examples(secret, labels), Training(**SMALL))
    assert not any(b"planted" in data for data in files["data"].to_pylist())
    assert b"planted" in make(examples(secret, labels), Training(**SMALL, scrub=False))["data"][0].as_py()


def test_length_alone_does_not_tell_the_classes_apart():
    """Positives are short and negatives long; among texts of one class's words the long ones must not score lower."""
    long = [text_of(False, i, 600) for i in range(200)]
    short = [text_of(True, i, 30) for i in range(200)]
    files = make(examples(long + short, [0] * 200 + [1] * 200), Training(**SMALL))
    model = from_bytes(files["data"][0].as_py(), "model.bin")

    def mean(good: bool, words: int) -> float:
        return logits(model, pa.array([text_of(good, 500 + i, words) for i in range(50)], pa.large_string())).mean()

    assert json.loads(files["data"][1].as_py())["training"]["window"] == 30
    assert mean(True, 600) > 0 > mean(False, 30)
    assert mean(True, 600) > 0.5 * mean(True, 30) and mean(False, 600) > 2 * mean(False, 30) - 1


# Measures.

SCORES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2)


@given(SCORES)
def test_auc_is_the_share_of_pairs_in_order(rows):
    scores, labels = (np.array([row[i] for row in rows], np.float64) for i in (0, 1))
    good, bad = scores[labels == 1], scores[labels == 0]
    pairs = [(g > b) + (g == b) / 2 for g in good for b in bad]
    area = measures.auc(scores, labels)
    assert area == pytest.approx(np.mean(pairs))
    low, high = measures.auc_interval(scores, labels)
    assert np.isnan(low) or low <= area + 1e-12 and high >= area - 1e-12


def test_the_interval_holds_the_truth_as_often_as_it_says():
    chance = np.random.default_rng(0)
    hits, truth = 0, 0.7602                             # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for _ in range(400):
        labels = np.repeat([1, 0], 60)
        low, high = measures.auc_interval(chance.normal(size=120) + labels, labels)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.975


def test_reliability_and_its_error():
    probabilities = np.array([0.05, 0.08, 0.55, 0.95, 1.0, 0.92])
    labels = np.array([0, 1, 1, 1, 1, 0])
    table = measures.reliability(probabilities, labels)
    assert [(row["low"], row["texts"], row["positive"]) for row in table] == [
        (0.0, 2, 0.5), (0.5, 1, 1), (0.9, 3, 2 / 3)]
    assert measures.calibration_error(table) == pytest.approx(
        (2 * abs(0.065 - 0.5) + 0.45 + 3 * abs(2.87 / 3 - 2 / 3)) / 6)
    assert measures.brier(np.array([0.5, 1.0]), np.array([1, 1])) == 0.125


def test_platt_scaling_finds_the_scale_of_the_odds():
    chance = np.random.default_rng(1)
    logit = chance.normal(size=20_000) * 2
    labels = (chance.random(20_000) < 1 / (1 + np.exp(-(1.5 * logit - 0.5)))).astype(np.int64)
    a, b = measures.platt(logit, labels)
    assert a == pytest.approx(1.5, abs=0.08) and b == pytest.approx(-0.5, abs=0.06)
    a, b = measures.platt(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([0, 0, 1, 1]))     # told apart: still finite
    assert 0 < a < 10 and abs(b) < 1


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_thresholds_fall_with_the_share_and_keep_it(scores):
    scores = np.array(scores)
    table = measures.keep_table(scores)
    assert [row["keep"] for row in table] == sorted(measures.SHARES)
    thresholds = [row["threshold"] for row in table]
    assert thresholds == sorted(thresholds, reverse=True)
    for row in table:
        assert (scores > row["threshold"]).sum() <= row["keep"] * len(scores) + 1


def test_confusion_counts_every_text_once():
    table = measures.confusion(np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 1, 0]), 0.5)
    assert table == {"threshold": 0.5, "true_positive": 1, "false_positive": 1, "false_negative": 1, "true_negative": 1,
                     "precision": 0.5, "recall": 0.5}
    assert measures.confusion(np.array([0.1]), np.array([0]), 0.5)["precision"] is None


def test_one_list_of_rows_is_read_as_its_rows(tmp_path):
    rows = [{"instruction": "Add.", "output": "Two."}, {"text": "b"}]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows, indent=1))
    assert len(read_examples([str(tmp_path / "alpaca.json")], 1, Root(str(tmp_path))).table) == 2
    (tmp_path / "wrong.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="a row is a JSON object"):
        read_examples([str(tmp_path / "wrong.json")], 1, Root(str(tmp_path)))

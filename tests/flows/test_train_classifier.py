"""The flow as a plain function: files against files, documents that SQL chooses, and a corpus's own by default."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.settings import load_recipe
from flows.train_classifier import train_classifier
from tasks import ledger, lineage, query
from tasks.classifier.examples import read_examples
from tasks.classifier.training import Training
from tasks.errors import UserError
from tasks.pool import close_shared_pool
from tasks.schema import DOCUMENTS, UUID, doc_id, id_array
from tasks.storage import Root
from tests.lineage_home import publish

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from two_classes import text_of  # noqa: E402

SETTINGS = Training(buckets=5000, min_count=2, epochs=30, rate=0.5)
PAGES = 200


@pytest.fixture(scope="module", autouse=True)
def no_pool_left():
    yield
    close_shared_pool()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Root:
    """A corpus `web` of two parts: English pages of random crawl, and German ones of good texts."""
    root = Root(str(tmp_path_factory.mktemp("home")))
    parts = []
    for part in range(2):
        numbers = range(part * PAGES // 2, (part + 1) * PAGES // 2)
        columns = {name: pa.nulls(len(numbers), DOCUMENTS.field(name).type) for name in DOCUMENTS.names}
        columns |= {
            "doc_id": id_array([doc_id("made", i) for i in numbers]),
            "domain": pa.array([f"site{i % 40}.example" for i in numbers]),
            "text": pa.array([text_of(False, i) if i % 10 else text_of(True, i) for i in numbers]),
        }
        paths = {kind: f"work/{kind}/{part}/table.parquet" for kind in ("documents", "signals", "spans")}
        root.write_table(paths["documents"], pa.table(columns, schema=DOCUMENTS))
        signals = pa.schema([("doc_id", UUID), ("language", pa.string()), ("language_score", pa.float64())])
        languages = ["en" if i % 10 else "de" for i in numbers]
        root.write_table(
            paths["signals"], pa.table([columns["doc_id"], languages, [0.9] * len(numbers)], schema=signals)
        )
        parts.append({kind: paths[kind] for kind in ("documents", "signals")})
    publish(root, "web", 1, parts, [], [])
    lineage.rebuild(root)
    return root


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("good") / "rows.jsonl"
    rows = [{"instruction": text_of(True, 1000 + i, 30), "input": "", "output": text_of(True, 2000 + i, 30)}
            for i in range(150)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def train(home, good, **given):
    given = {"name": "good", "positives": [good], "corpus": "web", "settings": SETTINGS, "workers": 2} | given
    return train_classifier.fn(home=home.uri, **given)


def test_from_instruction_rows_and_a_corpus_to_a_threshold(home, good):
    summary = train(home, good)
    assert summary["auc"] > 0.99 and summary["trained"] + summary["held_out"] == 300
    assert [row["keep"] for row in summary["thresholds"]] == [0.1, 0.2, 0.3, 0.5]
    about = json.loads(home.read_bytes("classifiers/good/classifier.json"))
    assert about["sha256"] == summary["sha256"] == home.digest("classifiers/good/model.bin")
    assert about["negatives"][0]["rows"] == 180, "those in English"
    [source] = about["positives"]
    assert (source["source"], source["rows"], source["texts"]) == (good, 150, 150) and len(source["sha256"]) == 64

    [event] = [event for event in ledger.events(home)[0] if event["kind"] == "classifier"]
    assert event["subject"] == "good" and event["payload"]["auc"] == summary["auc"]
    answer = query.run(home, "classifiers", {"classifier": "good", "keep": 0.1}).to_pylist()
    assert [(row["auc"], row["threshold"]) for row in answer] == [
        (round(summary["auc"], 4), round(summary["thresholds"][0]["threshold"], 6))
    ]
    runs = query.run(home, "SELECT outcome FROM runs WHERE flow = 'train-classifier'")["outcome"].to_pylist()
    assert runs == ["ok"]

    folder = summary["folder"]
    recipe = load_recipe("dclm", {
        "annotate": {"quality": {"classifier": folder}},
        "filter": {"dclm_quality": {"enabled": True, "min": {"keep": 0.1, "classifier": folder}}}})  # fmt: skip
    assert recipe.annotate.quality.sha256 == summary["sha256"]
    assert recipe.filter.dclm_quality.min == summary["thresholds"][0]["threshold"]


def test_the_same_again_is_the_same_bytes_and_not_trained_again(home, good):
    first = train(home, good, name="again")
    made = len(home.list("work/classifier"))
    assert train(home, good, name="again", workers=1) == first
    assert len(home.list("work/classifier")) == made


def test_documents_that_sql_chooses(home):
    where = "SELECT d.doc_id FROM documents AS d JOIN signals AS s USING (name, version, doc_id) WHERE s.language = "
    found = read_examples([where + "'de'"], 1, home)
    assert sorted(found.table["text"].to_pylist()) == sorted(text_of(True, i) for i in range(0, PAGES, 10))
    assert set(found.table["group"].to_pylist()) == {f"domain/site{i % 40}.example" for i in range(0, PAGES, 10)}
    assert found.sources[0]["source"] == where + "'de'" and found.sources[0]["rows"] == 20
    fewer = read_examples([where + "'de'"], 1, home, limit=5)
    assert len(fewer.table) == 5
    with pytest.raises(UserError, match="20 positives are left"):
        train(home, None, positives=[where + "'de'"])


@pytest.mark.parametrize(("sql", "message"), [
    ("SELECT name FROM documents", "gives name, and not doc_id"),
    ("SELECT doc_id FROM documents WHERE false", "chooses no document"),
    ("SELECT uuid() AS doc_id FROM documents", "200 of the documents that the SQL chose are not among"),
    ("SELECT doc_id FROM nothing", "the query failed"),
    ("FROM documents; DROP TABLE runs", "one statement at a time"),
    ("SELECT doc_id FROM read_parquet('/etc/passwd')", "outside the data root")])  # fmt: skip
def test_sql_that_cannot_serve(home, sql, message):
    with pytest.raises(UserError, match=message):
        read_examples([sql], 1, home)


def test_mistakes_are_told_before_anything_is_trained(home, good):
    with pytest.raises(UserError, match="no positives"):
        train(home, good, positives=[])
    with pytest.raises(UserError, match="no corpus 'other'|other"):
        train(home, good, corpus="other")
    with pytest.raises(UserError, match="matches no file"):
        train(home, good, positives=["/none/*.jsonl"])
    with pytest.raises(UserError, match="150 of 150 positives are negatives too"):
        train(home, good, negatives=[good])


def test_the_command_prints_the_thresholds(home, good, monkeypatch):
    import contextlib

    from flows import embedded

    monkeypatch.setenv("GRISTMILL_HOME", home.uri)
    monkeypatch.setattr(embedded, "in_process", lambda home: contextlib.nullcontext())
    monkeypatch.setattr("flows.train_classifier.train_classifier", train_classifier.fn)
    asked = ["train-classifier", "-p", good, "--corpus", "web", "--name", "cli", "--set", "buckets=5000",
             "--set", "min_count=2", "--set", "epochs=30", "--set", "rate=0.5"]  # fmt: skip
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["thresholds"][0]["keep"] == 0.1 and summary["use"].startswith("--set annotate.quality.classifier=")
    wrong = CliRunner().invoke(app, [*asked, "--set", "epochz=1"])
    assert wrong.exit_code == 2 and "did you mean epochs" in wrong.output

"""Every query of sql/stats and sql/lineage, by value, on a data root made by hand (tests/lineage_home.py)."""

import re

import duckdb
import pyarrow as pa
import pytest

from tasks import ledger, lineage, query
from tasks.storage import Root
from tests.lineage_home import make_home, url_of, uuid_of


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Root:
    root = Root(str(tmp_path_factory.mktemp("home")))
    make_home(root)
    lineage.rebuild(root)
    return root


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Root:
    root = Root(str(tmp_path_factory.mktemp("empty")))
    lineage.rebuild(root)
    return root


def rows(root: Root, name: str, columns: str, **params) -> list[tuple]:
    """The chosen columns of an answer, in its order; `web` is meant unless params name a corpus."""
    if "corpus" in query.parameters(query.canned()[name].read_text()):
        params = {"corpus": "web"} | params
    table = query.run(root, name, params)
    return [tuple(row.values()) for row in table.select(columns.split()).to_pylist()]


NAMES = sorted(query.canned())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_asks_one_question_and_runs_by_hand(name, home):
    text = query.canned()[name].read_text()
    assert re.fullmatch(r"-- [A-Z].*\?", text.splitlines()[0]) and text.endswith(";\n")
    assert max(map(len, text.splitlines())) <= 120
    with duckdb.connect(home.at("lineage.duckdb"), read_only=True) as con:
        assert len(con.execute(text).fetchall()) > 0, "its defaults show something"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_runs_where_nothing_was_built(name, empty):
    assert len(query.run(empty, name)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_bound_with_the_types_of_their_defaults(name, empty):
    text = query.canned()[name].read_text()
    given = {key: "'; DROP TABLE x; --" if kind == "VARCHAR" else "1" for key, kind in query.parameters(text).items()}
    assert given and len(query.run(empty, name, given)) == 0


def test_the_signals_that_are_annotated_are_those_that_are_measured(tmp_path):
    from tasks.annotate import SIGNALS
    from tasks.lineage import COLUMNS

    assert {field.name: field.type for field in COLUMNS["signals"]}.items() <= {
        field.name: field.type for field in SIGNALS}.items()
    root = Root(str(tmp_path))
    make_home(root)
    path = root.read_json("corpora/other/versions/000001/manifest.json")["parts"][0]["signals"]
    row = [[b"0" * 16] if field.name == "doc_id" else [None] for field in SIGNALS]
    root.write_table(path, pa.table([pa.array(v, f.type.storage_type if f.name == "doc_id" else f.type)
                                     for v, f in zip(row, SIGNALS, strict=True)], SIGNALS.names))
    lineage.rebuild(root)
    shown = query.run(root, "FROM signals LIMIT 0").schema.names
    assert set(SIGNALS.names) - {"minhash"} <= set(shown)


def test_funnel(home):
    assert rows(home, "funnel", "version stage rule rows_in kept dropped percent_dropped") == [
        (2, "extract", None, 7, 7, 0, 0.0), (2, "dedup", None, 7, 5, 2, 28.57),
        (2, "dedup", "exact", None, None, 1, 14.29), (2, "dedup", "near", None, None, 1, 14.29),
        (2, "filter", None, 5, 3, 2, 40.0),
        (2, "filter", "words_min", None, None, 2, 40.0), (2, "sample", None, 3, 3, 0, 0.0)]
    assert rows(home, "funnel", "kept dropped", version=1)[0] == (4, 0)


def test_contamination(home):
    columns = "benchmark item outcome url overlap matched rule"
    found = [("quiz", "q:7", "tagged", url_of("b/2"), 0.9, 18, None)]
    assert rows(home, "contamination", columns) == found
    assert rows(home, "contamination", columns, benchmark="quiz") == found
    assert rows(home, "contamination", columns, benchmark="other") == []


def test_contamination_that_was_dropped_or_cut(tmp_path):
    from tests.lineage_home import CONTAMINATION, _fate, _part, _tokens, publish

    root = Root(str(tmp_path))
    dropped = _fate("c/1", "decontaminate", "ngram_overlap") | {
        "value": 3.0, "threshold": 1.0, "detail": "exam:x:1", "similarity": 0.25}
    part = _part(root, "cd" * 16, ["a/1", "b/2", "c/1"])
    table = root.read_table(part["spans"])
    tags = [CONTAMINATION["b/2"], None, None]
    spans = [[{"type": "benchmark", "offset": 3, "length": 9, "replacement": ""}], [], []]
    for name, values in (("contamination", tags), ("spans", spans)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    root.write_table(part["spans"], table)
    publish(root, "web", 1, [part], [[_fate("a/1"), _fate("b/2"), dropped]], [[_tokens("a/1", 100)]])
    lineage.rebuild(root)
    columns = "benchmark item outcome url overlap matched rule value threshold"
    assert rows(root, "contamination", columns) == [
        ("quiz", "q:7", "cut", url_of("a/1"), 0.9, 18, None, None, None),
        ("exam", "x:1", "dropped", url_of("c/1"), 0.25, None, "ngram_overlap", 3.0, 1.0)]
    assert rows(root, "contamination", "item", benchmark="exam") == [("x:1",)]
    assert rows(root, "contamination", "item", top=1) == [("q:7",)]


def test_tokens_by_source(home):
    answer = query.run(home, "tokens_by_source").select(["name", "source", "documents", "tokens", "passes"])
    assert answer.to_pylist() == [
        {"name": "other", "source": "code", "documents": 1, "tokens": 50, "passes": 1},
        {"name": "web", "source": "web", "documents": 3, "tokens": 400, "passes": 1}]


def test_tokens_by_language(home):
    assert rows(home, "tokens_by_language", "language documents tokens percent bytes_per_token") == [
        ("en", 2, 300, 75.0, 4.0), ("de", 1, 100, 25.0, 4.0)]


def test_tokens_by_domain(home):
    assert rows(home, "tokens_by_domain", "domain documents tokens percent") == [
        ("a.example", 2, 300, 75.0), ("b.example", 1, 100, 25.0)]
    assert rows(home, "tokens_by_domain", "domain", top=1) == [("a.example",)]


def test_document_lengths(home):
    assert rows(home, "document_lengths", "at_least below documents tokens percent_of_documents percent_of_tokens") == [
        (64, 128, 2, 200, 66.67, 50.0), (128, 256, 1, 200, 33.33, 50.0)]


def test_duplicate_clusters(home):
    assert rows(home, "duplicate_clusters", "size clusters removed removed_as_near") == [(2, 2, 2, 1)]
    assert rows(home, "duplicate_clusters", "clusters a_survivor", version=1) == [(1, str(uuid_of("a/1")))]


def test_duplicate_clusters_follow_chains(tmp_path):
    """a/4 duplicates a/3, which duplicates a/2, which duplicates a/1: one cluster of four."""
    from tests.lineage_home import _fate, _part, _tokens, publish

    root, pages = Root(str(tmp_path)), ["a/1", "a/2", "a/3", "a/4"]
    chain = [_fate("a/1"), *(_fate(page, "dedup", "exact", of) for page, of in zip(pages[1:], pages, strict=False))]
    publish(root, "web", 1, [_part(root, "aa" * 16, pages)], [chain], [[_tokens("a/1", 9)]])
    lineage.rebuild(root)
    assert rows(root, "duplicate_clusters", "size clusters removed a_survivor") == [(4, 1, 3, str(uuid_of("a/1")))]


def test_domains(home):
    assert rows(home, "domains", "domain kept dropped percent_kept main_rule dropped_by_it") == [
        ("a.example", 2, 2, 50.0, "dedup/exact", 1), ("b.example", 1, 2, 33.33, "filter/words_min", 2)]


def test_quality_scores(home):
    assert rows(home, "quality_scores", "signal outcome documents smallest median largest mean", signal="n_words") == [
        ("n_words", "kept", 3, 100.0, 200.0, 300.0, 200.0), ("n_words", "dropped", 4, 12.0, 69.5, 200.0, 87.75)]
    assert {name for name, in rows(home, "quality_scores", "signal")} == {
        "language_score", "lorem_ipsum", "n_words", "top_2gram_char_fraction"}


def test_mixture(home):
    columns = "source language planned_tokens tokens percent_of_plan planned_share achieved_share"
    assert rows(home, "mixture", columns) == [
        ("web", "en", 150, 300, 200.0, 50.0, 75.0), ("web", "de", 150, 100, 66.67, 50.0, 25.0)]


def test_growth(home):
    assert rows(home, "growth", "version parent is_current records documents more_documents tokens more_tokens "
                                "percent_more") == [(1, None, False, 4, 2, None, 200, None, None),
                                                    (2, 1, True, 7, 3, 1, 400, 200, 100.0)]
    assert all(at is not None for at, in rows(home, "growth", "published_at"))


def test_threshold_change(home):
    """b/1 (12 words) fell to words_min alone; b/3 (40) to another rule as well, so no threshold brings it back."""
    columns = "rule bound threshold new_threshold kept_now dropped_by_it_alone would_come_back"
    assert rows(home, "threshold_change", columns, rule="words_min", threshold=12) == [
        ("words_min", "at least", 50.0, 12.0, 3, 1, 1)]
    assert rows(home, "threshold_change", "would_come_back", threshold=13) == [(0,)]
    assert rows(home, "threshold_change", "new_threshold would_come_back") == [
        (47.5, 0), (45.0, 0), (37.5, 0), (25.0, 0), (0.0, 1)]


def test_signal_cut(home):
    assert rows(home, "signal_cut", "kept_now would_stay would_go percent_stays", signal="n_words", at_least=150) == [
        (3, 2, 1, 66.67)]
    assert rows(home, "signal_cut", "would_stay", signal="n_words", at_least=150, at_most=250) == [(1,)]


def test_shards(home):
    assert rows(home, "shards", "shard file rows tokens percent_of_mean") == [
        (0, "tokens/shard-00000.parquet", 2, 200, 100.0), (1, "tokens/shard-00001.parquet", 1, 200, 100.0)]


def test_time_by_stage(home):
    columns = "run_id flow stage units rows_in dropped seconds longest_unit rows_per_second"
    assert rows(home, "time_by_stage", columns) == [
        ("run-1", "build-corpus", "extract", 2, 7, 0, 6.0, 4.0, 1.2),
        ("run-1", "build-corpus", "filter", 1, 6, 2, 0.5, 0.5, 12.0)]
    assert rows(home, "time_by_stage", "stage", run_id="run-2") == []


def test_edits(home):
    assert rows(home, "edits", "type spans documents characters") == [("email", 1, 1, 9), ("ip", 1, 1, 7)]


def test_trainings(home):
    assert rows(home, "trainings", "run task corpus version outcome steps tokens loss_first loss_last energy_wh "
                                   "checkpoints") == [
        ("r1", "pretrain", "web", 2, "ok", 2, 400, 9.0, 7.5, 0.28, 2),
        ("tuned", "finetune", "web", 2, None, None, None, None, None, None, None)]


def test_ablations(home):
    assert rows(home, "ablations", "name variant recipe seeds mean difference verdict") == [
        ("first", "raw", "raw", 3, 2.5, None, "baseline"), ("first", "good", "fineweb", 3, 2.25, -0.25, "better")]
    assert rows(home, "ablations", "name", ablation="other") == []


def test_classifiers(home):
    assert rows(home, "classifiers", "name auc held_out_positives keep threshold") == [
        ("good", 0.875, 30, 0.1, 0.75), ("good", 0.875, 30, 0.2, 0.5)]
    assert rows(home, "classifiers", "threshold", keep="0.2") == [(0.5,)]
    assert rows(home, "classifiers", "name", classifier="other") == []
    reliability = query.run(home, "SELECT texts, positive FROM classifier_reliability WHERE sha256 = 'new'")
    assert reliability.to_pylist() == [{"texts": 20, "positive": 0.9}]


def test_why_a_url_was_dropped(home):
    columns = "version outcome stage rule value threshold duplicate_of_url similarity"
    assert rows(home, "why", columns, url=url_of("a/2")) == [
        (2, "dropped", "dedup", "near", None, None, url_of("a/1"), 0.9),
        (1, "dropped", "dedup", "near", None, None, url_of("a/1"), 0.9)]
    assert rows(home, "why", columns, url=url_of("b/3") + "/") == [
        (2, "dropped", "filter", "words_min", 40.0, 50.0, None, None)]
    assert rows(home, "why", "outcome rule", url=url_of("a/1"), version=1) == [("kept", None)]
    assert rows(home, "why", "outcome", url="https://nowhere.example/") == []
    (failed,), = rows(home, "why", "rules_failed", url=url_of("b/3"))
    assert [entry["rule"] for entry in failed] == ["words_min", "stop_words"]


def test_document_tokens(home):
    columns = "version shard row n_tokens run step sample_id offset length"
    assert rows(home, "document_tokens", columns, url=url_of("a/3")) == [
        (2, 1, 0, 200, "r1", 2, 2, 0, 100), (2, 1, 0, 200, "r1", 2, 3, 100, 100)]
    assert rows(home, "document_tokens", columns, doc_id=str(uuid_of("b/2"))) == [(2, 0, 1, 100, "r1", 1, 1, 0, 100)]
    assert rows(home, "document_tokens", columns, url=url_of("b/2"), version=1) == [
        (1, 1, 0, 100, None, None, None, None, None)]
    assert rows(home, "document_tokens", columns, doc_id="no uuid") == []


def test_domain_versions(home):
    assert rows(home, "domain_versions", "name version documents tokens run step tokens_seen", domain="a.example") == [
        ("web", 1, 1, 100, None, None, None), ("web", 2, 2, 300, "r1", 1, 100), ("web", 2, 2, 300, "r1", 2, 300)]
    assert rows(home, "domain_versions", "tokens step tokens_seen", domain="b.example", corpus="web") == [
        (100, None, None), (100, 1, 100), (100, 2, 100)]
    assert rows(home, "domain_versions", "name", domain="nowhere.example") == []


def test_what_was_left_out_or_taken_back_is_not_seen(tmp_path):
    """Step 2 is left out; 5 is too, with which the weights go back to those of step 3, so that 4 is lost as well."""
    root = Root(str(tmp_path))
    make_home(root)
    ledger.record(root, "training", "spiky", {"state": "started", "task": "pretrain", "corpus": "web", "version": 2,
                                              "settings": {"batch": 2}})
    ledger.record(root, "step", "spiky", {"steps": [{"step": 1}, {"step": 2, "left_out": "the loss is nan"},
                                                    {"step": 3}]})
    ledger.record(root, "step", "spiky", {"steps": [{"step": 4}, {"step": 5, "left_out": "the loss is nan",
                                                                  "back_to": 3}, {"step": 6}]})
    for step in (3, 6):
        ledger.record(root, "checkpoint", "spiky", {"step": step, "path": f"step-{step}", "samples": 2 * step})
    packing = root.read_table("trainings/r1/packing.parquet")
    root.write_table("trainings/spiky/packing.parquet", pa.concat_tables(
        packing.set_column(0, "sample_id", pa.array(range(first, first + 4))) for first in (0, 4, 8)))
    lineage.rebuild(root)
    # a/1 and b/2 are the samples of the odd steps, a/3 of the even ones
    assert rows(root, "domain_versions", "run step tokens_seen", domain="a.example")[1:] == [
        ("r1", 1, 100), ("r1", 2, 300), ("spiky", 3, 200), ("spiky", 6, 400)]
    assert [(step, lost) for run, step, lost in rows(root, "document_tokens", "run step lost", url=url_of("a/1"))
            if run == "spiky"] == [(1, False), (3, False), (5, True)]
    assert [rows(root, "training_step_documents", "lost", run="spiky", step=step)[0] for step in range(1, 7)] == [
        (False,), (True,), (False,), (True,), (True,), (False,)]
    assert rows(root, "document_tokens", "run lost", url=url_of("a/1"), version=1) == [(None, None)]


def test_training_step_documents(home):
    columns = "sample_id url shard row offset length"
    assert rows(home, "training_step_documents", columns, run="r1", step=1) == [
        (0, url_of("a/1"), 0, 0, 0, 100), (1, url_of("b/2"), 0, 1, 0, 100)]
    assert rows(home, "training_step_documents", columns, step=2) == [
        (2, url_of("a/3"), 1, 0, 0, 100), (3, url_of("a/3"), 1, 0, 100, 100)]
    assert rows(home, "training_step_documents", columns, step=3) == []

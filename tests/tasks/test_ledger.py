import json
import multiprocessing
import subprocess
import sys
import threading
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import ledger, lineage
from tasks.storage import Root
from tests.lineage_home import make_home


def ids(root: Root) -> set[str]:
    return {event["event_id"] for event in ledger.events(root)[0]}


def read(root: Root, sql: str) -> list[tuple]:
    with duckdb.connect(root.at(lineage.LINEAGE), read_only=True) as con:
        return con.execute(sql).fetchall()


def test_an_event_reads_back_as_it_was_recorded(tmp_path):
    root = Root(str(tmp_path))
    event_id = ledger.record(root, "run", "build-corpus", {"state": "started", "parameters": {"text": "mine"}}, "run-7")
    (event,), broken = ledger.events(root)
    assert broken == []
    assert (event["event_id"], event["kind"], event["run_id"], event["subject"]) == (
        event_id, "run", "run-7", "build-corpus")
    assert event["payload"] == {"state": "started", "parameters": {"text": "mine"}}
    assert event["at"].utcoffset().total_seconds() == 0


def test_losses_that_are_not_finite_stay_readable_json(tmp_path):
    root = Root(str(tmp_path))
    ledger.record(root, "step", "r", {"steps": [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}]})
    lineage.rebuild(root)
    assert str(read(root, "SELECT loss FROM steps ORDER BY step")) == "[(nan,), (inf,)]"
    assert read(root, "SELECT json_valid(payload) FROM events") == [(True,)]


@pytest.mark.parametrize("payload", [{"text": "a page"}, {"shards": [{"spans": {"matched": "a@b.c"}}]}, {"html": ""}])
def test_keys_that_would_carry_page_text_are_refused(tmp_path, payload):
    root = Root(str(tmp_path))
    with pytest.raises(ValueError, match="must not carry page text") as caught:
        ledger.record(root, "shard", "scrub", payload)
    assert "a@b.c" not in str(caught.value) and ledger.events(root) == ([], [])


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown kind of event 'shards'"):
        ledger.record(Root(str(tmp_path)), "shards", "scrub", {})


def _write(home: str, worker: int) -> None:
    for number in range(20):
        ledger.record(Root(home), "failure", f"{worker}/{number}", {"reason": "http_404"})


def test_processes_record_at_once_while_others_compact_and_rebuild(tmp_path):
    root, context = Root(str(tmp_path)), multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(root.uri, worker)) for worker in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        ledger.compact(root, loose=2)
        lineage.rebuild(root)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    lineage.rebuild(root)
    expected = sorted(f"{worker}/{number}" for worker in range(3) for number in range(20))
    assert [subject for subject, in read(root, "SELECT subject FROM failures ORDER BY subject")] == expected


def test_compaction_keeps_every_event_once(tmp_path):
    root = Root(str(tmp_path))
    recorded = {ledger.record(root, "failure", str(i), {"n": i}) for i in range(5)}
    before = ledger.events(root)
    assert ledger.compact(root, loose=6) == 0
    assert ledger.compact(root, loose=5) == 5
    assert len(root.list(ledger.FOLDER)) == 1 and ledger.events(root) == before
    recorded |= {ledger.record(root, "failure", "later", {})}
    assert ledger.compact(root, loose=2) == 2
    assert ids(root) == recorded and len(root.list(ledger.FOLDER)) == 1
    assert ledger.compact(root, loose=1) == 0 and ids(root) == recorded     # a merged file alone stays


@pytest.mark.parametrize("survivors", [0, 1, 4])
def test_compaction_killed_while_it_removes_its_sources_doubles_nothing(tmp_path, monkeypatch, survivors):
    root = Root(str(tmp_path))
    recorded = {ledger.record(root, "failure", str(i), {}) for i in range(5)}
    removed, remove = [], Root.remove

    def killed(self, path):
        if len(removed) == survivors:
            raise KeyboardInterrupt
        removed.append(path)
        remove(self, path)

    monkeypatch.setattr(Root, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.compact(root, loose=2)
    monkeypatch.undo()
    assert ids(root) == recorded and len(ledger.events(root)[0]) == 5
    ledger.compact(root, loose=2)
    assert ids(root) == recorded and len(root.list(ledger.FOLDER)) == 1


def test_a_damaged_event_is_reported_and_never_removed(tmp_path):
    root = Root(str(tmp_path))
    kept = ledger.record(root, "failure", "a", {})
    ledger.record(root, "failure", "b", {})
    broken = next(path for path in root.list(ledger.FOLDER) if kept not in path)
    root.write_bytes(broken, b"not parquet")
    assert [event["event_id"] for event in ledger.events(root)[0]] == [kept] and ledger.events(root)[1] == [broken]
    ledger.compact(root, loose=1)
    assert root.exists(broken) and ids(root) == {kept}
    lineage.rebuild(root)
    assert (broken, "event_unreadable") in read(root, "SELECT subject, reason FROM failures")


def test_an_event_that_moves_between_two_listings_is_still_seen(tmp_path, monkeypatch):
    root = Root(str(tmp_path))
    recorded = {ledger.record(root, "failure", str(i), {}) for i in range(3)}
    opened, real = [], ledger._read

    def compacting(root, path):
        if not opened:
            opened.append(path)
            ledger.compact(root, loose=2)
        return real(root, path)

    monkeypatch.setattr(ledger, "_read", compacting)
    assert ids(root) == recorded


JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=5)
                    | st.just("\ud800"),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["step", "n"]), inner),
                    max_leaves=5)


KEYS = ["state", "outcome", "shards", "steps", "step", "loss", "version", "settings", "samples", "seconds", "batch"]
EVENT = st.fixed_dictionaries({
    "event_id": st.uuids().map(str), "kind": st.sampled_from(sorted(ledger.KINDS)), "subject": st.sampled_from("ab"),
    "at": st.just(datetime(2026, 1, 1, tzinfo=UTC)), "run_id": st.none() | st.just("run"),
    "payload": st.dictionaries(st.sampled_from(KEYS), JSON)})


@given(st.lists(EVENT, max_size=4))
def test_no_payload_can_break_a_rebuild(events):
    tables = lineage.from_events(events)
    assert len(tables["events"]) == len(events)
    for name, schema in TABLES.items():
        assert len(lineage.as_table(tables.get(name, []), schema)) == len(tables.get(name, []))


def _tables() -> dict[str, pa.Schema]:
    with duckdb.connect() as con:
        con.execute((lineage.SCHEMA / "tables.sql").read_text())
        names = con.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {name: con.sql(f"FROM {name} LIMIT 0").to_arrow_table().schema for name, in names}


TABLES = _tables()


def test_a_rebuild_gives_the_tables_of_the_contract(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    assert lineage.rebuild(root) == str(tmp_path / "lineage.duckdb")
    assert read(root, "SELECT name, version, parent, is_current, documents, tokens FROM corpora ORDER BY ALL") == [
        ("other", 1, None, True, 1, 50), ("web", 1, None, False, 2, 200), ("web", 2, 1, True, 3, 400)]
    assert read(root, "SELECT flow, outcome, seconds >= 0 FROM runs") == [("build-corpus", "ok", True)]
    assert read(root, "SELECT step, loss FROM steps ORDER BY step") == [(1, 9.0), (2, 7.5)]     # the last word counts
    assert read(root, "SELECT batch, outcome, loss_last FROM trainings WHERE run = 'r1'") == [(2, "ok", 7.5)]
    assert read(root, "SELECT count(*) FROM documents") == [(4 + 7 + 1,)]
    columns = {name for name, in read(root, "SELECT column_name FROM information_schema.columns")}
    assert not columns & {"text", "minhash", "tokens_list"}
    manifest = root.digest("corpora/web/versions/000002/manifest.json")
    assert read(root, "SELECT manifest FROM corpora WHERE name = 'web' AND version = 2") == [(manifest,)]
    assert read(root, "SELECT DISTINCT typeof(doc_id) FROM fates") == [("UUID",)]
    assert list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*")) == []


def test_no_page_text_reaches_the_file(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    lineage.rebuild(root)
    assert b"secret text" not in (tmp_path / "lineage.duckdb").read_bytes()


@pytest.mark.parametrize("folder", ["plain", "it's [a] *odd* {signals} name"])
def test_paths_with_the_letters_of_globs_and_quotes_work(tmp_path, folder):
    root = Root(str(tmp_path / folder))
    make_home(root)
    lineage.rebuild(root)
    assert read(root, "SELECT count(*) FROM signals") == [(12,)]


def test_a_home_on_an_object_store_gets_one_file(tmp_path):
    root = Root("memory://lineage-test")
    make_home(root)
    assert lineage.rebuild(root) == "memory:///lineage-test/lineage.duckdb"
    (tmp_path / "copy.duckdb").write_bytes(root.read_bytes("lineage.duckdb"))
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as con:
        assert con.execute("SELECT sum(documents) FROM corpora").fetchone() == (6,)


def test_an_old_storage_version_is_written(tmp_path):
    """DuckDB 1.0 reads storage version 64 (https://duckdb.org/docs/stable/internals/storage): byte 12 of the file."""
    root = Root(str(tmp_path))
    lineage.rebuild(root)
    header = (tmp_path / "lineage.duckdb").read_bytes()[:20]
    assert header[8:12] == b"DUCK" and int.from_bytes(header[12:20], "little") == 64


def test_readers_are_undisturbed_while_a_rebuild_replaces_the_file(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    lineage.rebuild(root)
    done = threading.Event()

    def rebuild():
        while not done.is_set():
            lineage.rebuild(root)

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        program = ("import duckdb, sys\n"
                   "for _ in range(20):\n"
                   "    with duckdb.connect(sys.argv[1], read_only=True) as con:\n"
                   "        assert con.execute('SELECT count(*) FROM documents').fetchone() == (12,)\n")
        subprocess.run([sys.executable, "-c", program, root.at("lineage.duckdb")], check=True)
    finally:
        done.set()
        thread.join()


def test_a_reader_that_stays_keeps_what_it_opened(tmp_path):
    root = Root(str(tmp_path))
    lineage.rebuild(root)
    program = ("import duckdb, sys\n"
               "con = duckdb.connect(sys.argv[1], read_only=True)\n"
               "print('open', flush=True); input()\n"
               "print(con.execute('SELECT count(*) FROM failures').fetchone()[0])")
    held = subprocess.Popen([sys.executable, "-c", program, root.at("lineage.duckdb")], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline() == "open\n"
    ledger.record(root, "failure", "x", {})
    lineage.rebuild(root)
    assert held.communicate("\n")[0] == "0\n"
    assert read(root, "SELECT count(*) FROM failures") == [(1,)]


def test_two_versions_whose_signals_differ_stand_side_by_side(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    path = "corpora/web/versions/000001/manifest.json"
    manifest = root.read_json(path)
    old = root.read_table(manifest["parts"][0]["signals"]).drop_columns(["lorem_ipsum"]).append_column(
        "old_score", pa.array([0.5] * 4))
    manifest["parts"][0]["signals"] = "work/annotate/00/old/table.parquet"
    root.write_table("work/annotate/00/old/table.parquet", old)
    root.write_json(path, manifest)
    lineage.rebuild(root)
    assert read(root, "SELECT version, count(old_score), count(lorem_ipsum) FROM signals WHERE name = 'web' GROUP BY 1 "
                      "ORDER BY 1") == [(1, 4, 0), (2, 0, 7)]


def test_a_broken_manifest_and_a_missing_table_do_not_end_a_rebuild(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    root.write_bytes("corpora/web/versions/000001/manifest.json", b'{"name": "web"')
    root.write_bytes("corpora/web/versions/000003/tokens/shard-00000.parquet", b"of a version not yet published")
    root.remove(root.read_json("corpora/other/versions/000001/manifest.json")["parts"][0]["signals"])
    lineage.rebuild(root)
    assert read(root, "SELECT name, version FROM corpora ORDER BY 1") == [("other", 1), ("web", 2)]
    assert read(root, "SELECT subject, reason FROM failures") == [
        ("corpora/web/versions/000001/manifest.json", "manifest_unreadable")]
    assert read(root, "SELECT count(*) FROM signals") == [(7,)]


def test_a_manifest_without_plan_parts_or_fates_is_a_version_too(tmp_path):
    root = Root(str(tmp_path))
    root.write_json("corpora/web/versions/000001/manifest.json", {"name": "web", "version": 1, "documents": 3})
    lineage.rebuild(root)
    assert read(root, "SELECT name, version, documents, is_current FROM corpora") == [("web", 1, 3, False)]
    assert read(root, "SELECT count(*) FROM failures") == [(0,)]


def test_a_run_that_starts_again_is_open_again(tmp_path):
    root = Root(str(tmp_path))
    for payload in ({"state": "started"}, {"state": "ended", "outcome": "failed", "reason": "Stopped"},
                    {"state": "started"}):
        ledger.record(root, "training", "r", payload)
    lineage.rebuild(root)
    assert read(root, "SELECT outcome, reason, ended_at, started_at IS NOT NULL FROM trainings") == [
        (None, None, None, True)]


def test_events_are_json_that_keeps_what_tables_leave_out(tmp_path):
    root = Root(str(tmp_path))
    ledger.record(root, "training", "r", {"state": "started", "favourite": "colour"})
    lineage.rebuild(root)
    assert json.loads(read(root, "SELECT payload FROM events")[0][0])["favourite"] == "colour"

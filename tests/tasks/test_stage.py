"""The runner: keys, skipping, conservation, quarantine, atomic commit. The flows' tests run it
inside Prefect; here groups are plain calls."""

import subprocess
import sys
import time

import pytest
import stages_for_tests as stages

from tasks.errors import UserError
from tasks.pool import Limits, ShardError, close_shared_pool
from tasks.schema import id_words
from tasks.stage import Build, Unit, resource_digest, run_stage
from tasks.storage import Root


@pytest.fixture(scope="module", autouse=True)
def no_pool_left():
    yield
    close_shared_pool()


@pytest.fixture
def build(tmp_path):
    return Build(Root(str(tmp_path)), run_id="test", workers=2, as_tasks=False)


def units(n=3):
    return [Unit(params={"shard": i}) for i in range(n)]


def run_thin(build, settings):
    first = run_stage(stages.pages, units(), stages.Settings(), build)
    return run_stage(stages.thin, [Unit({"kept": d.table}, {"shard": i}) for i, d in enumerate(first)], settings, build)


def test_what_is_done_is_skipped_and_a_changed_setting_wakes_only_what_depends_on_it(build):
    done = run_thin(build, stages.Settings(keep_below=5))
    assert build.ran == {"pages": 3, "thin": 3}
    assert [d.rules for d in done] == [{"too_high": 5}] * 3
    build.ran.clear()
    again = run_thin(build, stages.Settings(keep_below=5))
    assert build.ran == {"pages": 0, "thin": 0}
    assert again == done
    run_thin(build, stages.Settings(keep_below=6))
    assert build.ran == {"pages": 0, "thin": 3}


def test_a_new_code_version_runs_again(build, monkeypatch):
    run_stage(stages.pages, units(), stages.Settings(), build)
    monkeypatch.setattr(stages.pages, "version", 2)
    build.ran.clear()
    run_stage(stages.pages, units(), stages.Settings(), build)
    assert build.ran == {"pages": 3}


def test_equal_bytes_from_a_rerun_do_not_wake_the_stage_behind(build, monkeypatch):
    run_thin(build, stages.Settings())
    monkeypatch.setattr(stages.pages, "version", 3)  # runs again, and makes the same tables
    build.ran.clear()
    run_thin(build, stages.Settings())
    assert build.ran == {"pages": 3, "thin": 0}


@pytest.mark.parametrize("fault", ["lose", "double"])
def test_a_record_lost_or_doubled_stops_the_build(build, fault):
    with pytest.raises(ShardError, match="thin failed on shard"):
        run_thin(build, stages.Settings(keep_below=5, **{fault: True}))


@pytest.mark.parametrize(("fault", "reason"), [("hang_at", "timeout"), ("crash_at", "crash"), ("grow_at", "memory")])
def test_a_page_that_kills_its_process_gets_a_fate_and_the_rest_of_the_shard_survives(build, fault, reason):
    build.limits = Limits(item_seconds=1 if reason == "timeout" else 60, memory_bytes=300 << 20)
    done = run_stage(stages.pages, units(), stages.Settings(**{fault: 4}), build)
    assert [d.rules for d in done] == [{}, {reason: 1}, {}]
    assert [d.table.rows for d in done] == [10, 9, 10]
    fate = build.root.read_table(done[1].fates.path).to_pylist()[0]
    assert (fate["warc_offset"], fate["rule"], fate["outcome"]) == (4, reason, "dropped")


def test_a_page_that_was_at_hand_when_something_else_killed_its_process_is_kept(build, tmp_path):
    done = run_stage(stages.pages, units(), stages.Settings(killed_once=str(tmp_path / "seen")), build)
    assert [d.rules for d in done] == [{}, {}, {}]


def test_a_shard_that_dies_again_and_again_with_nothing_to_blame_ends_the_build(build):
    build.limits = Limits(shard_seconds=0.5)
    with pytest.raises(ShardError, match="pages failed on shard .*timeout.*limits.shard_seconds"):
        run_stage(stages.pages, units(), stages.Settings(hang_after=True), build)


def test_a_reading_error_that_passes_is_outlived(build, tmp_path):
    done = run_stage(stages.pages, units(), stages.Settings(unreadable=str(tmp_path / "seen")), build)
    assert [d.table.rows for d in done] == [10, 10, 10]


def test_a_file_that_settings_name_is_read_anew_when_it_changes(tmp_path):
    path = tmp_path / "benchmark.jsonl"
    path.write_text("one")
    before = resource_digest(str(path))
    path.write_text("another")
    assert resource_digest(str(path)) != before
    with pytest.raises(UserError, match="nowhere.jsonl, which the settings name"):
        resource_digest(str(tmp_path / "nowhere.jsonl"))


def test_an_error_in_a_stage_never_quotes_the_page(build):
    with pytest.raises(ShardError) as caught:
        run_stage(stages.pages, units(), stages.Settings(error="secret"), build)
    assert "anna" not in str(caught.value) and "ValueError at stages_for_tests.py" in str(caught.value)


def test_a_user_error_arrives_as_it_is(build):
    with pytest.raises(UserError, match="the setting x is wrong"):
        run_stage(stages.pages, units(), stages.Settings(error="user"), build)


def test_the_order_of_results_is_the_order_of_units_whatever_the_workers(tmp_path):
    outcomes = []
    for workers in (1, 3):
        build = Build(Root(str(tmp_path / str(workers))), run_id="test", workers=workers, as_tasks=False)
        done = run_stage(
            stages.pages, [Unit(params={"shard": i}, size=i % 3) for i in range(6)], stages.Settings(), build
        )
        outcomes.append([(d.key, d.table, d.rows_in) for d in done])
    assert outcomes[0] == outcomes[1]


def test_a_shard_whose_commit_was_cut_short_runs_again(build):
    done = run_stage(stages.pages, units(), stages.Settings(), build)
    build.root.remove(f"work/pages/{done[1].key[:2]}/{done[1].key}/done.json")
    build.ran.clear()
    assert run_stage(stages.pages, units(), stages.Settings(), build)[1].table == done[1].table
    assert build.ran == {"pages": 1}


def test_the_processes_of_a_killed_parent_end(tmp_path):
    """A flow killed with -9 leaves no process behind that goes on working."""
    script = (
        "import time; from tasks.pool import Pool; p = Pool(2); p.start(); "
        "print(*[c.process.pid for c in p._children], flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    time.sleep(1)
    parent.kill()
    parent.wait()
    import psutil

    gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in children if psutil.pid_exists(pid)], timeout=20)
    assert not alive


def test_conservation_compares_identities_not_only_counts():
    from tasks.stage import Result, check_conservation

    origin, other = stages.documents_of(0), stages.documents_of(1)
    kept = other.select(["doc_id"])
    with pytest.raises(ValueError, match="not the same ones"):
        check_conservation(stages.thin, {"kept": origin}, Result(kept))
    assert len(id_words(origin["doc_id"])) == check_conservation(stages.thin, {"kept": origin}, Result(origin))

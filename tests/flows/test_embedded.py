"""The embedded Prefect, on one real server and worker, with flows made for the purpose."""

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from published_corpus import write_corpus

from flows import embedded, quickstart
from flows.deployments import call, create_pool, deploy, healthy
from model import checkpoint
from tasks.errors import UserError

FLOWS = """
import os, subprocess, sys, time
from pathlib import Path
from prefect import flow

@flow(name="says")
def says(word: str = "nothing") -> str:
    Path(os.environ["GRISTMILL_HOME"], "said").write_text(word)
    return word

@flow(name="fails")
def fails(word: str = "nothing") -> str:
    raise ValueError("document 7: reason_code")

@flow(name="waits")
def waits(folder: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(folder, "started").write_text(str(child.pid))
    try:
        time.sleep(600)
    finally:
        Path(folder, "cleaned").write_text("yes")

@flow(name="trains")
def trains(home: str) -> None:
    from flows.pretrain import pretrain
    from model.settings import Pretrain, Processes
    small = {"context": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
    pretrain("mill", run="cancelled", home=home, processes=Processes(processes=1, threads=1),
             settings=Pretrain(steps=100_000, micro_batch=2, engine="torch", checkpoint_every=0, model=small))
"""
DEPLOYMENT = """
  - name: test
    entrypoint: made.py:{name}
    work_pool: {{name: {pool}}}
"""
POOLS = {"says": "gristmill", "fails": "gristmill", "waits": "apart", "trains": "gristmill"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "made.py").write_text(textwrap.dedent(FLOWS))
    pull = 'pull:\n  - prefect.deployments.steps.set_working_directory: {directory: "{{ $PWD }}"}\n'
    deployments = "".join(DEPLOYMENT.format(name=name, pool=pool) for name, pool in POOLS.items())
    (folder / "prefect.yaml").write_text(pull + "deployments:" + deployments)
    return folder


@pytest.fixture(scope="module")
def working(prefect_server, prefect_home, project):
    """A worker on the shared server, with the project's deployments; as the worker's process."""
    create_pool(prefect_server, "apart")
    with embedded.worker(prefect_server, str(prefect_home)) as process:
        assert embedded.register(prefect_server, str(prefect_home), project) >= 3
        yield process


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_server_answers_on_loopback_alone(prefect_server, prefect_home):
    assert healthy(prefect_server) and prefect_server.startswith("http://127.0.0.1:")
    state = json.loads((prefect_home / "prefect" / "server.json").read_text())
    listening = {
        connection.laddr.ip
        for process in psutil.Process(state["pid"]).children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_server_keeps_all_its_files_in_the_home(prefect_server, prefect_home):
    assert (prefect_home / "prefect" / "prefect.db").exists()


def test_a_second_user_shares_the_server_and_does_not_stop_it(prefect_server, prefect_home):
    did = []
    with embedded.server(str(prefect_home), meanwhile=lambda: did.append(1)) as again:
        assert again == prefect_server == embedded.running(str(prefect_home))
    assert did == [1]
    assert healthy(prefect_server)


def test_server_stops_when_its_last_user_is_killed(prefect_server, prefect_home, tmp_path):
    """No Python runs at the end of a process that got SIGKILL: the kernel's lock is what tells."""
    (tmp_path / "prefect").mkdir()
    made = sqlite3.connect(prefect_home / "prefect" / "prefect.db")
    with made, sqlite3.connect(tmp_path / "prefect" / "prefect.db") as copy:  # spares the ten seconds of making one
        made.backup(copy)
    script = (
        "import sys, time; from flows import embedded\n"
        "with embedded.server(sys.argv[1]) as url:\n    print(url, flush=True); time.sleep(600)"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=embedded.PROJECT, env=os.environ | {"PYTHONPATH": str(embedded.PROJECT)},
    )  # fmt: skip
    url = user.stdout.readline().strip()
    supervisor = json.loads((tmp_path / "prefect" / "server.json").read_text())["pid"]
    assert healthy(url) and embedded.running(str(tmp_path)) == url
    user.kill()
    user.wait()
    until(lambda: not psutil.pid_exists(supervisor))
    assert not healthy(url) and embedded.running(str(tmp_path)) is None


def test_a_state_file_of_a_dead_server_is_not_believed(tmp_path):
    (tmp_path / "prefect").mkdir()
    stale = {"pid": os.getpid(), "port": 4200, "api_url": "http://127.0.0.1:4200/api"}  # a process, but no server
    (tmp_path / "prefect" / "server.json").write_text(json.dumps(stale))
    assert embedded.running(str(tmp_path)) is None
    (tmp_path / "prefect" / "server.json").write_text("{half a fi")
    assert embedded.running(str(tmp_path)) is None


def test_a_server_of_ones_own_that_does_not_answer_is_named(home, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(UserError, match="PREFECT_API_URL=http://127.0.0.1:9/api"):
        with embedded.server(str(home)):
            pass
    assert not (home / "prefect").exists()


def test_a_server_of_ones_own_is_used_and_its_settings_are_kept(prefect_server, home, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setenv("PREFECT_HOME", "/somewhere")
    with embedded.server(str(home)) as api_url:
        assert api_url == prefect_server
    assert embedded.environment(str(home))["PREFECT_HOME"] == "/somewhere"
    assert not (home / "prefect" / "server.json").exists()


def test_environment_has_the_home_and_no_key_of_another_server(home, monkeypatch):
    monkeypatch.setenv("PREFECT_API_KEY", "of-a-cloud")
    env = embedded.environment(str(home), "http://127.0.0.1:1/api")
    assert env["PREFECT_HOME"] == str(home / "prefect") and env["GRISTMILL_HOME"] == str(home)
    assert "PREFECT_API_KEY" not in env and env["PREFECT_API_URL"] == "http://127.0.0.1:1/api"


def test_homes_on_an_object_store_keep_prefect_on_the_local_disk():
    assert embedded.folder("s3://bucket/a") != embedded.folder("s3://bucket/b")
    assert "://" not in str(embedded.folder("s3://bucket/a"))


def test_flows_in_process_run_on_the_server_and_leave_no_trace(prefect_server, prefect_home):
    script = """
        import os, sys
        from flows import embedded
        before = dict(os.environ)
        with embedded.in_process(sys.argv[1]) as api_url:
            from prefect import flow
            from prefect.runtime import flow_run
            @flow
            def f():
                return str(flow_run.id)
            print("ID", f())
        assert dict(os.environ) == before
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(prefect_home)],
        capture_output=True, text=True, cwd=embedded.PROJECT, env=os.environ | {"PYTHONPATH": str(embedded.PROJECT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Error logging to API" not in done.stderr
    run_id = done.stdout.split("ID ")[1].strip()
    assert call(prefect_server, f"/flow_runs/{run_id}")["state"]["type"] == "COMPLETED"


def test_deployment_runs_complete_or_say_why_not(working, prefect_server, prefect_home):
    def run(name):
        with quickstart.console.capture() as said:
            return quickstart.deployment_run(name, prefect_server, str(prefect_home), working), said.get

    with ThreadPoolExecutor() as both:
        (completed, _), (failed, said) = both.map(run, ["says/test", "fails/test"])
    assert completed and (prefect_home / "said").read_text() == "nothing"
    assert not failed and "document 7: reason_code" in said() and "worker.log" in said()


def test_registering_again_is_skipped_until_something_changes(working, prefect_server, prefect_home, project):
    log = prefect_home / "prefect" / "logs" / "deploy.log"
    log.unlink()
    embedded.register(prefect_server, str(prefect_home), project)
    assert not log.exists()


def test_a_deployment_that_cannot_be_registered_is_named(prefect_server, tmp_path):
    (tmp_path / "prefect.yaml").write_text("deployments:" + DEPLOYMENT.format(name="says", pool="gristmill"))
    with pytest.raises(UserError, match="prefect.yaml could not be registered"):
        deploy(prefect_server, embedded.environment(None, prefect_server), tmp_path / "state", tmp_path)


def test_deployments_run_in_the_folder_of_their_checkout(working, prefect_server, project):
    deployment = call(prefect_server, "/deployments/name/says/test")
    (step,) = deployment["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"]["directory"] == str(project)


def test_dead_runs_are_ended_by_an_automation_that_exists_once(working, prefect_server):
    names = [a["name"] for a in call(prefect_server, "/automations/filter", {})]
    assert names.count("Crash flow runs whose process died") == 1


@pytest.mark.slow
def test_stopping_the_worker_lets_a_flow_run_clean_up_and_ends_its_children(
    working, prefect_server, prefect_home, tmp_path
):
    with embedded.worker(prefect_server, str(prefect_home), pool="apart"):
        deployment = call(prefect_server, "/deployments/name/waits/test")["id"]
        parameters = {"folder": str(tmp_path)}
        run = call(prefect_server, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
        child = int(until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text()))
    assert (tmp_path / "cleaned").read_text() == "yes"
    assert not psutil.pid_exists(child)
    assert call(prefect_server, f"/flow_runs/{run['id']}")["state"]["type"] == "CRASHED"


@pytest.mark.slow
def test_cancelling_a_training_saves_and_leaves_no_rank(working, prefect_server, tmp_path):
    write_corpus(tmp_path)
    deployment = call(prefect_server, "/deployments/name/trains/test")["id"]
    run = call(prefect_server, f"/deployments/{deployment}/create_flow_run", {"parameters": {"home": str(tmp_path)}})
    folder = tmp_path / "trainings" / "cancelled"
    until(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size)
    ranks = [process for process in psutil.process_iter(["cmdline"]) if str(folder / "config.json") in (
        process.info["cmdline"] or [])]
    assert len(ranks) == 2                              # the guardian, and one: more in test_several_machines
    call(prefect_server, f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    assert not psutil.wait_procs(ranks, timeout=90)[1]
    until(lambda: call(prefect_server, f"/flow_runs/{run['id']}")["state"]["type"] == "CANCELLED")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    saved = checkpoint.latest(folder / "checkpoints")
    assert checkpoint.step(saved) == json.loads(lines[-1])["step"] and checkpoint.read(saved)


@pytest.mark.slow
def test_publishing_starts_a_training_once_the_automation_is_on(prefect_server, prefect_home):
    """The real prefect.yaml: every deployment registers; the trigger is off, and works when it is on."""
    home = str(prefect_home)
    assert embedded.register(prefect_server, home) >= 9
    pretrain = call(prefect_server, "/deployments/name/pretrain/pretrain")["id"]
    sample = call(prefect_server, "/deployments/name/build-corpus/sample")
    assert sample["parameters"]["inputs"] == ["sample:"]

    (automation,) = [
        a for a in call(prefect_server, "/automations/filter", {}) if a["name"] == "pretrain-on-publication"
    ]
    assert automation["enabled"] is False

    def runs():
        return call(prefect_server, "/flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [pretrain]}}})

    assert runs() == []
    script = (
        "import sys\nfrom prefect.automations import Automation\nfrom prefect.events import emit_event\n"
        "from prefect.events.worker import EventsWorker\n"
        "a = Automation.read(name='pretrain-on-publication'); a.enabled = True; a.update()\n"
        "emit_event('gristmill.corpus.published', resource={'prefect.resource.id': 'gristmill.corpus.mine'},"
        " payload={'corpus': 'mine', 'version': 3})\n"
        "EventsWorker.drain_all(timeout=20)\n"
    )
    subprocess.run([sys.executable, "-c", script], env=embedded.environment(home, prefect_server), check=True)
    (run,) = until(runs)
    assert run["parameters"]["corpus"] == "mine" and run["parameters"]["version"] == 3


def fake_run(home: Path, run: str, version: int, complete: bool = True) -> None:
    folder = home / "trainings" / run
    folder.mkdir(parents=True)
    summary = {"run": run, "kind": "pretrain", "corpus": {"name": "sample", "version": version}}
    if complete:
        (folder / "summary.json").write_text(json.dumps(summary))


def test_quickstart_shows_the_training_of_this_version(home):
    from tasks.storage import Root

    fake_run(home, "one", 1)
    fake_run(home, "two", 2)
    fake_run(home, "unfinished", 2, complete=False)
    assert quickstart.training(Root(str(home)), {"version": 2})["run"] == "two"
    assert quickstart.training(Root(str(home)), {"version": 3}) is None


def test_quickstart_needs_a_local_home(monkeypatch):
    monkeypatch.setenv("GRISTMILL_HOME", "memory://somewhere")
    with quickstart.console.capture() as said:
        assert quickstart.main() == 2
    assert "GRISTMILL_HOME is memory://somewhere" in said.get()

"""Trainings of several ranks and machines that are killed, lost and stopped: they go on to the same digits."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from launches import PROJECT, SETTINGS, ended, kept_events
from published_corpus import write_corpus

from model import checkpoint
from model.settings import Pretrain, Processes
from tasks import launch
from tasks.errors import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("launch")
    write_corpus(home)
    return home


@pytest.fixture
def events(monkeypatch):
    return kept_events(monkeypatch)


LONG = SETTINGS.model_copy(update={"steps": 120, "checkpoint_every": 5, "evaluate_every": 50})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A home with the run `whole`, trained under LONG by two ranks on two nodes, and never stopped."""
    home = tmp_path_factory.mktemp("whole")
    write_corpus(home)
    on_two_nodes(home, "whole", LONG, "torchrun")
    return home


def same_as_whole(home: Path, run: str) -> None:
    """Fails unless two runs differ in nothing but times."""
    lines = [[json.loads(line) for line in (home / "trainings" / each / "metrics.jsonl").read_text().splitlines()]
             for each in ("whole", run)]
    for line in lines[0] + lines[1]:
        for measured in ("seconds", "tokens_per_second", "tflops", "energy_joules"):
            del line[measured]
    assert lines[0] == lines[1] and len(lines[0]) == 120
    for file in (*(f"checkpoints/{checkpoint.name(120)}/{name}" for name in (
            checkpoint.WEIGHTS, "state/rank-00000.safetensors", "state/rank-00001.safetensors")), "packing.parquet"):
        assert (home / "trainings" / run / file).read_bytes() == (home / "trainings" / "whole" / file).read_bytes()


@pytest.mark.slow
def test_killed_at_any_level_the_same_command_gives_the_same_losses(whole):
    """kill -9 of a rank, then of the process that waits, and the same command: nothing lives on, nothing differs."""
    home, settings, two = whole, LONG, Processes(processes=2, threads=1)
    code = ("import sys; from tasks import launch; from model.settings import *; "
            "launch.pretrain(sys.argv[1], 'mill', run='killed', "
            "settings=Pretrain.model_validate_json(sys.argv[2]), processes=Processes(processes=2, threads=1))")
    checkpoints, seen = home / "trainings" / "killed" / "checkpoints", 0
    for victim in ("rank", "launcher"):
        waiting = psutil.Popen([sys.executable, "-c", code, str(home), settings.model_dump_json()], cwd=PROJECT,
                               stderr=subprocess.DEVNULL)
        while not (found := checkpoint.all_whole(checkpoints)) or checkpoint.step(found[-1]) <= seen:
            assert waiting.poll() is None
            time.sleep(0.01)
        below = waiting.children(recursive=True)
        workers = [process for process in below if not process.children()]          # below guardian and torchrun
        assert len(workers) == 2
        (waiting if victim == "launcher" else workers[1]).kill()
        ended(waiting, *below)
        assert waiting.wait() == (-signal.SIGKILL if victim == "launcher" else 1)
        assert not (checkpoints.parent / "summary.json").exists()
        seen = checkpoint.step(checkpoint.latest(checkpoints))      # the other rank may have saved since
    launch.pretrain(str(home), "mill", run="killed", settings=settings, processes=two)
    same_as_whole(home, "killed")


def on_two_nodes(home: Path, run: str, settings: Pretrain, launcher: str) -> tuple[dict, dict, list[Processes]]:
    """Summaries of both commands, run on this machine; the second node waits in a thread, as a flow may."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    nodes = [Processes(launcher=launcher, processes=1, threads=1, nodes=2, node_rank=rank,
                       rendezvous=f"127.0.0.1:{port}") for rank in (0, 1)]
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(launch.pretrain, str(home), "mill", run=run, settings=settings, processes=nodes[1])
        first = launch.pretrain(str(home), "mill", run=run, settings=settings, processes=nodes[0])
        return first, second.result(120), nodes


@pytest.mark.slow
def test_two_nodes_train_one_run_and_the_first_records_it(home, events):
    """By DeepSpeed's launcher; the test before this one does it by torchrun."""
    first, second, nodes = on_two_nodes(home, "nodes", SETTINGS, "deepspeed")
    assert first == second
    assert first["world_size"] == 2 and first["step"] == 6
    assert [payload["state"] for kind, _, payload, _ in events if kind == "training"] == ["started", "ended"]
    assert sum(kind == "checkpoint" for kind, *_ in events) == 3
    folder = home / "trainings" / "nodes"
    assert {path.name for path in folder.glob("log*.txt")} == {"log.txt", "log-1.txt"}
    assert launch.pretrain(str(home), "mill", run="nodes", settings=SETTINGS)["skipped"]
    with pytest.raises(UserError, match="setting node_rank: 2 of 2"):
        launch.pretrain(str(home), "mill", run="none", settings=SETTINGS,
                        processes=nodes[0].model_copy(update={"node_rank": 2}))


@pytest.mark.slow
def test_a_machine_is_lost_in_mid_run_and_comes_back_and_a_stop_of_one_is_one_of_both(whole):
    """Two nodes, 127.0.0.1 and 127.0.0.2. All of the second is killed; its command, given again, joins the first one's,
    which never ended. Then the first is told to stop: neither takes the run for complete. The losses are those of a run
    that nothing happened to."""
    home = whole
    with two_machines(home, "lost", LONG) as (machines, start, reached):
        reached(10)
        taken_away(machines[1])
        assert not (home / "trainings" / "lost" / "summary.json").exists()
        start(1)
        reached(checkpoint.step(checkpoint.latest(home / "trainings" / "lost" / "checkpoints")) + 1)
        machines[0].terminate()
        assert [machine.wait(60) for machine in machines] == [143, 1]
        assert "Stopped: lost: stopped with a checkpoint" in (home / "second.txt").read_text()
    lines = (home / "trainings" / "lost" / "metrics.jsonl").read_text().splitlines()
    last = checkpoint.latest(home / "trainings" / "lost" / "checkpoints")
    assert checkpoint.step(last) == json.loads(lines[-1])["step"] == len(lines) < 120
    launch.pretrain(str(home), "mill", run="lost", settings=LONG, processes=Processes(processes=2, threads=1))
    same_as_whole(home, "lost")


@pytest.mark.slow
def test_the_machine_that_is_left_goes_on_alone(home):
    """The second is killed, and nodes_at_least lets the first go on."""
    settings = SETTINGS.model_copy(update={"steps": 100_000, "checkpoint_every": 5, "evaluate_every": 0,
                                            "keep_checkpoints": 2})
    with two_machines(home, "fewer", settings, nodes_at_least=1) as (machines, start, reached):
        reached(5, world=2)
        taken_away(machines[1])
        reached(10, world=1)
        machines[0].terminate()
        assert machines[0].wait(60) == 143


def taken_away(machine: psutil.Popen) -> None:
    """Nothing of a machine has time to say or save anything."""
    gone = [machine, *machine.children(recursive=True)]
    for one in gone:
        one.suspend()
    for one in gone:
        one.kill()
    ended(*gone)


@contextlib.contextmanager
def two_machines(home: Path, run: str, settings: Pretrain, **more):
    """Yields the commands of both, what starts one of them again, and what waits for a checkpoint of a step or later,
    written by so many ranks."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    code = ("import sys; from tasks import launch, ranks; from model.settings import *; "
            "ranks.TIMES = 'keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=1'; "
            f"launch.pretrain(sys.argv[1], 'mill', run={run!r}, settings=Pretrain.model_validate_json(sys.argv[2]), "
            "processes=Processes.model_validate_json(sys.argv[3]))")
    machines: list[psutil.Popen] = []

    def start(rank: int) -> None:
        processes = Processes(processes=1, threads=1, nodes=2, node_rank=rank, rendezvous=f"127.0.0.1:{port}",
                              address=f"127.0.0.{rank + 1}", **more)
        with open(home / ("second.txt" if rank else "first.txt"), "w") as said:
            machines[rank:] = [psutil.Popen([sys.executable, "-c", code, str(home), settings.model_dump_json(),
                                             processes.model_dump_json()], cwd=PROJECT, stderr=said)]

    def reached(step: int, world: int = 2) -> int:
        while True:
            with contextlib.suppress(FileNotFoundError, AttributeError):        # none yet, or pruned this moment
                path = checkpoint.latest(home / "trainings" / run / "checkpoints")
                if checkpoint.step(path) >= step and json.loads(
                        (path / checkpoint.ABOUT).read_text())["world_size"] == world:
                    return checkpoint.step(path)
            assert machines[0].poll() is None
            time.sleep(0.02)

    start(0)
    start(1)
    try:
        yield machines, start, reached
    finally:
        for machine in machines:
            with contextlib.suppress(psutil.NoSuchProcess):
                machine.kill()

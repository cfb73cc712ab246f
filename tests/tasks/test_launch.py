"""Trainings as users launch them, and what their ranks and machines say when something is wrong."""

import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from launches import PROJECT, SETTINGS, SMALL, kept_events
from published_corpus import write_corpus
from safetensors import SafetensorError
from safetensors.numpy import save_file

from model import checkpoint, process
from model.settings import Evaluate, Finetune, Pretrain, Processes, at_once
from tasks import launch, process_group, ranks
from tasks.errors import UserError
from tasks.storage import Root


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("launch")
    write_corpus(home)
    return home


@pytest.fixture
def events(monkeypatch):
    return kept_events(monkeypatch)


def test_from_a_corpus_to_an_evaluated_finetuned_model(home, events, tmp_path):
    """pretrain on two ranks, again (skipped), finetune, evaluate, generate: what a user does."""
    seen = []
    summary = launch.pretrain(str(home), "mill", settings=SETTINGS, processes=Processes(processes=2, threads=1),
                              progress=lambda line: seen.append(line["step"]), run_id="flow-1")
    run = summary["run"]
    assert summary["world_size"] == 2 and summary["loss_last"] < summary["loss_first"] and seen[-1] == 6
    assert not summary["skipped"] and run.startswith("mill-v1-")
    kinds = [kind for kind, *_ in events]
    assert kinds[0] == "training" and kinds[-1] == "training" and kinds.count("checkpoint") == 3
    steps = [step["step"] for kind, _, payload, _ in events if kind == "step" for step in payload["steps"]]
    assert steps == [1, 2, 3, 4, 5, 6]
    ended = events[-1][2]
    assert ended["outcome"] == "ok" and ended["tokens"] == summary["tokens"] and ended["energy_joules"] > 0
    assert ended["manifest"] == summary["corpus"]["manifest_sha256"] and events[-1][3] == "flow-1"

    events.clear()
    more = SETTINGS.model_copy(update={"keep_checkpoints": 7})         # changes nothing that is learnt
    assert launch.pretrain(str(home), "mill", settings=more)["skipped"] and not events
    with pytest.raises(UserError, match="exists with other settings .settings: learning_rate"):
        launch.pretrain(str(home), "mill", run=run, settings=SETTINGS.model_copy(update={"learning_rate": 1e-5}))

    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"instruction": f"say {n}", "output": str(n)}) for n in range(40)))
    lengths = []
    tuned = launch.finetune(str(home), run, str(rows), settings=Finetune(
        epochs=1, batch=2, micro_batch=2, engine="torch"), processes=Processes(threads=1),
        progress=lambda line: lengths.append(line["steps"]))
    assert set(lengths) == {tuned["step"]}                  # how many an epoch has is known to the ranks alone
    assert tuned["base"]["run"] == run and tuned["rows"]["rows"] <= 40 and tuned["held_out_loss"]

    questions = tmp_path / "choice.jsonl"
    asked = [{"query": f"q{n}", "choices": ["a", "bc"], "gold": n % 2} for n in range(6)]
    questions.write_text("\n".join(json.dumps(row) for row in asked))
    result = launch.evaluate(str(home), tuned["run"], Evaluate(benchmarks=[str(questions)], few_shot=[0, 2]))
    metrics = {(row["task"], row["domain"], row["metric"]) for row in result["results"]}
    assert {("held-out", "all", "bits_per_byte"), ("held-out", "source=web", "perplexity"),
            ("choice", "0-shot", "acc"), ("choice", "2-shot", "acc_norm")} <= metrics
    assert sum(kind == "evaluation" for kind, *_ in events) >= len(result["results"])
    assert isinstance("".join(launch.stream_text(Root(str(home)), run, "the mill", max_tokens=8, seed=1)), str)
    assert {entry["run"] for entry in launch.runs(str(home))} == {run, tuned["run"]}

    asked = {"max_tokens": 12, "temperature": 0}           # a finetuned run answers, a pretrained one goes on
    for name, chat in ((tuned["run"], True), (run, False)):
        plain, told = ("".join(launch.stream_text(str(home), name, "say 3", **asked, **how))
                       for how in ({}, {"chat": chat}))
        assert plain == told

    version = home / "corpora" / "mill" / "versions" / "000001"
    manifest = (version / "manifest.json").read_text()
    for gone in (manifest + " ", None):
        (version / "manifest.json").unlink()
        if gone:
            (version / "manifest.json").write_text(gone)
        with pytest.raises(UserError, match="corpus mill version 1, which run .* was trained on, is not in"):
            launch.evaluate(str(home), tuned["run"], Evaluate())
    (version / "manifest.json").write_text(manifest)


def test_a_mistake_of_a_rank_reaches_the_user_and_the_ledger(home, events):
    with pytest.raises(UserError, match="the gradient is not finite at step"):
        launch.pretrain(str(home), "mill", run="hot", processes=Processes(threads=1), settings=SETTINGS.model_copy(
            update={"learning_rate": 1e30, "clip": 0.0, "warmup": 0.0, "steps": 50}))
    assert events[-1][0] == "training" and events[-1][2]["outcome"] == "failed"


def test_a_cancelled_wait_ends_every_rank_and_is_recorded(home, events):
    class Cancelled(BaseException):
        pass

    ranks, others = [], set(psutil.Process().children(recursive=True))  # those of other tests: a pool, a server

    def cancel(line):
        if line["step"] > 3:
            ranks.extend(set(psutil.Process().children(recursive=True)) - others)
            for process in ranks:
                process.terminate()                             # Slurm tells all processes of a job at once
            raise Cancelled

    long = SETTINGS.model_copy(update={"steps": 100_000, "checkpoint_every": 0})
    with pytest.raises(Cancelled):
        launch.pretrain(str(home), "mill", run="long", settings=long, processes=Processes(processes=2, threads=1),
                        progress=cancel)
    assert len(ranks) >= 4                                      # guardian, torchrun and two ranks
    assert not [process for process in ranks if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert events[-1][2]["outcome"] == "cancelled"
    lines = (home / "trainings" / "long" / "metrics.jsonl").read_text().splitlines()
    saved = [run["step"] for run in launch.runs(str(home)) if run["run"] == "long"]
    assert saved == [json.loads(lines[-1])["step"]] and len(lines) > 3
    assert [payload["step"] for kind, run, payload, _ in events if (kind, run) == ("checkpoint", "long")] == saved


def test_ranks_that_start_after_their_launcher_died_end_themselves(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "config.json").write_text("{}")
    code = "from model.process import run_main; run_main(lambda config: print('worked'))"
    rank = subprocess.run([sys.executable, "-c", code, str(tmp_path / "config.json")], cwd=PROJECT, capture_output=True,
                          env=os.environ | {"GRISTMILL_LAUNCHER": str(gone.pid)})
    assert rank.returncode == 1 and not rank.stdout


def test_a_run_is_trained_by_one_process_at_a_time(home, events):
    with Root(str(home)).lock("trainings/taken/lock", "x"), pytest.raises(UserError, match="'taken' is locked"):
        launch.pretrain(str(home), "mill", run="taken", settings=SETTINGS)
    assert not events


def test_what_is_watched_is_recorded_once(tmp_path, events):
    """metrics.jsonl grows by halves of lines, is put anew by a resumed run, and steps wait for their checkpoint."""
    folder = tmp_path / "trainings" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    seen, metrics = [], folder / "metrics.jsonl"
    watch = ranks._Watch(Root(str(tmp_path)), folder, "run", seen.append, None)

    def line(step: int) -> str:
        return json.dumps({"step": step, "loss": 9.0 - step, "lr": 0.1, "tokens": 10 * step, "seconds": 1.0,
                           "grad_norm": 1.0}) + "\n"

    def recorded() -> list[int]:
        return [step["step"] for kind, _, payload, _ in events if kind == "step" for step in payload["steps"]]

    watch.look()
    metrics.write_text(line(1) + line(2) + line(3)[:9])
    watch.look()
    watch.look()
    assert [shown["step"] for shown in seen] == [2] and not events
    checkpoint.begin(folder / "checkpoints", 2)
    (folder / "checkpoints" / ".step-00000002.partial" / checkpoint.WEIGHTS).write_bytes(b"weights")
    checkpoint.commit(folder / "checkpoints" / ".step-00000002.partial", {"step": 2, "tokens": 20, "samples": 8})
    with open(metrics, "a") as file:
        file.write(line(3)[9:])
    watch.look()
    assert recorded() == [1, 2] and seen[-1]["step"] == 3 and seen[-1]["loss_first"] == 8.0
    again = ranks._Watch(Root(str(tmp_path)), folder, "run", None, None)
    again.look()
    (folder / "new").write_text(line(1) + line(2))
    os.replace(folder / "new", metrics)
    again.look()
    assert (again.step, again.first, again.last) == (2, 8.0, 7.0) and recorded() == [1, 2]
    with open(metrics, "a") as file:                    # left out: its loss was no number
        file.write(line(3).replace("6.0", "null").replace("}", ', "left_out": "the loss is nan", "back_to": 2}'))
    again.look()
    assert (again.step, again.newest["step"], again.last) == (3, 2, 7.0)
    (checkpoint.begin(folder / "checkpoints", 3) / checkpoint.WEIGHTS).write_bytes(b"weights")
    checkpoint.commit(checkpoint.temporary(folder / "checkpoints", 3), {"step": 3, "tokens": 20, "samples": 12})
    again.look()
    *_, said = (payload["steps"] for kind, _, payload, _ in events if kind == "step")
    assert [(step["step"], step["left_out"], step["back_to"]) for step in said] == [(3, "the loss is nan", 2)]


def test_what_a_killed_launcher_left_out_is_recorded_by_the_next(tmp_path, events):
    """kill -9 between a checkpoint and the look at it, in mid-run and behind the last step."""
    root, folder = Root(str(tmp_path)), tmp_path / "trainings" / "run"
    (folder / "checkpoints").mkdir(parents=True)

    def train_to(step: int) -> None:
        with open(folder / "metrics.jsonl", "a") as file:
            for number in (step - 1, step):
                file.write(json.dumps({"step": number, "loss": 1.0, "tokens": 10 * number}) + "\n")
        (checkpoint.begin(folder / "checkpoints", step) / checkpoint.WEIGHTS).write_bytes(b"weights")
        checkpoint.commit(checkpoint.temporary(folder / "checkpoints", step), {"step": step, "tokens": 1, "samples": 1})

    def recorded() -> list[list[int]]:
        steps = [step["step"] for kind, _, payload, _ in events if kind == "step" for step in payload["steps"]]
        return [steps, [payload["step"] for kind, _, payload, _ in events if kind == "checkpoint"]]

    ranks._Watch(root, folder, "run", None, None)       # its process dies here
    train_to(2)
    watch = ranks._Watch(root, folder, "run", None, None)
    watch.look()
    assert recorded() == [[1, 2], [2]]
    train_to(4)
    (folder / "summary.json").write_text(json.dumps({"seconds": 7.0}))
    for _ in range(2):
        ranks.settle(root, folder, "run", {"task": "pretrain"}, "flow-2")
        assert recorded() == [[1, 2, 3, 4], [2, 4]]
        ends = [payload for kind, _, payload, _ in events if kind == "training"]
        assert [(end["outcome"], end["steps"], end["seconds"]) for end in ends] == [("ok", 4, 7.0)]


class Left(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def rank(tmp_path, monkeypatch):
    """Runs some work as a rank does, in this process; gives the status that it would leave with."""
    def leave(status: int):
        raise Left(status)

    monkeypatch.setattr(process, "_leave", leave)
    monkeypatch.setattr(process, "_die_with_parent", lambda: None)
    monkeypatch.setattr(sys, "argv", ["rank", str(tmp_path / "config.json")])
    (tmp_path / "config.json").write_text("{}")

    def run(work) -> int:
        with pytest.raises(Left) as left:
            process.run_main(work)
        return left.value.args[0]
    return run


def limited(folder: Path) -> None:
    """A file meets a limit, as in a shell's `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        save_file({"x": np.zeros(1 << 20)}, folder / "model.partial")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos"), None,
    SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")])
def test_a_full_disk_is_said_in_a_sentence(tmp_path, monkeypatch, rank, error):
    """torch.save does not say why it failed: the disk does; safetensors does in its text alone."""
    (tmp_path / "checkpoints" / ".step-00000001.partial" / "state").mkdir(parents=True)
    (tmp_path / "packing.partial").touch()
    if isinstance(error, RuntimeError):
        assert rank(failing(error)) == 1 and not (tmp_path / "error.json").exists()        # there is room
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert rank(failing(error) if error else lambda _: limited(tmp_path)) == 2
    said = json.loads((tmp_path / "error.json").read_text())["message"]
    assert said.startswith("the disk is full: ") and said.endswith("goes on from its last checkpoint")
    assert not list(tmp_path.rglob("*.partial"))


def failing(error: BaseException):
    def work(config):
        raise error
    return work


def test_commands_of_the_launchers(monkeypatch):
    config = Path("config.json")
    torchrun = ranks.command(Processes(nodes=2, rendezvous="first:29400"), 8, "model.train", config)
    assert torchrun[1:] == ["-m", "torch.distributed.run", "--nproc-per-node", "8", "--nnodes", "2", "--rdzv-backend",
                            "c10d", "--rdzv-endpoint", "first:29400", "--rdzv-id", "gristmill", "--rdzv-conf",
                            f"is_host=1,join_timeout=3600,{ranks.TIMES}", "--max-restarts", "3", "--log-dir",
                            "/dev/null", "-m", "model.train", "config.json"]
    fewer = ranks.command(Processes(nodes=4, nodes_at_least=2, node_rank=3, rendezvous="first:29400", restarts=9,
                                    address="10.0.0.4"), 8, "model.train", config)
    assert {"2:4", f"is_host=0,join_timeout=3600,{ranks.TIMES}", "9", "--local-addr", "10.0.0.4"} < set(fewer)
    deepspeed = ranks.command(Processes(launcher="deepspeed", nodes=2, node_rank=1, rendezvous="first:29400"), 4,
                               "model.train", config)
    assert {"--node_rank=1", "--master_addr=first", "--master_port=29400"} < set(deepspeed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert ranks.gpus() == 3 and ranks.visible_gpus(2) == [4, 6] and ranks.visible_gpus(4) == [0, 1, 2, 3]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert ranks.visible_gpus(2) == [0, 1]
    for wrong in ("", "first", "first:port", ":29400", "first:99999"):
        with pytest.raises(UserError, match="setting rendezvous: 2 nodes need the HOST:PORT of the first one"):
            ranks.command(Processes(nodes=2, rendezvous=wrong), 1, "model.train", config)
    with pytest.raises(UserError, match="nodes_at_least: 3 of 2 nodes"):
        ranks.command(Processes(nodes=2, nodes_at_least=3, rendezvous="first:29400"), 1, "model.train", config)


def test_ranks_in_a_pod_of_a_larger_job_wait_for_none_of_its_own(tmp_path, monkeypatch):
    """Kubernetes' PyTorchJob gives every pod a rank of its own world, for which engine.start would wait, and torchrun a
    number of machines."""
    foreign = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "first", "MASTER_PORT": "23456",
               "PET_NNODES": "2"}
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    given = ranks.environment(Root(str(tmp_path)), Processes(), 1)
    assert not foreign.keys() & given.keys() and given["NCCL_DEBUG"] == "WARN"


def test_a_rendezvous_port_in_use_and_fewer_gpus_are_said_before_anything_starts(home, events, monkeypatch):
    monkeypatch.setattr(process_group, "run", lambda *_: pytest.fail("started"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        two = Processes(processes=1, nodes=2, rendezvous=f"127.0.0.1:{port}")
        for launcher in ("torchrun", "deepspeed"):
            with pytest.raises(UserError, match=f"rendezvous: port {port} of this machine is in use"):
                launch.pretrain(str(home), "mill", run="port", settings=SETTINGS,
                                processes=two.model_copy(update={"launcher": launcher}))
        ranks.command(two.model_copy(update={"node_rank": 1}), 1, "model.train", Path("config.json"))  # the first one's
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match="setting processes: 2 ranks on this machine, which has 1 GPUs"):
        launch.pretrain(str(home), "mill", run="port", settings=SETTINGS, processes=Processes(processes=2))


def test_a_machine_uses_as_many_gpus_as_can_share_the_batch(home, events, monkeypatch, caplog):
    """The settings of the start, a batch of 4, on machines of any number of GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    started = []
    monkeypatch.setattr(process_group, "run", lambda arguments, *_: started.append(arguments) or 1)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        launch.pretrain(str(home), "mill", run="eight", settings=Pretrain())
    assert started[0][started[0].index("--nproc-per-node") + 1] == "4"
    assert "4 of the 8 GPUs of this machine stay idle: a batch of 4 sequences" in caplog.text
    assert "one of 8 can" in caplog.text

    def n(there: int, batch: int, **machines) -> int:
        return ranks.ranks_here(Pretrain(batch=batch), Processes(**machines), there)

    assert [n(there, 4) for there in (0, 1, 2, 3, 4)] == [1, 1, 2, 2, 4] and n(8, 7) == 7 and n(8, 512) == 8
    assert n(8, 48, nodes=2) == 8 and n(8, 48, nodes=3, nodes_at_least=2) == 8 and n(8, 24, nodes=2) == 6
    assert n(8, 5, processes=2) == 2                            # what was asked for, which is then refused
    shared = (4, 4), (24, 2), (7, 1), (10, 2), (12, 2)
    assert [at_once(Pretrain(batch=batch, micro_batch=4), world) for batch, world in shared] == [1, 4, 1, 1, 3]


def test_the_last_word_of_each_machine_counts_as_far_as_it_is_new(tmp_path):
    """A machine's ranks ended well, but with a stop; badly, with a word from another machine; with one from before."""
    error, other = tmp_path / "error.json", tmp_path / "error-1.json"

    def run(left: dict[Path, dict], status: int) -> None:
        write = "".join(f"open({str(path)!r}, 'w').write({json.dumps(about)!r});" for path, about in left.items())
        ranks.run([sys.executable, "-c", f"{write} raise SystemExit({status})"], tmp_path / "log.txt", error,
                  dict(os.environ), 1.0, lambda: None)

    with pytest.raises(ranks.Stopped):
        run({error: {"stopped": True}}, 0)
    with pytest.raises(UserError, match="do this"):
        run({error: {"stopped": True}, other: {"message": "do this"}}, 1)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        run({}, 1)                                      # what the other said is over
    with pytest.raises(ranks.Stopped):
        run({other: {"stopped": True, "again": 1}}, 1)
    run({other: {"stopped": True}}, 0)                  # it left, and the others went on to the end


def test_a_launcher_that_would_start_a_mistake_again_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "LINGER", 0.0)
    error = tmp_path / "error.json"
    code = f"import time; open({str(error)!r}, 'w').write('{{\"message\": \"do this\"}}'); time.sleep(600)"
    with pytest.raises(UserError, match="do this"):
        ranks.run([sys.executable, "-c", code], tmp_path / "log.txt", error, dict(os.environ), 1.0, lambda: None)


@pytest.mark.parametrize(("left", "count", "status", "says"), [
    ({"message": "do this"}, "1", 2, ""), ({"message": "of before"}, "0", 0, "worked"),
    ({"stopped": True}, "1", 0, "worked"),
])
def test_ranks_started_again_keep_to_a_mistake_but_not_to_a_stop(tmp_path, monkeypatch, rank, left, count, status,
                                                                 says):
    (tmp_path / "error.json").write_text(json.dumps(left))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    worked = []
    assert rank(lambda config: worked.append("worked") or 1) == status and "".join(worked) == says
    assert (tmp_path / "error.json").exists() == ("message" in left)


@pytest.mark.parametrize(("arguments", "says"), [
    ({"corpus": "none"}, "no corpus 'none'"), ({"version": 9}, "no version 9: it has 1"), ({"run": "../x"}, "run name"),
    ({"settings": SETTINGS.model_copy(update={"preset": "huge"})}, "there are tiny"),
    ({"settings": SETTINGS.model_copy(update={"model": SMALL | {"vocab_size": 100}})}, "embedding 100 rows"),
    ({"settings": SETTINGS.model_copy(update={"sequence_length": 999})}, "longer than the model's context"),
    ({"processes": Processes(processes=2), "settings": SETTINGS.model_copy(update={"batch": 5})}, "evenly by 2 ranks"),
    ({"settings": SETTINGS.model_copy(update={"deepspeed": "/none.json"})}, "no readable JSON"),
    ({"home": "memory://bucket"}, "local or mounted folder"),
])
def test_mistakes_are_said_before_anything_starts(home, events, monkeypatch, arguments, says):
    monkeypatch.setattr(process_group, "run", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match=says):
        launch.pretrain(**({"home": str(home), "corpus": "mill", "settings": SETTINGS} | arguments))
    assert not events


def test_a_changed_shard_is_not_trained_on(events, tmp_path):
    folder = write_corpus(tmp_path)
    shard = folder / "tokens" / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes() + b" ")
    with pytest.raises(UserError, match="changed after publishing"):
        launch.pretrain(str(tmp_path), "mill", settings=SETTINGS)


def test_a_run_that_is_not_there_is_said(home):
    with pytest.raises(UserError, match="no run 'gone'"):
        launch.evaluate(str(home), "gone")

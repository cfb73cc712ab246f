import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from published_corpus import write_corpus

from model.settings import Evaluate, Finetune, Pretrain, Processes
from tasks import launch, process_group, ranks
from tasks.errors import UserError
from tasks.storage import Root

SMALL = {"context": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
SETTINGS = Pretrain(steps=6, batch=4, micro_batch=2, engine="torch", checkpoint_every=2, evaluate_every=3,
                    evaluate_rows=4, keep_checkpoints=0, model=SMALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("launch")
    write_corpus(home)
    return home


@pytest.fixture
def events(monkeypatch):
    kept = []
    for module in (launch, ranks):
        monkeypatch.setattr(module, "record", lambda root, kind, subject, payload, run_id=None: kept.append(
            (kind, subject, payload, run_id)))
    return kept


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
    assert launch.pretrain(str(home), "mill", settings=SETTINGS)["skipped"] and not events
    with pytest.raises(UserError, match="exists with other settings .settings: learning_rate"):
        launch.pretrain(str(home), "mill", run=run, settings=SETTINGS.model_copy(update={"learning_rate": 1e-5}))

    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"instruction": f"say {n}", "output": str(n)}) for n in range(40)))
    tuned = launch.finetune(str(home), run, str(rows), settings=Finetune(
        epochs=1, batch=2, micro_batch=2, engine="torch"), processes=Processes(threads=1))
    assert tuned["base"]["run"] == run and tuned["rows"]["rows"] <= 40 and tuned["held_out_loss"]

    questions = tmp_path / "choice.jsonl"
    asked = [{"query": f"q{n}", "choices": ["a", "bc"], "gold": n % 2} for n in range(6)]
    questions.write_text("\n".join(json.dumps(row) for row in asked))
    result = launch.evaluate(str(home), tuned["run"], Evaluate(benchmarks=[str(questions)], few_shot=[0, 2]))
    metrics = {(row["task"], row["domain"], row["metric"]) for row in result["results"]}
    assert {("held-out", "all", "bits_per_byte"), ("held-out", "source=web", "perplexity"),
            ("choice", "0-shot", "accuracy"), ("choice", "2-shot", "accuracy_by_byte")} <= metrics
    assert sum(kind == "evaluation" for kind, *_ in events) >= len(result["results"])
    assert isinstance("".join(launch.stream_text(Root(str(home)), run, "the mill", max_tokens=8, seed=1)), str)
    assert {entry["run"] for entry in launch.runs(str(home))} == {run, tuned["run"]}


def test_a_mistake_of_a_rank_reaches_the_user_and_the_ledger(home, events):
    with pytest.raises(UserError, match="the loss is nan at step"):
        launch.pretrain(str(home), "mill", run="hot", processes=Processes(threads=1), settings=SETTINGS.model_copy(
            update={"learning_rate": 1e30, "clip": 0.0, "warmup": 0.0, "steps": 50}))
    assert events[-1][0] == "training" and events[-1][2]["outcome"] == "failed"


def test_a_cancelled_wait_ends_every_rank_and_is_recorded(home, events):
    class Cancelled(BaseException):
        pass

    ranks = []

    def cancel(line):
        if line["step"] > 3:
            ranks.extend(process for process in psutil.Process().children(recursive=True))
            raise Cancelled

    long = SETTINGS.model_copy(update={"steps": 100_000, "checkpoint_every": 3, "keep_checkpoints": 2})
    with pytest.raises(Cancelled):
        launch.pretrain(str(home), "mill", run="long", settings=long, processes=Processes(processes=2, threads=1),
                        progress=cancel)
    assert len(ranks) >= 3                                      # torchrun and two ranks
    assert not [process for process in ranks if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert events[-1][2]["outcome"] == "cancelled"
    assert launch.runs(str(home))[-1]["step"] >= 3


def test_the_death_of_the_waiting_process_kills_what_it_started(tmp_path):
    """SIGTERM to a command that waits: its child gets SIGTERM too, and SIGKILL when it will not listen."""
    script = ("import signal, time, pathlib, os; signal.signal(15, signal.SIG_IGN); "
              f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)")
    wait = f"from tasks import process_group; process_group.run([{sys.executable!r}, '-c', {script!r}], " \
           f"{str(tmp_path / 'log.txt')!r}, dict(__import__('os').environ), 0.5)"
    waiting = subprocess.Popen([sys.executable, "-c", wait], cwd=Path(__file__).parents[2])
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        time.sleep(0.05)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(timeout=60) == 143
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_the_exit_status_and_the_log_are_given(tmp_path):
    status = process_group.run([sys.executable, "-c", "print('said'); raise SystemExit(7)"], tmp_path / "log.txt",
                               dict(os.environ), 1.0)
    assert status == 7 and "said" in (tmp_path / "log.txt").read_text()


def test_commands_of_the_launchers():
    config = Path("config.json")
    torchrun = ranks.command(Processes(nodes=2, rendezvous="first:29400"), 8, "model.train", config)
    assert torchrun[1:] == ["-m", "torch.distributed.run", "--nproc-per-node", "8", "--nnodes", "2", "--rdzv-backend",
                            "c10d", "--rdzv-endpoint", "first:29400", "--rdzv-id", "gristmill", "-m", "model.train",
                            "config.json"]
    deepspeed = ranks.command(Processes(launcher="deepspeed", nodes=2, node_rank=1, rendezvous="first:29400"), 4,
                               "model.train", config)
    assert {"--node_rank=1", "--master_addr=first", "--master_port=29400"} < set(deepspeed)
    with pytest.raises(UserError, match="rendezvous"):
        ranks.command(Processes(nodes=2), 1, "model.train", config)


@pytest.mark.parametrize(("arguments", "says"), [
    ({"corpus": "none"}, "no corpus 'none'"), ({"version": 9}, "no version 9: it has 1"), ({"run": "../x"}, "run name"),
    ({"settings": SETTINGS.model_copy(update={"preset": "huge"})}, "there are tiny"),
    ({"settings": SETTINGS.model_copy(update={"model": SMALL | {"vocab_size": 100}})}, "embedding 100 rows"),
    ({"settings": SETTINGS.model_copy(update={"sequence_length": 999})}, "longer than the model's context"),
    ({"settings": SETTINGS.model_copy(update={"batch": 5})}, "not a multiple"),
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

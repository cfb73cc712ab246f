"""Training in this process (one rank, plain PyTorch), its resumption, and its checkpoints."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from published_corpus import write_corpus
from trainings import configure, losses, run

from model import checkpoint, data, engine, run_folder
from model.choices import benchmark
from model.corpus import corpus_folder, open_corpus
from model.generate import load_run
from model.packing import ORDER
from model.settings import Evaluate, Optimisation
from model.train import write_line
from tasks.errors import UserError

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(mill, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "whole"
    run(configure(mill, folder))
    return folder


def test_a_run_leaves_its_record(trained, mill):
    summary = json.loads((trained / "summary.json").read_text())
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert summary["complete"] and summary["loss_last"] < summary["loss_first"] and 0 < summary["bits_per_byte"] < 9
    assert "bits_per_byte" in lines[2] and "bits_per_byte" not in lines[0] and "bits_per_byte" in lines[5]
    assert "estimate" in summary["energy_how"] and summary["energy_joules"] > 0
    packing = pq.read_table(trained / "packing.parquet")
    assert sum(packing["length"].to_pylist()) == summary["tokens"] == lines[-1]["tokens"]
    assert set(packing["sample_id"].to_pylist()) == set(range(24)) and summary["samples"] == 24
    about = checkpoint.read(checkpoint.latest(trained / "checkpoints"))
    assert about["corpus"] == {"name": "mill", "version": 1,
                               "manifest_sha256": open_corpus(corpus_folder(str(mill), "mill")).digest}
    assert (trained / "tokenizer" / "ranks.tiktoken").exists()


def test_accumulation_leaves_the_losses_as_they_are(trained, mill, tmp_path):
    run(configure(mill, tmp_path / "one", micro_batch=4))
    assert losses(tmp_path / "one") == pytest.approx(losses(trained), abs=1e-5)


def test_resumed_it_gives_the_same_to_the_digit(trained, mill, tmp_path):
    """As if killed in step 5, with a line half written. Killed for real: tests/tasks/test_several_machines.py."""
    folder = tmp_path / "run"
    config = configure(mill, folder, keep_checkpoints=0)
    run(config)
    for lost in ((6,), (4, 6)):                                     # goes on from step 4, then from step 2
        for step in lost:
            shutil.rmtree(folder / "checkpoints" / checkpoint.name(step))
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(lines[:5])[:-9])
        run(config)
        ends = [checkpoint.read(checkpoint.latest(path / "checkpoints")) for path in (trained, folder)]
        assert ends[0]["files"][checkpoint.WEIGHTS] == ends[1]["files"][checkpoint.WEIGHTS]
        assert ends[0]["tokens"] == ends[1]["tokens"] and losses(folder) == losses(trained)


def test_a_run_is_made_longer_where_the_steps_taken_keep_their_learning_rates(mill, tmp_path):
    wsd = {"schedule": "wsd", "warmup": 2 / 6, "decay": 0.5}
    run(configure(mill, tmp_path / "whole", **wsd))
    run(configure(mill, tmp_path / "run", steps=3, schedule="constant", warmup=2 / 3))
    with pytest.raises(UserError, match="with settings.steps = 3 and the run has 6"):
        run(configure(mill, tmp_path / "run", schedule="constant", warmup=0.1))
    run(configure(mill, tmp_path / "run", **wsd))               # three steps more, of which it decays
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["step"] == 6
    assert pq.read_table(tmp_path / "run" / "packing.parquet").equals(
        pq.read_table(tmp_path / "whole" / "packing.parquet"))
    with pytest.raises(UserError, match="with settings.decay = 0.5 and the run has 0.1"):
        run(configure(mill, tmp_path / "run", **wsd | {"steps": 12, "warmup": 2 / 12, "decay": 0.1}))


def test_sigterm_saves_and_ends_with_143(mill, tmp_path):
    """Before the evaluation that is due: it may take longer than the grace."""
    configure(mill, tmp_path / "long", steps=100_000, checkpoint_every=0, evaluate_every=1)
    child = subprocess.Popen([sys.executable, "-m", "model.train", str(tmp_path / "long" / "config.json")],
                             cwd=PROJECT, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "long" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert child.poll() is None
        time.sleep(0.05)
    child.terminate()
    assert child.wait(timeout=60) == 143
    about = checkpoint.read(checkpoint.latest(tmp_path / "long" / "checkpoints"))
    assert about["step"] == len(losses(tmp_path / "long"))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert ["bits_per_byte" in line for line in lines] == [True] * (len(lines) - 1) + [False]
    assert json.loads((tmp_path / "long" / "error.json").read_text()) == {"stopped": True}


def test_benchmarks_in_the_loop_are_scored_as_those_of_a_trained_model(trained, mill, tmp_path):
    questions = tmp_path / "wheel.jsonl"
    asked = [{"query": f"the mill {n}", "choices": ["turns", "stands still", "é"], "gold": n % 3} for n in range(9)]
    questions.write_text("\n".join(map(json.dumps, asked)))
    told = {"benchmarks": [str(questions)], "benchmark_questions": 7}
    run(configure(mill, tmp_path / "run", **told))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "benchmarks" in line] == [3, 6]
    assert [line["loss"] for line in lines] == losses(trained)      # looking changes nothing
    model, tokenizer, _ = load_run(tmp_path / "run", "cpu")
    after = benchmark(model, tokenizer, str(questions), Evaluate(limit=7))
    assert lines[5]["benchmarks"] == {"wheel": {row["metric"]: row["value"] for row in after}}

    questions.write_text(json.dumps({"query": "q", "choices": ["one"], "gold": 0}))
    with pytest.raises(UserError, match="wheel.jsonl, line 1: choices is a list of two or more texts"):
        run(configure(mill, tmp_path / "other", **told))


def test_packing_is_written_beside_the_first_steps_and_before_the_first_checkpoint(mill, tmp_path, monkeypatch):
    plain, stepped, folder = data.write_packing, Event(), tmp_path / "run"

    def late(path, last, **of):
        assert stepped.wait(60) and not checkpoint.latest(folder / "checkpoints")
        plain(path, last, **of)

    def line(metrics, boards, line, steps):
        write_line(metrics, boards, line, steps)
        stepped.set()

    monkeypatch.setattr("model.material.write_packing", late)
    monkeypatch.setattr("model.train.write_line", line)
    run(configure(mill, folder, checkpoint_every=1, steps=2))
    assert len(pq.read_table(folder / "packing.parquet")) >= 8 and checkpoint.latest(folder / "checkpoints")

    def broken(path, last, **of):
        raise OSError("the disk is gone")

    monkeypatch.setattr("model.material.write_packing", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        run(configure(mill, tmp_path / "broken", checkpoint_every=1))
    assert checkpoint.latest(tmp_path / "broken/checkpoints") is None


@pytest.mark.parametrize(("shape", "settings", "says"), [
    ({"vocab_size": 200}, {}, "tokenizer of 261 tokens and the model's embedding 200 rows"),
    ({}, {"sequence_length": 64}, "longer than the model's context of 32"),
    ({}, {"batch": 4000, "micro_batch": 2000}, "fewer than one step"),
    ({}, {"mixture": {"boks": 1}}, "setting mixture.boks.*its sources are books, web"),
    ({}, {"device": "cuda"}, "sees no GPU"),
    ({}, {"lerning_rate": 1}, "did you mean learning_rate"),
    ({}, {"learning_rate": -1}, "setting learning_rate"),
])
def test_what_does_not_fit_is_said(mill, tmp_path, shape, settings, says):
    with pytest.raises(UserError, match=says):
        run(configure(mill, tmp_path / "run", shape, **settings))


def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(mill, tmp_path):
    with pytest.raises(UserError, match=r"(the loss is nan|the gradient is not finite) at step \d .samples \d+ to"):
        run(configure(mill, tmp_path / "run", learning_rate=1e30, clip=0, warmup=0, steps=50))


def test_a_changed_corpus_is_noticed(mill, tmp_path):
    home = tmp_path / "home"
    folder = write_corpus(home)
    config = configure(home, tmp_path / "run")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ")
    with pytest.raises(UserError, match="changed since"):
        run(config)


def test_resuming_under_other_settings_or_from_a_corrupt_checkpoint_is_refused(mill, tmp_path):
    folder = tmp_path / "run"
    config = configure(mill, folder, steps=4)
    run(config)
    with pytest.raises(UserError, match="settings.learning_rate"):
        run(configure(mill, folder, steps=4, learning_rate=1e-4))
    with pytest.raises(UserError, match="model.hidden"):
        run(configure(mill, folder, {"hidden": 48}, steps=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "ORDER", ORDER + 1)
        with pytest.raises(UserError, match=f"another order .number {ORDER}, here {ORDER + 1}."):
            run(config)
    run(configure(mill, folder, steps=4, evaluate_every=1))                # learns the same: allowed
    last = checkpoint.latest(folder / "checkpoints")
    for name in ("state/rank-00000.safetensors", checkpoint.WEIGHTS):
        good = (last / name).read_bytes()
        (last / name).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(UserError, match="corrupt; remove"):
            run(config)
        (last / name).write_bytes(good)
    (last / checkpoint.WEIGHTS).unlink()
    with pytest.raises(UserError, match="missing, so the checkpoint is corrupt"):
        run(config)


def test_only_whole_checkpoints_count(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in (2, 10):
        temporary = checkpoint.begin(tmp_path, step)
        (temporary / checkpoint.WEIGHTS).write_bytes(b"weights")
        checkpoint.commit(temporary, {"step": step})
    left = checkpoint.begin(tmp_path, 11)
    (left / checkpoint.WEIGHTS).write_bytes(b"half")
    assert checkpoint.read(checkpoint.latest(tmp_path))["step"] == 10
    assert not list(checkpoint.begin(tmp_path, 11).rglob("*.safetensors"))             # a crash leaves no files behind
    checkpoint.prune(tmp_path, 1)
    assert [path.name for path in checkpoint.all_whole(tmp_path)] == ["step-00000010"]


def test_a_checkpoint_of_pickles_is_refused(mill, tmp_path):
    """Its sha256 agree, and still nothing of it is opened."""
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trap",)

    for name, says in (("model.pt", "lists no model.safetensors, and weights in another form are not read: a pickle"),
                       ("state/optimizer.pt", "holds optimizer.pt and no rank-.*a pickle can run code")):
        folder = tmp_path / name.replace("/", "-")
        config = configure(mill, folder)
        run(config | {"settings": config["settings"] | {"steps": 2}})
        last = checkpoint.latest(folder / "checkpoints")
        about = checkpoint.read(last)
        put = folder / "checkpoints" / ".put"
        last.rename(put)
        (put / (checkpoint.WEIGHTS if name == "model.pt" else "state/rank-00000.safetensors")).unlink()
        torch.save({"x": Trap()}, put / name)
        del about["files"]
        (put / checkpoint.ABOUT).unlink()
        checkpoint.commit(put, about)
        with pytest.raises(UserError, match=says):
            run(config | {"settings": config["settings"] | {"steps": 2}})
    assert not (tmp_path / "trap").exists()


def test_deepspeed_without_a_compiler_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", type(sys)("deepspeed"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="g\\+\\+ and ninja.*or leave it false"):
        engine.import_deepspeed(True, torch.device("cpu"))


def test_deepspeed_computes_where_the_setting_says_though_there_is_a_gpu(monkeypatch):
    fake = type(sys)("deepspeed")
    fake.ops, fake.init_distributed = SimpleNamespace(__compatible_ops__={}), lambda *given, **options: None
    monkeypatch.setitem(sys.modules, "deepspeed", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    engine.import_deepspeed(False, torch.device("cpu"))
    assert os.environ["DS_ACCELERATOR"] == "cpu"


def test_advice_for_muon_on_a_gpu_ends():
    """Not: set zero_stage to 0, whose bf16 is refused with the advice to set it to 1, which muon is refused under."""
    for muon, says in ((True, "set engine to torch or precision to fp32$"), (False, "or zero_stage to 1$")):
        settings = Optimisation(zero_stage=0, precision="bf16", optimizer="muon" if muon else "adamw")
        with pytest.raises(UserError, match=says):
            engine.DeepSpeed(None, settings, torch.device("cpu"))


@pytest.mark.parametrize("visible", [0, 1])
def test_fewer_gpus_than_ranks_is_said(monkeypatch, visible):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match=f"processes: rank 1 of this machine has no GPU, PyTorch sees {visible}"):
        engine.start(Optimisation())


def test_a_port_in_use_is_said(monkeypatch):
    """In a process of its own: this one may have a process group by now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        world = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        code = "from model.engine import start; from model.settings import Optimisation; start(Optimisation())"
        child = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=os.environ | world, capture_output=True,
                               text=True, timeout=60)
    assert f"the ranks could not meet at 127.0.0.1:{port}: another program has the port" in child.stderr


def test_compiling_without_a_compiler_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="torch.compile needs a compiler.*install g.*, or set compile to false"):
        engine.check_compiler(Optimisation(compile=True), torch.device("cpu"))
    engine.check_compiler(Optimisation(), torch.device("cpu"))
    monkeypatch.delenv("CC", raising=False)             # Triton's launchers need one, also for FlexAttention alone
    with pytest.raises(UserError, match="setting attention: .* not on PATH: .* or set attention to sdpa"):
        engine.check_compiler(Optimisation(), torch.device("cuda"))
    engine.check_compiler(Optimisation(attention="sdpa"), torch.device("cuda"))


@pytest.mark.slow
def test_compiled_and_computed_again_the_losses_are_the_same(trained, mill, tmp_path, monkeypatch):
    """torch.compile and activation checkpointing change how, not what. Traced, but run without a C++ compiler."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **options: plain(*given, **options | {"backend": "aot_eager"}))
    run(configure(mill, tmp_path / "run", compile=True, activation_checkpointing=True))
    assert losses(tmp_path / "run") == pytest.approx(losses(trained), abs=1e-5)


def test_buffers_of_gradients_are_no_larger_than_the_model():
    for offload, stage in (("none", 1), ("parameters", 3)):
        settings = Optimisation(zero_stage=stage, offload=offload, clip=0.5, deepspeed={"zero_optimization": {
            "overlap_comm": True}})
        config = engine.deepspeed_config(settings, 2, True, 10_000, torch.device("cuda"))
        zero = config["zero_optimization"]
        assert zero["reduce_bucket_size"] == 10_000 and zero["overlap_comm"] and config["gradient_clipping"] == 0.5
        assert ("offload_param" in zero) == (stage == 3)
    assert engine.deepspeed_config(settings, 2, True, 10**10, torch.device("cpu"))["zero_optimization"][
        "reduce_bucket_size"] == 500_000_000

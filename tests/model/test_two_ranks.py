"""Trainings of two ranks beside one of a single rank: whatever the engine, the stage and the way, the same numbers."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trainings import configure, losses, poisoned, run

from model import checkpoint
from model.convert import load_weights
from model.objective import objective

PROJECT = Path(__file__).parents[2]
# clipped to so little that AdamW's eps tells it from 1; two batches that are not finite (see trainings.poisoned) are
# left out beside those whose loss jumps
SPIKES = {"spike_deviations": 1.0, "spike_rewind": 9, "steps": 10, "clip": 1e-6}
BACK = SPIKES | {"spike_rewind": 1, "checkpoint_every": 4}
CASES: dict[str, dict] = {
    "torch": {"engine": "torch"},
    **{f"zero-{stage}": {"engine": "deepspeed", "zero_stage": stage} for stage in range(4)},
    **{f"accumulated-{stage}": {"engine": "deepspeed", "zero_stage": stage, "micro_batch": 1} for stage in range(4)},
    "recomputed-1": {"engine": "deepspeed", "zero_stage": 1, "activation_checkpointing": True},
    "recomputed-3": {"engine": "deepspeed", "zero_stage": 3, "activation_checkpointing": True},
    "offloaded-2": {"engine": "deepspeed", "zero_stage": 2, "offload": "optimizer"},
    "offloaded-3": {"engine": "deepspeed", "zero_stage": 3, "offload": "parameters"},
    "bf16-1": {"engine": "deepspeed", "zero_stage": 1, "precision": "bf16"},
    "bf16-3": {"engine": "deepspeed", "zero_stage": 3, "precision": "bf16"},
    "bf16-1-again": {"engine": "deepspeed", "zero_stage": 1, "precision": "bf16"},
    "bf16-3-again": {"engine": "deepspeed", "zero_stage": 3, "precision": "bf16"},
    "muon-torch": {"engine": "torch", "optimizer": "muon"},
    "muon-0": {"engine": "deepspeed", "zero_stage": 0, "optimizer": "muon"},
    "spikes-torch": {"engine": "torch", **SPIKES},
    **{f"spikes-{stage}": {"engine": "deepspeed", "zero_stage": stage, "micro_batch": 1, **SPIKES}
       for stage in range(4)},
    "back-1": {"engine": "deepspeed", "zero_stage": 1, **BACK},
    "back-3": {"engine": "deepspeed", "zero_stage": 3, **BACK},
}
ASKED = ("zero-1", "zero-3", "alone")       # these answer a benchmark in the loop
ALONE = {"alone": {}, "muon-alone": {"optimizer": "muon"}, "spikes-alone": SPIKES, "back-alone": BACK}
GOING_ON = ("zero-1", "zero-3", "muon-0", "bf16-1-again", "bf16-3-again")
# gone on with after step 4 by another stage or engine, in pairs: (first, then)
OTHERWISE = {"1-then-3": (1, 3), "3-then-2": (3, 2), "torch-then-1": (None, 1), "3-then-torch": (3, None),
             "offloaded-then-0": (1, 0)}
ALONE_FIRST = {"alone-then-1": 1, "alone-then-3": 3}            # one rank of plain PyTorch, then two of this stage
ALONE_THEN = {"zero-1": 3, "zero-3": 1, "zero-2": None}         # two ranks of this, then one of that stage
pytestmark = pytest.mark.slow


def of(stage: int | None) -> dict:
    return {"engine": "torch"} if stage is None else {"engine": "deepspeed", "zero_stage": stage}


def in_turn(paths: list[str], folder: Path, ranks: int) -> None:
    """Trains the configurations one after the other in as many processes as there are ranks."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    world = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
             "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests' / 'tasks'}"}
    errors = [open(folder / f"errors-{ranks}-{rank}", "w") for rank in range(ranks)]
    children = [subprocess.Popen([sys.executable, str(Path(__file__).with_name("ranks_in_turn.py")), *paths],
                                 env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                                 stdout=subprocess.DEVNULL, stderr=errors[rank])
                for rank in range(ranks)]
    statuses = [child.wait(timeout=280) for child in children]
    assert set(statuses) == {0}, (folder / f"errors-{ranks}-0").read_text()[-3000:]


def told(config: dict, **more) -> str:
    """Path of a configuration with more in it."""
    path = Path(config["folder"]) / "config.json"
    path.write_text(json.dumps(config | more))
    return str(path)


def again(config: dict, **settings) -> str:
    """Path of a configuration that goes on with a run as if it was killed behind the checkpoint before the last."""
    path = Path(config["folder"]) / "again.json"
    path.write_text(json.dumps(config | {"goes_on": True, "settings": config["settings"] | settings}))
    return str(path)


@pytest.fixture(scope="module")
def runs(mill, tmp_path_factory) -> Path:
    """A folder with a run of each case."""
    folder = tmp_path_factory.mktemp("runs")
    common = {"evaluate_every": 0, "z_loss": 1e-4, "micro_batch": 2, "checkpoint_every": 0}
    questions = folder / "mill.jsonl"
    questions.write_text("\n".join(json.dumps({"query": f"the mill {n}", "choices": ["turns", "stands"], "gold": n % 2})
                                   for n in range(5)))
    asked = {"benchmarks": [str(questions)]}
    more, paths = {"checkpoint_every": 4, "keep_checkpoints": 0}, []
    for name, stage in ALONE_FIRST.items():
        config = configure(mill, folder / name, **common | more | of(None))
        run(config)
        paths.append(again(config, **of(stage)))
    for name, settings in CASES.items():
        config = configure(mill, folder / name, **common | settings | (
            more if name in GOING_ON or name in ALONE_THEN else {}) | (asked if name in ASKED else {}))
        paths += [told(config, poisoned=name.startswith("spikes")), *([again(config)] if name in GOING_ON else [])]
    for name, (first, then) in OTHERWISE.items():
        config = configure(mill, folder / name, **common | more | of(first) | (
            {"offload": "optimizer"} if "offloaded" in name else {}))
        paths += [str(folder / name / "config.json"), again(config, **of(then), offload="none")]
    paths.append(told(configure(mill, folder / "sums", precision="bf16", engine="deepspeed"), sums=True))
    in_turn(paths, folder, 2)
    paths = []
    for name, stage in ALONE_THEN.items():
        shutil.copytree(folder / name, folder / f"{name}-then-alone")
        config = json.loads((folder / name / "config.json").read_text())
        paths.append(again(config | {"folder": str(folder / f"{name}-then-alone")}, **of(stage)))
    in_turn(paths, folder, 1)
    patch = pytest.MonkeyPatch()
    patch.setattr("model.spikes.ENOUGH", 1)
    patch.setattr("model.train.RECENT", 1)
    for name, settings in ALONE.items():
        settings = settings | (asked if name in ASKED else {})
        if name == "spikes-alone":
            patch.setattr("model.train.objective", poisoned(objective, 2))
        run(configure(mill, folder / name, **common | {"engine": "torch"} | settings))
        patch.setattr("model.train.objective", objective)
    patch.undo()
    return folder


def weights(folder: Path) -> torch.Tensor:
    stored = load_weights(checkpoint.latest(folder / "checkpoints") / checkpoint.WEIGHTS)
    return torch.cat([tensor.float().flatten() for _, tensor in sorted(stored.items())])


def norms(folder: Path) -> list[float]:
    return [json.loads(line)["grad_norm"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [name for name in CASES if "-" not in name or name[0] in "azro"])
def test_plain_pytorch_and_each_stage_give_the_same_losses(runs, name):
    """In fp32, on two ranks and on one. Documents differ in length, so ranks and micro-steps differ in padding."""
    assert losses(runs / name) == pytest.approx(losses(runs / "alone"), abs=1e-6)
    assert norms(runs / name) == pytest.approx(norms(runs / "alone"), rel=1e-4)
    torch.testing.assert_close(weights(runs / name), weights(runs / "alone"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["muon-torch", "muon-0"])
def test_muon_gives_the_same_losses_whoever_made_the_matrices_orthogonal(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / "muon-alone"), abs=1e-5)
    assert losses(runs / name)[-1] != pytest.approx(losses(runs / "alone")[-1], abs=1e-3)


@pytest.mark.parametrize("name", ["spikes-torch", *(f"spikes-{stage}" for stage in range(4)), "back-1", "back-3"])
def test_clipped_and_with_batches_left_out_it_is_still_the_same(runs, name):
    """Clipped to 1e-6 AdamW's eps of 1e-8 counts, so a stage that clipped otherwise would give other losses."""
    alone, ours = ([json.loads(line) for line in (folder / "spikes.jsonl").read_text().splitlines()]
                   for folder in (runs / f"{name.split('-')[0]}-alone", runs / name))
    keys = ("step", "samples", "documents", "back_to")
    assert [[line[key] for key in keys] for line in ours] == [[line[key] for key in keys] for line in alone] != []
    if name.startswith("spikes"):
        for which in (alone, ours):
            assert [line["step"] for line in which if line["reason"] == "the loss is nan"] == [3]
            assert [line["step"] for line in which if line["reason"] == "the gradient is not finite"] == [5]
    assert losses(runs / name) == pytest.approx(losses(runs / f"{name.split('-')[0]}-alone"), abs=2e-6, nan_ok=True)
    assert losses(runs / name)[-1] != pytest.approx(losses(runs / "alone")[-1], abs=1e-3)


@pytest.mark.parametrize("name", ["bf16-1", "bf16-3"])
def test_bf16_stays_near_fp32(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / "alone"), abs=0.03)
    assert losses(runs / f"{name}-again") == losses(runs / name)        # from the fp32 weights of its checkpoint


def test_gradients_of_micro_steps_in_bf16_are_added_up_in_fp32(runs):
    """In bf16 the sum of eight has 0.2 % of error and more."""
    found = json.loads((runs / "sums" / "sums.json").read_text())
    assert len(found) == 5 and max(found.values()) < 1e-6, found


@pytest.mark.parametrize("name", [*OTHERWISE, *ALONE_FIRST, *(f"{name}-then-alone" for name in ALONE_THEN)])
def test_gone_on_with_by_another_stage_or_number_of_ranks_it_is_still_the_same(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / "alone"), abs=1e-6) and len(losses(runs / name)) == 6
    assert (runs / name / "checkpoints" / f".{checkpoint.name(6)}").exists()
    torch.testing.assert_close(weights(runs / name), weights(runs / "alone"), rtol=0, atol=1e-4)
    packed = [(runs / which / "packing.parquet").read_bytes() for which in (name, "alone")]
    assert packed[0] == packed[1]                               # the same samples in the same order


def test_benchmarks_in_the_loop_are_the_same_on_ranks_that_share_the_weights(runs):
    found = [json.loads((runs / name / "metrics.jsonl").read_text().splitlines()[-1])["benchmarks"] for name in ASKED]
    assert found[0] == found[1] == found[2] and set(found[0]["mill"]) == {"acc", "acc_norm", "acc_bytes"}


def test_what_was_gone_on_with_was_saved_by_ranks_in_step(runs):
    for name in GOING_ON:
        assert (runs / name / "checkpoints" / f".{checkpoint.name(6)}").exists()        # put aside, computed again
        assert len(losses(runs / name)) == 6

"""Figures of a run where people look at them: TensorBoard files, and trackers that are asked for."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from trainings import configure, run

from model.boards import open_boards, tensorboard
from model.settings import Optimisation
from tasks.errors import UserError


def scalars(folder) -> dict:
    """What TensorBoard itself reads."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), purge_orphaned_data=True).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_run_has_tensorboard_files_that_a_resumed_one_goes_on_with(mill, tmp_path):
    folder = tmp_path / "run"
    run(configure(mill, folder, evaluate_rows=99))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = scalars(folder / "tensorboard")
    assert found["loss"] == [(line["step"], pytest.approx(line["loss"])) for line in lines]
    assert {"lr", "grad_norm", "tokens_per_second", "energy_joules", "bits_per_byte", "tflops"} <= set(found)
    assert {step for step, _ in found["bits_per_byte/books"]} == {3, 6}
    board = tensorboard(folder / "tensorboard", 4)                  # gone on behind step 4
    board(5, {"loss": 1.5})
    assert [step for step, _ in scalars(folder / "tensorboard")["loss"]] == [1, 2, 3, 4, 5]


def test_weights_and_biases_gets_the_figures(tmp_path, monkeypatch):
    seen = []
    module = ModuleType("wandb")
    module.init = lambda **options: (seen.append(options), SimpleNamespace(
        log=lambda figures, step: seen.append((step, figures))))[1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    boards = open_boards(tmp_path, "mill-1", Optimisation(tracker="wandb", project="grain"), 0)
    for board in boards:
        board(1, {"loss": 2.0})
    assert seen[0]["project"] == "grain" and seen[0]["id"] == "mill-1" and seen[0]["resume"] == "allow"
    assert seen[0]["config"]["tracker"] == "wandb" and seen[1:] == [(1, {"loss": 2.0})]


def test_mlflow_gets_the_figures_and_the_same_run_when_it_goes_on(tmp_path, monkeypatch):
    seen = []
    module = ModuleType("mlflow")
    module.set_experiment = seen.append
    module.start_run = lambda **options: (seen.append(options), SimpleNamespace(
        info=SimpleNamespace(run_id="r7")))[1]
    module.log_params = lambda parameters: seen.append(sorted(parameters)[0])
    module.log_metrics = lambda figures, step: seen.append((step, figures))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for step in (1, 2):
        open_boards(tmp_path, "mill-1", Optimisation(tracker="mlflow"), step - 1)[-1](step, {"loss": 2.0})
    assert seen == ["gristmill", {"run_name": "mill-1"}, "activation_checkpointing", (1, {"loss": 2.0}),
                    "gristmill", {"run_id": "r7"}, (2, {"loss": 2.0})]


def test_a_tracker_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match="mlflow is not installed: pip install mlflow, or set tracker to none"):
        open_boards(tmp_path, "run", Optimisation(tracker="mlflow"), 0)

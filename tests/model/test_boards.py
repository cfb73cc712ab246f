"""Figures of a run where people look at them: TensorBoard files, and trackers that are asked for."""

import json
import sys
from threading import Event
from types import ModuleType, SimpleNamespace

import pytest
from trainings import configure, run

from model.boards import Board, Boards, open_boards, tensorboard
from model.energy import Meter, peak_flops
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
    tensorboard(folder / "tensorboard", 4).log(5, {"loss": 1.5})    # gone on behind step 4
    assert [step for step, _ in scalars(folder / "tensorboard")["loss"]] == [1, 2, 3, 4, 5]


class WandbRun:
    """Stands in for wandb.Run, with its signatures."""

    def __init__(self, seen: list, fail: list):
        self.seen, self.fail = seen, fail

    def log(self, data: dict, step: int | None = None, commit: bool | None = None) -> None:
        if self.fail:
            raise ConnectionError("the network is gone")
        self.seen.append((step, data))

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        self.seen.append(("finish", exit_code))


@pytest.fixture
def wandb(monkeypatch):
    seen, fail = [], []
    module = ModuleType("wandb")

    def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, group=None,
             mode=None, resume=None, settings=None):
        seen.append({"project": project, "id": id, "name": name, "resume": resume, "tracker": config["tracker"]})
        return WandbRun(seen, fail)

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return seen, fail


def test_weights_and_biases_gets_the_figures_and_how_it_ended(tmp_path, wandb, capsys):
    seen, fail = wandb
    settings = Optimisation(tracker="wandb", project="grain")
    with open_boards(tmp_path, "mill-1", settings, 0) as boards:
        for step in range(1, 6):
            fail[:] = [1] if step in (2, 3) else []
            boards(step, {"loss": 2.0} | ({"bits_per_byte/commoncrawl:CC//müll": 1.0} if step == 4 else {}))
    assert seen == [{"project": "grain", "id": "mill-1", "name": "mill-1", "resume": "allow", "tracker": "wandb"},
                    (1, {"loss": 2.0}), (4, {"loss": 2.0, "bits_per_byte/commoncrawl_CC/müll": 1.0}),
                    (5, {"loss": 2.0}), ("finish", 0)]
    said = capsys.readouterr().out
    assert said.count("wandb: ConnectionError: the network is gone; the training goes on") == 1
    assert said.count("wandb works again") == 1
    assert [step for step, _ in scalars(tmp_path / "tensorboard")["loss"]] == [1, 2, 3, 4, 5]
    with pytest.raises(ZeroDivisionError), open_boards(tmp_path, "mill-1", settings, 5):
        1 / 0  # noqa: B018
    assert seen[-1] == ("finish", 1)


def test_a_training_closes_its_boards_whether_done_or_stopped_or_broken(mill, tmp_path, wandb, monkeypatch):
    seen, _ = wandb
    told = {"tracker": "wandb", "evaluate_every": 0, "checkpoint_every": 0, "steps": 2}
    run(configure(mill, tmp_path / "done", **told))
    assert [step for step, _ in seen[1:]] == [1, 2, "finish"] and seen[-1] == ("finish", 0)
    monkeypatch.setattr("model.train.complaint", lambda *_: "no")
    with pytest.raises(UserError):
        run(configure(mill, tmp_path / "broken", **told))
    assert seen[-1] == ("finish", 1)


def test_a_tracker_that_hangs_does_not_keep_a_run_from_ending(capsys, monkeypatch):
    monkeypatch.setattr("model.boards.CLOSING", 0.05)
    gone = Event()
    closed = []
    with Boards([Board("slow", print, lambda outcome: gone.wait(60)), Board("broken", print, lambda outcome: 1 / 0),
                 Board("last", print, closed.append)]) as boards:
        boards.outcome = "stopped"
    gone.set()
    assert closed == ["stopped"] and "broken: ZeroDivisionError" in capsys.readouterr().out


def test_mlflow_gets_the_figures_and_the_same_run_when_it_goes_on(tmp_path, monkeypatch, capsys):
    """Stands in for mlflow, with its signatures."""
    seen = []
    module = ModuleType("mlflow")

    class MlflowClient:
        def create_run(self, experiment_id: str, start_time=None, tags=None, run_name=None):
            seen.append(("create", experiment_id, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r7"))

        def update_run(self, run_id: str, status=None, name=None) -> None:
            seen.append(("update", run_id, status))

        def set_terminated(self, run_id: str, status=None, end_time=None) -> None:
            seen.append(("end", run_id, status))

    def set_experiment(experiment_name=None, experiment_id=None):
        if experiment_name == "gone":
            raise ConnectionError("no server")
        seen.append(experiment_name)
        return SimpleNamespace(experiment_id="e1")

    def log_params(params: dict, synchronous=None, run_id=None):
        seen.append((sorted(params)[0], run_id))

    def log_metrics(metrics: dict, step=None, synchronous=None, run_id=None, timestamp=None):
        seen.append((step, metrics, synchronous, run_id))

    module.MlflowClient, module.set_experiment, module.log_params, module.log_metrics = \
        MlflowClient, set_experiment, log_params, log_metrics
    module.flush_async_logging = lambda: seen.append("flush")
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for step in (1, 2):
        with open_boards(tmp_path, "mill-1", Optimisation(tracker="mlflow"), step - 1) as boards:
            boards(step, {"loss": 2.0})
            boards.outcome = ("stopped", "finished")[step - 1]
    assert seen == ["gristmill", ("create", "e1", "mill-1"), ("activation_checkpointing", "r7"),
                    (1, {"loss": 2.0}, False, "r7"), "flush", ("end", "r7", "KILLED"),
                    "gristmill", ("update", "r7", "RUNNING"), (2, {"loss": 2.0}, False, "r7"), "flush",
                    ("end", "r7", "FINISHED")]
    with open_boards(tmp_path, "mill-2", Optimisation(tracker="mlflow", project="gone"), 0) as boards:
        boards(1, {"loss": 2.0})                # a server that is not there does not keep a training from its start
    assert len(seen) == 11 and "mlflow: ConnectionError: no server; the training goes on" in capsys.readouterr().out


def test_a_tracker_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match="mlflow is not installed: pip install mlflow, or set tracker to none"):
        open_boards(tmp_path, "run", Optimisation(tracker="mlflow"), 0)


def test_energy_is_read_of_the_gpu_that_cuda_means(monkeypatch):
    """NVML's order is not CUDA's: CUDA_VISIBLE_DEVICES may name GPUs by UUID, or any in any order."""
    class Nvml:
        read = 5_000_000
        nvmlInit_v2 = staticmethod(lambda: 0)

        @staticmethod
        def nvmlDeviceGetHandleByUUID(uuid: bytes, handle) -> int:
            handle._obj.value = {b"GPU-0a-b": 7}.get(uuid)
            return 0 if handle._obj.value else 6                        # NVML_ERROR_NOT_FOUND

        @classmethod
        def nvmlDeviceGetTotalEnergyConsumption(cls, handle, millijoules) -> int:
            assert handle.value == 7
            millijoules._obj.value = cls.read
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda name: Nvml)
    gpus = [SimpleNamespace(uuid="0a-b"), SimpleNamespace(uuid="of-another-kind")]
    monkeypatch.setattr("torch.cuda.get_device_properties", gpus.__getitem__)
    meter = Meter(0, 0.0)
    Nvml.read += 2_500
    assert meter.joules() == 2.5 and meter.how.startswith("NVML")
    assert Meter(1, 10.0).how == Meter(None, 10.0).how == "CPU seconds x 10 W a core (estimate)"


def test_the_peak_of_a_gpu_is_that_of_its_own_name():
    known = {"NVIDIA A100-SXM4-80GB": 312, "NVIDIA H100 80GB HBM3": 989, "NVIDIA H100 PCIe": 756, "NVIDIA L40S": 362,
             "NVIDIA GH200 480GB": 989, "NVIDIA A10G": 70, "NVIDIA A10": 125, "NVIDIA GeForce RTX 4090": 165.2}
    assert {name: peak_flops(name) / 1e12 for name in known} == pytest.approx(known)
    for name in ("NVIDIA RTX A1000", "NVIDIA RTX A4000", "NVIDIA H20", "NVIDIA GeForce RTX 3090 Ti",
                 "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA L400"):
        assert peak_flops(name) is None

"""Where a run's figures are shown: TensorBoard files always, Weights & Biases or MLflow when asked for."""

import importlib
import os
import posixpath
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from model.settings import Optimisation
from tasks.errors import UserError

CLOSING = 20.0                                              # seconds that a tracker gets to send what it still has


@dataclass
class Board:
    """`log` takes a step and its figures by name; `close` how the run ended: finished, stopped or failed."""

    name: str
    log: Callable[[int, dict[str, float]], object]
    close: Callable[[str], object]
    silent: bool = False                                    # it failed the last time


class Boards(list[Board]):
    """The boards of a run, closed at the end of the context. None can end the training: that one fails is said once,
    and again when it works."""

    outcome = "finished"

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        figures = {_name(name): value for name, value in figures.items()}
        for board in self:
            try:
                board.log(step, figures)
                if board.silent:
                    print(f"{board.name} works again", flush=True)
                board.silent = False
            except Exception as error:
                if not board.silent:
                    _lament(board.name, error)
                board.silent = True

    def __enter__(self) -> "Boards":
        return self

    def __exit__(self, kind, error, trace) -> None:
        """In a thread each: what waits for a network that is gone must not keep the run from ending."""
        outcome = "failed" if kind else self.outcome
        threads = [Thread(target=self._close, args=(board, outcome), daemon=True) for board in self]
        for thread in threads:
            thread.start()
        until = time.monotonic() + CLOSING
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _close(self, board: Board, outcome: str) -> None:
        try:
            board.close(outcome)
        except Exception as error:
            _lament(board.name, error)


def _name(name: str) -> str:
    """A figure's name in the letters that all trackers take; MLflow wants a path that is not written another way."""
    return posixpath.normpath(re.sub(r"[^\w./ -]", "_", name))


def _lament(name: str, error: Exception) -> None:
    print(f"{name}: {type(error).__name__}: {error}; the training goes on, and metrics.jsonl has all figures",
          flush=True)


def open_boards(folder: Path, run: str, settings: Optimisation, step: int) -> Boards:
    """Boards of a run that goes on behind `step`. UserError when the tracker is not installed."""
    boards = Boards([tensorboard(folder / "tensorboard", step)])
    if settings.tracker != "none":
        try:
            module = importlib.import_module(settings.tracker)
        except ImportError:
            raise UserError(f"setting tracker: {settings.tracker} is not installed: pip install {settings.tracker}, or "
                            "set tracker to none") from None
        try:
            boards.append((wandb if settings.tracker == "wandb" else mlflow)(module, folder, run, settings))
        except Exception as error:
            _lament(settings.tracker, error)
    return boards


def wandb(module, folder: Path, run: str, settings: Optimisation) -> Board:
    """The run of this name in Weights & Biases, gone on with where there is one. WANDB_MODE=offline keeps it local.

    What is logged is sent by a process of its own (https://docs.wandb.ai/ref/python); any exit code but 0 is a failure.
    """
    session = module.init(project=settings.project, id=run, name=run, resume="allow", dir=str(folder),
                          config=settings.model_dump(mode="json"))
    return Board("wandb", lambda step, figures: session.log(figures, step=step),
                 lambda outcome: session.finish(exit_code=int(outcome == "failed")))


def mlflow(module, folder: Path, run: str, settings: Optimisation) -> Board:
    """The MLflow run whose number is in the run's folder, or a new one. MLFLOW_TRACKING_URI says where.

    Figures are sent in threads, without which each step would wait for a server to answer; MLflow itself says when they
    fail. The run is named in each call: the active one is that of a thread (https://mlflow.org/docs/latest/api_reference).
    """
    experiment, client, known = module.set_experiment(settings.project), module.MlflowClient(), folder / "mlflow-run"
    if known.exists():
        number = known.read_text()
        client.update_run(number, status="RUNNING")
    else:
        number = client.create_run(experiment.experiment_id, run_name=run).info.run_id
        known.write_text(number)
        module.log_params({name: str(value)[:250] for name, value in settings.model_dump(mode="json").items()},
                          run_id=number)

    def close(outcome: str) -> None:
        module.flush_async_logging()
        client.set_terminated(number, {"finished": "FINISHED", "stopped": "KILLED"}.get(outcome, "FAILED"))

    return Board("mlflow", lambda step, figures: module.log_metrics(figures, step=step, synchronous=False,
                                                                    run_id=number), close)


def tensorboard(folder: Path, step: int) -> Board:
    """A TensorBoard event file of scalars, which drops what an earlier file said of the steps behind `step`.

    Written here, so that it is there without TensorBoard: records of TFRecord's framing, each a protocol buffer Event
    (https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto): 1 wall_time, 2 step,
    3 file_version, 5 summary of values {1 tag, 2 simple_value}, 7 session_log {1 status, here START}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    file = open(folder / f"events.out.tfevents.{int(now)}.{os.getpid()}.{time.monotonic_ns()}", "wb", buffering=0)
    file.write(_record(_double(1, now) + _bytes(3, b"brain.Event:2")))
    file.write(_record(_double(1, now) + _number(2, step + 1) + _bytes(7, _number(1, 1))))

    def log(step: int, figures: dict[str, float]) -> None:
        values = b"".join(_bytes(1, _bytes(1, tag.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
                          for tag, value in figures.items())
        file.write(_record(_double(1, time.time()) + _number(2, step) + _bytes(5, values)))

    return Board("tensorboard", log, lambda outcome: file.close())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CASTAGNOLI = _table()


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CASTAGNOLI[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)

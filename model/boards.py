"""Where a run's figures are shown: TensorBoard files always, Weights & Biases or MLflow when asked for."""

import importlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from model.settings import Optimisation
from tasks.errors import UserError

Board = Callable[[int, dict[str, float]], None]             # (step, figures by name)


def open_boards(folder: Path, run: str, settings: Optimisation, step: int) -> list[Board]:
    """Boards of a run that goes on behind `step`. UserError when the tracker is not installed."""
    boards = [tensorboard(folder / "tensorboard", step)]
    if settings.tracker != "none":
        try:
            tracker = importlib.import_module(settings.tracker)
        except ImportError:
            raise UserError(f"setting tracker: {settings.tracker} is not installed: pip install {settings.tracker}, or "
                            "set tracker to none") from None
        boards.append((wandb if settings.tracker == "wandb" else mlflow)(tracker, folder, run, settings))
    return boards


def wandb(module, folder: Path, run: str, settings: Optimisation) -> Board:
    """The run of this name in Weights & Biases, gone on with where there is one. WANDB_MODE=offline keeps it local."""
    session = module.init(project=settings.project, id=run, name=run, resume="allow", dir=str(folder),
                          config=settings.model_dump(mode="json"))
    return lambda step, figures: session.log(figures, step=step)


def mlflow(module, folder: Path, run: str, settings: Optimisation) -> Board:
    """The MLflow run whose number is in the run's folder, or a new one. MLFLOW_TRACKING_URI says where."""
    module.set_experiment(settings.project)
    known = folder / "mlflow-run"
    if known.exists():
        module.start_run(run_id=known.read_text())
    else:
        known.write_text(module.start_run(run_name=run).info.run_id)
        module.log_params({name: str(value)[:250] for name, value in settings.model_dump(mode="json").items()})
    return lambda step, figures: module.log_metrics(figures, step=step)


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

    def board(step: int, figures: dict[str, float]) -> None:
        values = b"".join(_bytes(1, _bytes(1, tag.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
                          for tag, value in figures.items())
        file.write(_record(_double(1, time.time()) + _number(2, step) + _bytes(5, values)))

    return board


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

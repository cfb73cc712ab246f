"""The folder of a training run: opened, resumed from and summed up.

    packing.parquet      which tokens each sample holds
    metrics.jsonl        a line a step, cut back to the checkpoint that a run resumes from, as is
    spikes.jsonl         a line a batch that was left out
    tokenizer/           the tokenizer of the corpus
    checkpoints/         see model/checkpoint
    summary.json         written last: the run is complete
"""

import json
import math
import os
import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from model import checkpoint, state, verdict
from model.config import ModelConfig
from model.data import PACKING, Samples
from model.packing import ORDER
from model.resuming import differing
from tasks.errors import UserError

CARRIED = ("run", "kind", "step", "samples", "tokens", "seconds", "energy_joules", "energy_how", "engine", "zero_stage",
           "settings", "corpus", "rows", "base")


def meet(folder: Path, device: torch.device) -> Path | None:
    """The checkpoint that all ranks go on from: the newest that rank 0 sees, whatever the others' listings say yet.

    UserError on all ranks where one of them does not see what rank 0 writes: a data root that is not shared would
    show at the first checkpoint only.
    """
    rank, checkpoints, together = dist.get_rank(), folder / "checkpoints", folder / ".together"
    said = torch.zeros(2, dtype=torch.int64)
    if rank == 0:
        checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoint.mend(checkpoints)
        last = checkpoint.latest(checkpoints)
        said = torch.tensor([secrets.randbits(62), checkpoint.step(last) if last else -1])
        together.write_text(str(int(said[0])))
    said = said.to(device)
    dist.broadcast(said, 0)
    nonce, step = said.tolist()
    last = checkpoints / checkpoint.name(step) if step >= 0 else None

    def seen() -> bool:
        try:
            os.listdir(folder)                  # NFS looks anew at a folder that is listed
            return together.read_text() == str(nonce) and (last is None or (last / checkpoint.ABOUT).exists())
        except FileNotFoundError:
            return False

    deadline = time.monotonic() + verdict.LATE
    while not (found := seen()) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = torch.tensor(0 if found else rank + 1, device=device)
    dist.all_reduce(blind, dist.ReduceOp.MAX)
    if int(blind):
        who = f"rank {int(blind) - 1}" if found else f"rank {rank} on {socket.gethostname()}"
        raise UserError(f"{folder}: {who} does not see what rank 0 writes there: all machines of a run share one data "
                        "root; set GRISTMILL_HOME to it on each")
    return last


def open_folder(folder: Path, write_packing: Callable[[Path, int], None], n_samples: int, tokenizer: str,
                step: int) -> Future[None]:
    """Writes the tokenizer and packing.parquet where they lack, the latter anew for a run made longer; cuts
    metrics.jsonl and spikes.jsonl back to `step`.

    packing.parquet, of a row or more a sample of the whole run, is written in a thread while the training begins: the
    future says when it is whole, and raises what went wrong.
    """
    if not (folder / "tokenizer").exists():
        fs, path = fsspec.core.url_to_fs(tokenizer)
        temporary = folder / ".tokenizer.partial"
        temporary.mkdir(exist_ok=True)
        for file in fs.ls(path, detail=False):
            (temporary / file.rsplit("/", 1)[-1]).write_bytes(fs.cat_file(file))
        os.replace(temporary, folder / "tokenizer")
    for name in ("metrics.jsonl", "spikes.jsonl"):
        _cut_back(folder / name, step)

    (folder / verdict.SUMMARY).unlink(missing_ok=True)           # of a run that was shorter

    def packing() -> None:
        if _packed(folder / "packing.parquet") < n_samples:
            write_packing(folder / "packing.partial", n_samples)
            with open(folder / "packing.partial", "rb") as file:
                os.fsync(file.fileno())
            os.replace(folder / "packing.partial", folder / "packing.parquet")

    pool = ThreadPoolExecutor(1, "packing")
    written = pool.submit(packing)
    pool.shutdown(wait=False)
    return written


def _packed(path: Path) -> int:
    """Of how many samples a packing.parquet tells; none where there is none, or one that a power loss cut short."""
    try:
        about = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return 0
    last = about.row_group(about.num_row_groups - 1).column(PACKING.get_field_index("sample_id"))
    return last.statistics.max + 1


def _cut_back(path: Path, step: int) -> None:
    """Leaves the lines up to `step`: those behind it are of steps that are taken again."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            break                           # cut off by a crash
    path.with_suffix(".partial").write_text("".join(kept))
    os.replace(path.with_suffix(".partial"), path)


def strict(value):
    """`value` as JSON can hold it for every reader: null for a number that is not finite."""
    if isinstance(value, dict):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def resume(engine, last: Path, about: dict, done: dict, rank: int, world: int) -> dict:
    """Loads checkpoint `last`, whatever number of ranks, engine and ZeRO stage wrote it.

    UserError when it belongs to other settings or another corpus, or is corrupt.
    """
    was = checkpoint.read(last, rank, world)
    if was.get("order", 1) != ORDER:
        raise UserError(f"{last}: it was written by a version of Gristmill that puts documents into samples in another "
                        f"order (number {was.get('order', 1)}, here {ORDER}): finish it with that one, or name another "
                        "run")
    for part in ("model", "settings", "corpus", "rows", "base"):
        differ = differing(part, about["kind"], was.get(part) or {}, about.get(part) or {}, was["step"])
        for key, (before, now) in differ.items():
            raise UserError(f"{last}: the checkpoint was written with {part}.{key} = {before!r} and the run has "
                            f"{now!r}: set it back, or name another run")
    stored = load(engine, last, rank, world)
    state.restore_random(stored)
    return {key: was.get(key, value) for key, value in done.items()}


def load(engine, path: Path, rank: int, world: int) -> state.Stored:
    """Puts weights and optimiser state of a checkpoint into the engine."""
    stored = state.Stored(path / checkpoint.WEIGHTS, path / checkpoint.STATE, rank, world)
    engine.load(stored)
    return stored


def finish(folder: Path, last: Path, world: int, model: ModelConfig, samples: Samples) -> dict:
    """Writes summary.json from checkpoint `last` and the metrics, and returns it."""
    about = json.loads((last / checkpoint.ABOUT).read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["loss"] is not None]
    summary = {key: about[key] for key in CARRIED if key in about} | {
        "complete": True, "world_size": world, "parameters": model.parameters,
        "checkpoint": str(last.relative_to(folder)),
        "loss_first": losses[0] if losses else None, "loss_last": losses[-1] if losses else None,
        "epochs": about["samples"] / samples.rows,
        "held_out_loss": lines[-1].get("held_out_loss"), "bits_per_byte": lines[-1].get("bits_per_byte"),
        "tokens_per_second": about["tokens"] / sum(line["seconds"] for line in lines),
        "padding": samples.padding, "source_epochs": samples.source_epochs(about["samples"])}
    temporary = folder / ".summary.partial"
    temporary.write_text(json.dumps(strict(summary), indent=1, sort_keys=True))
    os.replace(temporary, folder / verdict.SUMMARY)
    return summary

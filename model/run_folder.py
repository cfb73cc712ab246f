"""The folder of a training run: opened, resumed from, saved into and summed up.

    packing.parquet      which tokens each sample holds
    metrics.jsonl        a line a step, cut back to the checkpoint that a run resumes from
    tokenizer/           the tokenizer of the corpus
    checkpoints/         see model/checkpoint
    summary.json         written last: the run is complete
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import torch
import torch.distributed as dist

from model import checkpoint
from model.config import ModelConfig
from model.convert import load_weights, save_weights
from model.data import Samples
from model.settings import FREE
from tasks.errors import UserError

CARRIED = ("run", "kind", "step", "samples", "tokens", "seconds", "energy_joules", "energy_how", "engine", "zero_stage",
           "settings", "corpus", "rows", "base")


def open_folder(folder: Path, write_packing: Callable[[Path, int], None], n_samples: int, tokenizer: str,
                step: int) -> None:
    """Writes packing.parquet and the tokenizer where they lack; cuts metrics.jsonl back to `step`."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if not (folder / "packing.parquet").exists():
        write_packing(folder / "packing.partial", n_samples)
        os.replace(folder / "packing.partial", folder / "packing.parquet")
    if not (folder / "tokenizer").exists():
        fs, path = fsspec.core.url_to_fs(tokenizer)
        temporary = folder / ".tokenizer.partial"
        temporary.mkdir(exist_ok=True)
        for file in fs.ls(path, detail=False):
            (temporary / file.rsplit("/", 1)[-1]).write_bytes(fs.cat_file(file))
        os.replace(temporary, folder / "tokenizer")
    path = folder / "metrics.jsonl"
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            break                           # cut off by a crash
    path.with_suffix(".partial").write_text("".join(kept))
    os.replace(path.with_suffix(".partial"), path)


def resume(engine, last: Path, about: dict, done: dict, rank: int) -> dict:
    """Loads checkpoint `last`. UserError when it belongs to other settings, another corpus or another world size."""
    was = checkpoint.read(last)
    for part in ("model", "settings", "corpus", "rows", "base"):
        before, now = was.get(part) or {}, about.get(part) or {}
        for key in sorted((before.keys() | now.keys()) - (FREE if part == "settings" else set())):
            if before.get(key) != now.get(key):
                raise UserError(f"{last}: the checkpoint was written with {part}.{key} = {before.get(key)!r} and the "
                                f"run has {now.get(key)!r}: set it back, or name another run")
    if was["engine"] == "deepspeed" and was["world_size"] != about["world_size"]:
        raise UserError(f"{last}: DeepSpeed's state was written by {was['world_size']} ranks and this run has "
                        f"{about['world_size']}: start as many processes, or train with engine = torch")
    engine.load(last / checkpoint.STATE, load_weights(last / checkpoint.WEIGHTS))
    random_state = last / checkpoint.STATE / f"random-{rank}.pt"
    if random_state.exists():
        state = torch.load(random_state, weights_only=True)
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
    return {key: was.get(key, value) for key, value in done.items()}


def save(engine, folder: Path, about: dict, model: ModelConfig, rank: int, keep: int) -> Path:
    """Writes a checkpoint with all ranks, and removes all but the newest `keep` (0 keeps all)."""
    checkpoints = folder / "checkpoints"
    temporary = checkpoints / f".{checkpoint.name(about['step'])}.partial"
    if rank == 0:
        checkpoint.begin(checkpoints, about["step"])
    dist.barrier()
    state = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
    torch.save(state, temporary / checkpoint.STATE / f"random-{rank}.pt")
    weights = engine.weights()
    if rank == 0:
        save_weights(temporary / checkpoint.WEIGHTS, weights, model)
    engine.save(temporary / checkpoint.STATE)
    dist.barrier()
    if rank == 0:
        checkpoint.commit(temporary, about)
        checkpoint.prune(checkpoints, keep)
    dist.barrier()
    return checkpoints / checkpoint.name(about["step"])


def finish(folder: Path, last: Path, world: int, model: ModelConfig, samples: Samples) -> dict:
    """Writes summary.json from checkpoint `last` and the metrics, and returns it."""
    about = json.loads((last / checkpoint.ABOUT).read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = {key: about[key] for key in CARRIED if key in about} | {
        "complete": True, "world_size": world, "parameters": model.parameters,
        "checkpoint": str(last.relative_to(folder)),
        "loss_first": lines[0]["loss"], "loss_last": lines[-1]["loss"], "epochs": about["samples"] / samples.rows,
        "held_out_loss": lines[-1].get("held_out_loss"), "bits_per_byte": lines[-1].get("bits_per_byte"),
        "tokens_per_second": about["tokens"] / sum(line["seconds"] for line in lines),
        "padding": samples.padding, "source_epochs": samples.source_epochs(about["samples"])}
    temporary = folder / ".summary.partial"
    temporary.write_text(json.dumps(summary, indent=1, sort_keys=True))
    os.replace(temporary, folder / "summary.json")
    return summary

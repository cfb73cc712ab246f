"""Small trainings in this process, on the published corpus `mill`."""

import dataclasses
import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from model.config import model_config
from model.corpus import corpus_folder, open_corpus
from model.settings import Pretrain, parse
from model.train import train

SHAPE = {"context": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
SETTINGS = {"steps": 6, "batch": 4, "micro_batch": 2, "engine": "torch", "checkpoint_every": 2, "evaluate_every": 3,
            "evaluate_rows": 4}


def configure(home: Path, folder: Path, shape: dict | None = None, **settings) -> dict:
    corpus = open_corpus(corpus_folder(str(home), "mill"))
    folder.mkdir(parents=True, exist_ok=True)
    config = {"kind": "pretrain", "run": folder.name, "folder": str(folder),
              "corpus": {"folder": corpus.folder, "manifest_sha256": corpus.digest},
              "model": dataclasses.asdict(model_config("tiny", **{"vocab_size": 320} | SHAPE | (shape or {}))),
              "settings": SETTINGS | settings}
    (folder / "config.json").write_text(json.dumps(config))
    return config


def run(config: dict) -> dict:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return train(config, parse(Pretrain, config["settings"]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def poisoned(objective: Callable, micro_steps: int) -> Callable:
    """The objective, but for rank 0's first micro-step of the third step, whose loss is nan, and of the fifth, whose
    gradient is."""
    calls = itertools.count()

    def spoilt(logits: torch.Tensor, *rest) -> tuple[torch.Tensor, torch.Tensor]:
        total, nats = objective(logits, *rest)
        step, micro = divmod(next(calls), micro_steps)
        if step == 2 and micro == 0 and dist.get_rank() == 0:
            return total * torch.nan, nats * torch.nan
        if step == 4 and micro == 0 and dist.get_rank() == 0:
            return total + (0 * logits.sum()).sqrt(), nats             # 0, whose derivative is 0 / 0
        return total, nats

    return spoilt


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

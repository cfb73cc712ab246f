"""Tokens/s, MFU and memory of pretraining, by the training loop itself on random tokens.

    python tests/benchmarks/train_speed.py gpt2-124m --micro-batch 32 --set compile=true                     one H100
    python tests/benchmarks/train_speed.py gpt2-124m --micro-batch 32 --set compile=true engine='"torch"'
    python tests/benchmarks/train_speed.py llama-1b --micro-batch 4 --length 4096 --set compile=true activation_checkpointing=true
    torchrun --nproc-per-node 8 tests/benchmarks/train_speed.py llama-1b --micro-batch 4 --set compile=true zero_stage=2
    python tests/benchmarks/train_speed.py tiny --micro-batch 2 --vocabulary 512 --steps 6                   a CPU

Documents are of log-normal lengths (median 400 tokens) and packed, so attention is masked as in a real run. The last
line is the median of the steps behind the first five. Beside it: nanochat's 41 to 46 % MFU, and torchtitan's 33 to 39 %
for 8B on eight H100 in bf16. MFU counts 6 N + 12 L H Q T FLOPs a token (PaLM, appendix B) of 989 TFLOP/s of an H100.
Ranks are of one machine; the folder that the run gets for itself is removed at the end.
"""  # noqa: E501

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from model.config import ModelConfig, model_config
from model.data import Samples
from model.engine import start
from model.memory import memory
from model.settings import Pretrain, parse
from model.train import Material, train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("preset")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--length", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=50304)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON")
    given = parser.parse_args()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    shape = model_config(given.preset, vocab_size=given.vocabulary)
    batch = given.micro_batch * given.accumulate * world
    settings = parse(Pretrain, {
        "steps": given.steps, "batch": batch, "micro_batch": given.micro_batch, "sequence_length": given.length or None,
        "checkpoint_every": 0, "evaluate_every": 0, **{name: json.loads(value) for name, _, value in
                                                       (one.partition("=") for one in given.set)}})
    rng = np.random.default_rng(0)
    length = given.length or shape.context
    lengths = np.maximum(8, rng.lognormal(6, 1, 3 * given.steps * batch * length // 400 + 10)).astype(np.int64)
    text = rng.integers(0, given.vocabulary - 1, int(lengths.max()))

    def prepare(config: dict, settings: Pretrain, model: ModelConfig, length: int) -> Material:
        samples = Samples(lengths, lambda document: (text[:lengths[document]], None), given.vocabulary - 1, length,
                          "speed", 0)
        return Material(samples, None, None, lambda path, last: path.touch(), str(folder / "tokenizer"), {})

    start(settings)
    named = [tempfile.mkdtemp(prefix="train-speed-") if rank == 0 else ""]      # another each launch: none is resumed
    dist.broadcast_object_list(named)
    folder = Path(named[0])
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    try:
        train({"kind": "pretrain", "run": "speed", "folder": str(folder), "model": dataclasses.asdict(shape),
               "settings": settings.model_dump(mode="json")}, settings, prepare)
        report(given, shape, settings, folder, world)
    finally:
        if rank == 0:
            shutil.rmtree(folder)
    dist.destroy_process_group()


def report(given: argparse.Namespace, shape: ModelConfig, settings: Pretrain, folder: Path, world: int) -> None:
    """The line of rank 0."""
    if dist.get_rank():
        return
    length = settings.sequence_length or shape.context
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][5:]
    speed = float(np.median([line["tokens_per_second"] for line in lines]))
    mfu = [line["mfu"] for line in lines if "mfu" in line]
    expected = memory(shape, given.micro_batch, length, stage=settings.zero_stage, ranks=world,
                      checkpointing=settings.activation_checkpointing, engine=settings.engine)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
    print(f"{given.preset}, {shape.parameters / 1e6:.1f}M, {world} ranks, batch {settings.batch} x {length}: "
          f"{speed:,.0f} tokens/s, MFU {np.median(mfu) if mfu else float('nan'):.1%}, peak {peak:.2f} GiB of predicted "
          f"{expected.total / 2**30:.2f}")


if __name__ == "__main__":
    main()

"""What each rank of test_two_ranks runs: several trainings one after the other, so that PyTorch starts once.

Each configuration may have `goes_on`: the last checkpoint is put aside first, as if the run was killed behind the one
before it.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from model import checkpoint, engine, spikes, train
from model.settings import Pretrain, parse

torch.set_num_threads(1)
spikes.ENOUGH = train.RECENT = 1                # any loss above the one before is a spike
for path in map(Path, sys.argv[1:]):
    config = json.loads(path.read_text())
    settings = parse(Pretrain, config["settings"])
    engine.start(settings)
    if config.pop("goes_on", False):
        last = checkpoint.latest(Path(config["folder"]) / "checkpoints")
        dist.barrier()
        if dist.get_rank() == 0:
            for done in (last, Path(config["folder"]) / "summary.json"):
                aside = done.with_name("." + done.name)
                shutil.rmtree(aside, ignore_errors=True)        # what an earlier one put aside
                done.rename(aside)
        dist.barrier()
    torch._dynamo.reset()
    train.train(config, settings)

"""What each rank of test_two_ranks runs: several trainings one after the other, so that PyTorch starts once.

Each configuration may have `goes_on`: the last checkpoint is put aside first, as if the run was killed behind the one
before it; `poisoned` (see trainings); or `sums`: no training, but gradients are added up (see `sums`).
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from trainings import poisoned

from model import checkpoint, engine, spikes, train
from model.config import ModelConfig
from model.settings import Optimisation, Pretrain, parse
from model.transformer import token_losses

torch.set_num_threads(1)
spikes.ENOUGH = train.RECENT = 1                # any loss above the one before is a spike
plain = train.objective


def sums(config: dict, settings: Optimisation, device: torch.device) -> None:
    """Writes, for each stage in bf16, how far the gradient of eight micro-steps is from eight times that of one.

    All are of the same sequence and a power of two: only what adding them up loses makes a difference.
    """
    import deepspeed
    from deepspeed.utils import safe_get_full_grad
    initialize = deepspeed.initialize

    def watched(model: torch.nn.Module, **rest) -> tuple:
        if rest["config"]["zero_optimization"]["stage"] == 3:          # no rank ever has all of it on its device
            assert all(p.ds_tensor.numel() < p.ds_numel and not p.numel() for p in model.parameters())
        return initialize(model=model, **rest)

    deepspeed.initialize = watched
    def gradient(micro_steps: int, **given) -> torch.Tensor:
        ours = train.make_engine(config, settings.model_copy(update={
            "micro_batch": 1, "batch": micro_steps * dist.get_world_size(), **given}), shape, device)
        for _ in range(micro_steps):
            ours.backward(token_losses(ours.model(tokens), tokens.roll(-1)).mean() / micro_steps)
        full = torch.cat([safe_get_full_grad(p).flatten() for p in ours.engine.module.parameters()])
        ours.drop()
        return full

    shape, found = ModelConfig(**config["model"]), {}
    tokens = torch.arange(16)[None] % 7
    one = gradient(1, zero_stage=2)
    for stage, offload in ((1, "none"), (2, "none"), (3, "none"), (1, "optimizer"), (3, "parameters")):
        eight = gradient(8, zero_stage=stage, offload=offload)
        found[f"{stage} {offload}"] = float((eight - one).norm() / one.norm())
    if dist.get_rank() == 0:
        Path(config["folder"], "sums.json").write_text(json.dumps(found))
    deepspeed.initialize = initialize


for path in map(Path, sys.argv[1:]):
    config = json.loads(path.read_text())
    settings = parse(Pretrain, config["settings"])
    _, world, device = engine.start(settings)
    if config.pop("sums", False):
        sums(config, settings, device)
        continue
    train.objective = plain
    if config.pop("poisoned", False):
        train.objective = poisoned(plain, settings.batch // settings.micro_batch // world)
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

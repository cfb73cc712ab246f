"""AdamW with decay on matrices alone, and learning rates as functions of the step."""

import math

import torch

from model.settings import Optimisation


def param_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: tensors of two or more dimensions decay; norms and biases do not (as in GPT-3's recipe)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    # ZeRO-3 leaves empty tensors behind: the true shape is ds_shape
    matrices = [p for p in trained if len(getattr(p, "ds_shape", p.shape)) >= 2]
    rest = [p for p in trained if len(getattr(p, "ds_shape", p.shape)) < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(model: torch.nn.Module, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) with eps 1e-8; the learning rate is set before every step."""
    groups = param_groups(model, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=1e-8)


def learning_rate(step: int, settings: Optimisation) -> float:
    """Learning rate of `step`, 1 .. settings.steps: linear warm-up, then the schedule down to final_lr of the peak.

    cosine: final + (1 - final) * (1 + cos(pi * progress)) / 2. wsd: constant, then over the last `decay` of the
    steps down by 1 - sqrt(progress) (arXiv:2405.18392).
    """
    peak, total, final = settings.learning_rate, settings.steps, settings.final_lr
    warmup = math.ceil(settings.warmup * total)
    if step <= warmup:
        return peak * step / warmup
    if settings.schedule == "cosine":
        progress = (step - warmup) / max(1, total - warmup)
        return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
    decay = math.ceil(settings.decay * total)
    if settings.schedule == "wsd" and step > total - decay:
        return peak * (final + (1 - final) * (1 - math.sqrt((step - (total - decay)) / decay)))
    return peak

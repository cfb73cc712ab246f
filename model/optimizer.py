"""Which parameters are stepped how: groups of AdamW and Muon."""

import torch

from model.muon import Muon
from model.parametrisation import rate_factor, role
from model.settings import Optimisation
from model.transformer import Transformer


def param_groups(model: Transformer, settings: Optimisation) -> list[dict]:
    """Groups of parameters that are treated alike: {params, weight_decay, factor, muon, momentum, parts}.

    Tensors of two or more dimensions decay; norms and biases do not (as in GPT-3's recipe). `factor` multiplies the
    learning rate (1 but for muP). Under Muon the queries, keys and values of a layer are `parts` of one matrix.
    """
    config = model.config
    m = config.width / settings.base_width if settings.parametrisation == "mup" else 1.0
    heads, keys = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
    groups: dict[tuple, dict] = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        dimensions = len(getattr(p, "ds_shape", p.shape))       # ZeRO-3 leaves empty tensors behind
        kind = role(name, dimensions)
        muon = settings.optimizer == "muon" and kind == "hidden"
        parts = (heads, keys, keys) if muon and name.endswith("qkv.weight") else ()
        factor = rate_factor(kind, m, muon)
        # decay a step is rate x decay: what the factor takes from the one is given to the other
        decay = settings.weight_decay / factor if dimensions >= 2 else 0.0
        group = groups.setdefault((decay, factor, muon, parts), {
            "params": [], "weight_decay": decay, "factor": factor, "muon": muon, "momentum": settings.momentum,
            "parts": list(parts)})
        group["params"].append(p)
    return list(groups.values())


def optimizer(model: Transformer, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) with eps 1e-8, alone or beside Muon; `set_rate` sets the learning rate of a step."""
    kind = Muon if settings.optimizer == "muon" else torch.optim.AdamW
    return kind(param_groups(model, settings), lr=settings.learning_rate, betas=settings.betas, eps=1e-8,
                fused=True)


def set_rate(groups: list[dict], rate: float) -> None:
    """Sets the learning rate of all groups, each by its own factor."""
    for group in groups:
        group["lr"] = rate * group.get("factor", 1.0)

"""Width-stable training (muP): the learning rate that suits a narrow model suits a wide one.

Under the standard parametrisation the best learning rate falls as the width grows, because a step of Adam moves each
weight by as much however many of them a sum has. muP (Tensor Programs V, arXiv:2203.03466, table 8) keeps the size of
every activation, and of its change in a step, as it is at `base_width`. With m = width / base_width:

    part                                   first weights       AdamW's rate    Muon's rate
    hidden matrices (of the blocks)        std / sqrt(m)       / m             / sqrt(m)
    embeddings, head, biases, norms        as they are         as it is        -
    the last norm before the output        gain 1 / m          / m             -

The last line is the paper's factor 1 / m on the logits: it is put into the gain, whose relative steps it leaves as they
are, so the model needs no new multiplier and loads anywhere. Muon's update, matched to the size of AdamW's
(arXiv:2502.16982), is of full rank, so that its spectral norm grows with sqrt(m) and not with m. Decoupled decay is set
free of the rate's factor (arXiv:2309.14322, section 3.2.2). Widths are compared at the same head_width, which is what
the paper's 1 / d attention asks for, and with `hidden` in proportion to `width`.
"""

import math

import torch

from model.transformer import Transformer

EMBEDDINGS = ("embedding.weight", "position.weight", "token_type.weight", "head.weight")


def role(name: str, dimensions: int) -> str:
    """hidden, embedding, last_norm or vector: what the parameter `name` is to the table above."""
    if name in EMBEDDINGS:
        return "embedding"
    if dimensions >= 2:
        return "hidden"
    return "last_norm" if name.startswith(("norm.", "transform_norm.")) else "vector"


def rate_factor(kind: str, m: float, muon: bool = False) -> float:
    """What the learning rate of a parameter of role `kind` is multiplied with."""
    if kind == "hidden":
        return 1 / math.sqrt(m) if muon else 1 / m
    return 1 / m if kind == "last_norm" else 1.0


@torch.no_grad()
def rescale(model: Transformer, base_width: int) -> Transformer:
    """Turns first weights of the standard parametrisation into those of muP, in place."""
    m = model.config.width / base_width
    for name, weight in model.named_parameters():
        kind = role(name, weight.dim())
        if kind in ("hidden", "last_norm"):
            weight.mul_(1 / math.sqrt(m) if kind == "hidden" else 1 / m)
    return model

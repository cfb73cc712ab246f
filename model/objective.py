"""What a step minimises: the likelihood of the targets, and a term that keeps the logits small."""

import torch
from torch import Tensor

from model.transformer import token_losses


def objective(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """The sum over targets of what is minimised (fp32, to be divided by their number), and of the nats alone (float64).

    With `z_loss` each target adds z_loss * log(Z)^2, Z the softmax's normaliser: it keeps logits from drifting off in
    bf16 (PaLM, arXiv:2204.02311, section 5, with 1e-4).
    """
    losses = token_losses(logits, targets)
    total = losses.sum()
    if z_loss:
        log_z = torch.logsumexp(logits.float(), -1)
        total = total + z_loss * (log_z.square() * (targets != -100)).sum()
    return total, losses.detach().sum(dtype=torch.float64)

"""Muon: momentum whose matrix is made orthogonal before it is stepped along (Jordan et al., kellerjordan.github.io/
posts/muon).

Only the matrices inside the blocks are stepped so. Embeddings, head, norms and biases keep AdamW: a row of an embedding
is a vector of its own, and mixing rows of tokens has no meaning.
"""

import torch
import torch.distributed as dist
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)         # slope at 0 is large: small singular values rise fast (the post's choice)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix with the singular vectors of `matrix` (rows, columns) and singular values near 1 (0.7 to 1.2).

    Newton-Schulz: a polynomial a x + b x^3 + c x^5 of the singular values, five times, in bf16 on GPUs.
    """
    a, b, c = QUINTIC
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).type_as(matrix)


class Muon(torch.optim.AdamW):
    """Muon for the groups marked `muon`, AdamW for the others.

    A group marked so has `parts`, the heights that its matrices are cut into (queries, keys and values, which share
    one matrix here, are three), and `momentum`. The update is scaled to the size of AdamW's, 0.2 sqrt(max(rows,
    columns)) (arXiv:2502.16982, section 2.2), so that one learning rate and one decay serve both. Each rank makes its
    share of the matrices orthogonal and sends them to the others.
    """

    @torch.no_grad()
    def step(self, closure=None) -> None:
        every = self.param_groups
        self.param_groups = [group for group in every if not group.get("muon")]
        try:
            super().step(closure)
        finally:
            self.param_groups = every
        work = [(group, p) for group in every if group.get("muon") for p in group["params"] if p.grad is not None]
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates, sent = [], []
        for number, (group, p) in enumerate(work):
            state = self.state[p]
            momentum = state.setdefault("momentum", torch.zeros_like(p))
            state["step"] = state.get("step", torch.zeros(())) + 1          # as AdamW counts, for checkpoints
            momentum.lerp_(p.grad, 1 - group["momentum"])
            updates.append(torch.empty_like(p))
            if number % world == rank:
                ahead = p.grad.lerp(momentum, group["momentum"])            # Nesterov's
                heights = [part for part in group["parts"] if part]
                for piece, goal in zip(ahead.split(heights or len(ahead)), updates[-1].split(heights or len(ahead)),
                                       strict=True):
                    goal.copy_(orthogonal(piece) * (0.2 * max(piece.shape) ** 0.5))
            if world > 1:
                sent.append(dist.broadcast(updates[-1], number % world, async_op=True))
        for waiting in sent:
            waiting.wait()
        for (group, p), update in zip(work, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])

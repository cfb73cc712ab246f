"""Checkpoints that are written while the training goes on.

Saving copies weights and state into the host's memory and returns; a thread of each rank writes its file, syncs and
hashes it, and rank 0 commits when all have. One is under way at the most. Killed in the midst the checkpoint before
it stays the newest: nothing has its name before it is whole.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from model import checkpoint
from model.config import ModelConfig
from model.convert import save_weights
from model.settings import Optimisation
from model.state import hosted
from tasks.errors import UserError


class Saver:
    """Writes the checkpoints of a run with all ranks, and removes old ones as the settings say.

    `last` is the newest whole one, the same on all ranks after `wait`; none is committed before `packing` is written,
    which says what its samples are. What went wrong in the thread is raised by the next call of `look`, `save` or
    `wait`; used as a context it waits at the end, unless ranks may be gone.
    """

    def __init__(self, folder: Path, model: ModelConfig, settings: Optimisation, last: Path | None,
                 packing: Future | None = None):
        self.folder, self.model, self.last, self.packing = folder, model, last, packing
        self.keep, self.background = settings.keep_checkpoints, settings.background_checkpoints
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        # the threads talk among themselves, beside whatever the training sends
        # (patiently: rank 0 may have to write packing of a billion rows first; a rank that is gone is seen at once)
        self.group = dist.new_group(backend="gloo", timeout=timedelta(days=1)) if self.world > 1 else None
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self.running: Future | None = None

    def save(self, engine, about: dict) -> None:
        """Begins a checkpoint of this moment; not in the background it waits for it."""
        self.wait()
        weights = engine.weights()
        weights = {name: hosted(tensor, self.background) for name, tensor in weights.items()} if self.rank == 0 else {}
        self.running = self.pool.submit(self._write, weights, engine.snapshot(self.background), about)
        if not self.background:
            self.wait()

    def look(self) -> None:
        """Raises what went wrong with a checkpoint, or with packing, that ended."""
        if self.packing is not None and self.packing.done():
            self.packing.result()
        if self.running is not None and self.running.done():
            self.wait()

    def wait(self) -> None:
        """Returns when no checkpoint is under way."""
        running, self.running = self.running, None
        if running is not None:
            self.last = running.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None or issubclass(kind, UserError):     # met by all ranks in the same step
            self.wait()
        if kind is None and self.packing is not None:
            self.packing.result()

    def _write(self, weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor], about: dict) -> Path:
        temporary = checkpoint.temporary(self.folder, about["step"])
        if self.rank == 0:
            checkpoint.begin(self.folder, about["step"])
        self._meet()
        mine = f"{checkpoint.STATE}/rank-{self.rank:05d}.safetensors"
        save_file(state, str(temporary / mine))
        digests = self._gather(checkpoint.sync(temporary / mine))
        if self.rank == 0:
            files = {f"{checkpoint.STATE}/rank-{rank:05d}.safetensors": digest for rank, digest in enumerate(digests)}
            save_weights(temporary / checkpoint.WEIGHTS, weights, self.model)
            if self.packing is not None:
                self.packing.result()
            checkpoint.commit(temporary, about, files)
            checkpoint.prune(self.folder, self.keep)
        self._meet()
        return self.folder / checkpoint.name(about["step"])

    def _meet(self) -> None:
        if self.group is not None:
            dist.barrier(self.group)

    def _gather(self, digest: str) -> list[str]:
        """The sha256 of every rank's file."""
        if self.group is None:
            return [digest]
        mine = torch.frombuffer(bytearray(bytes.fromhex(digest)), dtype=torch.uint8)
        every = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(every, mine, self.group)
        return [bytes(each.tolist()).hex() for each in every]

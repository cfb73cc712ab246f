"""What an optimiser remembers, on disk: pieces that any number of ranks under any ZeRO stage can put together.

    state/rank-00003.safetensors     one for each rank that wrote; 1-dimensional tensors named PARAMETER:KIND:FIRST,
                                     values FIRST, FIRST + 1 ... of the flattened parameter
    KIND    exp_avg and exp_avg_sq (AdamW), momentum (Muon), master: the fp32 weights, where those of
            model.safetensors have fewer bits
    :updates:0 and :random:0         updates so far, where the rank steps anything; its random state

ZeRO cuts flattened parameters at places that depend on the stage and the number of ranks (arXiv:1910.02054). What is
stored is therefore named by where it belongs, not by who had it, and a rank reads the ranges that it needs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tasks.errors import UserError

MASTER = "master"


@dataclass(frozen=True, eq=False)
class Piece:
    """`length` values of a parameter, from value `first` on, that this rank's optimiser steps.

    They lie in `held`, the tensor that the optimiser knows, from value `at` on: the parameter itself, or a buffer that
    many were flattened into.
    """

    name: str
    first: int
    length: int
    held: Tensor
    at: int

    def of(self, tensor: Tensor) -> Tensor:
        """The piece in a tensor that is laid out as `held`."""
        return tensor.detach().view(-1)[self.at:self.at + self.length]


def hosted(tensor: Tensor, copy: bool) -> Tensor:
    """The tensor in the host's memory, contiguous; with `copy` in memory of its own."""
    tensor = tensor.detach()
    return tensor.clone(memory_format=torch.contiguous_format) if copy and tensor.device.type == "cpu" \
        else tensor.cpu().contiguous()


def snapshot(pieces: Iterable[Piece], optimizer: torch.optim.Optimizer, with_master: bool,
             copy: bool) -> dict[str, Tensor]:
    """The tensors of a rank's file, in the host's memory. `copy`: training may go on while they are written."""
    found, updates = {}, -1.0
    for piece in pieces:
        if with_master:
            found[f"{piece.name}:{MASTER}:{piece.first}"] = hosted(piece.of(piece.held), copy)
        updates = max(updates, 0.0)
        for kind, value in optimizer.state.get(piece.held, {}).items():
            if kind == "step":
                updates = max(updates, float(value))
            else:
                found[f"{piece.name}:{kind}:{piece.first}"] = hosted(piece.of(value), copy)
    random = {":random:0": torch.get_rng_state()}
    if torch.cuda.is_initialized():             # not where a machine with a GPU trains on its CPU
        random[":random-cuda:0"] = torch.cuda.get_rng_state()
    counted = {":updates:0": torch.tensor([updates], dtype=torch.float64)} if updates >= 0 else {}
    return found | random | counted


def restore(pieces: Iterable[Piece], optimizer: torch.optim.Optimizer, stored: "Stored", copies: bool = True) -> None:
    """Puts what is stored into the optimiser's state and into the fp32 weights that it steps: `copies` of the model's,
    or else those themselves, which are there already but for what bf16 left out."""
    pieces = list(pieces)
    for piece in pieces:
        optimizer.state.pop(piece.held, None)
    updates = stored.updates()
    for piece in pieces:
        kinds = stored.kinds(piece.name)
        master = piece.of(piece.held)
        if MASTER in kinds:
            stored.read(piece.name, MASTER, piece.first, master)
        elif copies:
            master.copy_(stored.weight(piece.name, piece.first, piece.length))
        if updates:
            state = optimizer.state[piece.held]
            if not state:
                state["step"] = torch.tensor(updates, dtype=torch.float32, device=piece.held.device)
            for kind in sorted(kinds - {MASTER}):
                if kind not in state:
                    state[kind] = torch.zeros_like(piece.held, requires_grad=False)
                stored.read(piece.name, kind, piece.first, piece.of(state[kind]))


def restore_random(stored: "Stored") -> None:
    """Puts back the random state, where as many ranks go on as there were; others keep what their seed gave them."""
    if not stored.same_ranks:
        return
    torch.set_rng_state(stored.own("random"))
    cuda = stored.own("random-cuda")
    if cuda is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(cuda)


class Stored:
    """The weights and the state of a checkpoint, read by ranges. UserError where something is not there.

    Rank `rank` of `world` looks first into the files of those who had about its share, so that with an unchanged
    layout it opens its own alone.
    """

    def __init__(self, weights: Path, folder: Path, rank: int, world: int):
        self.path, self.folder = weights, folder
        paths = sorted(folder.glob("rank-*.safetensors"))
        if not paths:
            other = next((path.name for path in sorted(folder.rglob("*")) if path.is_file()), "nothing")
            raise UserError(f"{folder}: holds {other} and no rank-*.safetensors to go on from; other forms, pickles "
                            "among them, are not read: a pickle can run code when it is opened. Go on from another "
                            "checkpoint, or train anew under another name")
        self.same_ranks = len(paths) == world
        middle = rank * len(paths) // world
        self.waiting = [paths[i] for i in sorted(range(len(paths)), key=lambda i: abs(i - middle))]
        self.files: list = []
        self.index: dict[str, dict[str, list[tuple[int, int, int]]]] = {}   # name -> kind -> [(first, end, file)]
        self.weights = _open(weights)

    def _open_next(self) -> bool:
        if not self.waiting:
            return False
        file = _open(self.waiting.pop(0))
        for key in file.keys():                             # noqa: SIM118 (no mapping)
            name, kind, first = key.rsplit(":", 2)
            end = int(first) + file.get_slice(key).get_shape()[0]
            self.index.setdefault(name, {}).setdefault(kind, []).append((int(first), end, len(self.files)))
        self.files.append(file)
        return True

    def own(self, kind: str) -> Tensor | None:
        """A tensor of the first file that belongs to no parameter."""
        if not self.files:
            self._open_next()
        return self.files[0].get_tensor(f":{kind}:0") if f":{kind}:0" in self.files[0].keys() else None  # noqa: SIM118

    def updates(self) -> float:
        """How many updates the optimiser has made."""
        while "updates" not in self.index.get("", {}):
            if not self._open_next():
                raise UserError(f"{self.folder}: no file counts the updates: the checkpoint is corrupt")
        _, _, number = self.index[""]["updates"][0]
        return float(self.files[number].get_tensor(":updates:0"))

    def kinds(self, name: str) -> set[str]:
        """What is stored of a parameter: the same in each file that has a piece of it."""
        while name not in self.index and self._open_next():
            pass
        return set(self.index.get(name, ()))

    def read(self, name: str, kind: str, first: int, out: Tensor) -> None:
        """Fills the 1-dimensional `out` with values first, first + 1 ... of a parameter."""
        at, end = first, first + len(out)
        while at < end:
            pieces = self.index.get(name, {}).get(kind, ())
            found = next(((begin, stop, number) for begin, stop, number in pieces if begin <= at < stop), None)
            if found is not None:
                begin, stop, number = found
                stop = min(stop, end)
                out[at - first:stop - first] = self.files[number].get_slice(f"{name}:{kind}:{begin}")[
                    at - begin:stop - begin].to(out.device)
                at = stop
            elif not self._open_next():
                raise UserError(f"{self.folder}: no file holds value {at} of {kind} of {name}: a rank's file is "
                                "missing, or the model was another; go on from the checkpoint before it")

    def weight(self, name: str, first: int, length: int) -> Tensor:
        """Values first, first + 1 ... of a flattened tensor of model.safetensors."""
        rows = self.weights.get_slice(name)
        width = math.prod(rows.get_shape()[1:])
        begin, end = first // width, -(-(first + length) // width)
        return rows[begin:end].reshape(-1)[first - begin * width:][:length]


def _open(path: Path):
    try:
        return safe_open(str(path), "pt")
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}): the checkpoint is corrupt") from None

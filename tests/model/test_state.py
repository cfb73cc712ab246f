"""Optimiser state cut in one way and read in another, as ZeRO's stages and other numbers of ranks do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from model import engine, state
from model.config import model_config
from model.optimizer import optimizer as make_optimizer
from model.optimizer import param_groups
from model.settings import Optimisation
from model.transformer import Transformer
from tasks.errors import UserError

SHAPES = {"embedding.weight": (5, 3), "norm.weight": (3,), "blocks.0.qkv.weight": (2, 4)}
TOTAL = 15 + 3 + 8


def cut(flat: torch.Tensor, ends: list[int]) -> list[list[state.Piece]]:
    """Pieces of each rank when the parameters, laid behind one another in `flat`, are parted at `ends`."""
    ranks, begin = [], 0
    for end in [*ends, TOTAL]:
        held = torch.nn.Parameter(flat[begin:end].clone())
        pieces, at = [], 0
        for name, shape in SHAPES.items():
            size = int(torch.tensor(shape).prod())
            first, last = max(begin, at), min(end, at + size)
            if first < last:
                pieces.append(state.Piece(name, first - at, last - first, held, first - begin))
            at += size
        ranks.append(pieces)
        begin = end
    return ranks


def stepped(ranks: list[list[state.Piece]], values: torch.Tensor) -> list[torch.optim.AdamW]:
    """An optimiser a rank that has made two updates."""
    optimizers = []
    for pieces in ranks:
        held = pieces[0].held if pieces else torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.AdamW([held], lr=0.1, fused=True)
        for number in range(2) if pieces else ():
            held.grad = values[:len(held)] + number
            optimizer.step()
        optimizers.append(optimizer)
    return optimizers


def whole(ranks: list[list[state.Piece]], optimizers: list[torch.optim.AdamW]) -> dict[tuple[str, str], torch.Tensor]:
    found = {}
    for pieces, optimizer in zip(ranks, optimizers, strict=True):
        for piece in pieces:
            for kind in ("master", "exp_avg", "exp_avg_sq"):
                size = int(torch.tensor(SHAPES[piece.name]).prod())
                tensor = found.setdefault((piece.name, kind), torch.full((size,), torch.nan))
                source = piece.held if kind == "master" else optimizer.state[piece.held][kind]
                tensor[piece.first:piece.first + piece.length] = piece.of(source)
    return found


CUTS = st.lists(st.integers(0, TOTAL), max_size=4).map(sorted)


@given(before=CUTS, after=CUTS, with_master=st.booleans())
def test_whatever_ranks_wrote_others_put_together(tmp_path_factory, before, after, with_master):
    folder, values = tmp_path_factory.mktemp("state"), torch.linspace(-1, 1, TOTAL)
    ranks = cut(values, before)
    optimizers = stepped(ranks, values)
    told = whole(ranks, optimizers)
    for rank, (pieces, optimizer) in enumerate(zip(ranks, optimizers, strict=True)):
        save_file(state.snapshot(pieces, optimizer, with_master, True), folder / f"rank-{rank:05d}.safetensors")
    weights = {name: told[name, "master"].view(shape) for name, shape in SHAPES.items()}
    if with_master:                                 # fewer bits: not what is gone on with
        weights = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors")

    others = cut(torch.zeros(TOTAL), after)
    empty = [torch.optim.AdamW([pieces[0].held if pieces else torch.zeros(1, requires_grad=True)]) for pieces in others]
    for rank, (pieces, optimizer) in enumerate(zip(others, empty, strict=True)):
        stored = state.Stored(folder / "model.safetensors", folder, rank, len(others))
        state.restore(pieces, optimizer, stored)
        assert all(optimizer.state[piece.held]["step"] == 2 for piece in pieces)
        if before == after and pieces:
            assert len(stored.files) == 1           # no rank reads what others wrote
    for key, tensor in whole(others, empty).items():
        assert torch.equal(tensor, told[key]), key


def test_ranks_that_keep_matrices_of_muon_alone_count_the_updates_too(tmp_path):
    """Each rank goes on from what its own file counts: one that counted less would drop its momentum."""
    settings, ranks = Optimisation(optimizer="muon"), 4
    torch.manual_seed(0)
    model = Transformer(model_config("tiny", vocab_size=8, n_layers=2)).initialise(0)
    steps = make_optimizer(model, settings)
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.randn(p.shape)
        steps.step()
    muon = {id(p) for group in param_groups(model, settings) if group["muon"] for p in group["params"]}
    shares = [engine.whole(model)[rank::ranks] for rank in range(ranks)]
    assert any(all(id(piece.held) in muon for piece in share) for share in shares)
    for rank, share in enumerate(shares):
        save_file(state.snapshot(share, steps, False, True), tmp_path / f"rank-{rank:05d}.safetensors")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for rank in range(ranks):
        other, stored = Transformer(model.config), state.Stored(tmp_path / "model.safetensors", tmp_path, rank, ranks)
        restored = make_optimizer(other, settings)
        state.restore(engine.whole(other), restored, stored)
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(ours, theirs) and steps.state[ours].keys() == restored.state[theirs].keys()
            assert all(torch.equal(value, restored.state[theirs][kind]) for kind, value in steps.state[ours].items())


def test_what_is_missing_or_in_another_form_is_said(tmp_path):
    weights = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in SHAPES.items()}, weights)
    (tmp_path / "state").mkdir()
    with pytest.raises(UserError, match="holds nothing and no rank"):
        state.Stored(weights, tmp_path / "state", 0, 1)
    (tmp_path / "state" / "optimizer.pt").write_bytes(b"pickle")
    with pytest.raises(UserError, match="holds optimizer.pt .*a pickle can run code when it is opened"):
        state.Stored(weights, tmp_path / "state", 0, 1)

    ranks = cut(torch.zeros(TOTAL), [7, 20])
    for rank, (pieces, optimizer) in enumerate(zip(ranks, stepped(ranks, torch.ones(TOTAL)), strict=True)):
        save_file(state.snapshot(pieces, optimizer, False, False), tmp_path / "state" / f"rank-{rank:05d}.safetensors")
    (tmp_path / "state" / "rank-00001.safetensors").unlink()
    pieces, = cut(torch.zeros(TOTAL), [])
    with pytest.raises(UserError, match="no file holds value 7 of exp_avg of embedding.weight: a rank's file"):
        state.restore(pieces, torch.optim.AdamW([pieces[0].held]), state.Stored(weights, tmp_path / "state", 0, 1))
    (tmp_path / "state" / "rank-00000.safetensors").write_bytes(b"\x80\x04 no safetensors")
    with pytest.raises(UserError, match="rank-00000.safetensors: not a whole safetensors file"):
        state.Stored(weights, tmp_path / "state", 0, 1).own("updates")

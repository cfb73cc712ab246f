"""Where a run goes on from: what ranks agree on, and what counts as the same run."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model import checkpoint, run_folder, verdict
from model.config import model_config
from model.resuming import differing
from model.settings import Finetune, Pretrain
from tasks.errors import UserError


def write(folder: Path, step: int) -> None:
    (checkpoint.begin(folder, step) / checkpoint.WEIGHTS).write_bytes(b"weights")
    checkpoint.commit(checkpoint.temporary(folder, step), {"step": step})


class Ranks:
    """torch.distributed as rank 0 and then another rank of two see it, each when its turn comes."""

    ReduceOp = SimpleNamespace(MAX=None)

    def __init__(self):
        self.rank, self.said, self.most = 0, None, 0

    def get_rank(self) -> int:
        return self.rank

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        if self.rank == source:
            self.said = tensor.clone()
        tensor.copy_(self.said)

    def all_reduce(self, tensor: torch.Tensor, op) -> None:
        self.most = max(self.most, int(tensor))         # of all that were ever given: who votes later sees them
        tensor.fill_(self.most)


@pytest.fixture
def ranks(monkeypatch) -> Ranks:
    one = Ranks()
    monkeypatch.setattr(run_folder, "dist", one)
    monkeypatch.setattr(verdict, "LATE", 0.3)
    return one


def meet(folder: Path) -> Path | None:
    return run_folder.meet(folder, torch.device("cpu"))


def test_all_ranks_go_on_from_the_checkpoint_that_rank_0_sees(ranks, tmp_path, monkeypatch):
    assert meet(tmp_path) is None
    ranks.rank = 1
    assert meet(tmp_path) is None
    for step in (2, 4):
        write(tmp_path / "checkpoints", step)
    ranks.rank = 0
    last = meet(tmp_path)
    assert checkpoint.step(last) == 4
    ranks.rank = 1
    monkeypatch.setattr(checkpoint, "latest", lambda _: tmp_path / "checkpoints" / checkpoint.name(2))  # an old listing
    assert meet(tmp_path) == last
    last.rename(tmp_path / "hidden")
    with pytest.raises(UserError, match="rank 1 on .* does not see what rank 0 writes there"):
        meet(tmp_path)


def test_a_data_root_that_is_not_shared_is_said_at_the_start(ranks, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        meet(tmp_path / name)                   # both have been trained in before
    ranks.rank = 0
    meet(tmp_path / "one")
    ranks.rank = 1
    with pytest.raises(UserError, match="all machines of a run share one data root; set GRISTMILL_HOME"):
        meet(tmp_path / "other")
    ranks.rank = 0
    with pytest.raises(UserError, match="one: rank 1 does not see what rank 0 writes there"):
        meet(tmp_path / "one")


def test_a_packing_that_a_power_loss_cut_short_is_written_anew(tmp_path):
    written = []

    def write_packing(path: Path, n_samples: int) -> None:
        written.append(n_samples)
        pq.write_table(pa.table({"sample_id": range(n_samples)}), path)

    def opened() -> list[int]:
        written.clear()
        run_folder.open_folder(tmp_path, write_packing, 9, str(tmp_path), 0).result()
        return list(written)

    (tmp_path / "tokenizer").mkdir()
    assert opened() == [9] and opened() == []
    packing = tmp_path / "packing.parquet"
    whole = packing.read_bytes()
    for cut in (b"", whole[:-20], bytes(len(whole)), whole[:-90] + bytes(82) + whole[-8:]):
        packing.write_bytes(cut)
        assert opened() == [9] and packing.read_bytes() == whole


def test_what_a_later_version_adds_is_no_difference():
    shape = dataclasses.asdict(model_config("tiny", vocab_size=320))
    for kind, settings in (("pretrain", Pretrain()), ("finetune", Finetune())):
        now = settings.model_dump(mode="json")
        before = {key: value for key, value in now.items() if key not in ("z_loss", "momentum", "evaluate_by")}
        assert not differing("settings", kind, before, now)
        assert differing("settings", kind, before, now | {"z_loss": 0.5}) == {"z_loss": (0.0, 0.5)}
        assert differing("settings", kind, before | {"gone": 1}, now) == {"gone": (1, None)}
    assert not differing("settings", "pretrain", now, now | {"evaluate_every": 7})
    before = {key: value for key, value in shape.items() if key not in ("bias", "head_width")}
    assert not differing("model", "pretrain", before, shape)
    assert differing("model", "pretrain", before, shape | {"bias": True}) == {"bias": (False, True)}
    assert differing("corpus", "pretrain", None, {"name": "mill"}) and not differing("base", "pretrain", None, None)
    assert not differing("corpus", "pretrain", {"folder": "/a", "version": 1}, {"folder": "/b", "version": 1})

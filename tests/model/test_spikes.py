"""Batches left out, weights taken back, and what is written down of it."""

import json
import math
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainings import configure, losses, run

from model import checkpoint, engine, spikes
from tasks.errors import UserError


def test_what_is_a_spike():
    recent = [3.0, 3.2] * 20                            # mean 3.1, deviation 0.1
    assert spikes.complaint(3.5, recent, 5) == "" and "above the 3.1000" in spikes.complaint(3.7, recent, 5)
    assert spikes.complaint(9.0, recent[:10], 5) == ""  # too few to judge by
    assert spikes.complaint(9.0, recent, 0) == "" and spikes.complaint(math.nan, [], 0) == "the loss is nan"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=12))
def test_ranges_hold_what_was_put_in_and_nothing_else(parts):
    ranges = []
    for first, more in parts:
        ranges = spikes.add_range(ranges, first, first + more)
    assert {n for first, last in ranges for n in range(first, last + 1)} == \
        {n for first, more in parts for n in range(first, first + more + 1)}
    assert all(a[1] + 1 < b[0] for a, b in zip(ranges, ranges[1:], strict=False))


@pytest.fixture
def spoil(monkeypatch):
    """Makes the loss of the batches of some steps not a number."""
    def at(*steps: int) -> None:
        from model import train
        plain, call = train.objective, [0]

        def objective(*arguments):
            call[0] += 1
            loss, nats = plain(*arguments)
            return (loss, nats * math.nan) if call[0] in steps else (loss, nats)

        monkeypatch.setattr(train, "objective", objective)
    return at


def test_a_bad_batch_is_left_out_and_written_down_with_its_documents(mill, tmp_path, spoil):
    spoil(3)
    folder = tmp_path / "run"
    summary = run(configure(mill, folder, micro_batch=4, spike_deviations=50))
    lines = [json.loads(line, parse_constant=pytest.fail) for line in       # NaN is no JSON to other readers
             (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "left_out" in line] == [3]
    assert lines[2]["loss"] is lines[2]["grad_norm"] is None and summary["loss_last"] == lines[-1]["loss"]
    noted = [json.loads(line) for line in (folder / "spikes.jsonl").read_text().splitlines()]
    packing = pq.read_table(folder / "packing.parquet").to_pylist()
    documents = {str(row["doc_id"]) for row in packing if 8 <= row["sample_id"] < 12}
    assert [(line["step"], line["samples"], line["back_to"]) for line in noted] == [(3, [8, 11], None)]
    assert set(noted[0]["documents"]) == documents and noted[0]["reason"] == "the loss is nan"
    about = checkpoint.read(checkpoint.latest(folder / "checkpoints"))
    assert about["skipped"] == [[8, 11]]
    used = sum(row["length"] for row in packing if not 8 <= row["sample_id"] < 12)
    assert summary["tokens"] == used and math.isfinite(summary["loss_last"])


def test_after_several_in_a_row_the_run_goes_on_from_its_last_checkpoint(mill, tmp_path, spoil):
    spoil(5, 6)                                         # behind the checkpoint of step 4
    folder = tmp_path / "run"
    run(configure(mill, folder, micro_batch=4, spike_deviations=50, spike_rewind=2, steps=8, checkpoint_every=4))
    noted = [json.loads(line)["back_to"] for line in (folder / "spikes.jsonl").read_text().splitlines()]
    about = checkpoint.read(checkpoint.latest(folder / "checkpoints"))
    assert noted == [None, 4] and about["skipped"] == [[16, 23]] and about["back_to"] == [4]
    assert len(losses(folder)) == 8 and math.isfinite(losses(folder)[-1])


def test_a_batch_left_out_is_written_down_once_when_its_step_is_taken_again(mill, tmp_path, spoil):
    spoil(1, 6)                                         # the second behind the last checkpoint but one
    folder = tmp_path / "run"
    config = configure(mill, folder, micro_batch=4, spike_deviations=50, steps=6, checkpoint_every=4)
    assert run(config)["loss_first"] > 0
    before = (folder / "spikes.jsonl").read_text()
    assert [json.loads(line)["step"] for line in before.splitlines()] == [1, 6]
    last = json.loads((folder / "checkpoints/step-00000006/checkpoint.json").read_text(), parse_constant=pytest.fail)
    assert last["loss"] is None
    os.rename(folder / "checkpoints/step-00000006", tmp_path / "gone")
    spoil(2)                                            # step 6 again
    run(config)
    assert (folder / "spikes.jsonl").read_text() == before


def test_nothing_to_go_back_to_is_said(mill, tmp_path, spoil):
    spoil(1, 2)
    with pytest.raises(UserError, match="the loss is nan at step 2 .*number 2 in a row, and there is no checkpoint"):
        run(configure(mill, tmp_path / "run", micro_batch=4, spike_deviations=50, spike_rewind=2))


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_are(mill):
    from model.config import model_config
    from model.settings import Optimisation
    from model.transformer import Transformer
    engine.start(Optimisation(device="cpu"))
    model = Transformer(model_config("tiny", vocab_size=32, n_layers=1)).initialise(0)
    plain = engine.Torch(model, Optimisation(), torch.device("cpu"))
    before = [p.clone() for p in model.parameters()]
    plain.backward(model(torch.zeros(1, 4, dtype=torch.int64)).sum() * math.inf)
    assert not math.isfinite(plain.step(0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters()) and np.isfinite(float(before[0].sum()))

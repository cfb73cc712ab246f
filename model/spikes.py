"""Batches whose loss jumps: which they are, and what is written down of them.

PaLM (arXiv:2204.02311, section 5.1) met some twenty spikes, went back about 100 steps each time and left out the
batches around the spike; the same batches later did no harm. Here a batch that looks bad is not stepped on, and after
several in a row the run takes back the weights of its last checkpoint and goes on behind them.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RECENT, ENOUGH = 128, 16                # losses that a loss is compared with, and how many that takes at the least


def complaint(loss: float, recent: Sequence[float], deviations: float) -> str:
    """Why a batch of this loss is not stepped on, after steps with `recent` losses; empty when it is.

    The loss must be finite, and for `deviations` above 0 no more than so many standard deviations above the mean of
    the recent ones.
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not deviations or len(recent) < ENOUGH:
        return ""
    mean, deviation = float(np.mean(recent)), float(np.std(recent))
    if loss <= mean + deviations * deviation:
        return ""
    return (f"the loss is {loss:.4f}, above the {mean:.4f} of the last {len(recent)} steps by more than {deviations:g} "
            f"standard deviations of {deviation:.4f}")


def add_range(ranges: list[list[int]], first: int, last: int) -> list[list[int]]:
    """Sorted disjoint [first, last] ranges of samples with one more in them."""
    merged: list[list[int]] = []
    for begin, end in sorted([*ranges, [first, last]]):
        if merged and begin <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return merged


def write_down(folder: Path, step: int, samples: range, reason: str, documents: Sequence[str],
               back: int | None) -> None:
    """A line of spikes.jsonl: the step, its samples and documents, why, and the step whose weights were taken back."""
    with open(folder / "spikes.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "samples": [samples[0], samples[-1]], "reason": reason,
                               "documents": list(documents), "back_to": back}) + "\n")

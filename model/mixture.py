"""A mixture of sources: each sample comes from one source, in the shares that were asked for.

The shares are of tokens: a source whose samples hold more padding gets so many more of them. Each source keeps its own
endless order, in which each of its tokens comes once an epoch; small sources with large weights just begin their next
epoch earlier. Sample s of the run is a pure function of (corpus version, length, seed, weights), as without a mixture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from model.corpus import Corpus
from model.data import BLOCK, Batch, Samples, corpus_samples, empty_batch
from model.packing import hashes, plan_key
from tasks.errors import UserError

PERIOD = 1 << 16        # samples that hold the shares exactly: to one sample in so many


@dataclass
class Mixture:
    """Stands in for Samples. `shares` (sum 1) are those of `parts` in the tokens. The documents are those of the parts,
    one part behind the other."""

    names: list[str]
    parts: list[Samples]
    shares: list[float]

    def __post_init__(self):
        first = self.parts[0]
        self.eot, self.length, self.digest, self.seed = first.eot, first.length, first.digest, first.seed
        self.lengths = np.concatenate([part.lengths for part in self.parts])
        self.index = np.concatenate([part.index for part in self.parts])
        self.rows = sum(part.rows for part in self.parts)       # as many samples are called an epoch
        self.first = np.cumsum([0] + [len(part.lengths) for part in self.parts])
        exact = np.array([share / (1 - part.padding) for share, part in zip(self.shares, self.parts, strict=True)])
        exact *= PERIOD / exact.sum()
        self._counts = np.floor(exact).astype(np.int64)         # largest remainders
        self._counts[np.argsort(self._counts - exact, kind="stable")[:PERIOD - self._counts.sum()]] += 1
        self._period = lru_cache(4)(self._period)

    @property
    def padding(self) -> float:
        """The fraction of the slots that hold no token."""
        return sum(count / PERIOD * part.padding for count, part in zip(self._counts, self.parts, strict=True))

    def source_epochs(self, samples: int) -> dict[str, float]:
        """How often the first `samples` samples go through each source."""
        return {name: float(count) / PERIOD * samples / part.rows
                for name, count, part in zip(self.names, self._counts, self.parts, strict=True)}

    def _period(self, period: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each sample of a period: its part, and its number among the samples of that part.

        The k samples of a part lie one in each k-th of the period, at a random place of it: any stretch of samples has
        the shares to a sample or two of each part.
        """
        part = np.repeat(np.arange(len(self.parts)), self._counts)
        number = np.arange(PERIOD) - np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        jitter = hashes(PERIOD, plan_key(self.digest, self.length, self.seed, "mixture", period)) * 2.0**-64
        order = np.argsort((number + jitter) / self._counts[part], kind="stable")
        return part[order], number[order] + period * self._counts[part[order]]

    def place(self, sample: int) -> tuple[int, int]:
        """The part that a sample comes from, and the sample's number there."""
        period, slot = divmod(int(sample), PERIOD)
        part, number = self._period(period)
        return int(part[slot]), int(number[slot])

    def segments(self, sample: int) -> list[tuple[int, int, int]]:
        part, number = self.place(sample)
        return [(document + int(self.first[part]), *rest) for document, *rest in self.parts[part].segments(number)]

    def _parts(self, first: int, last: int) -> Iterator[tuple[int, np.ndarray, range]]:
        """The samples from `first` to before `last` by the parts they come from: the part, which samples are its own,
        and their numbers there, which follow each other. Periods come one behind the other."""
        while first < last:
            period, slot = divmod(first, PERIOD)
            end = min(PERIOD, slot + last - first)
            part, number = (column[slot:end] for column in self._period(period))
            for which in np.unique(part).tolist():
                here = np.flatnonzero(part == which)
                yield which, first + here, range(int(number[here[0]]), int(number[here[-1]]) + 1)
            first += end - slot

    def pieces(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """As Samples.pieces."""
        found = [(np.zeros(0, np.int64),) * 4]
        for which, here, numbers in self._parts(first, last):
            sample, document, *rest = self.parts[which].pieces(numbers.start, numbers.stop)
            found.append((here[sample - numbers.start], document + self.first[which], *rest))
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return tuple(column[order] for column in columns)

    def filled(self, samples: range) -> np.ndarray:
        """As Samples.filled."""
        out = np.zeros(len(samples), np.int64)
        for which, here, numbers in self._parts(samples.start, samples.stop):
            out[here - samples.start] = self.parts[which].filled(numbers)
        return out

    def n_targets(self, samples: range) -> int:
        return int(self.filled(samples).sum())

    def batch(self, samples) -> Batch:
        """As Samples.batch."""
        batch = empty_batch(len(samples), self.length)
        for i, sample in enumerate(samples):
            part, number = self.place(sample) if sample >= 0 else (0, -1)
            self.parts[part].fill(batch, i, number, int(self.first[part]))
        return batch


def mixed_samples(corpus: Corpus, chosen: np.ndarray, length: int, seed: int, weights: dict[str, float],
                  block_tokens: int = BLOCK) -> Samples | Mixture:
    """Samples of the `chosen` documents with the sources that `weights` names in these proportions, and no others; of
    all as they are where it names none. The sources share `block_tokens`.

    UserError for a weight that is too small or names no source, and for a source with less than one sequence.
    """
    if not weights:
        return corpus_samples(corpus, chosen, length, seed, block_tokens)
    source = corpus.documents["source"].combine_chunks()
    names, codes = source.dictionary.to_pylist(), source.indices.to_numpy()[chosen]
    lengths = corpus.documents["n_tokens"].to_numpy()[chosen]
    total, parts = sum(weights.values()), []
    for name, weight in weights.items():
        if not weight > 0 or weight / total * PERIOD < 1:
            raise UserError(f"setting mixture.{name}: {weight:g} of {total:g} is too small a share; "
                            "raise it, or leave the source out")
        mine = np.flatnonzero(codes == names.index(name)) if name in names else []
        n_tokens = int(lengths[mine].sum()) if name in names else 0
        if name not in names or n_tokens < length:
            there = ", ".join(sorted(set(names)))
            raise UserError(f"setting mixture.{name}: corpus {corpus.label} has {n_tokens:,} tokens of that source to "
                            f"train on, fewer than one sequence of {length}; its sources are {there}")
        parts.append(corpus_samples(corpus, chosen[mine], length, seed, max(1, block_tokens // len(weights))))
    return Mixture(list(weights), parts, [weight / total for weight in weights.values()])

"""Packs documents into training rows and cuts batches from them.

A row is `length` slots. A document of n tokens t0 .. t(n-1), the last of them end-of-text, takes n slots: the model
reads (eot, t0 .. t(n-2)) and predicts (t0 .. t(n-1)), so each token of the corpus is a target exactly once an
epoch, also where a long document is split over rows. Rows never share attention between documents.

The plan depends on (manifest sha256, length, seed, epoch) alone. Sample s of the run is row s % rows of epoch
s // rows; which rank computes it is decided by the trainer, so the order survives a change of world size.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from model.corpus import Corpus, mix, tokens

PACKING = pa.schema([("sample_id", pa.int64()), ("segment", pa.int32()), ("shard", pa.int32()), ("row", pa.int32()),
                     ("offset", pa.int32()), ("length", pa.int32()), ("doc_id", pa.uuid())])


@dataclass(frozen=True)
class Plan:
    """Segments of one epoch, ordered by row. Segment i is tokens [offset, offset + length) of document `document`."""

    starts: np.ndarray                  # int64 (rows + 1): the segments of row r are starts[r] .. starts[r + 1]
    document: np.ndarray                # int64, index into the lengths that were packed
    offset: np.ndarray                  # int64
    length: np.ndarray                  # int64

    @property
    def rows(self) -> int:
        return len(self.starts) - 1

    def totals(self) -> np.ndarray:
        """Targets in each row (int64): the rest is padding."""
        return np.add.reduceat(self.length, self.starts[:-1]) if self.rows else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """Arrays (rows, length), int64. `segments` holds document indices: a row has at most one piece of a document.

    Padding has input eot, target -100, segment -1.
    """

    inputs: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


def plan_key(digest: str, length: int, seed: int, epoch: int) -> int:
    """64 bits that decide every random choice of an epoch's plan."""
    return int.from_bytes(blake2b(f"{digest} {length} {seed} {epoch}".encode(), digest_size=8).digest(), "big")


def pack(lengths: np.ndarray, capacity: int, key: int) -> Plan:
    """Best-fit-decreasing packing of documents of `lengths` tokens into rows of `capacity` (arXiv:2404.10830).

    Whole where they fit; longer ones are cut into full rows and a rest that is packed like a document. Pieces of
    equal length are interchangeable, so the packing is done on the histogram of lengths, in O(capacity log capacity)
    whatever the number of documents; then the pieces, shuffled by `key`, are dealt to the places, and the rows are
    shuffled. Every token is in exactly one segment.
    """
    lengths = np.asarray(lengths, np.int64)
    pieces = -(-lengths // capacity)
    document = np.repeat(np.arange(len(lengths)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    offset = (np.arange(len(document)) - first) * capacity
    length = np.minimum(lengths[document] - offset, capacity)

    shuffled = _shuffle(len(length), key)
    shuffled = shuffled[np.argsort(-length[shuffled], kind="stable")]       # longest first, random among equals
    sizes, counts = np.unique(length, return_counts=True)
    begins = np.zeros(capacity + 1, np.int64)                               # next unused piece of each length
    begins[sizes] = counts[::-1].cumsum()[::-1] - counts

    rows, order = [], []                                                    # of each place: its row, its piece
    next_row = 0
    for count, pattern in _patterns(sizes, counts, capacity):
        numbers = np.arange(next_row, next_row + count)
        next_row += count
        for size in pattern:
            order.append(shuffled[begins[size]:begins[size] + count])
            rows.append(numbers)
            begins[size] += count
    order = np.concatenate(order) if order else np.zeros(0, np.int64)
    rows = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    place = np.empty(next_row, np.int64)
    place[_shuffle(next_row, key ^ 0x5DEECE66D)] = np.arange(next_row)
    by_row = np.argsort(place[rows], kind="stable")
    order = order[by_row]
    starts = np.searchsorted(place[rows][by_row], np.arange(next_row + 1))
    return Plan(starts, document[order], offset[order], length[order])


def _patterns(sizes: np.ndarray, counts: np.ndarray, capacity: int) -> list[tuple[int, tuple[int, ...]]]:
    """Best fit decreasing on a histogram: (number of rows, lengths in the row), rows of one pattern taken together."""
    open_rows: dict[int, list[tuple[int, tuple[int, ...]]]] = {}           # free slots -> groups of alike rows
    free: list[int] = []                                                    # the keys, sorted
    done = []

    def put(room: int, count: int, pattern: tuple[int, ...]) -> None:
        if room == 0:
            done.append((count, pattern))
        elif count:
            if room not in open_rows:
                insort(free, room)
                open_rows[room] = []
            open_rows[room].append((count, pattern))

    for size, left in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while left:
            at = bisect_left(free, size)
            if at == len(free):
                room, count, pattern = capacity, left, ()                   # as many new rows as could be wanted
                count = -(-left // (capacity // size))
            else:
                room = free[at]
                count, pattern = open_rows[room].pop()
                if not open_rows[room]:
                    del open_rows[room], free[at]
            each = min(room // size, left)
            full, rest = min(count, left // each), 0
            put(room - each * size, full, pattern + (size,) * each)
            left -= full * each
            if full < count and left:                                       # one row takes fewer than the others
                rest = 1
                put(room - left * size, 1, pattern + (size,) * left)
                left = 0
            if pattern:
                put(room, count - full - rest, pattern)
    return done + [group for groups in open_rows.values() for group in groups]


def _shuffle(n: int, key: int) -> np.ndarray:
    """A permutation of 0 .. n-1 (int64) that `key` decides, the same on every machine and NumPy version."""
    return np.argsort(mix(np.arange(n, dtype=np.uint64) ^ mix(np.uint64(key))), kind="stable")


@dataclass
class Samples:
    """Rows for the model, in an endless order over epochs.

    `read(document)` gives a document's tokens and which of them count as targets (None: all of them).
    """

    lengths: np.ndarray
    read: Callable[[int], tuple[np.ndarray, np.ndarray | None]]
    eot: int
    length: int
    digest: str
    seed: int
    targets_each: np.ndarray | None = None      # targets of each document, where `read` masks some; documents are whole

    def __post_init__(self):
        self._plans: dict[int, Plan] = {}
        self.rows = self.plan(0).rows           # the same in every epoch: it depends on the lengths alone

    def plan(self, epoch: int) -> Plan:
        if epoch not in self._plans:
            for old in [number for number in self._plans if number < epoch - 1]:
                del self._plans[old]
            self._plans[epoch] = pack(self.lengths, self.length, plan_key(self.digest, self.length, self.seed, epoch))
        return self._plans[epoch]

    def segments(self, sample: int) -> list[tuple[int, int, int]]:
        """(document, offset, length) of the segments of a sample."""
        plan, row = self.plan(sample // self.rows), sample % self.rows
        span = slice(plan.starts[row], plan.starts[row + 1])
        columns = (plan.document[span], plan.offset[span], plan.length[span])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def n_targets(self, samples: range) -> int:
        """How many tokens of `samples` count in the loss, known without reading them."""
        segments = [segment for sample in samples for segment in self.segments(sample)]
        if self.targets_each is None:
            return sum(length for _, _, length in segments)
        return int(sum(self.targets_each[document] for document, _, _ in segments))

    def batch(self, samples) -> Batch:
        """The samples as arrays; a sample of -1 is a row of padding."""
        shape = (len(samples), self.length)
        inputs, targets = np.full(shape, self.eot, np.int64), np.full(shape, -100, np.int64)
        positions, segments = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        for i, sample in enumerate(samples):
            at = 0
            for document, offset, length in self.segments(sample) if sample >= 0 else []:
                text, counted = self.read(document)
                end = at + length
                piece = text[offset:offset + length]
                inputs[i, at] = text[offset - 1] if offset else self.eot
                inputs[i, at + 1:end] = piece[:-1]
                mask = slice(None) if counted is None else counted[offset:offset + length]
                targets[i, at:end][mask] = piece[mask]
                positions[i, at:end] = np.arange(length)
                segments[i, at:end] = document
                at = end
        return Batch(inputs, targets, positions, segments)


def corpus_samples(corpus: Corpus, chosen: np.ndarray, length: int, seed: int) -> Samples:
    """Samples of the documents of `corpus` that `chosen` names (indices into `corpus.documents`)."""
    index = corpus.documents
    shard, row = (index[name].to_numpy()[chosen] for name in ("shard", "row"))
    lengths = index["n_tokens"].to_numpy()[chosen]
    shards: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def read(document: int) -> tuple[np.ndarray, None]:
        number = int(shard[document])
        if number not in shards:
            shards[number] = tokens(corpus, number)
        flat, starts = shards[number]
        return flat[starts[row[document]]:starts[row[document] + 1]], None

    return Samples(lengths, read, int(corpus.manifest["tokenizer"]["eot"]), length, corpus.digest, seed)


def packing_table(corpus: Corpus, chosen: np.ndarray, samples: Samples, epoch: int, last: int) -> pa.Table:
    """The plan of an epoch in the PACKING schema, for samples below `last`: which tokens were seen, and when."""
    plan, index = samples.plan(epoch), corpus.documents
    row = np.repeat(np.arange(plan.rows), np.diff(plan.starts))
    sample = row + epoch * samples.rows
    here = sample < last
    document = pa.array(np.asarray(chosen)[plan.document[here]])
    columns = {"sample_id": sample, "segment": np.arange(len(row)) - plan.starts[row], "offset": plan.offset,
               "length": plan.length}
    arrays = {name: pa.array(values[here]).cast(PACKING.field(name).type) for name, values in columns.items()}
    arrays |= {name: index[name].combine_chunks().take(document) for name in ("shard", "row", "doc_id")}
    return pa.table([arrays[name] for name in PACKING.names], schema=PACKING)

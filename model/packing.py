"""Packs documents into rows: which tokens stand together in a training sample.

A row is `capacity` slots. Documents are packed whole where they fit, longer ones are cut into full rows and a rest, so
that each token of the corpus is in exactly one segment and little is padding.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from model.corpus import mix


@dataclass(frozen=True)
class Plan:
    """Segments, ordered by row. Segment i is tokens [offset, offset + length) of document `document`."""

    starts: np.ndarray                  # int64 (rows + 1): the segments of row r are starts[r] .. starts[r + 1]
    document: np.ndarray                # int64, index into the lengths that were packed
    offset: np.ndarray                  # int64
    length: np.ndarray                  # int64

    @property
    def rows(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def totals(self) -> np.ndarray:
        """Tokens in each row (int64): the rest is padding."""
        return np.add.reduceat(self.length, self.starts[:-1]) if self.rows else np.zeros(0, np.int64)


def plan_key(*values: str | int) -> int:
    """64 bits that decide every random choice of a plan, from what the plan may depend on."""
    return int.from_bytes(blake2b(" ".join(map(str, values)).encode(), digest_size=8).digest(), "big")


def pack(lengths: np.ndarray, capacity: int, key: int) -> Plan:
    """Best-fit-decreasing packing of documents of `lengths` tokens into rows of `capacity` (arXiv:2404.10830).

    Pieces of equal length are interchangeable, so the packing is done on the histogram of lengths, in
    O(capacity log capacity) whatever the number of documents; then the pieces, shuffled by `key`, are dealt to the
    places, and the rows are shuffled. How many rows it takes does not depend on `key`.
    """
    lengths = np.asarray(lengths, np.int64)
    pieces = -(-lengths // capacity)
    document = np.repeat(np.arange(len(lengths)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    offset = (np.arange(len(document)) - first) * capacity
    length = np.minimum(lengths[document] - offset, capacity)

    shuffled = shuffle(len(length), key)
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
    place[shuffle(next_row, key ^ 0x5DEECE66D)] = np.arange(next_row)
    by_row = np.argsort(place[rows], kind="stable")
    order = order[by_row]
    starts = np.searchsorted(place[rows][by_row], np.arange(next_row + 1))
    return Plan(starts, document[order], offset[order], length[order])


def n_rows(lengths: np.ndarray, capacity: int) -> int:
    """How many rows `pack` takes."""
    lengths = np.asarray(lengths, np.int64)
    counts = np.bincount(lengths % capacity, minlength=capacity + 1)
    counts[0] = 0
    counts[capacity] = (lengths // capacity).sum()
    sizes = np.flatnonzero(counts)
    return sum(count for count, _ in _patterns(sizes, counts[sizes], capacity))


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


def hashes(n: int, key: int) -> np.ndarray:
    """Random numbers (n,), uint64, that `key` decides, the same on every machine and NumPy version."""
    return mix(np.arange(n, dtype=np.uint64) ^ mix(np.uint64(key)))


def shuffle(n: int, key: int) -> np.ndarray:
    """A permutation of 0 .. n-1 (int64) that `key` decides."""
    return np.argsort(hashes(n, key), kind="stable")

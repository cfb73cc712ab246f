"""Packs documents into rows: which tokens stand together in a training sample.

A row is `capacity` slots. Documents are packed whole where they fit, longer ones are cut into full rows and a rest, so
that each token of the corpus is in exactly one segment. Where whole documents would leave more than a hundredth of the
slots empty (as texts of 600 tokens do in rows of 1024), the emptiest rows are given up, and their documents fill the
free ends of the others, cut where they must be.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from model.corpus import mix

ORDER = 2       # raised when the same corpus, length and seed give other samples: a run does not go on across that


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


def pack(lengths: np.ndarray, capacity: int, key: int, whole: bool = False) -> Plan:
    """Best-fit-decreasing packing of documents of `lengths` tokens into rows of `capacity` (arXiv:2404.10830).

    Pieces of equal length are interchangeable, so the packing is done on the histogram of lengths, in
    O(capacity log capacity) whatever the number of documents; then the pieces, shuffled by `key`, are dealt to the
    places, and the rows are shuffled. How many rows it takes does not depend on `key`. `whole`: no document that fits
    a row is cut, whatever the padding.
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

    patterns, next_row = _patterns(sizes, counts, capacity), 0
    n = _enough(patterns, int(lengths.sum()), capacity, whole)
    cut = n < sum(count for count, _ in patterns)
    if cut:
        patterns.sort(key=lambda group: -sum(group[1]))                     # fullest first
    rows, order = [], []                                                    # of each place: its row, its piece
    for count, pattern in patterns:
        numbers = np.arange(next_row, next_row + count)
        next_row += count
        for size in pattern:
            order.append(shuffled[begins[size]:begins[size] + count])
            rows.append(numbers)
            begins[size] += count
    order = np.concatenate(order) if order else np.zeros(0, np.int64)
    rows = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    document, offset, length = document[order], offset[order], length[order]
    if cut:
        rows, document, offset, length = _spread(rows, document, offset, length, n, capacity)
    place = np.empty(n, np.int64)
    place[shuffle(n, key ^ 0x5DEECE66D)] = np.arange(n)
    by_row = np.argsort(place[rows], kind="stable")
    starts = np.searchsorted(place[rows][by_row], np.arange(n + 1))
    return Plan(starts, document[by_row], offset[by_row], length[by_row])


def _enough(patterns: list[tuple[int, tuple[int, ...]]], n_tokens: int, capacity: int, whole: bool) -> int:
    """How many rows are taken: those of `patterns`, or as many as leave a hundredth of their slots empty."""
    n = sum(count for count, _ in patterns)
    return n if whole else min(n, max(-(-n_tokens // capacity), 100 * n_tokens // (99 * capacity)))


def _spread(rows: np.ndarray, document: np.ndarray, offset: np.ndarray, length: np.ndarray, n: int,
            capacity: int) -> tuple[np.ndarray, ...]:
    """The segments of the rows from `n` on, laid one behind the other over the free ends of those before, the last
    (emptiest) row first. A row gets a stretch of this stream, and so no two pieces of a document."""
    kept = rows < n
    room = capacity - np.bincount(rows[kept], length[kept], n).astype(np.int64)
    ends, filled = np.cumsum(length[~kept]), np.cumsum(room[::-1])          # where documents, and free ends, end
    cuts = np.union1d(ends, filled[filled < ends[-1]])
    begins = np.concatenate([[0], cuts[:-1]])
    which, row = np.searchsorted(ends, begins, "right"), n - 1 - np.searchsorted(filled, begins, "right")
    pieces = (row, document[~kept][which], offset[~kept][which] + begins - (ends - length[~kept])[which], cuts - begins)
    own = rows[kept], document[kept], offset[kept], length[kept]
    return tuple(np.concatenate(both) for both in zip(own, pieces, strict=True))


def n_rows(lengths: np.ndarray, capacity: int, whole: bool = False) -> int:
    """How many rows `pack` takes."""
    lengths = np.asarray(lengths, np.int64)
    counts = np.bincount(lengths % capacity, minlength=capacity + 1)
    counts[0] = 0
    counts[capacity] = (lengths // capacity).sum()
    sizes = np.flatnonzero(counts)
    return _enough(_patterns(sizes, counts[sizes], capacity), int(lengths.sum()), capacity, whole)


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

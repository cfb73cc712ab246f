"""Naive Bayes over byte n-grams, compiled: py3langid's arithmetic for many passages at once.

As in tasks.annotate.scan, everything that is compiled is in this file and all else reaches it as an argument.
"""

import numpy as np
from numba import types

from tasks.compiled import njit

LANES = 8                    # passages read in step: each read of the automaton waits for memory, eight wait together


def _frozen(dtype, dimensions=1):
    return types.Array(dtype, dimensions, "C", readonly=True)


@njit(types.void(_frozen(types.uint8), _frozen(types.int64), _frozen(types.uint32), _frozen(types.int32, 2),
                 _frozen(types.float32, 2), _frozen(types.float32), types.float32[:, ::1]), cache=True, nogil=True)
def likelihoods(data, offsets, moves, states, table, weights, scores):
    """The log-likelihoods of passages: for each n-gram that occurs, log(1 + its count) times the table's row.

    The sums are taken in the order of first occurrence, element by element, so neither BLAS nor the width of vectors
    decides their last bits.

    Args:
        data: uint8, the passages' UTF-8 bytes.
        offsets: int64 of shape (n + 1,): passage p is data[offsets[p]:offsets[p + 1]].
        moves, states: the automaton: state s goes to moves[states[s, 0] + byte], and states[s, 1] is the n-gram that
            ends there, or -1.
        table: float32 of shape (n-grams, labels).
        weights: float32, log(1 + count) by count; greater counts weigh as the last.
        scores: float32 of shape (n, labels), zeros; filled.
    """
    longest = 0
    for p in range(len(offsets) - 1):
        longest = max(longest, offsets[p + 1] - offsets[p])
    found = np.empty((LANES, longest + 1), np.int32)        # the n-grams of each lane, in order
    n_found = np.zeros(LANES, np.int64)
    state = np.zeros(LANES, np.uint32)
    counts = np.zeros(len(table), np.int32)
    seen = np.empty(longest + 1, np.int32)
    for base in range(0, len(offsets) - 1, LANES):
        lanes = min(LANES, len(offsets) - 1 - base)
        steps = 0
        for lane in range(lanes):
            state[lane], n_found[lane] = 0, 0
            steps = max(steps, offsets[base + lane + 1] - offsets[base + lane])
        for step in range(steps):
            for lane in range(lanes):
                at = offsets[base + lane] + step
                if at < offsets[base + lane + 1]:
                    state[lane] = moves[np.uint32(states[state[lane], 0]) + data[at]]
                    gram = states[state[lane], 1]
                    found[lane, n_found[lane]] = gram
                    n_found[lane] += gram >= 0
        for lane in range(lanes):
            n = 0
            for k in range(n_found[lane]):
                gram = found[lane, k]
                if counts[gram] == 0:
                    seen[n] = gram
                    n += 1
                counts[gram] += 1
            out = scores[base + lane]
            for k in range(n):
                weight = weights[min(counts[seen[k]], len(weights) - 1)]
                counts[seen[k]] = 0
                row = table[seen[k]]
                for label in range(len(out)):
                    out[label] += weight * row[label]

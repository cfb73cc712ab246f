"""Sums over byte n-grams for language identification, compiled. Everything reaches it as an argument."""

import numpy as np
from numba import njit, types


def _frozen(dtype, dimensions=1):
    return types.Array(dtype, dimensions, "C", readonly=True)


@njit(types.int64(_frozen(types.uint8), _frozen(types.uint32), _frozen(types.uint32), _frozen(types.int32),
                 _frozen(types.float32, 2), types.int32[::1], types.int32[::1], types.float32[::1]),
      cache=True, nogil=True)
def add_likelihoods(text, moves, rows, features, table, counts, seen, scores):
    """Adds the log-likelihoods of py3langid's byte n-grams found in `text`: log(1 + count) times the table's row.

    Returns how many distinct ones there are. The sums are taken in the order of first occurrence, so no BLAS decides
    their last bits.

    Args:
        text: uint8.
        moves, rows, features: the automaton: state s goes to moves[rows[s] + byte], and features[s] is the feature
            that ends there, or -1.
        table: float32 of shape (features, classes).
        counts, seen: room, int32 of shape (features,); counts must be zeros and is left so.
        scores: float32 of shape (classes,); added to.
    """
    state, n = 0, 0
    for byte in text:
        state = moves[rows[state] + byte]
        feature = features[state]
        if feature >= 0:
            if counts[feature] == 0:
                seen[n] = feature
                n += 1
            counts[feature] += 1
    for k in range(n):
        weight = np.float32(np.log1p(np.float64(counts[seen[k]])))
        counts[seen[k]] = 0
        row = table[seen[k]]
        for c in range(len(scores)):
            scores[c] += weight * row[c]
    return n

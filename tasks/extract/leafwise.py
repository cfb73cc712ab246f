import math

from numba import njit


@njit(cache=True)
def score_leafwise(rows, roots, feature, threshold, left, right, out):
    """Sums boosted trees over `rows` and turns the sums into probabilities.

    A tree's inner nodes come in one piece, its root first; a child below zero is leaf -1 - child, whose value stands in
    `threshold` at that place from the end.
    """
    for b in range(len(rows)):
        row, total = rows[b], 0.0
        for t in range(len(roots)):
            k = roots[t]
            while k >= 0:
                k = left[k] if row[feature[k]] <= threshold[k] else right[k]
            total += threshold[len(threshold) + k]
        out[b] = 1.0 / (1.0 + math.exp(-total))

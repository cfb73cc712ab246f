"""MinHash signatures from word hashes, compiled; the scheme is `tasks.annotate.minhash`'s.

Stands alone and is fed with arrays, as `tasks.annotate.scan` says.
"""

import numpy as np
from numba import types

from tasks.compiled import njit

GRAM_BASE = np.uint64(0x9E3779B97F4A7C15)                  # tasks.words' (a test compares)
S16, S13 = np.uint32(16), np.uint32(13)


@njit
def fmix64(h):
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit
def signature(words, n_words, permutations, hashes, out):
    """The MinHash of the document's 5-word shingles, in blocks that stay in the processor's nearest cache."""
    if n_words == 0:
        return
    width = min(5, n_words)
    oldest = np.uint64(1)
    for _ in range(width):
        oldest *= GRAM_BASE
    rolling, filled = np.uint64(0), 0
    for i in range(n_words):
        rolling = rolling * GRAM_BASE + words[i]
        if i >= width:
            rolling -= oldest * words[i - width]
        if i >= width - 1:
            h = np.uint32(fmix64(rolling) >> np.uint64(32))
            h = np.uint32((h ^ (h >> S16)) * np.uint32(0x85EBCA6B))
            h = np.uint32((h ^ (h >> S13)) * np.uint32(0xC2B2AE35))
            hashes[filled] = h ^ (h >> S16)
            filled += 1
        if filled == len(hashes) or i == n_words - 1:
            for p in range(permutations.shape[1]):
                a, b, least = permutations[0, p], permutations[1, p], out[p]
                for k in range(filled):
                    least = min(least, np.uint32(np.uint32(a * hashes[k]) + b))
                out[p] = least
            filled = 0


@njit(types.void(types.uint64[::1], types.int64[:, ::1], types.Array(types.uint32, 2, "C", readonly=True),
                 types.uint32[:, ::1]), cache=True, nogil=True)
def sign(words, ends, permutations, signatures):
    """The signatures of documents.

    Args:
        words, ends: as `tasks.annotate.scan.scan` fills them.
        permutations: uint32 of shape (2, permutations), of tasks.annotate.minhash.
        signatures: uint32 of shape (n, permutations), all 2**32 - 1; filled.
    """
    hashes = np.empty(2048, np.uint32)
    for d in range(len(ends) - 1):
        signature(words[ends[d, 0]:], ends[d + 1, 0] - ends[d, 0], permutations, hashes, signatures[d])

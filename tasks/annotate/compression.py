"""How well a text compresses, by a definition of our own: no library's version decides it.

compression_ratio is the bytes of a text divided by those of its LZ4 block (block format:
https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md) from this encoder: at each byte it looks up the last place
where four bytes with the same HASH_BITS-bit hash began; if those bytes are the same and at most 65,535 back, it takes
the longest match, writes it, and goes on behind it; else it goes on at the next byte. The format's rules for the end
hold: no match begins in the last 12 bytes or covers any of the last 5. Nothing is written: only sizes are added up.
"""

import numpy as np
from numba import types

from tasks.compiled import njit

HASH_BITS = 13               # tables that fit the processor's near caches
WINDOW, LEAST_MATCH, LAST_LITERALS, NO_MATCH = 65535, 4, 5, 12


@njit
def _size(data, start, end, places, fours):
    """The bytes of the LZ4 block of data[start:end].

    `places` (int64) and `fours` (uint32) are room: where four bytes with each hash began last, and these; they hold
    nothing from `start` on.
    """
    size, anchor, i = 0, start, start
    limit, last = end - NO_MATCH, end - LAST_LITERALS
    if i < limit:
        four = (np.uint32(data[i]) << np.uint32(8) | np.uint32(data[i + 1]) << np.uint32(16)
                | np.uint32(data[i + 2]) << np.uint32(24))
    else:
        four = np.uint32(0)
    while i < limit:
        four = four >> np.uint32(8) | np.uint32(data[i + 3]) << np.uint32(24)
        slot = np.uint32(four * np.uint32(2654435761)) >> np.uint32(32 - HASH_BITS)
        found = places[slot]
        same = fours[slot] == four
        places[slot], fours[slot] = i, four
        if not same or found < start or i - found > WINDOW:
            i += 1
            continue
        n = LEAST_MATCH
        while i + n < last and data[found + n] == data[i + n]:
            n += 1
        literals = i - anchor
        size += 3 + literals                                # a token, an offset
        if literals >= 15:
            size += (literals - 15) // 255 + 1
        if n - LEAST_MATCH >= 15:
            size += (n - LEAST_MATCH - 15) // 255 + 1
        i += n
        anchor = i
        if i < limit:
            four = (np.uint32(data[i]) << np.uint32(8) | np.uint32(data[i + 1]) << np.uint32(16)
                    | np.uint32(data[i + 2]) << np.uint32(24))
    literals = end - anchor
    return size + 1 + literals + ((literals - 15) // 255 + 1 if literals >= 15 else 0)


@njit(types.void(types.Array(types.uint8, 1, "C", readonly=True), types.Array(types.int64, 1, "C", readonly=True),
                 types.float64[::1]), cache=True, nogil=True)
def compress(data, offsets, ratios):
    """Fills `ratios` (float64 of shape (n,), zeros): bytes / bytes compressed; 0 for an empty text.

    Args:
        data: uint8, the texts' UTF-8 bytes.
        offsets: int64 of shape (n + 1,): document d is data[offsets[d]:offsets[d + 1]].
    """
    places, fours = np.full(1 << HASH_BITS, -1, np.int64), np.zeros(1 << HASH_BITS, np.uint32)
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        if end > start:
            ratios[d] = (end - start) / _size(data, start, end, places, fours)

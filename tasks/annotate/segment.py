"""Where words begin in scripts that put no spaces between them.

A run is a maximal sequence of letters of such scripts (`tasks.words.UNSPACED`) with the marks that follow
them; format characters are as if not there. Of all ways to divide a run into words of the dictionary, the one of
least total cost is taken (Viterbi; ties: the longer last word). The dictionary is ICU's
(`tasks.annotate.dictionary`): Chinese and Japanese words cost about -10 ln of their frequency, so the division is the
most probable one by a unigram model, as in ICU's own CjkBreakEngine, whose costs for what is in no dictionary are
used too: 255 for a character, and for a stretch of katakana a cost by its length. Thai, Lao, Khmer and Burmese
words have no frequencies and cost 100 each, so there the division has the fewest words (maximal matching;
Sornlertlamvanich 1993), and a character outside all words costs UNKNOWN.

No word begins or ends inside a cluster: before a mark, a following Thai or Lao vowel, or a Burmese consonant that is
killed or stacked, nor after a leading Thai or Lao vowel or a Khmer or Burmese stacker. What no dictionary word covers
is a word by clusters (https://www.unicode.org/reports/tr29/, which leaves these scripts to a dictionary), in Thai, Lao,
Khmer and Burmese by maximal stretches of clusters.
"""

import lzma
from pathlib import Path

import numpy as np
from numba import types

from tasks.compiled import njit
from tasks.mapped import mapped

DICTIONARY = Path(__file__).with_name("dictionary") / "words.bin"

# Classes of tasks.words, decode() and constants of tasks.annotate.scan: here again, since numba's cache on
# disk does not see changes in other files (a test compares).
MARK, SINGLE, FORMAT = 3, 4, 5
CLASS_SHIFT, POINT_MASK = 21, (1 << 21) - 1
FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
GRAM_BASE = np.uint64(0x9E3779B97F4A7C15)

SLOT_BITS = 21               # of the hash table: a million prefixes in two million slots
IDENTITY = ~np.uint64(0x1FF)  # a slot: 55 bits of the prefix's hash, whether it goes on, and its cost or 0
GOES_ON, COST = np.uint64(0x100), np.uint64(0xFF)
SLOT_SHIFT = np.uint64(64 - SLOT_BITS)

NO_COST = 1 << 60
ALONE = 255                  # ICU: dictbe.cpp, maxSnippetCost
UNKNOWN = 180                # between one word and two
KATAKANA = np.array([8192, 984, 408, 240, 204, 252, 300, 372, 480], np.int64)     # ICU: dictbe.cpp, getKatakanaCost


@mapped(DICTIONARY)
def dictionary() -> tuple[np.ndarray, np.ndarray]:
    """The hash table of all prefixes of all words, uint64 of shape (2**SLOT_BITS,): 16 MB; and the low bits of its
    entries for single code points, uint16 of shape (0x10000,)."""
    raw = np.frombuffer(lzma.decompress(DICTIONARY.read_bytes()), np.uint8)
    n = int(raw[:4].view("<u4")[0])
    shared, added, costs = raw[4:4 + 3 * n].reshape(3, n)
    table = _table(shared, added, costs, raw[4 + 3 * n:].copy().view("<u2"))
    return table, _singles(table)


def _frozen(dtype):
    return types.Array(dtype, 1, "C", readonly=True)


@njit(cache=True)
def _table(shared, added, costs, points):
    table = np.zeros(1 << SLOT_BITS, np.uint64)
    hashes = np.empty(257, np.uint64)
    hashes[0] = FNV_OFFSET
    place = 0
    for w in range(len(shared)):
        for k in range(np.int64(shared[w]), np.int64(shared[w]) + added[w]):
            if k > 0:
                table[_slot(table, hashes[k])] |= GOES_ON
            h = (hashes[k] ^ np.uint64(points[place])) * FNV_PRIME
            hashes[k + 1] = h
            place += 1
            table[_slot(table, h)] = h & IDENTITY
        table[_slot(table, hashes[np.int64(shared[w]) + added[w]])] |= np.uint64(costs[w])
    return table


@njit
def _slot(table, h):
    """The slot of a hash, or the empty one where it would be."""
    slot = (h * GRAM_BASE) >> SLOT_SHIFT
    while table[slot] != 0 and (table[slot] ^ h) & IDENTITY != 0:
        slot = (slot + np.uint64(1)) & np.uint64(len(table) - 1)
    return slot


@njit(cache=True)
def _singles(table):
    singles = np.zeros(0x10000, np.uint16)
    for point in range(len(singles)):
        singles[point] = table[_slot(table, (FNV_OFFSET ^ np.uint64(point)) * FNV_PRIME)] & ~IDENTITY
    return singles


@njit
def _decode(data, i, end):
    b = np.int32(data[i])
    if b < 0x80:
        return b, 1
    if 0xC0 <= b < 0xE0 and i + 1 < end:
        return (b & 31) << 6 | data[i + 1] & 63, 2
    if 0xE0 <= b < 0xF0 and i + 2 < end:
        return (b & 15) << 12 | (data[i + 1] & 63) << 6 | data[i + 2] & 63, 3
    if 0xF0 <= b < 0xF5 and i + 3 < end:
        point = (b & 7) << 18 | (data[i + 1] & 63) << 12 | (data[i + 2] & 63) << 6 | data[i + 3] & 63
        return (point if point < 0x110000 else 0xFFFD), 4
    return 0xFFFD, 1


@njit
def _joined(before, point, after):
    """No word begins at `point`, a letter between two characters of its run (0: none)."""
    if point >= 0x2E80:
        return False
    if 0x0E00 <= point < 0x0F00:
        low, high = point & 0x7F, before & 0x7F             # Lao is Thai moved by 0x80
        return (low == 0x30 or low == 0x32 or low == 0x33 or low == 0x45) or (
            0x0E00 <= before < 0x0F00 and 0x40 <= high <= 0x44)
    return before == 0x17D2 or before == 0x1039 or after == 0x1039 or after == 0x103A


@njit
def _grouped(point):
    """Thai, Lao, Burmese or Khmer, whose unknown clusters join."""
    return 0x0E00 <= point < 0x0F00 or 0x1000 <= point < 0x10A0 or 0x1780 <= point < 0x1800


@njit
def _katakana(point):
    return 0x30A1 <= point <= 0x30FE and point != 0x30FB or 0x31F0 <= point <= 0x31FF or 0xFF66 <= point <= 0xFF9F


@njit
def _divide(points, starts, n, table, singles, costs, before, pairs, entries):
    """Fills before[j], the beginning of the best last word of the run's first j characters; ~beginning if unknown."""
    for j in range(1, n + 1):
        costs[j] = NO_COST
    costs[0] = 0
    for i in range(n - 1):                                  # what lies far in memory is asked for ahead, all at once
        h = (((FNV_OFFSET ^ np.uint64(points[i])) * FNV_PRIME) ^ np.uint64(points[i + 1])) * FNV_PRIME
        pairs[i], entries[i] = h, table[(h * GRAM_BASE) >> SLOT_SHIFT]
    for i in range(n):
        cost = costs[i]
        if cost == NO_COST:
            continue
        entry = np.uint64(singles[points[i]]) if points[i] < len(singles) else np.uint64(0)
        h, j = pairs[i], i + 1
        alone = True
        while entry != 0:
            price = np.int64(entry & COST)
            if price and (j == n or starts[j]):
                alone &= j > i + 1
                if cost + price < costs[j]:
                    costs[j], before[j] = cost + price, i
            if j == n or not entry & GOES_ON:
                break
            if j == i + 1:
                entry = entries[i]
                if entry != 0 and (entry ^ h) & IDENTITY != 0:
                    entry = table[_slot(table, h)]
            else:
                h = (h ^ np.uint64(points[j])) * FNV_PRIME
                entry = table[_slot(table, h)]
            j += 1
        if alone:                                           # the cluster
            j = i + 1
            while j < n and not starts[j]:
                j += 1
            price = UNKNOWN if _grouped(points[i]) else ALONE
            if cost + price < costs[j]:
                costs[j], before[j] = cost + price, ~i
        if _katakana(points[i]) and not (i and _katakana(points[i - 1])):
            j = i + 1
            while j < n and (_katakana(points[j]) or not starts[j]):
                j += 1
            price = KATAKANA[min(j - i, 8)]
            if cost + price < costs[j]:
                costs[j], before[j] = cost + price, i


@njit
def _grown(array, room):
    larger = np.empty(room, array.dtype)
    larger[:len(array)] = array
    return larger


@njit(types.int64(_frozen(types.uint8), _frozen(types.int64), _frozen(types.int32), _frozen(types.uint64),
                  _frozen(types.uint16), types.int64[::1]), cache=True, nogil=True)
def word_starts(data, offsets, classes, table, singles, found):
    """Where words begin inside the runs of documents, but for the beginnings of the runs: bytes, ascending.

    Args:
        data: uint8, the texts' UTF-8 bytes.
        offsets: int64 of shape (n + 1,): document d is data[offsets[d]:offsets[d + 1]].
        classes: of tasks.words.code_points.
        table, singles: of `dictionary`.
        found: int64, filled; a third of the bytes is room enough.

    Returns how many there are.
    """
    n_found, room = 0, 0
    points, places, starts, costs, before = (np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.bool_),
                                             np.empty(0, np.int64), np.empty(0, np.int64))
    pairs, entries = np.empty(0, np.uint64), np.empty(0, np.uint64)
    i, document, end = offsets[0], 0, offsets[0]
    while True:
        while i >= end and document + 1 < len(offsets):     # the next document
            document += 1
            i, end = offsets[document - 1], offsets[document]
        if i >= end:
            break
        while i < end and data[i] < 0xE0:                   # these scripts begin at U+0E00
            i += 1
        if i >= end:
            continue
        point, width = _decode(data, i, end)
        if classes[point] >> CLASS_SHIFT != SINGLE:
            i += width
            continue
        n = 0
        while True:
            kind = classes[point] >> CLASS_SHIFT
            if kind == SINGLE or kind == MARK:
                if n + 1 >= room:
                    room = 2 * room + 256
                    points, places, starts = _grown(points, room), _grown(places, room), _grown(starts, room)
                points[n], places[n], starts[n] = classes[point] & POINT_MASK, i, kind == SINGLE
                n += 1
            elif kind != FORMAT:
                break
            i += width
            if i >= end:
                break
            point, width = _decode(data, i, end)
        if n == 1:
            continue
        for k in range(1, n):
            if starts[k] and _joined(points[k - 1], points[k], points[k + 1] if k + 1 < n else 0):
                starts[k] = False
        if len(costs) < room + 1:
            costs, before = np.empty(room + 1, np.int64), np.empty(room + 1, np.int64)
            pairs, entries = np.empty(room, np.uint64), np.empty(room, np.uint64)
        _divide(points, starts, n, table, singles, costs, before, pairs, entries)
        j, first = n, n_found
        while True:
            unknown = before[j] < 0
            j = ~before[j] if unknown else before[j]
            if j == 0:
                break
            if not (unknown and before[j] < 0 and _grouped(points[j]) and _grouped(points[j - 1])):
                found[n_found] = places[j]
                n_found += 1
        found[first:n_found] = found[first:n_found][::-1].copy()
    return n_found

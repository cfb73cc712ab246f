"""Words, in one compiled pass over UTF-8 bytes, each as a hash of 32 bits.

A word is a run of letters, digits and marks (Unicode categories L*, N*, M*). Each code point counts as what it is
after compatibility folding and case folding (NFKC, casefold, NFD), letters, digits and marks only; not counted, as
if not there, are accents (combining marks U+0300 to U+036F), the points of Hebrew and Arabic, the tatweel, apostrophes,
soft hyphens and joiners: "Don’t" is "dont", "ﬁancé" is "fiance". Everything else separates.

In scripts without spaces between words (Han, kana, Bopomofo, Yi, Thai, Lao, Khmer, Myanmar, Tai, Javanese, Balinese)
each letter is a word of its own and marks do not count; two such letters have the length of one word.
"""

import unicodedata
from functools import lru_cache

import numba
import numpy as np

SEPARATOR, SKIPPED = 0, 1
ALONE, EXPANDED = 1 << 30, 1 << 29
LAST = 0x32400                    # beyond lie no letters
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F),
            (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x303C), (0x3041, 0x3130), (0x31A0, 0x31BF),
            (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48F), (0xA980, 0xA9FF), (0xAA60, 0xAADF),
            (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F), (0x20000, 0x323AF))
_UNCOUNTED = ((0x0300, 0x036F), (0x0591, 0x05C7), (0x0610, 0x061A), (0x0640, 0x0640), (0x064B, 0x065F),
              (0x0670, 0x0670), (0x06D6, 0x06ED))
_INSIDE = "'’‘ʼ＇`\u00ad\u200c\u200d\u2060\ufeff"


@lru_cache(maxsize=1)
def folding() -> tuple[np.ndarray, np.ndarray]:
    """(table, expansions): both uint32. table[code point] is SEPARATOR, SKIPPED or its folded code point, with the bit
    ALONE where that is a word of its own; with the bit EXPANDED it is the place in `expansions` of a count followed by
    that many folded code points."""
    unspaced, uncounted = np.zeros(LAST, bool), np.zeros(LAST, bool)
    for first, last in UNSPACED:
        unspaced[first:last + 1] = True
    for first, last in _UNCOUNTED:
        uncounted[first:last + 1] = True
    table, expansions = np.zeros(LAST, np.uint32), [0]
    for point in range(LAST):
        if 0x3400 <= point < 0x4DC0 or 0x4E00 <= point < 0xA000 or 0x20000 <= point < 0x2F800 or point >= 0x30000:
            table[point] = point | ALONE
            continue
        character = chr(point)
        category = unicodedata.category(character)
        if uncounted[point] or character in _INSIDE or (unspaced[point] and category[0] == "M"):
            table[point] = SKIPPED
        elif category[0] in "LNM":
            folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", character).casefold())
            folded = [ord(c) for c in folded if unicodedata.category(c)[0] in "LNM" and ord(c) < LAST
                      and not uncounted[ord(c)] and not (unspaced[ord(c)] and unicodedata.category(c)[0] == "M")]
            alone = ALONE if unspaced[point] else 0
            if len(folded) == 1:
                table[point] = folded[0] | alone
            elif folded:
                table[point] = len(expansions) | EXPANDED | alone
                expansions += [len(folded), *folded]
            else:
                table[point] = SKIPPED
    made = table, np.array(expansions, np.uint32)
    for array in made:
        array.setflags(write=False)
    return made


@numba.njit(cache=True, inline="always")
def _added(value, letter):
    """A word's hash with one more folded code point: a cyclic polynomial over multiplied code points."""
    return (value << np.uint64(9) | value >> np.uint64(55)) ^ np.uint64(letter) * np.uint64(0xD6E8FEB86659FD93)


@numba.njit(cache=True, inline="always")
def _finished(value, alone):
    """32 bits of a word's hash; the lowest tells whether it is a letter of a script without spaces."""
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return np.uint32((value >> np.uint64(32)) & np.uint64(0xFFFFFFFE)) | np.uint32(alone)


@numba.njit(cache=True, inline="always")
def _decoded(data, at, end):
    """(code point, bytes it takes) of what is not ASCII; ill-formed bytes are 0."""
    byte = np.uint32(data[at])
    if 0xC0 <= byte < 0xE0 and at + 1 < end:
        return (byte & 31) << 6 | (np.uint32(data[at + 1]) & 63), 2
    if 0xE0 <= byte < 0xF0 and at + 2 < end:
        return (byte & 15) << 12 | (np.uint32(data[at + 1]) & 63) << 6 | (np.uint32(data[at + 2]) & 63), 3
    if byte >= 0xF0 and at + 3 < end:
        return ((byte & 7) << 18 | (np.uint32(data[at + 1]) & 63) << 12 | (np.uint32(data[at + 2]) & 63) << 6
                | (np.uint32(data[at + 3]) & 63)), 4
    return np.uint32(0), 1


@numba.njit(cache=True)
def split_words(data, start, end, table, expansions, words, begins, ends):
    """The words of data[start:end] (UTF-8; ill-formed bytes separate).

    Writes their hashes (uint32), and where they begin and end after `start` (int32); all need room for
    (end - start) // 2 + 1. Returns how many there are.
    """
    count, at = 0, start
    while at < end:
        value, begin, finish, alone = np.uint64(0), np.int64(-1), at, np.uint32(0)
        while at < end:
            byte = np.uint32(data[at])
            if byte < 0x80:                              # nearly all of most texts
                folded = table[byte]
                if folded > 1:
                    value = _added(value, folded)
                    if begin < 0:
                        begin = at
                    at += 1
                    finish = at
                    continue
                at += 1
                if folded == 1 or begin < 0:
                    continue
                break
            point, size = _decoded(data, at, end)
            folded = table[point] if point < len(table) else np.uint32(0)
            if folded > 1:
                alone = folded & np.uint32(1 << 30)
                if alone and begin >= 0:
                    alone = np.uint32(0)
                    break                                # it is read again, as the next word
                if begin < 0:
                    begin = at
                letter = folded & np.uint32((1 << 29) - 1)
                if folded & np.uint32(1 << 29):
                    for k in range(letter + 1, letter + 1 + expansions[letter]):
                        value = _added(value, expansions[k])
                else:
                    value = _added(value, letter)
                at += size
                finish = at
                if alone:
                    break
                continue
            at += size
            if folded == 0 and begin >= 0:
                break
        if begin >= 0:
            words[count] = _finished(value, 1 if alone else 0)
            begins[count], ends[count] = begin - start, finish - start
            count += 1
    return count


@numba.njit(cache=True)
def all_words(data, offsets, table, expansions):
    """The words of n texts: (hashes uint32 one text after another, int64 (n + 1) where each text's begin)."""
    starts, longest = np.zeros(len(offsets), np.int64), 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    begins, ends = np.empty(longest // 2 + 2, np.int32), np.empty(longest // 2 + 2, np.int32)
    words = np.empty((offsets[-1] - offsets[0]) // 2 + len(offsets) + 1, np.uint32)
    for text in range(len(offsets) - 1):
        at = starts[text]
        starts[text + 1] = at + split_words(data, offsets[text], offsets[text + 1], table, expansions, words[at:],
                                            begins, ends)
    return words[:starts[-1]].copy(), starts


def lengths(words: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The length of each text in half words (int64): 2 a word, 1 a letter of a script without spaces."""
    total = np.append(0, np.cumsum(2 - (words & 1).astype(np.int64)))
    return total[starts[1:]] - total[starts[:-1]]

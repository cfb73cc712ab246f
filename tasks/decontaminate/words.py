"""Words and their n-grams, hashed in one compiled pass over UTF-8 bytes.

Words: runs of letters, digits and marks after compatibility folding (NFKC) and lower-casing, without accents (combining
marks U+0300 to U+036F); every ideograph and kana is a word of its own; apostrophes inside a word vanish (don't = dont);
everything else only separates. A code point is folded alone: the first letter of its folding stands for it.
"""

import unicodedata
from functools import lru_cache

import numba
import numpy as np
import pyarrow as pa


def utf8(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes and the n + 1 offsets of a string array."""
    texts = texts.fill_null("") if texts.null_count else texts
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    places = np.frombuffer(offsets, np.int64)[texts.offset:texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", np.uint8), places


SEPARATOR, SKIPPED, ALONE = 0, 1, 1 << 30


@lru_cache(maxsize=1)
def folding() -> np.ndarray:
    """Code point -> its folded code point, SEPARATOR, or SKIPPED; with the bit ALONE where it is a word of its own.

    Covers the first three planes (all letters in use); what lies above only separates.
    """
    table = np.zeros(0x30000, dtype=np.uint32)
    for point in (*range(0x20000), 0x20000):
        character = chr(point)
        if 0x300 <= point < 0x370 or character in "'’ʼ\u00ad\u200b\u200c\u200d\ufeff`":
            table[point] = SKIPPED
            continue
        folded = unicodedata.normalize("NFKC", character).lower()
        if not 0xAC00 <= point < 0xD7A4:
            folded = unicodedata.normalize("NFD", folded)
        if folded and unicodedata.category(folded[0])[0] in "LNM":
            alone = 0x2E80 <= point < 0xA000 or 0xF900 <= point < 0xFB00 or point >= 0x1B000
            table[point] = ord(folded[0]) | (ALONE if alone else 0)
    table[0x20000:] = np.arange(0x20000, 0x30000) | ALONE
    return table


@numba.njit(cache=True, inline="always")
def _decode(data, at, end):
    """(code point, bytes it takes) at `at`; ill-formed bytes count as separators."""
    byte = data[at]
    if byte < 0x80:
        return np.int64(byte), 1
    if 0xC0 <= byte < 0xE0 and at + 1 < end:
        return (np.int64(byte) & 31) << 6 | (np.int64(data[at + 1]) & 63), 2
    if 0xE0 <= byte < 0xF0 and at + 2 < end:
        return (np.int64(byte) & 15) << 12 | (np.int64(data[at + 1]) & 63) << 6 | (np.int64(data[at + 2]) & 63), 3
    if byte >= 0xF0 and at + 3 < end:
        return ((np.int64(byte) & 7) << 18 | (np.int64(data[at + 1]) & 63) << 12 | (np.int64(data[at + 2]) & 63) << 6
                | (np.int64(data[at + 3]) & 63)), 4
    return np.int64(0), 1


@numba.njit(cache=True)
def _next_word(data, at, end, folding):
    """(hash of the next word, where it ends); the hash is 0 when there is none. FNV-1a over folded code points."""
    word = np.uint64(0)
    while at < end:
        point, size = _decode(data, at, end)
        folded = folding[point] if point < len(folding) else np.uint32(0)
        if folded > 1:
            if folded & np.uint32(ALONE) and word:
                return word, at
            if not word:
                word = np.uint64(0xCBF29CE484222325)
            word = (word ^ np.uint64(folded)) * np.uint64(0x100000001B3)
            if folded & np.uint32(ALONE):
                return word | np.uint64(1), at + size
        elif folded == 0 and word:
            return word | np.uint64(1), at + size
        at += size
    return (word | np.uint64(1) if word else word), at


@numba.njit(cache=True, inline="always")
def _mixed(value, length):
    """SplitMix64's finalizer (https://doi.org/10.1145/2714064.2660195) over an n-gram's polynomial and its length."""
    value = value ^ (np.uint64(length) * np.uint64(0x9E3779B97F4A7C15))
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


_BASE = np.uint64(0xD6E8FEB86659FD93)


@numba.njit(cache=True)
def count_words(data, offsets, folding):
    """Words of each text: (n) int64."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            word, at = _next_word(data, at, end, folding)
            counts[text] += word != 0
    return counts


@numba.njit(cache=True, inline="always")
def _hash_last(ring, newest, length):
    """The hash of the `length` words that end at place `newest` of the ring."""
    value = np.uint64(0)
    at = newest - length + 1
    if at < 0:
        at += len(ring)
    for _ in range(length):
        value = value * _BASE + ring[at]
        at += 1
        if at == len(ring):
            at = 0
    return _mixed(value, length)


@numba.njit(cache=True)
def text_ngrams(data, offsets, folding, lengths, tail):
    """All n-grams of `lengths[i]` words of text i (none where 0): hashes, hashes of their last `tail` words, texts."""
    hashes, tails = [np.uint64(0) for _ in range(0)], [np.uint64(0) for _ in range(0)]
    texts = [np.int64(0) for _ in range(0)]
    for text in range(len(lengths)):
        length = lengths[text]
        if length == 0:
            continue
        ring, newest, words, at, end = np.zeros(length, np.uint64), -1, 0, offsets[text], offsets[text + 1]
        while at < end:
            word, at = _next_word(data, at, end, folding)
            if word == 0:
                break
            newest = newest + 1 if newest + 1 < length else 0
            ring[newest] = word
            words += 1
            if words >= length:
                hashes.append(_hash_last(ring, newest, length))
                tails.append(_hash_last(ring, newest, tail))
                texts.append(np.int64(text))
    return np.array(hashes, dtype=np.uint64), np.array(tails, dtype=np.uint64), np.array(texts, dtype=np.int64)


@numba.njit(cache=True)
def find_ngrams(data, offsets, folding, lengths, known, bits):
    """(text, place in the sorted hashes `known`) of every known n-gram of the texts, of any of `lengths` words.

    The hash of the last lengths[0] words rolls along; only where `bits` has it are n-grams hashed and looked up.
    """
    texts, places = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    if len(known) == 0:
        return np.array(texts, dtype=np.int64), np.array(places, dtype=np.int64)
    tail, longest = lengths[0], lengths[-1]
    mask = np.uint64(len(bits) * 8 - 1)
    power = np.uint64(1)
    for _ in range(tail):
        power *= _BASE
    ring = np.zeros(longest, np.uint64)
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        newest, oldest, words, value = -1, longest - tail - 1, 0, np.uint64(0)      # of the tail, in the ring
        ring[:] = 0
        while at < end:
            word, at = _next_word(data, at, end, folding)
            if word == 0:
                break
            newest = newest + 1 if newest + 1 < longest else 0
            oldest = oldest + 1 if oldest + 1 < longest else 0
            value = value * _BASE + word - ring[oldest] * power
            ring[newest] = word
            words += 1
            slot = _mixed(value, tail) & mask
            if words >= tail and bits[slot >> np.uint64(3)] >> np.uint8(slot & np.uint64(7)) & 1:
                for i in range(len(lengths)):
                    if words >= lengths[i]:
                        gram = _hash_last(ring, newest, lengths[i])
                        place = np.searchsorted(known, gram)
                        if place < len(known) and known[place] == gram:
                            texts.append(np.int64(text))
                            places.append(np.int64(place))
    return np.array(texts, dtype=np.int64), np.array(places, dtype=np.int64)

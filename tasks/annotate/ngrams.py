"""What repeats in a document, and which of its words are in a list: a pass over hashes of words, lines, paragraphs.

Stands alone and is fed with arrays, as `tasks.annotate.scan` says. The definitions of the signals are in
`tasks.annotate.measure.TEXT`.
"""

import numpy as np
from numba import types

from tasks.compiled import njit


def _frozen(dtype, dimensions=1):
    return types.Array(dtype, dimensions, "C", readonly=True)


# The columns that `repetition` fills.
(DUPLICATE_LINES, DUPLICATE_LINE_CHARS, DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARS, UNIQUE_WORDS,
 UNIGRAM_ENTROPY) = range(6)
GRAMS = 6                    # then the character fractions of top 2..4-grams, duplicate 5..10-grams,
REPEATED = GRAMS + 9         # and repeated 5..10-grams
LANGUAGE_STOP_WORDS, STOP_WORD_FRACTION, BAD_WORDS = range(REPEATED + 6, REPEATED + 9)
COLUMNS = REPEATED + 9

GRAM_BASE = np.uint64(0x9E3779B97F4A7C15)                  # tasks.words' (a test compares)
C_LOG_C = np.arange(256) * np.log(np.maximum(np.arange(256), 1))
SHORT_LIST, LONG_LIST, BAD, BEGINS_BAD = 1, 2, 4, 8         # tasks.annotate.lexicon's flags


@njit
def ratio(a, b):
    return a / b if b else 0.0


@njit
def clear(slots, n):
    """Empties as much of the hash table as n entries need (at most two thirds full); returns the index mask."""
    size = 8
    while size * 2 < n * 3:
        size *= 2
    slots[:size] = -1
    return size - 1


@njit
def find(slots, mask, keys, i):
    """The index of the first entry equal to keys[i]: i itself when it is new, which puts it into the table."""
    slot = np.int64(keys[i] & np.uint64(mask))
    while slots[slot] >= 0:
        if keys[slots[slot]] == keys[i]:
            return np.int64(slots[slot])
        slot = (slot + 1) & mask
    slots[slot] = i
    return np.int64(i)


@njit
def duplicates(keys, chars, n, slots):
    """Fractions of the entries, and of their characters, that repeat an earlier entry."""
    mask = clear(slots, n)
    repeated = repeated_chars = total = 0
    for i in range(n):
        total += chars[i]
        if find(slots, mask, keys, i) != i:
            repeated += 1
            repeated_chars += chars[i]
    return ratio(repeated, n), ratio(repeated_chars, total)


@njit
def flags_of(gram, keys, flags):
    """The flags of a word or phrase in a language's lists; 0 when it is in none."""
    mask = len(keys) - 1
    slot = np.int64(gram & np.uint64(mask))
    while keys[slot] != 0:
        if keys[slot] == gram:
            return flags[slot]
        slot = (slot + 1) & mask
    return np.uint8(0)


@njit
def vocabulary(words, n_words, repeats, counts, known, flags, longest, out):
    """Unique words, entropy, stop words and bad words, from the counts of the first round of `grams`."""
    distinct = stop_words = in_short = bad = 0
    begins, surprise = False, 0.0
    for i in range(n_words):
        if repeats[i]:
            continue
        distinct += 1
        if counts[i] > 1:
            surprise += C_LOG_C[counts[i]] if counts[i] < len(C_LOG_C) else counts[i] * np.log(np.float64(counts[i]))
        if len(known):
            found = flags_of(words[i], known, flags)
            if found:
                in_short += found & SHORT_LIST != 0
                if found & LONG_LIST:
                    stop_words += counts[i]
                if found & BAD:
                    bad += counts[i]
                begins |= found & BEGINS_BAD != 0
    if begins:                                              # phrases: rare enough to look at every word again
        for i in range(n_words):
            if flags_of(words[i], known, flags) & BEGINS_BAD:
                gram = words[i]
                for j in range(i + 1, min(i + longest, n_words)):
                    gram = gram * GRAM_BASE + words[j]
                    bad += flags_of(gram, known, flags) & BAD != 0
    out[UNIQUE_WORDS] = ratio(distinct, n_words)
    if n_words:                                             # rounded: the last bits are the logarithm's
        out[UNIGRAM_ENTROPY] = np.rint((np.log(np.float64(n_words)) - surprise / n_words) * 1e8) / 1e8
    out[LANGUAGE_STOP_WORDS], out[STOP_WORD_FRACTION], out[BAD_WORDS] = in_short, ratio(stop_words, n_words), bad


@njit
def grams(words, lengths, n_words, slots, keys, ends, counts, active, repeats, known, flags, longest, out):
    """The vocabulary, top 2..4-grams, duplicate and repeated 5..10-grams.

    An (n+1)-gram that occurs twice begins with an n-gram that occurs twice, so each round looks only at the
    positions (`active`) whose n-gram was not alone in the round before: few after the first rounds.
    """
    total = 0
    for i in range(n_words):
        keys[i], active[i], ends[i] = words[i], i, total
        total += lengths[i]
    ends[n_words] = total
    n_active = n_words
    for n in range(1, 11):
        mask = clear(slots, n_active)
        best, covered, until, repeated, behind = -1, 0, 0, 0, 0
        for j in range(n_active):
            i = active[j]
            if n > 1:
                keys[i] = keys[i] * GRAM_BASE + words[i + n - 1]
            counts[i] = 1
            earlier = find(slots, mask, keys, i)
            repeats[j] = earlier != i
            if earlier != i:
                counts[earlier] += 1
                if n >= 5:
                    covered += ends[i + n] - ends[max(i, until)]
                    until = i + n
        if n == 1:
            vocabulary(words, n_words, repeats, counts, known, flags, longest, out)
        if 2 <= n <= 4:
            for j in range(n_active):
                i = active[j]
                if not repeats[j] and counts[i] > 1 and (best < 0 or counts[i] > counts[best] or (
                        counts[i] == counts[best] and ends[i + n] - ends[i] > ends[best + n] - ends[best])):
                    best = i
        kept = 0
        for j in range(n_active):
            i = active[j]
            if best >= 0 and keys[i] == keys[best]:
                covered += ends[i + n] - ends[max(i, until)]
                until = i + n
            if repeats[j] or counts[i] > 1:
                repeated += ends[i + n] - ends[max(i, behind)]
                behind = i + n
                if i + n + 1 <= n_words:
                    active[kept] = i
                    kept += 1
        if n > 1:
            out[GRAMS + n - 2] = ratio(covered, total)
        if n >= 5:
            out[REPEATED + n - 5] = ratio(repeated, total)
        n_active = kept


@njit(types.void(types.uint64[::1], types.int32[::1], types.uint64[::1], types.int32[::1], types.uint64[::1],
                 types.int32[::1], types.int64[:, ::1], _frozen(types.int32), _frozen(types.int64),
                 _frozen(types.uint64), _frozen(types.uint8), types.int64, types.float64[:, ::1]),
      cache=True, nogil=True)
def repetition(words, lengths, lines, line_chars, paragraphs, paragraph_chars, ends, languages, bounds, lexicon, flags,
               longest, signals):
    """Measures documents by their hashes.

    Args:
        words, lengths, lines, line_chars, paragraphs, paragraph_chars, ends: as `tasks.annotate.scan.scan` fills them.
        languages: int32 of shape (n,): the number of the document's language in the lexicon, -1 for none.
        bounds, lexicon, flags: of `tasks.annotate.lexicon`: for each language, lexicon[bounds[k]:bounds[k + 1]] is an
            open-addressing table of hashes of words and phrases; longest: the most words of a phrase there.
        signals: float64 of shape (n, COLUMNS), zeros; filled.
    """
    room = 0
    slots, keys, places, counts, active, repeats = (
        np.empty(8, np.int32), np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int32),
        np.empty(0, np.int32), np.empty(0, np.uint8))
    for d in range(len(ends) - 1):
        w, n_words = ends[d, 0], ends[d + 1, 0] - ends[d, 0]
        k, n_lines = ends[d, 1], ends[d + 1, 1] - ends[d, 1]
        p, n_paragraphs = ends[d, 2], ends[d + 1, 2] - ends[d, 2]
        if room < max(n_words, n_lines) + 1:
            room = 2 * max(n_words, n_lines) + 1024
            size = 8
            while size * 2 < room * 3:
                size *= 2
            slots, keys, places = np.empty(size, np.int32), np.empty(room, np.uint64), np.empty(room, np.int64)
            counts, active = np.empty(room, np.int32), np.empty(room, np.int32)
            repeats = np.empty(room, np.uint8)
        out = signals[d]
        out[DUPLICATE_LINES], out[DUPLICATE_LINE_CHARS] = duplicates(lines[k:], line_chars[k:], n_lines, slots)
        out[DUPLICATE_PARAGRAPHS], out[DUPLICATE_PARAGRAPH_CHARS] = duplicates(
            paragraphs[p:], paragraph_chars[p:], n_paragraphs, slots)
        first = last = 0
        if languages[d] >= 0:
            first, last = bounds[languages[d]], bounds[languages[d] + 1]
        grams(words[w:], lengths[w:], n_words, slots, keys, places, counts, active, repeats, lexicon[first:last],
              flags[first:last], longest, out)

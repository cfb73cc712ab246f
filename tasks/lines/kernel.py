"""The pass over the bytes of many texts that finds the lines to cut.

All of it is in this file, since numba's cache on disk does not see changes in others; the constants are those of
`tasks.words` and `tasks.lines.rules` (a test compares).
"""

import numpy as np

from tasks.compiled import njit

OTHER, LETTER, DIGIT, MARK, SINGLE, FORMAT, SPACE, TERMINAL, CLOSING, BULLET = range(10)
CLASS_SHIFT, POINT_MASK = 21, (1 << 21) - 1
FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
GRAM_BASE = np.uint64(0x9E3779B97F4A7C15)
ANYWHERE, AT_START, AT_END, COUNTED = 1, 2, 4, 8
(JAVASCRIPT, POLICY, COOKIES, NAVIGATION, COUNTER, NUMBERS, UPPERCASE, ONE_WORD, WORDS, WORD_LENGTH, END) = range(11)
N_RULES = 11


@njit
def _fmix64(h):
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


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
def _slot(keys, gram):
    """The slot of the phrase `gram`; -1 when it is none."""
    mask = len(keys) - 1
    slot = np.int64(gram & np.uint64(mask))
    while keys[slot] != 0:
        if keys[slot] == gram:
            return slot
        slot = (slot + 1) & mask
    return np.int64(-1)


@njit
def _judge(on, seen, n_words, numbered, digits, letters, uppercase, others, chars, longest, ended, quoted, min_words,
           max_word):
    """The first rule that a line breaks, of those that are on; -1 for none. `seen` has a flag for each phrase rule."""
    if on[JAVASCRIPT] and seen[JAVASCRIPT]:
        return JAVASCRIPT
    if on[POLICY] and seen[POLICY]:
        return POLICY
    if on[COOKIES] and seen[COOKIES] and n_words <= 25:
        return COOKIES
    if on[NAVIGATION] and seen[NAVIGATION] and n_words <= 10 and not ended:
        return NAVIGATION
    if on[COUNTER] and seen[COUNTER] and numbered and n_words == 2:
        return COUNTER
    if on[NUMBERS] and digits and not letters and not others:
        return NUMBERS
    if on[UPPERCASE] and 2 * uppercase > chars:
        return UPPERCASE
    if on[ONE_WORD] and n_words == 1:
        return ONE_WORD
    if on[WORDS] and n_words < min_words:
        return WORDS
    if on[WORD_LENGTH] and longest > max_word:
        return WORD_LENGTH
    if on[END] and not ended and not quoted:
        return END
    return -1


@njit(cache=True, nogil=True)
def find_lines(data, offsets, table, capitals, keys, places, enders, on, min_words, max_word, counts):
    """The lines to cut.

    Args:
        data, offsets: uint8 and int64 (n + 1): text t is data[offsets[t]:offsets[t + 1]], UTF-8.
        table, capitals: of tasks.words, by code point.
        keys, places, enders: of tasks.lines.rules.phrase_table.
        on: bool (N_RULES), which rules are on.
        min_words, max_word: their limits.
        counts: int32 (n, 4), zeros; filled with each text's lines, lines to cut, words and words in those.

    Returns int32 arrays over the cuts: the text, the first code point, how many, the rule.
    """
    cuts = np.empty((1024, 4), np.int32)
    n_cuts = 0
    seen = np.zeros(N_RULES, np.bool_)
    grams = np.zeros(4, np.uint64)
    for t in range(len(offsets) - 1):
        i, end = offsets[t], offsets[t + 1]
        first_cut, kept_end = n_cuts, 0     # the first cut after the last line that stays, and where that line ends
        open_cut = False                    # the last line was cut: what follows up to the next line goes with it
        point_at = 0                        # code points before the one at i
        begin, final = -1, 0                # of the line's text, in code points
        n_words = letters = digits = uppercase = others = longest = token = phrase_end = 0
        numbered = in_word = ended = ellipsis = quoted = False
        dots, word, last = 0, FNV_OFFSET, OTHER
        seen[:] = False
        while i <= end:
            if i < end:
                point, width = _decode(data, i, end)
            else:
                point, width = np.int32(10), 1
            i += width
            here = point_at
            point_at += 1
            packed = table[point]
            kind, form = packed >> CLASS_SHIFT, packed & POINT_MASK
            if kind != SPACE and begin < 0:
                begin = here
                if open_cut:
                    cuts[n_cuts - 1, 2] = begin - cuts[n_cuts - 1, 1]
                    open_cut = False
            if kind == FORMAT:                  # of the line's text, but of none of its words
                final = here + 1
                continue
            goes_on = in_word and (kind == LETTER or kind == DIGIT or kind == MARK)
            if in_word and not goes_on and (form == 0x27 or form == 0x2E or form == 0x2C) and i < end:
                follows = table[_decode(data, i, end)[0]] >> CLASS_SHIFT
                goes_on = follows == last and last == (LETTER if form == 0x27 else DIGIT)
            if in_word and not goes_on:
                in_word = False
                w = _fmix64(word)
                n_words += 1
                for n in range(3, 0, -1):
                    grams[n] = grams[n - 1] * GRAM_BASE + w
                grams[0] = w
                for n in range(min(4, n_words) if enders[w & np.uint64(len(enders) - 1)] else 0):
                    slot = _slot(keys, grams[n])
                    if slot >= 0:
                        for r in range(5):
                            where = places[slot, r]
                            if where & ANYWHERE or where & AT_START and n_words == n + 1 or where & COUNTED:
                                seen[r] = True
                            if where & AT_END:      # counts when no word follows
                                phrase_end = n_words
            if not in_word and (kind == LETTER or kind == DIGIT or kind == SINGLE):
                in_word, word = True, FNV_OFFSET
                numbered |= n_words == 0 and kind == DIGIT
                goes_on = True
            if goes_on:
                word = (word ^ np.uint64(form)) * FNV_PRIME
                if kind == LETTER or kind == DIGIT or kind == SINGLE:
                    last = kind
            if kind == SINGLE:
                # Each letter of a script without spaces counts as a word of its own here, so that no line of such a
                # script is a line of one word.
                in_word = False
                n_words += 1
            if kind != SPACE:
                final = here + 1
                token += 1
                if kind == LETTER or kind == SINGLE:
                    letters += 1
                    uppercase += capitals[point]
                    ended = ellipsis = quoted = False
                    dots = 0
                    while i < end and data[i] < 0x80 and in_word:   # most bytes are the rest of an ASCII word
                        packed = table[data[i]]
                        if packed >> CLASS_SHIFT != LETTER:
                            break
                        word = (word ^ np.uint64(packed & POINT_MASK)) * FNV_PRIME
                        uppercase += capitals[data[i]]
                        letters += 1
                        token += 1
                        point_at += 1
                        i += 1
                    final = point_at
                    continue
                if kind == DIGIT:
                    digits += 1
                elif form != 0x2E and form != 0x2C:
                    others += 1
                quoted = point == 0x22 or point == 0x201D
                if kind == TERMINAL:
                    dots = dots + 1 if point == 0x2E else 0
                    ended, ellipsis = True, dots >= 3 or point == 0x2026
                elif kind != CLOSING and kind != MARK:
                    ended = ellipsis = False
                    dots = 0
                continue
            longest = max(longest, token)
            token = 0
            if point != 10:
                continue
            if begin >= 0:
                if phrase_end and phrase_end == n_words:
                    seen[NAVIGATION] = True
                rule = _judge(on, seen, n_words, numbered, digits, letters, uppercase, others, final - begin, longest,
                              ended and not ellipsis, quoted, min_words, max_word)
                counts[t, 0] += 1
                counts[t, 2] += n_words
                if rule >= 0:
                    counts[t, 1] += 1
                    counts[t, 3] += n_words
                    if n_cuts == len(cuts):
                        larger = np.empty((2 * n_cuts, 4), np.int32)
                        larger[:n_cuts] = cuts
                        cuts = larger
                    cuts[n_cuts, 0], cuts[n_cuts, 1], cuts[n_cuts, 2], cuts[n_cuts, 3] = t, begin, final - begin, rule
                    n_cuts += 1
                    open_cut = True
                else:
                    first_cut, kept_end = n_cuts, final
            begin = -1
            n_words = letters = digits = uppercase = others = longest = token = phrase_end = 0
            numbered = in_word = ended = ellipsis = quoted = False
            dots, word, last = 0, FNV_OFFSET, OTHER
            seen[:] = False
        if first_cut < n_cuts and kept_end:     # no line stays after these: the line feed before them goes too
            cuts[first_cut, 2] += cuts[first_cut, 1] - kept_end
            cuts[first_cut, 1] = kept_end
    return cuts[:n_cuts]

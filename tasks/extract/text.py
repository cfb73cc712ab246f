"""Text of a page as it is shown: character references decoded, white space collapsed, and what it holds counted."""

import numpy as np
from numba import njit

from tasks.extract import tags
from tasks.extract.hashes import find, hash_cased

# Columns of a block. Offsets are bytes in the text; counts are of the block's text. PARENT is the nearest element
# that is no inline one, NODE the element, inline or not, of the first character.
(START, END, NODE, PARENT, CHARS, LINK_CHARS, WORDS, LINKS, UPPER, DIGITS, COMMAS, STOPS, BARS, WORD_WEIGHT, BOLD,
 AFTER_BREAK, CONTROLS) = range(17)
# Columns of the state while blocks are made.
(T_OUT, T_SPACE, T_BREAK, T_LINK, T_IS_BOLD, T_WORD, T_IN_WORD, T_HERE, T_HERE_BLOCK, T_LAST_LINK, T_N_BLOCKS,
 T_MATH_AT, T_MATH_FROM, T_MATH_TO, T_MATH_OF_MATHML, T_N_STATE) = range(16)
_FNV_OFFSET, _FNV_PRIME = np.uint64(tags.FNV_OFFSET), np.uint64(tags.FNV_PRIME)


@njit
def _put(point, buf, out):
    """Writes a code point in UTF-8; returns the place after it."""
    if point < 0x80:
        buf[out] = point
        return out + 1
    if point < 0x800:
        buf[out], buf[out + 1] = 0xC0 | point >> 6, 0x80 | point & 63
        return out + 2
    if point < 0x10000:
        buf[out], buf[out + 1], buf[out + 2] = 0xE0 | point >> 12, 0x80 | point >> 6 & 63, 0x80 | point & 63
        return out + 3
    buf[out], buf[out + 1] = 0xF0 | point >> 18, 0x80 | point >> 12 & 63
    buf[out + 2], buf[out + 3] = 0x80 | point >> 6 & 63, 0x80 | point & 63
    return out + 4


@njit
def _reference(html, i, end, references, bare, c1):
    """(code point, place after it) of the character reference at `i`, an ampersand; code point -1 when it is none."""
    j = i + 1
    if j < end and html[j] == 35:  # numeric
        j += 1
        hexadecimal = j < end and html[j] | 32 == 120
        if hexadecimal:
            j += 1
        first, point = j, 0
        while j < end:
            c = html[j]
            if 48 <= c <= 57:
                digit = c - 48
            elif hexadecimal and 97 <= c | 32 <= 102:
                digit = (c | 32) - 87
            else:
                break
            point = min(point * (16 if hexadecimal else 10) + digit, 0x110000)
            j += 1
        if j == first:
            return -1, i + 1
        if j < end and html[j] == 59:
            j += 1
        if 128 <= point < 160:
            point = c1[point - 128]
        if point == 0 or point > 0x10FFFF or 0xD800 <= point < 0xE000:
            point = 0xFFFD
        return point, j
    while j < end and j - i < 34 and (48 <= html[j] <= 57 or 65 <= html[j] <= 90 or 97 <= html[j] <= 122):
        j += 1
    if j < end and html[j] == 59:
        point = find(references[0], references[1], hash_cased(html, i + 1, j))
        if point >= 0:
            return point, j + 1
    for k in range(min(j, i + 7), i + 2, -1):
        h = hash_cased(html, i + 1, k)
        if find(bare[0], bare[1], h) >= 0:
            return find(references[0], references[1], h), k
    return -1, i + 1


@njit
def append_text(html, i, end, pre, buf, block, state, references, bare, c1, vocabulary):
    """Appends the text of html[i:end] to the open block, references decoded, white space collapsed unless `pre`."""
    out, word, in_word = state[T_OUT], np.uint64(state[T_WORD]), state[T_IN_WORD] != 0
    link, bold, link_before = state[T_LINK] >= 0, state[T_IS_BOLD] > 0, state[T_LAST_LINK] != 0
    while i < end:
        c = np.int64(html[i])
        point, width = c, 1
        if c == 38:
            point, after = _reference(html, i, end, references, bare, c1)
            if point < 0:
                point = c
            width = after - i
            if point >= 128:
                c = 0x80 if point < 0x800 else 0xE0 if point < 0x3000 else 0xE3
            else:
                c = point
        elif c >= 0x80:
            point = 0x100
            if c == 0xC2 and i + 1 < end and html[i + 1] == 0xA0:
                point, width = 160, 2
            elif (c == 0xE3 and i + 2 < end and html[i + 1] == 0x80) or (
                    c == 0xEF and i + 2 < end and html[i + 1] == 0xBC):
                point, width = (c & 15) << 12 | (html[i + 1] & 63) << 6 | html[i + 2] & 63, 3
        if point <= 32 or point == 160:
            if in_word:
                in_word = False
                block[WORDS] += 1
                block[WORD_WEIGHT] += max(0, find(vocabulary[0], vocabulary[1], word))
            if not pre:
                state[T_SPACE] = 1
            elif point == 10 and block[CHARS] == 0:
                out = block[START]
            elif not (point == 13 and i + 1 < end and html[i + 1] == 10):
                if state[T_BREAK]:
                    buf[out] = 10
                    out += 1
                    state[T_BREAK] = 0
                buf[out] = 10 if point == 13 else 32 if point != 10 and point != 9 else point
                out += 1
            i += width
            continue
        if block[CHARS] == 0:
            block[NODE], block[PARENT] = state[T_HERE], state[T_HERE_BLOCK]
            state[T_SPACE], state[T_BREAK] = 0, 0
        if state[T_BREAK]:
            buf[out] = 10
            out += 1
            state[T_BREAK], state[T_SPACE] = 0, 0
        elif state[T_SPACE]:
            buf[out] = 32
            out += 1
            state[T_SPACE] = 0
            block[CHARS] += 1
            if link and link_before:
                block[LINK_CHARS] += 1
        link_before = link
        # letters, digits and all beyond ASCII make words
        if 97 <= c <= 122 or c >= 128:
            if not in_word:
                in_word, word = True, _FNV_OFFSET
            word = (word ^ np.uint64(c)) * _FNV_PRIME
        elif 65 <= c <= 90:
            if not in_word:
                in_word, word = True, _FNV_OFFSET
            word = (word ^ np.uint64(c + 32)) * _FNV_PRIME
            block[UPPER] += 1
        elif 48 <= c <= 57:
            if not in_word:
                in_word, word = True, _FNV_OFFSET
            word = (word ^ np.uint64(c)) * _FNV_PRIME
            block[DIGITS] += 1
        else:
            if in_word:
                in_word = False
                block[WORDS] += 1
                block[WORD_WEIGHT] += max(0, find(vocabulary[0], vocabulary[1], word))
            if c == 44 or c == 59:
                block[COMMAS] += 1
            elif c == 46 or c == 33 or c == 63:
                block[STOPS] += 1
            elif c == 124 or c == 47 or c == 62:
                block[BARS] += 1
        if point == 0x3001 or point == 0xFF0C:
            block[COMMAS] += 1
        elif point == 0x3002 or point == 0xFF01 or point == 0xFF1F:
            block[STOPS] += 1
        if html[i] == 38:
            out = _put(point, buf, out)
        else:
            for k in range(width):
                buf[out + k] = html[i + k]
            out += width
        if c < 128 or c >= 0xC0:
            size = 2 if c >= 0xE3 else 1  # an ideograph says as much as two letters
            block[CHARS] += size
            if link:
                block[LINK_CHARS] += size
            if bold:
                block[BOLD] += size
        elif html[i] == 38:
            block[CHARS] += 1
            if link:
                block[LINK_CHARS] += 1
        i += width
    state[T_LAST_LINK] = 1 if link else 0
    state[T_OUT], state[T_WORD], state[T_IN_WORD] = out, np.int64(word), 1 if in_word else 0


@njit
def end_word(block, state, vocabulary):
    if state[T_IN_WORD]:
        state[T_IN_WORD] = 0
        block[WORDS] += 1
        block[WORD_WEIGHT] += max(0, find(vocabulary[0], vocabulary[1], np.uint64(state[T_WORD])))

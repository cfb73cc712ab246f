"""Text of a page as it is shown: character references decoded, white space collapsed, and what it holds counted."""

import numpy as np

from tasks.compiled import njit
from tasks.extract import tags
from tasks.extract.hashes import find, hash_cased

# Columns of a block. Offsets are bytes in the text; counts are of the block's text. PARENT is the nearest element
# that is no inline one, NODE the element, inline or not, of the first character.
(START, END, NODE, PARENT, CHARS, LINK_CHARS, WORDS, LINKS, UPPER, DIGITS, COMMAS, STOPS, BARS, WORD_WEIGHT, BOLD,
 AFTER_BREAK, CONTROLS) = range(17)
# Columns of the state while blocks are made.
(T_OUT, T_SPACE, T_BREAK, T_LINK, T_IS_BOLD, T_WORD, T_IN_WORD, T_HERE, T_HERE_BLOCK, T_LAST_LINK, T_N_BLOCKS,
 T_MATH_AT, T_MATH_FROM, T_MATH_TO, T_MATH_OF_MATHML, T_N_STATE) = range(16)
_REFERENCE_KEYS, _REFERENCES = tags.REFERENCE_KEYS, tags.REFERENCE_VALUES
_BARE_KEYS, _BARE, _C1 = tags.BARE_KEYS, tags.BARE_VALUES, tags.C1
_FNV_OFFSET, _FNV_PRIME = np.uint64(tags.FNV_OFFSET), np.uint64(tags.FNV_PRIME)

# What a byte adds to CHARS when it goes on with a word and there is nothing else to say of it; else -1. No-break spaces
# begin with C2, signs of full width with E3 and EF.
_IN_WORD = np.full(256, -1, np.int8)
_IN_WORD[97:123], _IN_WORD[0x80:0xC0], _IN_WORD[0xC0:0xE3], _IN_WORD[0xE4:] = 1, 0, 1, 2
_IN_WORD[[0xC2, 0xEF]] = -1


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
def _reference(html, i, end):
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
            point = _C1[point - 128]
        if point == 0 or point > 0x10FFFF or 0xD800 <= point < 0xE000:
            point = 0xFFFD
        return point, j
    while j < end and j - i < 34 and (48 <= html[j] <= 57 or 65 <= html[j] <= 90 or 97 <= html[j] <= 122):
        j += 1
    if j < end and html[j] == 59:
        point = find(_REFERENCE_KEYS, _REFERENCES, hash_cased(html, i + 1, j))
        if point >= 0:
            return point, j + 1
    for k in range(min(j, i + 7), i + 2, -1):
        h = hash_cased(html, i + 1, k)
        if find(_BARE_KEYS, _BARE, h) >= 0:
            return find(_REFERENCE_KEYS, _REFERENCES, h), k
    return -1, i + 1


@njit
def append_text(html, i, end, pre, buf, block, state, vocabulary):
    """Appends the text of html[i:end] to the open block, references decoded, white space collapsed unless `pre`."""
    out, word, in_word = state[T_OUT], np.uint64(state[T_WORD]), state[T_IN_WORD] != 0
    link, bold, link_before = state[T_LINK] >= 0, state[T_IS_BOLD] > 0, state[T_LAST_LINK] != 0
    space, line_break = state[T_SPACE] != 0, state[T_BREAK] != 0
    chars, link_chars, bold_chars, words, word_weight = block[CHARS], 0, 0, 0, 0  # what changes with each byte is local
    upper, digits, commas, stops, bars = 0, 0, 0, 0, 0
    while i < end:
        c = np.int64(html[i])
        size = np.int64(_IN_WORD[c])
        if size >= 0 and in_word and chars > 0 and not space and not line_break:
            before = chars
            while True:  # most of a text are small letters in words
                word = (word ^ np.uint64(c)) * _FNV_PRIME
                buf[out] = c
                out, i, chars = out + 1, i + 1, chars + size
                if i >= end:
                    break
                c = np.int64(html[i])
                size = np.int64(_IN_WORD[c])
                if size < 0:
                    break
            link_before = link
            if link:
                link_chars += chars - before
            if bold:
                bold_chars += chars - before
            continue
        point, width = c, 1
        if c == 38:
            point, after = _reference(html, i, end)
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
                words += 1
                word_weight += max(0, find(vocabulary[0], vocabulary[1], word))
            if not pre:
                space = True
            elif point == 10 and chars == 0:
                out = block[START]
            elif not (point == 13 and i + 1 < end and html[i + 1] == 10):
                if line_break:
                    buf[out] = 10
                    out += 1
                    line_break = False
                buf[out] = 10 if point == 13 else 32 if point != 10 and point != 9 else point
                out += 1
            i += width
            continue
        if chars == 0:
            block[NODE], block[PARENT] = state[T_HERE], state[T_HERE_BLOCK]
            space = line_break = False
        if line_break:
            buf[out] = 10
            out += 1
            line_break = space = False
        elif space:
            buf[out] = 32
            out += 1
            space = False
            chars += 1
            if link and link_before:
                link_chars += 1
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
            upper += 1
        elif 48 <= c <= 57:
            if not in_word:
                in_word, word = True, _FNV_OFFSET
            word = (word ^ np.uint64(c)) * _FNV_PRIME
            digits += 1
        else:
            if in_word:
                in_word = False
                words += 1
                word_weight += max(0, find(vocabulary[0], vocabulary[1], word))
            if c == 44 or c == 59:
                commas += 1
            elif c == 46 or c == 33 or c == 63:
                stops += 1
            elif c == 124 or c == 47 or c == 62:
                bars += 1
        if point == 0x3001 or point == 0xFF0C:
            commas += 1
        elif point == 0x3002 or point == 0xFF01 or point == 0xFF1F:
            stops += 1
        if html[i] == 38:
            out = _put(point, buf, out)
        else:
            for k in range(width):
                buf[out + k] = html[i + k]
            out += width
        if c < 128 or c >= 0xC0:
            size = 2 if c >= 0xE3 else 1  # an ideograph says as much as two letters
            chars += size
            if link:
                link_chars += size
            if bold:
                bold_chars += size
        elif html[i] == 38:
            chars += 1
            if link:
                link_chars += 1
        i += width
    block[CHARS] = chars
    for column, count in ((LINK_CHARS, link_chars), (BOLD, bold_chars), (WORDS, words), (WORD_WEIGHT, word_weight),
                          (UPPER, upper), (DIGITS, digits), (COMMAS, commas), (STOPS, stops), (BARS, bars)):
        block[column] += count
    state[T_LAST_LINK], state[T_SPACE], state[T_BREAK] = 1 if link else 0, 1 if space else 0, 1 if line_break else 0
    state[T_OUT], state[T_WORD], state[T_IN_WORD] = out, np.int64(word), 1 if in_word else 0


@njit
def end_word(block, state, vocabulary):
    if state[T_IN_WORD]:
        state[T_IN_WORD] = 0
        block[WORDS] += 1
        block[WORD_WEIGHT] += max(0, find(vocabulary[0], vocabulary[1], np.uint64(state[T_WORD])))

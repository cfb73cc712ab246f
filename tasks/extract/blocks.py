"""From the bytes of a page to its blocks of text and the elements around them: one pass, compiled.

A tolerant HTML tokenizer with a stack of open elements: optional end tags, misnested and unclosed elements, raw text,
comments, character references, hidden elements and mathematics are dealt with as browsers do, as far as text needs it
(HTML Standard, 13.2.5 and 13.2.6). It takes time linear in the bytes, whatever they are, and memory of a few times
their number; it never raises.

Every compiled function is in this file and everything else reaches it as an argument: numba's cache on disk is renewed
when the file of the called function changes and does not see changes in others.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tasks.extract import tags

# Columns of a block. Offsets are bytes in the text; counts are of the block's text. PARENT is the nearest element
# that is no inline one, NODE the element, inline or not, of the first character.
(START, END, NODE, PARENT, CHARS, LINK_CHARS, WORDS, LINKS, UPPER, DIGITS, COMMAS, STOPS, BARS, WORD_WEIGHT, BOLD,
 AFTER_BREAK, CONTROLS) = range(17)
# Columns of an element. AT is the byte of its tag; CHARS to LAST are sums over all that it holds, by `sum_up`;
# RUN is how many siblings in a row are alike, its number ORDINAL among its parent's items.
(N_PARENT, N_TAG, N_AT, N_BITS, N_CHARS, N_LINK_CHARS, N_BLOCKS, N_FIRST, N_LAST, N_LOOK, N_RUN, N_CHILDREN, N_PROSE,
 N_ORDINAL, N_DEPTH) = range(15)
# Columns of cost.
DEPTH, WORK, PAIRS, TITLE_START, TITLE_END = range(5)
_MOST = 1 << 18              # blocks, and elements, that are told apart
_LOOK_BACK = 256             # open elements that an end tag is compared with
_PROSE = 80                  # characters, outside links, from which on a block counts as prose

_FNV_OFFSET, _FNV_PRIME = np.uint64(tags.FNV_OFFSET), np.uint64(tags.FNV_PRIME)
_S16, _ZERO = np.uint64(16), np.uint64(0)
(_VOID, _IMPLIED, _RAW, _FOREIGN, _BREAKOUT, _INLINE, _SKIP, _SCOPE, _IGNORE, _HEADING, _CLOSES_P) = (
    tags.VOID, tags.IMPLIED, tags.RAW, tags.FOREIGN, tags.BREAKOUT, tags.INLINE, tags.SKIP, tags.SCOPE, tags.IGNORE,
    tags.HEADING, tags.CLOSES_P)
_HIDDEN, _ARIA_HIDDEN, _IN_PRE = tags.IN_HIDDEN, tags.IN_ARIA_HIDDEN, tags.IN_PRE
_A, _P, _LI, _DD, _DT, _TR, _TD, _TH, _BR, _IMG, _SCRIPT, _TITLE, _MATH = (
    tags.TAG[n] for n in "a p li dd dt tr td th br img script title math".split())
_B, _STRONG, _UL, _OL, _MENU, _DL, _TABLE, _DIV, _ADDRESS, _SVG, _CAPTION, _BUTTON, _INPUT, _SELECT = (
    tags.TAG[n] for n in "b strong ul ol menu dl table div address svg caption button input select".split())
_THEAD, _TBODY, _TFOOT = (tags.TAG[n] for n in "thead tbody tfoot".split())
(_CLASS, _ID, _ROLE, _STYLE, _HIDDEN_ATTRIBUTE, _ARIA, _ALT, _ALTTEXT, _TYPE, _START_ATTRIBUTE) = (
    tags.ATTRIBUTES[n] for n in "class id role style hidden aria-hidden alt alttext type start".split())

# Columns of the tokenizer's state.
(_OUT, _SPACE, _BREAK, _LINK, _IS_BOLD, _WORD, _IN_WORD, _HERE, _HERE_BLOCK, _LAST_LINK, _N_BLOCKS, _MATH_AT,
 _MATH_START, _MATH_END, _N_STATE) = range(15)
# Columns of the stack.
_S_TAG, _S_SLOT, _S_NODE, _S_BLOCK, _S_BITS, _S_LEVEL = range(6)


@njit
def find(keys, values, h):
    """The value of hash `h` in an open-addressed table (tasks.extract.tags.slots), -1 without one."""
    mask = len(keys) - 1
    at = np.int64(h >> _S16) & mask
    for _ in range(len(keys)):
        if keys[at] == h:
            return values[at]
        if keys[at] == _ZERO:
            return -1
        at = (at + 1) & mask
    return -1


@njit
def hash_name(html, start, end):
    h = _FNV_OFFSET
    for i in range(start, end):
        c = html[i]
        if 65 <= c <= 90:
            c += 32
        h = (h ^ np.uint64(c)) * _FNV_PRIME
    return h


@njit
def hash_cased(html, start, end):
    h = _FNV_OFFSET
    for i in range(start, end):
        c = html[i]
        if 65 <= c <= 90:
            c += 128
        h = (h ^ np.uint64(c)) * _FNV_PRIME
    return h


@njit
def words_of(html, start, end, hashes):
    """Hashes of the names in a class or id: each whole, and its parts (at signs, digits and capitals) when several.

    Fills `hashes` as far as it goes and returns how many.
    """
    n, i = 0, start
    while i < end and n < len(hashes):
        while i < end and html[i] <= 32:
            i += 1
        first = i
        while i < end and html[i] > 32:
            i += 1
        if i == first or i - first > 64:
            continue
        whole, parts, j = True, 0, first
        while j < i:
            if not (97 <= html[j] <= 122 or 65 <= html[j] <= 90 or html[j] >= 128):
                whole = False
                j += 1
                continue
            k = j + 1
            while k < i and (97 <= html[k] <= 122 or html[k] >= 128 or 65 <= html[k] <= 90 and 65 <= html[k - 1] <= 90):
                k += 1
            if k < i or j > first:
                whole = False
            if k - j > 1 and n < len(hashes) and not whole:
                hashes[n] = hash_name(html, j, k)
                n += 1
                parts += 1
            j = k
        if n < len(hashes):
            hashes[n] = hash_name(html, first, i)
            n += 1
    return n


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
def _text(html, i, end, pre, buf, block, state, references, bare, c1, vocabulary):
    """Appends the text of html[i:end] to the open block, references decoded, white space collapsed unless `pre`."""
    out, word, in_word = state[_OUT], np.uint64(state[_WORD]), state[_IN_WORD] != 0
    link, bold = state[_LINK] >= 0, state[_IS_BOLD] > 0
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
                state[_SPACE] = 1
            elif point == 10 and block[CHARS] == 0:
                out = block[START]
            elif not (point == 13 and i + 1 < end and html[i + 1] == 10):
                if state[_BREAK]:
                    buf[out] = 10
                    out += 1
                    state[_BREAK] = 0
                buf[out] = 10 if point == 13 else 32 if point != 10 and point != 9 else point
                out += 1
            i += width
            continue
        if block[CHARS] == 0:
            block[NODE], block[PARENT] = state[_HERE], state[_HERE_BLOCK]
            state[_SPACE], state[_BREAK] = 0, 0
        if state[_BREAK]:
            buf[out] = 10
            out += 1
            state[_BREAK], state[_SPACE] = 0, 0
        elif state[_SPACE]:
            buf[out] = 32
            out += 1
            state[_SPACE] = 0
            block[CHARS] += 1
            if link:
                block[LINK_CHARS] += 1
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
    state[_LAST_LINK] = 1 if link else 0
    state[_OUT], state[_WORD], state[_IN_WORD] = out, np.int64(word), 1 if in_word else 0


@njit
def _end_word(block, state, vocabulary):
    if state[_IN_WORD]:
        state[_IN_WORD] = 0
        block[WORDS] += 1
        block[WORD_WEIGHT] += max(0, find(vocabulary[0], vocabulary[1], np.uint64(state[_WORD])))


@njit
def _flush(blocks, buf, state, nodes, vocabulary):
    """Ends the open block, when it holds anything; true when another may begin."""
    n = state[_N_BLOCKS]
    block = blocks[n]
    _end_word(block, state, vocabulary)
    if block[CHARS] == 0:
        state[_OUT] = block[START]
        controls = block[CONTROLS]
        block[:] = 0
        block[START], block[NODE], block[CONTROLS] = state[_OUT], -1, controls
        state[_SPACE] = 0
        state[_BREAK] = 0
        return
    if n + 1 >= len(blocks):  # more blocks than are told apart: the last one goes on
        state[_BREAK] = 1
        return
    out = state[_OUT]
    while out > block[START] and buf[out - 1] <= 32:
        out -= 1
    block[END] = out
    node = nodes[block[PARENT]]
    node[N_CHARS] += block[CHARS]
    node[N_LINK_CHARS] += block[LINK_CHARS]
    node[N_BLOCKS] += 1
    if block[CHARS] - block[LINK_CHARS] >= _PROSE:
        node[N_PROSE] += block[CHARS] - block[LINK_CHARS]
    if node[N_FIRST] < 0:
        node[N_FIRST] = n
    node[N_LAST] = n + 1
    state[_N_BLOCKS] = n + 1
    state[_OUT] = out
    blocks[n + 1, :] = 0
    blocks[n + 1, START], blocks[n + 1, NODE] = out, -1
    state[_SPACE] = state[_BREAK] = 0


class Cost(NamedTuple):
    """What decides how long a page takes other engines to parse and search; see `measure`."""

    depth: int          # of the elements, at the deepest
    work: int           # the sum of the depths of the tags
    pairs: int          # the sum over the tags of their attributes squared


@njit
def _attribute_is(html, start, end, word):
    """Whether html[start:end] begins with the lower-case bytes `word`."""
    if end - start < len(word):
        return False
    for k in range(len(word)):
        c = html[start + k]
        if 65 <= c <= 90:
            c += 32
        if c != word[k]:
            return False
    return True


@njit
def _contains(html, start, end, first, second):
    """Whether the declaration `first: second` is in the style html[start:end]."""
    i = start
    while i + len(first) < end:
        if _attribute_is(html, i, end, first):
            j = i + len(first)
            while j < end and (html[j] <= 32 or html[j] == 58):
                j += 1
            if _attribute_is(html, j, end, second):
                return True
        i += 1
    return False


@njit
def _close(stack, top, to, state, nodes, opened, kinds):
    """Pops the stack down to `to` elements; returns the level of depth that is left."""
    while top > to:
        top -= 1
        tag = stack[top, _S_TAG]
        if tag >= 0:
            opened[stack[top, _S_SLOT] & 4095] -= 1
        if state[_LINK] == top:
            state[_LINK] = -1
        if tag == _B or tag == _STRONG:
            state[_IS_BOLD] -= 1
    return top


@njit
def _after(html, i, name):
    """The place of the next end tag of the lower-case `name`, -1 without one."""
    n = len(html) - len(name) - 1
    while i < n:
        if html[i] == 60 and html[i + 1] == 47 and _attribute_is(html, i + 2, len(html), name):
            c = html[i + 2 + len(name)] if i + 2 + len(name) < len(html) else 62
            if not (97 <= c | 32 <= 122):
                return i
        i += 1
    return -1


@njit
def _math(html, i, end, raw, buf, block, state, references, bare, c1, vocabulary, literals):
    """Appends the TeX (or with `raw` off the text of the MathML) in html[i:end] between dollar signs, but not twice."""
    while i < end and html[i] <= 32:
        i += 1
    while end > i and html[end - 1] <= 32:
        end -= 1
    if i == end:
        return
    if _attribute_is(html, i, end, literals[1]) and html[end - 1] == 125:  # {\displaystyle ...} of Wikipedia
        i, end = i + len(literals[1]), end - 1
        while i < end and html[i] <= 32:
            i += 1
    size = end - i
    if state[_MATH_AT] == state[_OUT] and state[_MATH_END] - state[_MATH_START] == size:
        same = True
        for k in range(size):
            same = same and html[i + k] == html[state[_MATH_START] + k]
        if same:
            return
    sign = literals[0]
    marked = raw and (html[i] == 36 or html[i] == 92 and i + 1 < end and (html[i + 1] == 40 or html[i + 1] == 91))
    if not marked:
        _text(sign, 0, 1, False, buf, block, state, references, bare, c1, vocabulary)
    if raw:
        _text(html, i, end, False, buf, block, state, references, bare, c1, vocabulary)
    else:
        # Fractions, powers and indices as one would type them; a row among their parts goes in brackets.
        frames, children, open_frames, at = np.zeros(64, np.int64), np.zeros(64, np.int64), 0, i
        while at < end:
            if html[at] != 60:
                j = at
                while j < end and html[j] != 60:
                    j += 1
                _text(html, at, j, False, buf, block, state, references, bare, c1, vocabulary)
                state[_SPACE] = 0
                at = j
                continue
            j = at
            while j < end and html[j] != 62:
                j += 1
            closing = at + 1 < end and html[at + 1] == 47
            kind = 0
            for k in range(2, 8):
                if _attribute_is(html, at + (2 if closing else 1), j, literals[k]):
                    kind = k
            if not closing:
                inner = frames[open_frames - 1] if open_frames else 0
                if open_frames:
                    children[open_frames - 1] += 1
                    nth = children[open_frames - 1]
                    sign_at = -1
                    if inner == 2 and nth == 2:
                        sign_at = 1                          # /
                    elif inner == 3 and nth == 2 or (inner == 6 or inner == 7) and nth == 3:
                        sign_at = 2                          # ^
                    elif inner == 4 and nth == 2 or (inner == 6 or inner == 7) and nth == 2:
                        sign_at = 3                          # _
                    if sign_at >= 0:
                        _text(sign, sign_at, sign_at + 1, False, buf, block, state, references, bare, c1, vocabulary)
                if kind == 5 and inner >= 2 and inner != 5:
                    _text(sign, 4, 5, False, buf, block, state, references, bare, c1, vocabulary)
                    kind = 8
                if open_frames < 64 and not html[j - 1] == 47:
                    frames[open_frames], children[open_frames] = kind, 0
                    open_frames += 1
            elif open_frames:
                open_frames -= 1
                if frames[open_frames] == 8:
                    _text(sign, 5, 6, False, buf, block, state, references, bare, c1, vocabulary)
            at = j + 1
    if not marked:
        state[_SPACE] = 0
        _text(sign, 0, 1, False, buf, block, state, references, bare, c1, vocabulary)
    state[_MATH_AT], state[_MATH_START], state[_MATH_END] = state[_OUT], i, end


@njit
def _up_to(stack, top, first, second, third, stop_kinds, kinds, through):
    """The place on the stack of the nearest element that is one of three, none of `stop_kinds` between; -1 if none.

    With `through`, paragraphs, divisions and addresses never stop the search.
    """
    for k in range(top - 1, max(-1, top - 1 - _LOOK_BACK), -1):
        tag = stack[k, _S_TAG]
        if tag < 0:
            continue
        if tag == first or tag == second or tag == third:
            return k
        if kinds[tag] & stop_kinds:
            return -1
        if through and not kinds[tag] & _INLINE and tag != 0 and tag != _P and tag != _DIV and tag != _ADDRESS:
            return -1
    return -1


@njit(cache=True)
def _tokenize(html, elements, kinds, contexts, attributes, marks, references, bare, c1, vocabulary, classes, literals):
    n = len(html)
    n_tags = 2
    for i in range(n):
        n_tags += html[i] == 60
    most = min(n_tags, _MOST)
    buf = np.empty(n + 16, np.uint8)
    blocks, nodes = np.zeros((most, CONTROLS + 1), np.int32), np.zeros((most, N_DEPTH + 1), np.int32)
    weights = np.zeros((most, 2), np.int32)
    nodes[0, N_PARENT], nodes[0, N_FIRST], blocks[0, NODE] = -1, -1, -1
    n_nodes = 1
    stack, opened = np.zeros((256, 6), np.int64), np.zeros(4096, np.int32)
    state, hashes, cost = np.zeros(_N_STATE, np.int64), np.zeros(64, np.uint64), np.zeros(TITLE_END + 1, np.int64)
    state[_LINK] = state[_MATH_AT] = cost[TITLE_START] = cost[TITLE_END] = -1
    top, level, mute, mute_hidden, foreign = 0, 0, -1, False, -1
    math_ends, data_ends = True, True
    i = 0
    while i < n:
        if html[i] != 60 or i + 1 >= n or not (
                97 <= html[i + 1] | 32 <= 122 or html[i + 1] == 47 or html[i + 1] == 33 or html[i + 1] == 63):
            start = i
            i += 1
            while i < n and html[i] != 60:
                i += 1
            if mute < 0:
                pre = top > 0 and stack[top - 1, _S_BITS] & _IN_PRE != 0
                _text(html, start, i, pre, buf, blocks[state[_N_BLOCKS]], state, references, bare, c1, vocabulary)
            continue
        closing = html[i + 1] == 47
        start = i + 2 if closing else i + 1
        if start >= n or not 97 <= html[start] | 32 <= 122:
            if _attribute_is(html, i, n, literals[8]):      # <!--
                i += 4
                if i < n and html[i] == 62:
                    i += 1
                    continue
                while i < n and not (html[i] == 62 and html[i - 1] == 45 and html[i - 2] == 45):
                    i += 1
            elif data_ends and _attribute_is(html, i, n, literals[9]):  # <![CDATA[
                j = i + 9
                while j < n and not (html[j] == 62 and html[j - 1] == 93 and html[j - 2] == 93):
                    j += 1
                data_ends = j < n
                if data_ends:
                    if mute < 0 and j - 2 > i + 9:
                        _text(html, i + 9, j - 2, False, buf, blocks[state[_N_BLOCKS]], state, references, bare, c1,
                              vocabulary)
                    i = j
            else:
                while i < n and html[i] != 62:
                    i += 1
            i += 1
            continue
        end = start
        while end < n and html[end] > 32 and html[end] != 62 and html[end] != 47:
            end += 1
        h = hash_name(html, start, end)
        tag = max(0, find(elements[0], elements[1], h))
        kind, slot = kinds[tag], np.int64(h >> _S16)
        inline = kind & _INLINE != 0 or tag == 0 or kind & _SKIP != 0
        at, i = i, end

        n_attributes, bits, negative, positive, look = 0, contexts[tag], 0, 0, slot & 0xFFFF
        alt_start = alt_end = -1
        is_math, is_tex, hidden, jax = False, False, False, False
        while i < n and html[i] != 62:
            if html[i] <= 32 or html[i] == 47:
                i += 1
                continue
            a = i
            i += 1
            while i < n and html[i] > 32 and html[i] != 61 and html[i] != 62 and html[i] != 47:
                i += 1
            b, j = i, i
            while j < n and html[j] <= 32:
                j += 1
            v = w = b
            if j < n and html[j] == 61:
                j += 1
                while j < n and html[j] <= 32:
                    j += 1
                if j < n and (html[j] == 34 or html[j] == 39):
                    v = w = j + 1
                    while w < n and html[w] != html[j]:
                        w += 1
                    i = min(n, w + 1)
                else:
                    v = w = j
                    while w < n and html[w] > 32 and html[w] != 62:
                        w += 1
                    i = w
            n_attributes += 1
            if closing or b - a > 11:
                continue
            attribute = find(attributes[0], attributes[1], hash_name(html, a, b))
            if attribute < 0:
                continue
            if attribute == _CLASS or attribute == _ID:
                for k in range(words_of(html, v, w, hashes)):
                    mark = find(marks[0], marks[1], hashes[k])
                    if mark > 0 and mark & tags.MARKS:
                        bits |= mark & ~tags.MATH
                        is_math = is_math or mark & tags.MATH != 0
                    value = find(classes[0], classes[1], hashes[k])
                    if value >= 0:
                        negative, positive = min(negative, value - 4096), max(positive, value - 4096)
                    if attribute == _CLASS:
                        look = look * 31 + np.int64(hashes[k] >> _S16) & 0x3FFFFFFF
                if attribute == _CLASS and _attribute_is(html, v, w, literals[10]) and html[v] == 77:  # MathJax
                    jax = jax or inline or w - v > 7
            elif attribute == _ROLE:
                mark = find(marks[0], marks[1], hash_name(html, v, w))
                if mark > 0 and not mark & tags.MARKS:
                    bits |= mark
            elif attribute == _STYLE:
                if _contains(html, v, w, literals[11], literals[12]) or _contains(html, v, w, literals[13],
                                                                                  literals[14]):
                    bits |= _HIDDEN
            elif attribute == _HIDDEN_ATTRIBUTE:
                bits |= _HIDDEN
            elif attribute == _ARIA:
                if _attribute_is(html, v, w, literals[15]):
                    bits |= _ARIA_HIDDEN
            elif attribute == _ALT and tag == _IMG or attribute == _ALTTEXT:
                alt_start, alt_end = v, w
            elif attribute == _TYPE:
                is_tex = _attribute_is(html, v, w, literals[16])
        self_closing = i < n and html[i - 1] == 47
        i += 1
        cost[PAIRS] += n_attributes * n_attributes
        cost[WORK] += level + 1
        pre = top > 0 and stack[top - 1, _S_BITS] & _IN_PRE != 0
        block = blocks[state[_N_BLOCKS]]

        if closing:
            to = -1
            if opened[slot & 4095] > 0 or kind & _HEADING:
                structural = kind & _SCOPE or tag == _TR or tag == _TBODY or tag == _THEAD or tag == _TFOOT
                blocked = False
                for k in range(top - 1, max(-1, top - 1 - _LOOK_BACK), -1):
                    other = stack[k, _S_TAG]
                    if other < 0:
                        continue
                    if stack[k, _S_SLOT] == slot or kind & _HEADING and kinds[other] & _HEADING:
                        to = k
                        break
                    if kinds[other] & _SCOPE and not structural:
                        break
                    blocked = blocked or not (kinds[other] & (_INLINE | _SKIP) or other == 0)
                if to >= 0 and inline and blocked and kind & _INLINE:
                    # Ends over the head of a block: the block stays open, the inline element does not.
                    if state[_LINK] == to:
                        state[_LINK] = -1
                    if tag == _B or tag == _STRONG:
                        state[_IS_BOLD] -= 1
                    stack[to, _S_TAG] = -1
                    opened[slot & 4095] -= 1
                    continue
            if not inline and mute < 0:
                if pre and tag != tags.TAG_PRE:
                    state[_BREAK] = 1 if block[CHARS] else 0
                else:
                    _flush(blocks, buf, state, nodes, vocabulary)
            if tag == _BUTTON or tag == _SELECT:
                state[_SPACE] = 1
            if to >= 0:
                level = stack[to, _S_LEVEL]
                top = _close(stack, top, to, state, nodes, opened, kinds)
        else:
            if kind & _IGNORE:
                continue
            if foreign >= 0:
                if kind & _BREAKOUT:
                    level = stack[foreign, _S_LEVEL]
                    top = _close(stack, top, foreign, state, nodes, opened, kinds)
                elif self_closing:
                    continue
            if mute >= 0 and top <= mute:
                mute = -1
            if foreign >= 0 and top <= foreign:
                foreign = -1
            if kind & _RAW and foreign < 0:
                name = html[start:end].copy()
                for k in range(len(name)):
                    name[k] |= 32
                j = _after(html, i, name)
                if j < 0:
                    j = n
                if tag == _TITLE and cost[TITLE_START] < 0 and mute < 0:
                    cost[TITLE_START], cost[TITLE_END] = i, j
                if tag == _SCRIPT and is_tex and (mute < 0 or mute_hidden):
                    _math(html, i, j, True, buf, block, state, references, bare, c1, vocabulary, literals)
                i = j
                continue
            if tag == _MATH and math_ends and foreign < 0:
                j = _after(html, i, literals[17])
                math_ends = j >= 0
                if math_ends:
                    if mute < 0 or mute_hidden:
                        first, last, raw = i, j, False
                        k = i
                        while k < j and not _attribute_is(html, k, j, literals[18]):  # <annotation
                            k += 1
                        if k < j:
                            m = k
                            while m < j and html[m] != 62:
                                m += 1
                            tex = False
                            for x in range(k, m):
                                tex = tex or _attribute_is(html, x, m, literals[19])
                            last = k
                            if tex:
                                first, raw, last = m + 1, True, m + 1
                                while last < j and html[last] != 60:
                                    last += 1
                        if not raw and alt_start >= 0 and alt_end > alt_start:
                            first, last, raw = alt_start, alt_end, True
                        _math(html, first, last, raw, buf, block, state, references, bare, c1, vocabulary, literals)
                    i = j
                    continue
            if kind & _VOID:
                if mute >= 0:
                    if not (tag == _INPUT and stack[mute, _S_TAG] == _SELECT):
                        continue
                    level = stack[mute, _S_LEVEL]
                    top, mute = _close(stack, top, mute, state, nodes, opened, kinds), -1
                elif tag == _BR:
                    if pre:
                        _text(literals[20], 0, 1, True, buf, block, state, references, bare, c1, vocabulary)
                    elif state[_BREAK]:
                        _flush(blocks, buf, state, nodes, vocabulary)
                        blocks[state[_N_BLOCKS], AFTER_BREAK] = 1
                    elif block[CHARS]:
                        _end_word(block, state, vocabulary)
                        state[_BREAK] = 1
                elif tag == tags.TAG_HR:
                    _flush(blocks, buf, state, nodes, vocabulary)
                elif tag == _IMG and is_math and alt_start >= 0:
                    _math(html, alt_start, alt_end, True, buf, block, state, references, bare, c1, vocabulary, literals)
                elif tag == _INPUT:
                    block[CONTROLS] += 1
                continue
            to = -1
            if kind & _CLOSES_P and opened[tags.SLOT_P] > 0:
                to = _up_to(stack, top, _P, _P, _P, _SCOPE, kinds, False)
            if tag == _LI:
                k = _up_to(stack, top, _LI, _LI, _LI, _SCOPE, kinds, True)
            elif tag == _DD or tag == _DT:
                k = _up_to(stack, top, _DD, _DT, _DT, _SCOPE, kinds, True)
            elif tag == _TD or tag == _TH:
                k = _up_to(stack, top, _TD, _TH, _TH, 0, kinds, False)
                m = _up_to(stack, top, _TABLE, _TR, _TABLE, 0, kinds, False)
                k = k if k > m else -1
            elif tag == _TR or tag == _TBODY or tag == _THEAD or tag == _TFOOT:
                k = _up_to(stack, top, _TR, _TR, _TR, 0, kinds, False)
                if tag != _TR:
                    k = max(k, _up_to(stack, top, _TBODY, _THEAD, _TFOOT, 0, kinds, False))
                m = _up_to(stack, top, _TABLE, _TABLE, _TABLE, 0, kinds, False)
                k = k if k > m else -1
            elif kind & _HEADING and top and stack[top - 1, _S_TAG] > 0 and kinds[stack[top - 1, _S_TAG]] & _HEADING:
                k = top - 1
            else:
                k = -1
            if k >= 0:
                to = k if to < 0 else min(k, to)
            if tag == _A:
                live = state[_LINK]
                if live >= 0:
                    state[_LINK] = -1
                    if live == top - 1:
                        to = live
                    else:
                        opened[stack[live, _S_SLOT] & 4095] -= 1
                        stack[live, _S_TAG] = -1
                if state[_LAST_LINK]:
                    state[_SPACE] = 1
            if (not inline or tag == _BUTTON) and mute < 0:
                if pre:
                    state[_BREAK] = 1 if block[CHARS] else 0
                else:
                    _flush(blocks, buf, state, nodes, vocabulary)
            if to >= 0:
                level = stack[to, _S_LEVEL]
                top = _close(stack, top, to, state, nodes, opened, kinds)
            here, here_block, above = 0, 0, 0
            if top:
                here, here_block, above = stack[top - 1, _S_NODE], stack[top - 1, _S_BLOCK], stack[top - 1, _S_BITS]
            if inline and bits & (_HIDDEN | _ARIA_HIDDEN):
                hidden = True
                bits &= ~(_HIDDEN | _ARIA_HIDDEN)
            bits |= above
            if mute < 0 and (not inline or negative or positive or bits != above) and n_nodes < most:
                nodes[n_nodes, N_PARENT], nodes[n_nodes, N_TAG], nodes[n_nodes, N_AT] = here, tag, at
                nodes[n_nodes, N_BITS], nodes[n_nodes, N_LOOK], nodes[n_nodes, N_FIRST] = bits, look, -1
                nodes[n_nodes, N_DEPTH] = 0 if inline else 1
                weights[n_nodes, 0], weights[n_nodes, 1] = negative, positive
                here = n_nodes
                if not inline:
                    here_block = here
                n_nodes += 1
            if top == len(stack):
                larger = np.zeros((2 * top, 6), np.int64)
                larger[:top] = stack
                stack = larger
            stack[top, _S_TAG], stack[top, _S_SLOT], stack[top, _S_NODE] = tag, slot, here
            stack[top, _S_BLOCK], stack[top, _S_BITS], stack[top, _S_LEVEL] = here_block, bits, level
            opened[slot & 4095] += 1
            if mute < 0 and (hidden or jax or kind & _SKIP):
                mute, mute_hidden = top, not jax and not kind & _SKIP
            if kind & _FOREIGN and foreign < 0:
                foreign = top
            if tag == _A and mute < 0:
                state[_LINK] = top
                blocks[state[_N_BLOCKS], LINKS] += 1
            elif tag == _B or tag == _STRONG:
                state[_IS_BOLD] += 1
            elif tag == _BUTTON:
                blocks[state[_N_BLOCKS], CONTROLS] += 1
            top += 1
            if not kind & _IMPLIED:
                level += 1
                cost[DEPTH] = max(cost[DEPTH], level)
        if mute >= top:
            mute = -1
        if foreign >= top:
            foreign = -1
        state[_HERE], state[_HERE_BLOCK] = 0, 0
        if top:
            state[_HERE], state[_HERE_BLOCK] = stack[top - 1, _S_NODE], stack[top - 1, _S_BLOCK]
    _flush(blocks, buf, state, nodes, vocabulary)
    n_blocks = state[_N_BLOCKS]
    if n_blocks + 1 == most and blocks[n_blocks, CHARS]:
        blocks[n_blocks, END] = state[_OUT]
        n_blocks += 1
    return buf[:state[_OUT]], blocks[:n_blocks], nodes[:n_nodes], weights[:n_nodes], cost


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_LITERALS = tuple(map(_bytes, (
    b"$/^_()", b"{\\displaystyle", b"mfrac", b"msup", b"msub", b"mrow", b"msubsup", b"munderover", b"<!--",
    b"<![cdata[", b"mathjax", b"display", b"none", b"visibility", b"hidden", b"true", b"math/tex", b"math",
    b"<annotation", b"tex", b"\n")))
_TABLES = ((tags.TAG_KEYS, tags.TAG_VALUES), tags.TAG_KINDS, tags.TAG_CONTEXT,
           (tags.ATTRIBUTE_KEYS, tags.ATTRIBUTE_VALUES), (tags.MARK_KEYS, tags.MARK_VALUES),
           (tags.REFERENCE_KEYS, tags.REFERENCE_VALUES), (tags.BARE_KEYS, tags.BARE_VALUES), tags.C1)
NO_WORDS = tags.slots({}, 16)


class Parsed(NamedTuple):
    """A page in blocks. `text` holds the UTF-8 bytes that START and END of `blocks` point into."""

    text: np.ndarray        # uint8
    blocks: np.ndarray      # int32 (blocks, 17)
    nodes: np.ndarray       # int32 (elements, 15); the first stands for the page
    weights: np.ndarray     # int32 (elements, 2): the least and the greatest weight of the names in class and id
    cost: np.ndarray        # int64 (5,)
    title: str              # the first title element, as it stands between its tags


def tokenize(html: bytes, vocabulary=NO_WORDS, classes=NO_WORDS) -> Parsed:
    """The blocks of a page in UTF-8, in the order of the page.

    Args:
        vocabulary: hash table of words and how much (0 to 4,095) each says that a block is no content.
        classes: hash table of names in class and id, and what each says, plus 4,096.
    """
    made = _tokenize(_bytes(html), *_TABLES, vocabulary, classes, _LITERALS)
    first, last = made[4][TITLE_START:].tolist()
    return Parsed(*made, html[max(first, 0):min(last, first + 10_000)].decode("utf-8", "replace") if first >= 0 else "")

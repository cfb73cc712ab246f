"""From the markup of a page to its blocks of text and the elements around them: one compiled pass.

A stack of open elements deals with optional end tags, misnested and unclosed elements, hidden ones and mathematics as
browsers do, as far as text needs it (HTML Standard, 13.2.6). It takes time linear in the bytes, whatever they are, and
memory of a few times their number; it never raises. A block is text that no block element breaks: a paragraph, a
heading, an entry of a list, a cell, what stands between two of them.
"""

from typing import NamedTuple

import numpy as np

from tasks.compiled import lean, njit
from tasks.extract import tags
from tasks.extract.hashes import source_key
from tasks.extract.html import (
    AFTER,
    AT,
    BITS,
    DATA,
    END_TAG,
    FLAGS,
    FROM,
    KIND,
    LOOK,
    MATHJAX,
    MATHML,
    NEGATIVE,
    NOTHING,
    POSITIVE,
    SELF_CLOSING,
    SLOT,
    TAG,
    TEX,
    TO,
    markup,
)
from tasks.extract.mathematics import DISPLAYSTYLE, SEGMENTS, SIGN, formula
from tasks.extract.mathml import fitting
from tasks.extract.text import (
    AFTER_BREAK,
    CHARS,
    CONTROLS,
    END,
    LINK_CHARS,
    LINKS,
    NODE,
    PARENT,
    START,
    T_BREAK,
    T_HERE,
    T_HERE_BLOCK,
    T_IS_BOLD,
    T_LAST_LINK,
    T_LINK,
    T_MATH_AT,
    T_N_BLOCKS,
    T_N_STATE,
    T_OUT,
    T_SPACE,
    append_text,
    end_word,
)

# Columns of an element. N_AT is the byte of its tag; N_CHARS to N_LAST are of the blocks right in it, until `sum_up`
# adds those of all that it holds and fills N_RUN, N_CHILDREN, N_ORDINAL. N_LEVEL is 1, then the depth, for a block.
(N_PARENT, N_TAG, N_AT, N_BITS, N_CHARS, N_LINK_CHARS, N_BLOCKS, N_FIRST, N_LAST, N_LOOK, N_RUN, N_CHILDREN, N_PROSE,
 N_ORDINAL, N_LEVEL) = range(15)
_MOST = 1 << 18              # blocks, and elements, that are told apart
_LOOK_BACK = 256             # open elements that an end tag is compared with
_PROSE = 80                  # characters, outside links, from which on a block counts as prose

(_VOID, _IMPLIED, _FOREIGN, _BREAKOUT, _INLINE, _SKIP, _SCOPE, _IGNORE, _HEADING, _CLOSES_P, _RAW) = (
    tags.VOID, tags.IMPLIED, tags.FOREIGN, tags.BREAKOUT, tags.INLINE, tags.SKIP, tags.SCOPE, tags.IGNORE,
    tags.HEADING, tags.CLOSES_P, tags.RAW)
_HIDDEN, _ARIA_HIDDEN, _IN_PRE = tags.IN_HIDDEN, tags.IN_ARIA_HIDDEN, tags.IN_PRE
_A, _P, _LI, _DD, _DT, _TR, _TD, _TH, _BR, _HR, _PRE, _B, _STRONG, _TABLE, _DIV, _ADDRESS, _BUTTON, _INPUT, _SELECT = (
    tags.TAG[n] for n in ("a p li dd dt tr td th br hr pre b strong table div address button input select").split())
_KINDS = tags.TAG_KINDS
_THEAD, _TBODY, _TFOOT = (tags.TAG[n] for n in "thead tbody tfoot".split())
_SLOTS = 4096
_MATHJAX_3 = tags.fnv(b"mjx-container") >> 16 & 0x7FFFFFFF
_SLOT_P = tags.fnv(b"p") >> 16 & _SLOTS - 1

# Columns of the stack.
_S_TAG, _S_SLOT, _S_NODE, _S_BLOCK, _S_BITS, _S_LEVEL = range(6)

@njit
def _flush(blocks, buf, state, nodes, vocabulary):
    """Ends the open block, when it holds anything."""
    n = state[T_N_BLOCKS]
    block = blocks[n]
    state[T_MATH_AT] = -1    # an equal formula in the next cell or paragraph is no repetition
    end_word(block, state, vocabulary)
    if block[CHARS] == 0:
        state[T_OUT] = block[START]
        controls = block[CONTROLS]
        block[:] = 0
        block[START], block[NODE], block[CONTROLS] = state[T_OUT], -1, controls
        state[T_SPACE] = 0
        state[T_BREAK] = 0
        return
    if n + 1 >= len(blocks):  # more blocks than are told apart: the last one goes on
        state[T_BREAK] = 1
        return
    out = state[T_OUT]
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
    state[T_N_BLOCKS] = n + 1
    state[T_OUT] = out
    blocks[n + 1, :] = 0
    blocks[n + 1, START], blocks[n + 1, NODE] = out, -1
    state[T_SPACE] = state[T_BREAK] = 0


@njit
def _close(stack, top, to, state, opened):
    """Pops the stack down to `to` elements, which it returns."""
    while top > to:
        top -= 1
        tag = stack[top, _S_TAG]
        if tag >= 0:
            opened[stack[top, _S_SLOT] & 4095] -= 1
        if state[T_LINK] == top:
            state[T_LINK] = -1
        if tag == _B or tag == _STRONG:
            state[T_IS_BOLD] -= 1
    return top


@njit
def _up_to(stack, top, first, second, third, stop_kinds, through):
    """The place on the stack of the nearest element that is one of three, none of `stop_kinds` between; -1 if none.

    With `through`, paragraphs, divisions and addresses never stop the search.
    """
    for k in range(top - 1, max(-1, top - 1 - _LOOK_BACK), -1):
        tag = stack[k, _S_TAG]
        if tag < 0:
            continue
        if tag == first or tag == second or tag == third:
            return k
        if _KINDS[tag] & stop_kinds:
            return -1
        if through and not _KINDS[tag] & _INLINE and tag != 0 and tag != _P and tag != _DIV and tag != _ADDRESS:
            return -1
    return -1


@njit
def _implied(stack, top, tag, opened):
    """The place on the stack of the element that the start tag `tag` ends, -1 when it ends none."""
    to, kind = -1, _KINDS[tag]
    if kind & _CLOSES_P and opened[_SLOT_P] > 0:
        to = _up_to(stack, top, _P, _P, _P, _SCOPE, False)
    first, second, third, within, stop, through = _LI, _LI, _LI, -1, _SCOPE, True
    if tag == _DD or tag == _DT:
        first, second, third = _DD, _DT, _DT
    elif tag == _TD or tag == _TH:
        first, second, third, within, stop, through = _TD, _TH, _TH, _TR, 0, False
    elif tag == _TR:
        first, second, third, within, stop, through = _TR, _TR, _TR, _TABLE, 0, False
    elif tag == _TBODY or tag == _THEAD or tag == _TFOOT:
        first, second, third, within, stop, through = _TBODY, _THEAD, _TFOOT, _TABLE, 0, False
    elif tag != _LI:
        if kind & _HEADING and top and stack[top - 1, _S_TAG] > 0 and _KINDS[stack[top - 1, _S_TAG]] & _HEADING:
            return top - 1 if to < 0 else to
        return to
    k = _up_to(stack, top, first, second, third, stop, through)
    if within >= 0 and k <= _up_to(stack, top, within, _TABLE, _TABLE, 0, False):
        return to
    return k if to < 0 else to if k < 0 else min(k, to)


@njit
def sum_up(nodes):
    """Fills the columns of elements that need all of them: sums, runs of siblings that look alike, ordinals."""
    n = len(nodes)
    last, run_of, runs = np.full(n, -1, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int32)
    for k in range(1, n):
        parent = nodes[k, N_PARENT]
        if nodes[k, N_LEVEL]:
            before = last[parent]
            run_of[k] = run_of[before] if before >= 0 and nodes[before, N_LOOK] == nodes[k, N_LOOK] else k
            runs[run_of[k]] += 1
            last[parent] = k
            if nodes[k, N_TAG] == _LI:
                nodes[parent, N_CHILDREN] += 1
                nodes[k, N_ORDINAL] = nodes[parent, N_CHILDREN]
        nodes[k, N_LEVEL] += nodes[parent, N_LEVEL]
    for k in range(n - 1, 0, -1):
        parent = nodes[k, N_PARENT]
        nodes[k, N_RUN] = runs[run_of[k]]
        nodes[parent, N_CHARS] += nodes[k, N_CHARS]
        nodes[parent, N_LINK_CHARS] += nodes[k, N_LINK_CHARS]
        nodes[parent, N_BLOCKS] += nodes[k, N_BLOCKS]
        nodes[parent, N_PROSE] += nodes[k, N_PROSE]
        if nodes[k, N_FIRST] >= 0:
            if nodes[parent, N_FIRST] < 0 or nodes[k, N_FIRST] < nodes[parent, N_FIRST]:
                nodes[parent, N_FIRST] = nodes[k, N_FIRST]
            nodes[parent, N_LAST] = max(nodes[parent, N_LAST], nodes[k, N_LAST])


@njit
def _assemble(html, rows, vocabulary, signs):
    """(text, blocks, nodes, weights, (depth, work)) of a page from its markup `rows`."""
    n, most = len(html), min(len(rows) + 2, _MOST)
    buf = np.empty(n + 16, np.uint8)
    blocks, nodes = np.empty((most, CONTROLS + 1), np.int32), np.empty((most, N_LEVEL + 1), np.int32)
    weights = np.empty((most, 2), np.int32)
    blocks[0], nodes[0], weights[0] = 0, 0, 0
    nodes[0, N_PARENT], nodes[0, N_FIRST], blocks[0, NODE] = -1, -1, -1
    stack, opened = np.empty((len(rows) + 1, 6), np.int64), np.zeros(_SLOTS, np.int32)
    state, segments = np.zeros(T_N_STATE, np.int64), np.empty((SEGMENTS, 3), np.int64)
    n_blocks, n_nodes, deepest, work = _build(html, rows, vocabulary, signs, buf, blocks, nodes, weights, stack, opened,
                                              state, segments)
    nodes = nodes[:n_nodes]
    sum_up(nodes)
    return buf[:state[T_OUT]], blocks[:n_blocks], nodes, weights[:n_nodes], (deepest, work)


@lean
def _build(html, rows, vocabulary, signs, buf, blocks, nodes, weights, stack, opened, state, segments):
    """Fills the arrays that `_assemble` made; returns how many blocks and elements there are, and (depth, work)."""
    n, most = len(html), len(blocks)
    state[T_LINK] = state[T_MATH_AT] = -1
    top, level, deepest, work, n_nodes, after = 0, 0, 0, 0, 1, 0
    mute, mute_hidden, foreign = -1, False, -1  # places on the stack: what keeps text out, SVG or MathML
    for e in range(len(rows) + 1):
        at = rows[e, AT] if e < len(rows) else n
        pre = top > 0 and stack[top - 1, _S_BITS] & _IN_PRE != 0
        if mute < 0 and after < at:
            append_text(html, after, at, pre, buf, blocks[state[T_N_BLOCKS]], state, vocabulary)
        if e == len(rows):
            break
        row = rows[e]
        after = row[AFTER]
        if row[KIND] == NOTHING:
            continue
        tag, slot, bits, flags = row[TAG], row[SLOT] & _SLOTS - 1, row[BITS], row[FLAGS]
        kind = _KINDS[tag]
        inline = kind & (_INLINE | _SKIP) != 0 or tag == 0
        block = blocks[state[T_N_BLOCKS]]
        to, flush, push, n_segments = -1, False, False, 0
        if row[KIND] == DATA:
            if mute < 0:
                segments[0, 0], segments[0, 1], segments[0, 2] = 0, row[FROM], row[TO]
                n_segments = 1
        elif row[KIND] == END_TAG:
            work += level + 1
            if opened[slot] > 0 or kind & _HEADING:
                structural = kind & _SCOPE or tag == _TR or tag == _TBODY or tag == _THEAD or tag == _TFOOT
                blocked = False
                for k in range(top - 1, max(-1, top - 1 - _LOOK_BACK), -1):
                    other = stack[k, _S_TAG]
                    if other < 0:
                        continue
                    if stack[k, _S_SLOT] == row[SLOT] or kind & _HEADING and _KINDS[other] & _HEADING:
                        to = k
                        break
                    if _KINDS[other] & _SCOPE and not structural:
                        break
                    blocked = blocked or not (_KINDS[other] & (_INLINE | _SKIP) or other == 0)
                if to >= 0 and blocked and kind & _INLINE:
                    # It ends over the head of a block: the block stays open, the inline element does not.
                    if state[T_LINK] == to:
                        state[T_LINK] = -1
                    if tag == _B or tag == _STRONG:
                        state[T_IS_BOLD] -= 1
                    stack[to, _S_TAG] = -1
                    opened[slot] -= 1
                    continue
            flush = not inline and mute < 0 and not kind & (_IGNORE | _RAW)
            if pre and tag != _PRE and flush:
                flush, state[T_BREAK] = False, 1 if block[CHARS] else 0
            if tag == _BUTTON or tag == _SELECT:
                state[T_SPACE] = 1
        else:
            work += level + 1
            if foreign >= 0 and kind & _BREAKOUT:
                level = stack[foreign, _S_LEVEL]
                top = _close(stack, top, foreign, state, opened)
                mute, foreign = -1 if mute >= top else mute, -1
            if kind & _IGNORE or foreign >= 0 and flags & SELF_CLOSING:
                continue
            if flags & (TEX | MATHML):
                if mute < 0 or mute_hidden:
                    n_segments = formula(html, row[FROM], row[TO], flags, signs, DISPLAYSTYLE, segments, state)
            elif kind & _RAW:
                continue
            elif kind & _VOID:
                if mute >= 0:
                    if tag == _INPUT and stack[mute, _S_TAG] == _SELECT:
                        to = mute
                elif tag == _BR:
                    if pre and block[CHARS]:
                        end_word(block, state, vocabulary)
                        buf[state[T_OUT]] = 10
                        state[T_OUT] += 1
                    elif state[T_BREAK]:
                        flush = True
                    elif block[CHARS]:
                        end_word(block, state, vocabulary)
                        state[T_BREAK] = 1
                elif tag == _HR:
                    flush = True
                elif tag == _INPUT:
                    block[CONTROLS] += 1
            else:
                push = True
                to = _implied(stack, top, tag, opened)
                if tag == _A:
                    live = state[T_LINK]
                    if live >= 0:
                        state[T_LINK] = -1
                        if live == top - 1:
                            to = live
                        else:
                            opened[stack[live, _S_SLOT] & _SLOTS - 1] -= 1
                            stack[live, _S_TAG] = -1
                    if state[T_LAST_LINK]:
                        state[T_SPACE] = 1
                flush = (not inline or tag == _BUTTON) and mute < 0
                if pre and flush:
                    flush, state[T_BREAK] = False, 1 if block[CHARS] else 0
        if flush:
            _flush(blocks, buf, state, nodes, vocabulary)
            if tag == _BR:
                blocks[state[T_N_BLOCKS], AFTER_BREAK] = 1
        if to >= 0:
            level = stack[to, _S_LEVEL]
            top = _close(stack, top, to, state, opened)
            mute, foreign = -1 if mute >= top else mute, -1 if foreign >= top else foreign
        if push:
            here, here_block, above = 0, 0, 0
            if top:
                here, here_block, above = stack[top - 1, _S_NODE], stack[top - 1, _S_BLOCK], stack[top - 1, _S_BITS]
            hidden = inline and bits & (_HIDDEN | _ARIA_HIDDEN) != 0
            if hidden:
                bits &= ~(_HIDDEN | _ARIA_HIDDEN)
            jax = flags & MATHJAX and (inline or tag == _DIV)
            bits |= above
            if mute < 0 and n_nodes < most and (
                    not inline or row[NEGATIVE] or row[POSITIVE] or bits != above):
                nodes[n_nodes] = 0
                nodes[n_nodes, N_PARENT], nodes[n_nodes, N_TAG], nodes[n_nodes, N_AT] = here, tag, row[AT]
                nodes[n_nodes, N_BITS], nodes[n_nodes, N_LOOK], nodes[n_nodes, N_FIRST] = bits, row[LOOK], -1
                nodes[n_nodes, N_LEVEL] = 0 if inline else 1
                weights[n_nodes, 0], weights[n_nodes, 1] = row[NEGATIVE], row[POSITIVE]
                here = n_nodes
                here_block = here_block if inline else here
                n_nodes += 1
            stack[top, _S_TAG], stack[top, _S_SLOT], stack[top, _S_NODE] = tag, row[SLOT], here
            stack[top, _S_BLOCK], stack[top, _S_BITS], stack[top, _S_LEVEL] = here_block, bits, level
            opened[slot] += 1
            if mute < 0 and (hidden or jax or kind & _SKIP):
                # MathJax 3 leaves no TeX, but MathML for screen readers in what it draws.
                mute, mute_hidden = top, hidden and not jax or row[SLOT] == _MATHJAX_3
            if kind & _FOREIGN and foreign < 0:
                foreign = top
            if tag == _A and mute < 0:
                state[T_LINK] = top
                blocks[state[T_N_BLOCKS], LINKS] += 1
            elif tag == _B or tag == _STRONG:
                state[T_IS_BOLD] += 1
            elif tag == _BUTTON:
                blocks[state[T_N_BLOCKS], CONTROLS] += 1
            top += 1
            if not kind & _IMPLIED:
                level += 1
                deepest = max(deepest, level)
        state[T_HERE], state[T_HERE_BLOCK] = 0, 0
        if top:
            state[T_HERE], state[T_HERE_BLOCK] = stack[top - 1, _S_NODE], stack[top - 1, _S_BLOCK]
        for k in range(n_segments):
            if k and flags & (TEX | MATHML):
                state[T_SPACE] = 0
            append_text(signs if segments[k, 0] else html, segments[k, 1], segments[k, 2], False, buf,
                  blocks[state[T_N_BLOCKS]], state, vocabulary)
            state[T_MATH_AT] = state[T_OUT]
    _flush(blocks, buf, state, nodes, vocabulary)
    n_blocks = state[T_N_BLOCKS]
    if n_blocks + 1 == most and blocks[n_blocks, CHARS]:
        blocks[n_blocks, END] = state[T_OUT]
        n_blocks += 1
    return n_blocks, n_nodes, deepest, work


def _entry(key):
    @njit(cache=True)
    def assemble(html, rows, vocabulary, signs):
        assert key
        return _assemble(html, rows, vocabulary, signs)

    return assemble


assemble = _entry(source_key("tags", "hashes", "html", "text", "mathematics"))


class Cost(NamedTuple):
    """What decides how long a page takes other engines to parse and search."""

    depth: int              # of the elements, at the deepest
    work: int               # the sum of the depths of the tags
    pairs: int              # the sum over the tags of their attributes squared


class Parsed(NamedTuple):
    """A page in blocks. `text` holds the UTF-8 bytes that START and END of `blocks` point into."""

    text: np.ndarray        # uint8
    blocks: np.ndarray      # int32 (blocks, 17)
    nodes: np.ndarray       # int32 (elements, 15); the first stands for the page
    weights: np.ndarray     # int32 (elements, 2): the least and the greatest weight of the names in class and id
    cost: Cost
    title: str              # the first title element, as it stands between its tags
    html: bytes             # what was parsed: N_AT of `nodes` points into it


NO_WORDS = tags.slots({}, 16)


def tokenize(html: bytes, vocabulary=NO_WORDS, classes=tags.CLASSES) -> Parsed:
    """The blocks of a page in UTF-8, in the order of the page.

    Args:
        vocabulary: hash table (tasks.extract.tags.slots) of words, and how much each says that a block is no content.
        classes: hash table of names in class and id: marks (tasks.extract.tags) and what each says of content.
    """
    data = np.frombuffer(html, np.uint8)
    rows, totals = markup(data, classes)
    signs = SIGN
    first, last, pairs, n_formulas = totals.tolist()
    if n_formulas:
        formulas = np.flatnonzero(rows[:, FLAGS] & MATHML)
        found = [b"$", *(fitting(html[start:end]) for start, end in rows[formulas][:, [FROM, TO]].tolist())]
        ends = np.cumsum([len(text) for text in found])
        rows[formulas, FROM], rows[formulas, TO] = ends[:-1], ends[1:]
        signs = np.frombuffer(b"".join(found), np.uint8)
    *made, (depth, work) = assemble(data, rows, vocabulary, signs)
    title = html[first:min(last, first + 10_000)].decode("utf-8", "replace") if first >= 0 else ""
    return Parsed(*made, Cost(depth, work, pairs), title, html)

"""What a classifier is told of each block of a page: counts of its own, of its neighbours and of the elements around.

One compiled pass over the elements, one over the blocks. Ratios and logarithms, so that short and long pages look
alike; nothing names a site or a language.
"""

import math

import numpy as np
from numba import njit

from tasks.extract import tags
from tasks.extract.blocks import (
    N_BITS,
    N_BLOCKS,
    N_CHARS,
    N_CHILDREN,
    N_FIRST,
    N_LAST,
    N_LEVEL,
    N_LINK_CHARS,
    N_LOOK,
    N_ORDINAL,
    N_PARENT,
    N_PROSE,
    N_RUN,
    N_TAG,
)
from tasks.extract.text import (
    AFTER_BREAK,
    BARS,
    BOLD,
    CHARS,
    COMMAS,
    CONTROLS,
    DIGITS,
    LINK_CHARS,
    LINKS,
    NODE,
    PARENT,
    STOPS,
    UPPER,
    WORD_WEIGHT,
    WORDS,
)

_LEVELS = 5                  # block elements around a block that are looked at
_TAG_CLASS = {"p": 1, "li": 2, "td": 3, "th": 4, "h1": 5, "h2": 6, "h3": 7, "h4": 7, "h5": 7, "h6": 7, "pre": 8,
              "blockquote": 9, "dt": 10, "dd": 11, "figcaption": 12, "caption": 12, "button": 13, "label": 14,
              "summary": 15, "legend": 14}
TAG_CLASS = np.array([_TAG_CLASS.get(name, 0) for name in tags.TAGS])
_H1 = 5
_BITS = 24
_OWN = ["log_chars", "log_words", "word_length", "link_share", "links", "upper", "digits", "commas", "stops", "bars",
        "bold", "ends", "word_weight", "word_weight_mean", "controls", "after_break", "tag", "inline_negative",
        "inline_positive"]
_PATH = ["depth", "negative_nearest", "positive_nearest", "negative_least", "positive_greatest", "negative_count",
         "run_greatest", "run_nearest", "run_chars"]
_ANCESTOR = ["chars", "share", "link_share", "blocks", "prose", "run", "place"]
_PAGE = ["page_chars", "page_blocks", "page_link_share", "page_prose", "place", "place_chars", "since_h1",
         "since_heading", "heading_level", "h1_seen", "page_has_article", "page_has_main", "container_share",
         "in_container", "after_container"]
_NEIGHBOUR = ["chars", "link_share", "tag", "same_parent", "weight"]
_OFFSETS = (-2, -1, 1, 2)
NAMES = (_OWN + _PATH + [f"bit_{n}" for n in range(_BITS)] + _PAGE
         + [f"up{level}_{name}" for level in range(1, _LEVELS + 1) for name in _ANCESTOR]
         + [f"next{offset:+d}_{name}" for offset in _OFFSETS for name in _NEIGHBOUR])
_N_FEATURES = len(NAMES)
_ARTICLE, _MAIN = tags.IN_ARTICLE, tags.IN_MAIN
_LI = tags.TAG["li"]


@njit(cache=True)
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


@njit(cache=True)
def features(text, blocks, nodes, weights, tag_class, out):
    """Fills `out`, float32 (blocks, len(NAMES)), from a page whose elements are summed up."""
    n, m = len(blocks), len(nodes)
    # along the path to each element: least and greatest weights, how many are negative, the greatest run
    path = np.zeros((m, 6), np.float32)  # nearest negative, nearest positive, least, greatest, count, run
    run_chars = np.zeros(m, np.float32)
    for k in range(1, m):
        parent = nodes[k, N_PARENT]
        low, high = weights[k, 0], weights[k, 1]
        path[k, 0] = low if low < 0 or high > 0 else path[parent, 0]
        path[k, 1] = high if low < 0 or high > 0 else path[parent, 1]
        path[k, 2], path[k, 3] = min(path[parent, 2], low), max(path[parent, 3], high)
        path[k, 4] = path[parent, 4] + (low < -400)
        path[k, 5], run_chars[k] = path[parent, 5], run_chars[parent]
        if nodes[k, N_RUN] > path[k, 5] and nodes[k, N_RUN] > 2:
            path[k, 5] = nodes[k, N_RUN]
            run_chars[k] = math.log1p(nodes[k, N_CHARS])
    total, total_links, total_prose = max(1, nodes[0, N_CHARS]), nodes[0, N_LINK_CHARS], nodes[0, N_PROSE]
    has_article = has_main = False
    for k in range(1, m):
        has_article = has_article or nodes[k, N_BITS] & _ARTICLE != 0
        has_main = has_main or nodes[k, N_BITS] & _MAIN != 0
    # the smallest element with more than six tenths of the page's prose
    container = 0
    for k in range(1, m):
        if total_prose and nodes[k, N_PROSE] > 0.6 * total_prose and nodes[k, N_CHARS] <= nodes[container, N_CHARS]:
            container = k
    share = nodes[container, N_CHARS] / total
    before_chars, last_h1, last_heading, level = 0, -1, -1, 0
    for b in range(n):
        row = out[b]
        block = blocks[b]
        node, parent = block[NODE], block[PARENT]
        chars, words = block[CHARS], max(1, block[WORDS])
        kind = tag_class[nodes[parent, N_TAG]]
        if 5 <= kind <= 7:
            level, last_heading = kind, b
            if kind == _H1:
                last_h1 = b
        end = text[block[1] - 1] if block[1] > block[0] else 0
        row[0], row[1], row[2] = math.log1p(chars), math.log1p(block[WORDS]), chars / words
        row[3], row[4] = block[LINK_CHARS] / chars, min(block[LINKS], 20)
        row[5], row[6], row[7] = block[UPPER] / chars, block[DIGITS] / chars, block[COMMAS] / words
        row[8], row[9], row[10] = block[STOPS] / words, block[BARS] / words, block[BOLD] / chars
        row[11] = 2 if end == 46 or end == 33 or end == 63 or end == 0x82 else 1 if end == 58 else 0
        row[12], row[13] = math.log1p(block[WORD_WEIGHT]), block[WORD_WEIGHT] / words
        row[14], row[15], row[16] = min(block[CONTROLS], 5), block[AFTER_BREAK], kind
        row[17], row[18] = weights[node, 0], weights[node, 1]
        f = 19
        row[f] = nodes[parent, N_LEVEL]
        for k in range(5):
            row[f + 1 + k] = path[node, k]
        row[f + 6], row[f + 7] = math.log1p(path[node, 5]), math.log1p(nodes[parent, N_RUN])
        row[f + 8] = run_chars[node]
        f = 28
        for k in range(_BITS):
            row[f + k] = nodes[node, N_BITS] >> k & 1
        f += _BITS
        row[f], row[f + 1], row[f + 2] = math.log1p(total), math.log1p(n), total_links / total
        row[f + 3], row[f + 4], row[f + 5] = total_prose / total, b / n, before_chars / total
        row[f + 6] = min(50, b - last_h1) if last_h1 >= 0 else -1
        row[f + 7] = min(50, b - last_heading) if last_heading >= 0 else -1
        row[f + 8], row[f + 9], row[f + 10], row[f + 11] = level, last_h1 >= 0, has_article, has_main
        row[f + 12] = share
        row[f + 13] = nodes[container, N_FIRST] <= b < nodes[container, N_LAST]
        row[f + 14] = b >= nodes[container, N_LAST]
        before_chars += chars
        f += 15
        k = parent
        for _ in range(_LEVELS):
            held = max(1, nodes[k, N_CHARS])
            row[f], row[f + 1], row[f + 2] = math.log1p(held), held / total, nodes[k, N_LINK_CHARS] / held
            row[f + 3], row[f + 4] = math.log1p(nodes[k, N_BLOCKS]), nodes[k, N_PROSE] / held
            row[f + 5] = math.log1p(nodes[k, N_RUN])
            row[f + 6] = (b - nodes[k, N_FIRST]) / max(1, nodes[k, N_LAST] - nodes[k, N_FIRST])
            f += 7
            if k:
                # the next element around that holds more than this one
                held = nodes[k, N_CHARS]
                k = nodes[k, N_PARENT]
                while k and nodes[k, N_CHARS] == held:
                    k = nodes[k, N_PARENT]
        for offset in (-2, -1, 1, 2):
            other = b + offset
            if 0 <= other < n:
                row[f], row[f + 1] = math.log1p(blocks[other, CHARS]), blocks[other, LINK_CHARS] / blocks[other, CHARS]
                row[f + 2] = tag_class[nodes[blocks[other, PARENT], N_TAG]]
                row[f + 3] = nodes[blocks[other, PARENT], N_PARENT] == nodes[parent, N_PARENT]
                row[f + 4] = path[blocks[other, NODE], 2] + path[blocks[other, NODE], 3]
            else:
                row[f], row[f + 1], row[f + 2], row[f + 3], row[f + 4] = 0, 0, -1, 0, 0
            f += 5


@njit(cache=True)
def score(rows, roots, feature, threshold, left, right, out):
    """Sums boosted trees over `rows` and turns the sums into probabilities.

    A tree's inner nodes come in one piece, its root first; a child below zero is leaf -1 - child, whose value stands in
    `threshold` at that place from the end.
    """
    for b in range(len(rows)):
        row, total = rows[b], 0.0
        for t in range(len(roots)):
            k = roots[t]
            while k >= 0:
                k = left[k] if row[feature[k]] <= threshold[k] else right[k]
            total += threshold[len(threshold) + k]
        out[b] = 1.0 / (1.0 + math.exp(-total))


@njit(cache=True)
def score_leafwise(rows, roots, feature, threshold, left, right, out):
    """Sums boosted trees over `rows` and turns the sums into probabilities.

    A tree's inner nodes come in one piece, its root first; a child below zero is leaf -1 - child, whose value stands in
    `threshold` at that place from the end.
    """
    for b in range(len(rows)):
        row, total = rows[b], 0.0
        for t in range(len(roots)):
            k = roots[t]
            while k >= 0:
                k = left[k] if row[feature[k]] <= threshold[k] else right[k]
            total += threshold[len(threshold) + k]
        out[b] = 1.0 / (1.0 + math.exp(-total))

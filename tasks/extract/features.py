"""What a classifier is told of each block of a page, its boosted trees, and which blocks are taken by what they say.

Counts of a block's own, of its neighbours and of the elements around; ratios and logarithms, so that short and long
pages look alike; nothing names a site or a language.
"""

import math

import numpy as np

from tasks.compiled import lean, njit
from tasks.extract import tags
from tasks.extract.blocks import (
    N_BITS,
    N_BLOCKS,
    N_CHARS,
    N_FIRST,
    N_LAST,
    N_LEVEL,
    N_LINK_CHARS,
    N_LOOK,
    N_PARENT,
    N_PROSE,
    N_RUN,
    N_TAG,
)
from tasks.extract.hashes import source_key
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
CONTEXT = (["p"] + [f"p{offset:+d}" for offset in _OFFSETS] + ["around_2", "around_6", "around_20"]
           + [f"up{level}_{what}" for what in ("p", "mass") for level in range(1, _LEVELS + 1)]
           + ["page_p", "mass_before", "alike_p", "alike", "since_first_sure", "since_last_sure"])
_ARTICLE, _MAIN, _HIDDEN, _CONSENT, _COMMENT = (
    tags.IN_ARTICLE, tags.IN_MAIN, tags.IN_HIDDEN, tags.IN_CONSENT, tags.IN_COMMENT)
_GREED = 1.15                # above 1, text that may belong to the page is rather taken than left
_MOST = 0.5                  # share of the expected content from which on what is left out otherwise is the content
_COMMENT_WORDS = 5           # a reader's comment has more, the names and dates around it have not
_STEPS = 1000
_LI = tags.TAG["li"]


# Of counts, most of which are small: 20 of them for each block.
_LOG1P = np.array([math.log1p(n) for n in range(4096)])


@njit
def _log1p(n):
    return _LOG1P[n] if n < len(_LOG1P) else math.log1p(n)


@njit
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
            run_chars[k] = _log1p(nodes[k, N_CHARS])
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
        row[0], row[1], row[2] = _log1p(chars), _log1p(block[WORDS]), chars / words
        row[3], row[4] = block[LINK_CHARS] / chars, min(block[LINKS], 20)
        row[5], row[6], row[7] = block[UPPER] / chars, block[DIGITS] / chars, block[COMMAS] / words
        row[8], row[9], row[10] = block[STOPS] / words, block[BARS] / words, block[BOLD] / chars
        row[11] = 2 if end == 46 or end == 33 or end == 63 or end == 0x82 else 1 if end == 58 else 0
        row[12], row[13] = _log1p(block[WORD_WEIGHT]), block[WORD_WEIGHT] / words
        row[14], row[15], row[16] = min(block[CONTROLS], 5), block[AFTER_BREAK], kind
        row[17], row[18] = weights[node, 0], weights[node, 1]
        f = 19
        row[f] = nodes[parent, N_LEVEL]
        for k in range(5):
            row[f + 1 + k] = path[node, k]
        row[f + 6], row[f + 7] = math.log1p(path[node, 5]), _log1p(nodes[parent, N_RUN])
        row[f + 8] = run_chars[node]
        f = 28
        for k in range(_BITS):
            row[f + k] = nodes[node, N_BITS] >> k & 1
        f += _BITS
        row[f], row[f + 1], row[f + 2] = _log1p(total), _log1p(n), total_links / total
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
            row[f], row[f + 1], row[f + 2] = _log1p(held), held / total, nodes[k, N_LINK_CHARS] / held
            row[f + 3], row[f + 4] = _log1p(nodes[k, N_BLOCKS]), nodes[k, N_PROSE] / held
            row[f + 5] = _log1p(nodes[k, N_RUN])
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
                row[f], row[f + 1] = _log1p(blocks[other, CHARS]), blocks[other, LINK_CHARS] / blocks[other, CHARS]
                row[f + 2] = tag_class[nodes[blocks[other, PARENT], N_TAG]]
                row[f + 3] = nodes[blocks[other, PARENT], N_PARENT] == nodes[parent, N_PARENT]
                row[f + 4] = path[blocks[other, NODE], 2] + path[blocks[other, NODE], 3]
            else:
                row[f], row[f + 1], row[f + 2], row[f + 3], row[f + 4] = 0, 0, -1, 0, 0
            f += 5


@njit
def context(p, blocks, nodes, first, out):
    """Fills the columns of `out` from `first` on, as CONTEXT names them, from what a first look at all blocks gave.

    Args:
        p: float64 (blocks,), the probability of each block by itself.
    """
    n = len(blocks)
    mass, size = np.zeros(n + 1), np.zeros(n + 1)
    for b in range(n):
        mass[b + 1], size[b + 1] = mass[b] + p[b] * blocks[b, CHARS], size[b] + blocks[b, CHARS]
    total = max(mass[n], 1e-9)
    # what blocks that look alike, by tags and classes of the two elements around them, gave on the average
    slots = 64
    while slots < 2 * n:
        slots *= 2
    keys, alike_mass, alike_size = np.full(slots, -1, np.int64), np.zeros(slots), np.zeros(slots)
    slot_of = np.zeros(n, np.int64)
    for b in range(n):
        parent = blocks[b, PARENT]
        look = np.int64(nodes[parent, N_LOOK]) * 31 + nodes[max(0, nodes[parent, N_PARENT]), N_LOOK]
        at = (look ^ look >> 15) & (slots - 1)
        while keys[at] >= 0 and keys[at] != look:
            at = (at + 1) & (slots - 1)
        keys[at] = look
        alike_mass[at] += p[b] * blocks[b, CHARS]
        alike_size[at] += blocks[b, CHARS]
        slot_of[b] = at
    first_sure, last_sure = n, -1
    for b in range(n):
        if p[b] > 0.5 and blocks[b, CHARS] >= 40:
            first_sure, last_sure = min(first_sure, b), b
    for b in range(n):
        row = out[b, first:]
        row[0] = p[b]
        for k in range(4):
            other = b + (k - 2 if k < 2 else k - 1)
            row[1 + k] = p[other] if 0 <= other < n else -1
        for k in range(3):
            reach = 2 if k == 0 else 6 if k == 1 else 20
            low, high = max(0, b - reach), min(n, b + reach + 1)
            row[5 + k] = (mass[high] - mass[low]) / (size[high] - size[low])
        k = blocks[b, PARENT]
        for level in range(_LEVELS):
            low, high = nodes[k, N_FIRST], nodes[k, N_LAST]
            row[8 + level] = (mass[high] - mass[low]) / (size[high] - size[low])
            row[13 + level] = (mass[high] - mass[low]) / total
            held = nodes[k, N_CHARS]
            while k and nodes[k, N_CHARS] == held:
                k = nodes[k, N_PARENT]
        row[18], row[19] = total / size[n], mass[b] / total
        row[20] = alike_mass[slot_of[b]] / alike_size[slot_of[b]]
        row[21] = math.log1p(alike_size[slot_of[b]] / blocks[b, CHARS])
        row[22] = 0 if first_sure == n else min(30, max(-30, b - first_sure))
        row[23] = 0 if last_sure < 0 else min(30, max(-30, b - last_sure))


@njit
def score(rows, feature, border, leaf, out):
    """Sums boosted oblivious trees over `rows`, and turns the sums into probabilities.

    Args:
        rows: float32 (blocks, features).
        feature, border: int16 and float32 (trees, depth): what each level of a tree asks, is it above the border.
        leaf: float64 (trees, 2 ** depth), by the answers as bits, the first the lowest.
        out: float64 (blocks,).
    """
    _sum(rows.T.copy(), np.empty(len(rows), np.int32), feature, border, leaf, out)
    for b in range(len(rows)):
        out[b] = 1.0 / (1.0 + math.exp(-out[b]))


@lean
def _sum(columns, at, feature, border, leaf, out):
    # Tree by tree over all blocks, so that the comparisons go many at a time.
    n, (trees, depth) = len(at), feature.shape
    out[:] = 0.0
    for t in range(trees):
        at[:] = 0
        for d in range(depth):
            column, bound, bit = columns[feature[t, d]], border[t, d], np.int32(1 << d)
            for b in range(n):
                at[b] |= bit if column[b] > bound else np.int32(0)
        values = leaf[t]
        for b in range(n):
            out[b] += values[at[b]]


@njit
def choose(p, blocks, nodes, comments):
    """Which blocks to take by their probabilities `p`, which it changes: bool (blocks,).

    Those above half of the greatest F1 that any threshold promises (see `tasks.extract.main_content`). Hidden blocks,
    questions of consent and, without `comments`, readers' comments are left out, unless they are most of what there is:
    a forum whose posts are called comments.
    """
    n, total = len(p), 0.0
    kinds = (_HIDDEN, _CONSENT | (0 if comments else _COMMENT))
    for b in range(n):
        total += p[b] * blocks[b, CHARS]
    for kind in kinds:
        mass = 0.0
        for b in range(n):
            if nodes[blocks[b, NODE], N_BITS] & kind:
                mass += p[b] * blocks[b, CHARS]
        if mass < _MOST * total:
            total -= mass
            for b in range(n):
                if nodes[blocks[b, NODE], N_BITS] & kind:
                    p[b] = 0.0
    # Thresholds as good as all there are: a thousandth apart.
    sizes, masses = np.zeros(_STEPS + 1), np.zeros(_STEPS + 1)
    for b in range(n):
        step = int(p[b] * _STEPS)
        sizes[step] += blocks[b, CHARS]
        masses[step] += p[b] * blocks[b, CHARS]
    size, mass, best = 0.0, 0.0, 0.0
    for step in range(_STEPS, -1, -1):
        size, mass = size + sizes[step], mass + masses[step]
        best = max(best, 2 * mass / (size + _GREED * total + 1e-9))
    threshold = min(0.5, best / 2)
    taken = np.zeros(n, np.bool_)
    for b in range(n):
        taken[b] = p[b] > 0 and p[b] >= threshold
        if comments and nodes[blocks[b, NODE], N_BITS] & (_COMMENT | _HIDDEN) == _COMMENT:
            taken[b] |= blocks[b, WORDS] > _COMMENT_WORDS and 2 * blocks[b, LINK_CHARS] < blocks[b, CHARS]
    return taken


@njit
def _judge(text, blocks, nodes, weights, tag_class, columns, first, second, comments):
    rows = np.zeros((len(blocks), columns[1]), np.float32)
    p = np.zeros(len(blocks))
    features(text, blocks, nodes, weights, tag_class, rows)
    score(rows, first[0], first[1], first[2], p)
    context(p, blocks, nodes, columns[0], rows)
    score(rows, second[0], second[1], second[2], p)
    return p, choose(p.copy(), blocks, nodes, comments)


def _entry(key):
    @njit(cache=True)
    def judge(text, blocks, nodes, weights, tag_class, columns, first, second, comments):
        assert key
        return _judge(text, blocks, nodes, weights, tag_class, columns, first, second, comments)

    return judge


judge = _entry(source_key("tags", "text", "blocks"))

"""The main content of a page: which of its blocks are, as a small classifier sees them.

Boosted trees give each block the probability that it is main content (tasks.extract.features says from what). Then the
blocks are taken whose probability is above half the F1 that taking them promises: the rule that makes the expected F1
greatest (Lipton, Elkan and Naryanaswamy 2014, https://arxiv.org/abs/1402.1892), so that a page of which little is sure
gives more and a page of which all is sure gives no doubtful lines. Everything is a function of the page alone.
"""

from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.extract import tags
from tasks.extract.blocks import N_BITS, Parsed, tokenize
from tasks.extract.features import CONTEXT, NAMES, TAG_CLASS, judge
from tasks.extract.markdown import render
from tasks.extract.text import CHARS, LINK_CHARS, NODE, WORDS

MODEL = Path(__file__).with_name("main_content.bin")
_GREED = 1.15                # above 1, text that may belong to the page is rather taken than left
_MOST = 0.5                  # share of the expected content from which on comments, or hidden text, are the content
_COMMENT_WORDS = 5           # a reader's comment has more, the names and dates around it have not


class Model(NamedTuple):
    """The trained tables; tests/benchmarks/train_main_content.py makes them, and says of what."""

    class_keys: np.ndarray      # tasks.extract.tags.class_table
    class_values: np.ndarray
    word_keys: np.ndarray       # tasks.extract.tags.hashed
    word_values: np.ndarray
    feature: np.ndarray         # trees that look at each block by itself (tasks.extract.features.score)
    border: np.ndarray
    leaf: np.ndarray
    feature2: np.ndarray        # trees that also know what the first made of the blocks around
    border2: np.ndarray
    leaf2: np.ndarray


@lru_cache(1)
def model() -> Model:
    """The model that comes with the program (no pickles: arrays only)."""
    with np.load(MODEL, allow_pickle=False) as arrays:
        return Model(*(np.ascontiguousarray(arrays[name]) for name in Model._fields))


def parse(html: bytes, tables: Model | None = None) -> Parsed:
    """The page in blocks, weighed by the model's tables."""
    m = tables or model()
    return tokenize(html, (m.word_keys, m.word_values), (m.class_keys, m.class_values))


def probabilities(page: Parsed) -> np.ndarray:
    """That each block is main content: float64 (blocks,)."""
    m = model()
    return judge(page.text, page.blocks, page.nodes, page.weights, TAG_CLASS, (len(NAMES), len(NAMES) + len(CONTEXT)),
                 (m.feature, m.border, m.leaf), (m.feature2, m.border2, m.leaf2))


def choose(p: np.ndarray, page: Parsed, comments: bool = False) -> np.ndarray:
    """Numbers of the blocks to take by their probabilities `p`, in the order of the page."""
    if not len(p):
        return np.zeros(0, np.int64)
    bits = page.nodes[page.blocks[:, NODE], N_BITS]
    sizes = page.blocks[:, CHARS].astype(np.float64)
    hidden = bits & tags.IN_HIDDEN != 0
    for left_out in (hidden, bits & (tags.IN_CONSENT if comments else tags.IN_CONSENT | tags.IN_COMMENT) != 0):
        # ... unless it is most of what there is: a forum whose posts are called comments
        if (p * sizes)[left_out].sum() < _MOST * (p * sizes).sum():
            p = np.where(left_out, 0.0, p)
    order = np.argsort(-p, kind="stable")
    mass = np.cumsum((p * sizes)[order])
    expected = 2 * mass / (np.cumsum(sizes[order]) + _GREED * mass[-1] + 1e-9)
    taken = (p >= min(0.5, expected.max() / 2)) & (p > 0)
    if comments:
        words = page.blocks[:, WORDS] > _COMMENT_WORDS
        taken |= words & ~hidden & (bits & tags.IN_COMMENT != 0) & (2 * page.blocks[:, LINK_CHARS] < sizes)
    return np.flatnonzero(taken)


def read(page: Parsed, *, comments: bool, markdown: bool) -> tuple[str, str]:
    """(title, main text) of a page that `parse` made blocks of."""
    return " ".join(unescape(page.title).split()), render(page, choose(probabilities(page), page, comments), markdown)

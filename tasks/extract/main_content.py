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
from tasks.extract.features import NAMES, TAG_CLASS, features
from tasks.extract.leafwise import score_leafwise
from tasks.extract.markdown import render
from tasks.extract.text import CHARS, NODE

MODEL = Path(__file__).with_name("main_content.bin")
_GREED = 1.15                # above 1, text that may belong to the page is rather taken than left


class Model(NamedTuple):
    """The trained tables; see tests/benchmarks/train_main_content.py for how they come about."""

    class_keys: np.ndarray
    class_values: np.ndarray
    word_keys: np.ndarray
    word_values: np.ndarray
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray


@lru_cache(1)
def model() -> Model:
    """The model that comes with the program (no pickles: arrays only)."""
    with np.load(MODEL, allow_pickle=False) as arrays:
        return Model(*(np.ascontiguousarray(arrays[name]) for name in Model._fields))


def parse(html: bytes) -> Parsed:
    """The page in blocks, weighed by the model's tables."""
    m = model()
    return tokenize(html, (m.word_keys, m.word_values), (m.class_keys, m.class_values))


def probabilities(page: Parsed) -> np.ndarray:
    """That each block is main content: float64 (blocks,)."""
    m = model()
    rows = np.empty((len(page.blocks), len(NAMES)), np.float32)
    features(page.text, page.blocks, page.nodes, page.weights, TAG_CLASS, rows)
    out = np.empty(len(rows))
    score_leafwise(rows, m.roots, m.feature, m.threshold, m.left, m.right, out)
    return out


def select(page: Parsed, comments: bool) -> np.ndarray:
    """Numbers of the blocks that are main content, in the order of the page."""
    if not len(page.blocks):
        return np.zeros(0, np.int64)
    p, sizes = probabilities(page), page.blocks[:, CHARS].astype(np.float64)
    bits = page.nodes[page.blocks[:, NODE], N_BITS]
    hidden = bits & tags.IN_HIDDEN != 0
    if hidden.all():
        hidden[:] = False
    p[hidden] = 0.0
    order = np.argsort(-p, kind="stable")
    mass = np.cumsum((p * sizes)[order])
    expected = 2 * mass / (np.cumsum(sizes[order]) + _GREED * mass[-1] + 1e-9)
    threshold = min(0.5, expected.max() / 2)
    chosen = (p >= threshold) & (p > 0)
    return np.flatnonzero(chosen)


def read(page: Parsed, *, comments: bool, markdown: bool) -> tuple[str, str]:
    """(title, main text) of a page that `parse` made blocks of."""
    return " ".join(unescape(page.title).split()), render(page, select(page, comments), markdown)

"""The main content of a page: which of its blocks are, as a small classifier sees them.

Boosted trees give each block the probability that it is main content (tasks.extract.features says from what). Then the
blocks are taken whose probability is above half the F1 that taking them promises: the rule that makes the expected F1
greatest (Lipton, Elkan and Naryanaswamy 2014, https://arxiv.org/abs/1402.1892), so that a page of which little is sure
gives more and a page of which all is sure gives no doubtful lines. Everything is a function of the page alone.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.extract import features
from tasks.extract.blocks import Parsed, tokenize
from tasks.extract.markdown import render
from tasks.extract.references import unescape

MODEL = Path(__file__).with_name("main_content.bin")
_COLUMNS = (len(features.NAMES), len(features.NAMES) + len(features.CONTEXT))


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


def judge(page: Parsed, comments: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, taken) of the blocks: float64 that each is main content, and bool which to take.

    Args:
        comments: whether readers' comments are wanted too.
    """
    m = model()
    return features.judge(
        page.text, page.blocks, page.nodes, page.weights, features.TAG_CLASS, _COLUMNS, (m.feature, m.border, m.leaf),
        (m.feature2, m.border2, m.leaf2), comments)


def read(page: Parsed, *, comments: bool, markdown: bool) -> tuple[str, str]:
    """(title, main text) of a page that `parse` made blocks of."""
    return " ".join(unescape(page.title).split()), render(page, np.flatnonzero(judge(page, comments)[1]), markdown)

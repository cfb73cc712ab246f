"""The n-grams of benchmark items, and which documents hold them.

A benchmark file is JSON lines, plain or .gz. The item's text is, of the fields in `PROMPTS` that are strings, in that
order, followed by its answer (`answer`, `continuation`, `target`, or the choice that `gold`, `label` or `answer` points
to); the choices are texts of their own. An item is named by `id`, `task_id` or its line number.
"""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa

from tasks.decontaminate.words import count_words, find_ngrams, folding, text_ngrams, utf8
from tasks.errors import UserError

PROMPTS = ("passage", "context", "premise", "query", "question", "goal", "prompt", "instruction", "problem",
           "hypothesis", "sentence", "text", "good")
CHOICES = ("choices", "options", "endings", "context_options")
ANSWERS = ("answer", "continuation", "target", "canonical_solution")
GOLDS = ("gold", "label", "answer")
_LABEL = re.compile(r"(?m)^\s*(?:Question|Answer|Passage|Context|Goal|Problem|Text|Q|A)\s*:")   # of a prompt's template


def item_texts(row: dict) -> list[str]:
    """The texts of a benchmark item that a document must not hold; empty when it has no known field."""
    prompt = " ".join(_LABEL.sub(" ", row[field]) for field in PROMPTS if isinstance(row.get(field), str))
    choices = next((row[field] for field in CHOICES if isinstance(row.get(field), list)), [])
    if choices and isinstance(choices[0], dict):
        choices = [choice.get("text", "") for choice in choices]
    choices = [choice for choice in choices if isinstance(choice, str)]
    answer = next((row[field] for field in ANSWERS if isinstance(row.get(field), str)), "")
    gold = next((row[field] for field in GOLDS if isinstance(row.get(field), int)), None)
    if not answer and gold is not None and 0 <= gold < len(choices):
        answer = choices[gold]
    texts = [prompt, f"{prompt} {answer}" if answer else prompt, *choices]
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _items(uri: str) -> Iterator[tuple[str, list[str]]]:
    name = re.sub(r"\.(?:jsonl|ndjson|json|txt)(?:\.gz)?$", "", uri.rstrip("/").rpartition("/")[2])
    try:
        with fsspec.open(uri, "rb") as file:
            data = file.read()
        lines = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read the benchmark file {uri} ({type(error).__name__}); "
                        f"decontaminate.benchmarks takes JSON lines") from None
    texts = [item_texts(row) if isinstance(row, dict) else [] for row in rows]
    if rows and not any(texts):
        raise UserError(f"the benchmark file {uri} has no field of {', '.join(PROMPTS + CHOICES)}; rename its fields")
    for number, (row, item) in enumerate(zip(rows, texts, strict=True)):
        yield f"{name}:{row.get('id', row.get('task_id', number)) if isinstance(row, dict) else number}", item


class Index(NamedTuple):
    """n-grams of all items.

    Attributes:
        hashes: (g) sorted distinct uint64.
        starts: (g + 1) `items[starts[i]:starts[i + 1]]` hold n-gram i.
        items: numbers of items.
        names, totals: by item: its name, and how many distinct n-grams it has.
        lengths: n-gram lengths in words that occur, ascending.
        bits: a bitmap over the last lengths[0] words of each n-gram: it tells most strangers without a search.
    """

    hashes: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    names: tuple[str, ...]
    totals: np.ndarray
    lengths: np.ndarray
    bits: np.ndarray


@lru_cache(maxsize=2)
def build_index(files: tuple[tuple[str, str], ...], ngram: int, min_words: int, max_items: int) -> Index:
    names, owners, texts = [], [], []
    for uri, _ in files:
        for name, item in _items(uri):
            owners += [len(names)] * len(item)
            texts += item
            names.append(name)
    data, offsets = utf8(pa.array(texts, pa.string()))
    counts = count_words(data, offsets, folding())
    lengths = np.where(counts >= ngram, ngram, np.where(counts >= min_words, counts, 0))
    # An item with one text long enough is known by its n-grams: its short choices alone are phrases of the language.
    # Of a short item the first text that is not too short stands for it, so that it has exactly one n-gram.
    owners = np.array(owners, dtype=np.int64)
    long = np.zeros(len(names), dtype=bool)
    long[owners[lengths == ngram]] = True
    short = np.flatnonzero((lengths > 0) & ~long[owners])
    first = short[np.unique(owners[short], return_index=True)[1]]
    lengths[np.setdiff1d(np.flatnonzero(lengths < ngram), first)] = 0
    shortest = int(lengths[lengths > 0].min(initial=ngram))
    hashes, tails, texts_of = text_ngrams(data, offsets, folding(), lengths, shortest)
    pairs = np.unique(np.stack([hashes, owners[texts_of].astype(np.uint64)], axis=1), axis=0)
    _, sizes = np.unique(pairs[:, 0], return_counts=True)
    pairs = pairs[np.repeat(sizes <= max_items, sizes)]
    grams, starts = np.unique(pairs[:, 0], return_index=True)
    items = pairs[:, 1].astype(np.int64)
    return Index(grams, np.append(starts, len(items)).astype(np.int64), items, tuple(names),
                 np.bincount(items, minlength=len(names)), np.unique(lengths[lengths > 0]), _bitmap(tails))


def _bitmap(hashes: np.ndarray) -> np.ndarray:
    """A set of hashes as 16 to 32 bits a hash (a power of two): bit `hash mod bits` is set."""
    hashes = np.unique(hashes)
    power = max(16, int(np.ceil(np.log2(max(1, len(hashes)) * 16))))
    slots = hashes & np.uint64((1 << power) - 1)
    bits = np.zeros(1 << (power - 3), dtype=np.uint8)
    np.bitwise_or.at(bits, (slots >> np.uint64(3)).astype(np.int64),
                     np.left_shift(np.uint8(1), (slots & np.uint64(7)).astype(np.uint8)))
    return bits


class Hit(NamedTuple):
    item: str
    matched: int
    total: int


def overlaps(texts: pa.ChunkedArray | pa.Array | Sequence[str], index: Index) -> dict[int, Hit]:
    """For each text that holds an n-gram of the index: the item of which it holds most distinct n-grams.

    Of several the one with the largest share of its n-grams found, then the first.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    elif not isinstance(texts, pa.Array):
        texts = pa.array(texts, pa.string())
    data, offsets = utf8(texts)
    documents, grams = find_ngrams(data, offsets, folding(), index.lengths, index.hashes, index.bits)
    found: dict[int, set[int]] = {}
    for document, gram in zip(documents.tolist(), grams.tolist(), strict=True):
        found.setdefault(document, set()).add(gram)
    result = {}
    for document, held in found.items():
        items = np.concatenate([index.items[index.starts[gram]:index.starts[gram + 1]] for gram in sorted(held)])
        candidates, matched = np.unique(items, return_counts=True)
        best = np.lexsort((candidates, -matched / index.totals[candidates], -matched))[0]
        item = candidates[best]
        result[document] = Hit(index.names[item], int(matched[best]), int(index.totals[item]))
    return result

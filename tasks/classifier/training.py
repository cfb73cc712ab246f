"""The stage that makes a classifier of quality: cleans the examples, holds some out, trains, and measures.

DCLM's recipe (Li et al. 2024, https://arxiv.org/abs/2406.11794, section 4.4; train_fasttext_classifier.py of
https://github.com/mlfoundations/dclm): instruction rows (OpenHermes 2.5) and answers (ELI5) against random crawl, as
many of one as of the other, fastText with its defaults (rate 0.1, 2-grams), the best tenth kept. Beside DCLM:

- Each step sees a window of a text, and the window is the same for both classes: as long as the shortest tenth of the
  shorter class. Whole texts let a model tell short rows from long pages by how much evidence there is, and then it
  ranks crawl by length: on human judgements that costs a third of the AUC (tests/benchmarks/README.md).
- The text is words alone, so that layout does not give the classes away.
- Nearly the same text in both classes is taken out of both; what is nearly the same, of one domain or of one text file
  is trained on together or held out together.
- Personal data is replaced by its type before a word is counted, and words seen less than `min_count` times stay out:
  the vocabulary stands in the model's file.

The same examples and settings give the same bytes, with any number of workers.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.classifier import measures
from tasks.classifier.examples import EXAMPLES
from tasks.classifier.model import EOS, POSITIVE, Model, Text, Vocabulary, logits, prepared, probabilities, to_bytes
from tasks.dedup.lsh import band_hashes, candidates
from tasks.errors import UserError
from tasks.scrub import find
from tasks.spans import apply
from tasks.stage import Stage

FILES = pa.schema([("name", pa.string()), ("data", pa.large_binary())])
MODEL, DESCRIPTION = "model.bin", "classifier.json"
FEWEST = 100                    # examples of a class
FEWEST_HELD_OUT = 20
SHORTEST_WINDOW = 8
EPOCHS, STEPS = 5, 100_000      # fastText's passes (DCLM's too) teach a few hundred texts nothing at its rate
LEAK = 0.05                     # of a class in both classes: then the files are to blame
NAMES = ("negatives", "positives")


class Training(BaseModel):
    """Settings of training a classifier of quality."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text = Field("words", description="what the model sees: words, or raw as fastText splits it")
    ngrams: int = Field(2, ge=1, le=5, description="longest n-gram of words")
    buckets: int = Field(2_000_000, ge=1, le=1 << 28, description="hashed n-grams; 4 bytes each in the model's file")
    dim: int = Field(16, ge=1, le=1024, description="of the vectors while training")
    rate: float = Field(0.1, gt=0, le=10, description="learning rate at first; it falls linearly to 0")
    epochs: int | None = Field(None, ge=1, description="passes over the examples; by default 5, or as many as make "
                                                       "100,000 steps of a text each")
    window: int | None = Field(None, ge=0, description="words of a text that a step sees; 0: all; by default the "
                                                       "shortest tenth of the shorter class is that long")
    min_count: int = Field(5, ge=1, description="words seen less often are left out")
    held_out: float = Field(0.2, ge=0.05, le=0.5, description="share of the examples to measure on")
    balance: bool = Field(True, description="as many positives as negatives")
    near: float = Field(0.8, gt=0, le=1, description="MinHash similarity from which two texts count as nearly the same")
    word_gap: float = Field(0.95, gt=0, description="a word that so much more of one class has than of the other is a "
                                                    "leak; above 1: never")
    scrub: bool = Field(True, description="replace personal data by its type before training")
    keep: float = Field(0.1, gt=0, lt=1, description="share of random crawl above the threshold of the confusion table")
    seed: int = Field(1, ge=0, description="of the first values and the windows")


classifier = Stage("classifier", version=2, settings=Training, needs={"examples": EXAMPLES.names}, makes=FILES,
                   libraries=("phonenumbers", "unicodedata"))


@classifier.shard
def make(examples: pa.Table, settings: Training) -> pa.Table:
    """FILES of a classifier trained on EXAMPLES: the model, and what it is and how good, as JSON.

    Raises UserError when there are too few examples of a class, when texts stand in both classes, or when one word
    tells them apart.
    """
    examples = examples.sort_by([("hash", "ascending"), ("label", "ascending"), ("group", "ascending")])
    texts = examples["text"].combine_chunks().cast(pa.large_string())
    if settings.scrub:
        texts = pa.array([apply(text, found) if found else text
                          for text, found in zip(texts.to_pylist(), find(texts), strict=True)], pa.large_string())
    labels = examples["label"].to_numpy().astype(np.int64)
    rows, clusters, counts = clean(texts, labels, settings)
    texts, labels = texts.take(pa.array(rows)), labels[rows]
    groups = joined(clusters[rows], examples["group"].take(pa.array(rows)).to_pylist())
    held = held_out(groups, labels, settings.held_out)
    _enough(labels[~held], FEWEST, "to train on")
    _enough(labels[held], FEWEST_HELD_OUT, "to hold out (of domains and text files that are small enough)")
    model, trained = train(texts.filter(pa.array(~held)), labels[~held], settings)
    about = {"format": 1, "label": POSITIVE, "text": settings.text, "settings": settings.model_dump(mode="json"),
             "examples": counts | {f"{part}_{NAMES[label]}": int((labels[rows] == label).sum())
                                   for part, rows in (("trained", ~held), ("held_out", held)) for label in (1, 0)},
             "training": trained, **evaluated(logits(model, texts.filter(pa.array(held))), labels[held], settings.keep)}
    files = {MODEL: to_bytes(model), DESCRIPTION: json.dumps(about, sort_keys=True).encode()}
    return pa.table([list(files), list(files.values())], schema=FILES)


def _enough(labels: np.ndarray, fewest: int, why: str) -> None:
    for label in (1, 0):
        if (n := int((labels == label).sum())) < fewest:
            raise UserError(f"{n} {NAMES[label]} are left {why}, and {fewest} are the least; give more of them")


def clean(texts: pa.Array, labels: np.ndarray, settings: Training) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """The rows to use, in order, the cluster of near copies of each text (int64, its first row), and what was left out.

    Left out: texts without words, copies of the same words in a class, what is nearly the same in both classes, and
    what a class has more of than the other. Raises UserError when too few are left or too much is in both.
    """
    data, offsets = prepared(texts, "words")
    words = pa.Array.from_buffers(pa.large_string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    spelt = words.dictionary_encode()
    same = spelt.indices.to_numpy()
    empty = np.diff(offsets) == 0
    _, first = np.unique(np.stack([same, labels]), axis=1, return_index=True)
    once = np.zeros(len(texts), bool)
    once[first] = True
    distinct = near_copies(spelt.dictionary, settings.near)[same]
    _, clusters = np.unique(distinct, return_inverse=True)
    sides = np.zeros((clusters.max(initial=-1) + 1, 2), np.int64)
    np.add.at(sides, (clusters[~empty], labels[~empty]), 1)
    both = (sides.min(axis=1) > 0)[clusters] & ~empty
    for label in (1, 0):
        n, of = int((both & once & (labels == label)).sum()), int((once & ~empty & (labels == label)).sum())
        if n > LEAK * of:
            raise UserError(f"{n} of {of} {NAMES[label]} are {NAMES[1 - label]} too, or nearly; a text is one or the "
                            f"other: take those sources out of one side")
    rows = np.flatnonzero(once & ~empty & ~both)
    _enough(labels[rows], FEWEST + FEWEST_HELD_OUT, "with words, each once and in one class only")
    counts = {"read": len(texts), "empty": int(empty.sum()), "copies": int((~once & ~empty).sum()),
              "in_both": int((both & once).sum())}
    if settings.balance:
        size = min((labels[rows] == 1).sum(), (labels[rows] == 0).sum())
        rows = np.sort(np.concatenate([rows[labels[rows] == label][:size] for label in (0, 1)]))
    return rows, clusters, counts | {"used": len(rows)}


def near_copies(texts: pa.Array, near: float) -> np.ndarray:
    """For each of n texts the first one that is nearly the same, or is joined to it by such: int64.

    By MinHash of word 5-grams, 14 bands of 8 rows, verified by the share of equal positions (tasks.dedup).
    """
    from tasks.annotate.measure import measure_texts

    signatures = measure_texts(texts)[1]
    usable = np.flatnonzero((signatures != np.iinfo(np.uint32).max).any(axis=1))
    hashes = band_hashes(signatures[usable], 14, 8)
    a, b = candidates([(hashes.ravel(), np.repeat(usable, hashes.shape[1]))], 2)
    alike = np.zeros(len(a), bool)
    for i in range(0, len(a), 1 << 16):
        pairs = slice(i, i + (1 << 16))
        alike[pairs] = (signatures[a[pairs]] == signatures[b[pairs]]).mean(axis=1) >= near
    return union(len(texts), a[alike], b[alike])


def union(n: int, a: Sequence[int], b: Sequence[int]) -> np.ndarray:
    """The smallest of the numbers 0 to n - 1 that each is joined to by the pairs (a, b): int64 of shape (n,)."""
    root = list(range(n))

    def top(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, j in zip(map(int, a), map(int, b), strict=True):
        low, high = sorted((top(i), top(j)))
        root[high] = low
    return np.array([top(i) for i in range(n)], np.int64)


def joined(clusters: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Groups (int64, the first row) of rows that share a cluster or a name, or are joined by such."""
    first: dict = {}
    pairs = [(first.setdefault(key, row), row) for keys in (clusters.tolist(), names) for row, key in enumerate(keys)]
    return union(len(names), [a for a, _ in pairs], [b for _, b in pairs])


def held_out(groups: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Which rows to hold out (bool): whole groups, in order (rows come in the order of their hashes), each that still
    fits into `share` of each class."""
    names, place = np.unique(groups, return_inverse=True)
    sizes = np.zeros((len(names), 2), np.int64)
    np.add.at(sizes, (place, labels), 1)
    room = np.array([round(share * (labels == label).sum()) for label in (0, 1)])
    taken = np.zeros(len(names), bool)
    for group in range(len(names)):
        if (sizes[group] <= room).all():
            taken[group] = True
            room = room - sizes[group]
    return taken[place]


def train(texts: pa.Array, labels: np.ndarray, settings: Training) -> tuple[Model, dict]:
    """The model of n texts and labels, and figures of its training: window, epochs, words, vocabulary, loss
    (nats a text, in the last epoch).

    Raises UserError when a word tells the classes apart.
    """
    from tasks.classifier import kernel

    data, offsets = prepared(texts, settings.text)
    counted = kernel.count_words(data, offsets)
    counted = counted[counted[:, 0] >= settings.min_count]
    counted = counted[np.argsort(-counted[:, 0], kind="stable")]
    vocabulary = Vocabulary.of([EOS] + [data[start:end].tobytes() for _, start, end in counted],
                               [len(texts), *counted[:, 0]])
    table = (vocabulary.keys, vocabulary.rows, len(vocabulary.words))
    _no_leak(kernel.presence(data, offsets, labels, *table), labels, settings)
    window = settings.window
    if window is None:
        counts = kernel.count_tokens(data, offsets)
        window = max(SHORTEST_WINDOW, int(min(np.quantile(counts[labels == label], 0.1) for label in (0, 1))))
    epochs = settings.epochs or max(EPOCHS, -(-STEPS // max(len(texts), 1)))
    buckets = settings.buckets if settings.ngrams > 1 else 0
    weights, loss = kernel.train(data, offsets, labels, *table, buckets, settings.ngrams, settings.dim, settings.rate,
                                 epochs, window, settings.seed)
    figures = {"window": window, "epochs": epochs, "words": int(kernel.count_tokens(data, offsets).sum()),
               "vocabulary": len(vocabulary.words), "loss": round(float(loss), 6)}
    return Model(vocabulary, buckets, settings.ngrams, weights, settings.text), figures


def _no_leak(present: np.ndarray, labels: np.ndarray, settings: Training) -> None:
    shares = present[1:] / np.maximum([(labels == 0).sum(), (labels == 1).sum()], 1)    # without the end of text
    gap = np.abs(shares[:, 1] - shares[:, 0])
    if len(gap) and gap.max() >= settings.word_gap:
        at = int(gap.argmax())
        raise UserError(f"one word stands in {shares[at, 1]:.0%} of the positives and {shares[at, 0]:.0%} of the "
                        f"negatives and tells them apart: a template, a source's mark, another language; take it "
                        f"out, or allow it with word_gap=2")


def evaluated(logit: np.ndarray, labels: np.ndarray, keep: float) -> dict:
    """What held-out texts say of a model, from their logits and labels (1, 0): see tasks.classifier.measures."""
    scores = probabilities(logit)
    logit = np.nan_to_num(logit, nan=-30.0)             # texts of which the vocabulary knows nothing
    table = measures.reliability(scores, labels)
    half = np.arange(len(labels)) % 2 == 0              # Platt's scaling is fitted on one half and judged on the other
    scaled = np.empty(len(labels))
    for part in (half, ~half):
        a, b = measures.platt(logit[~part], labels[~part])
        scaled[part] = probabilities(a * logit[part] + b)
    a, b = measures.platt(logit, labels)
    low, high = measures.auc_interval(scores, labels)
    kept = measures.keep_table(scores[labels == 0], sorted({*measures.SHARES, keep}))
    threshold = next(row["threshold"] for row in kept if row["keep"] == keep)
    return {"metrics": {"auc": measures.auc(scores, labels), "auc_low": low, "auc_high": high,
                        "brier": measures.brier(scores, labels), "ece": measures.calibration_error(table),
                        "ece_scaled": measures.calibration_error(measures.reliability(scaled, labels))},
            "reliability": table, "platt": {"a": a, "b": b}, "keep": kept,
            "confusion": measures.confusion(scores, labels, threshold) | {"keep": keep}}

"""A two-class fastText model as a file, and what it makes of texts.

Two labels under a softmax are one logit: the mean over a text's rows of each row's product with the difference of the
labels' vectors. So the model in memory is one number a row, whatever the dimension it was trained with; a file is
written with dimension 1 and gives the same probabilities in any fastText (2 million buckets: 8 MB instead of 800).

What the features are is said in `tasks.classifier.kernel`; what is done to a text before that is its `text` setting:

    words   letters, digits and marks, case-folded, between single spaces; a character of a script that puts no spaces
            between words is a word, with its marks. All else separates: layout, punctuation and upper case tell where
            a text comes from better than how good it is.
    raw     the text as it is, white space separating, as DCLM's models and most others expect it.
"""

import hashlib
import struct
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.errors import UserError

_NONE = np.zeros(1, np.int64)
POSITIVE, NEGATIVE = "__label__hq", "__label__cc"       # DCLM's names: high quality, Common Crawl
MAGIC, VERSION = 793712314, 12                          # fastText's, src/fasttext.cc
SUPERVISED, SOFTMAX = 3, 3
WORD, LABEL = 0, 1
EOS = b"</s>"                                           # the end of a text, the first of the words
FOLDED_ROWS = 1 << 16                                   # of a matrix at a time: 26 MB with 100 dimensions

Text = Literal["words", "raw"]


class Vocabulary(NamedTuple):
    """Words in the order of their rows, and the table that finds them."""

    words: list[bytes]
    counts: np.ndarray              # int64
    keys: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, words: list[bytes], counts) -> "Vocabulary":
        from tasks.classifier import kernel

        starts = np.concatenate([[0], np.cumsum([len(word) for word in words])]).astype(np.int64)
        keys, rows = kernel.table(np.frombuffer(b"".join(words), np.uint8), starts)
        return cls(words, np.asarray(counts, np.int64), keys, rows)


class Model(NamedTuple):
    """A model, folded: `weights` (float32) has a row for each word and then one for each bucket."""

    vocabulary: Vocabulary
    buckets: int
    ngrams: int
    weights: np.ndarray
    text: Text = "words"


def prepared(texts: pa.Array, text: Text) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 (uint8) of n texts as the model is to see them, and its n + 1 offsets (int64).

    `texts` is a large_string array without nulls.
    """
    from tasks.classifier import kernel

    data = texts.buffers()[2] if len(texts) else None
    data = np.frombuffer(data if data is not None else b"", np.uint8)
    offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset) if len(texts) else _NONE
    if text == "raw" or not len(texts):
        return data, offsets
    return kernel.spell(data, offsets, *_characters())


@lru_cache(maxsize=1)
def _characters() -> tuple[np.ndarray, np.ndarray, int]:
    """What the kernel needs to know of characters; the package that knows it imports this module."""
    from tasks.words import CLASS_SHIFT, DIGIT, FORMAT, LETTER, MARK, SINGLE, code_points

    assert CLASS_SHIFT == 21, "the kernel counts on it"
    in_word = np.zeros(32, np.uint8)
    in_word[[LETTER, DIGIT]], in_word[MARK], in_word[FORMAT] = 1, 2, 3
    return code_points(), in_word, SINGLE


def logits(model: Model, texts: pa.Array) -> np.ndarray:
    """The log odds of the positive label for each text, float64; NaN for a text without words."""
    from tasks.classifier import kernel

    data, offsets = prepared(texts, model.text)
    vocabulary = model.vocabulary
    return kernel.logits(data, offsets, vocabulary.keys, vocabulary.rows, len(vocabulary.words), model.buckets,
                         model.ngrams, model.weights)


def probabilities(logit: np.ndarray) -> np.ndarray:
    """The positive label's probability, float64; 0 where the logit is NaN: a text without words is good for nothing."""
    with np.errstate(over="ignore"):
        return np.where(np.isnan(logit), 0.0, 1 / (1 + np.exp(-logit)))


def to_bytes(model: Model) -> bytes:
    """The model as a fastText file of dimension 1; the positive label first."""
    words, counts = model.vocabulary.words, model.vocabulary.counts
    head = struct.pack("<2i12id", MAGIC, VERSION, 1, 5, 5, 1, 5, model.ngrams, SOFTMAX, SUPERVISED, model.buckets, 0, 0,
                       100, 1e-4)
    entries = [struct.pack("<3i2q", len(words) + 2, len(words), 2, int(counts.sum()), -1)]
    entries += [word + b"\0" + struct.pack("<qb", int(n), WORD) for word, n in zip(words, counts, strict=True)]
    entries += [label.encode() + b"\0" + struct.pack("<qb", 1, LABEL) for label in (POSITIVE, NEGATIVE)]
    rows = struct.pack("<?2q", False, len(model.weights), 1) + model.weights.astype("<f4").tobytes()
    return head + b"".join(entries) + rows + struct.pack("<?2q2f", False, 2, 1, 1.0, 0.0)


def from_bytes(data: bytes | memoryview | np.memmap, what: str, label: str = POSITIVE, text: Text = "words") -> Model:
    """The model that a fastText file holds, folded; `label` is the positive one. `what` names the file in errors.

    Raises UserError for what is no fastText model, or has other than two labels under a softmax, subwords, or
    quantised matrices.
    """
    try:
        return _parsed(memoryview(data), what, label, text)
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{what} is no whole fastText model; name a .bin file of a supervised model") from None


def _parsed(data: memoryview, what: str, label: str, text: Text) -> Model:
    magic, version, dim, *_, ngrams, loss, kind, buckets, _, maxn, _, _ = struct.unpack_from("<2i12id", data)
    if magic != MAGIC or version > VERSION or kind != SUPERVISED:
        raise UserError(f"{what} is no fastText classifier; name a .bin file of a supervised model")
    maxn = 0 if version == 11 else maxn                 # as fastText reads its older files
    at = struct.calcsize("<2i12id")
    size, n_words, n_labels, _, pruned = struct.unpack_from("<3i2q", data, at)
    at += struct.calcsize("<3i2q")
    if (n_labels, loss, maxn) != (2, SOFTMAX, 0) or pruned >= 0:
        raise UserError(f"{what} has {n_labels} labels, loss {loss}, subwords up to {maxn}; a classifier of "
                        f"quality has 2 labels, the softmax loss (3), no subwords and is not quantised")
    names, counts = [], []
    for _ in range(size):
        length = _until_zero(data, at)
        names.append(bytes(data[at:at + length]))
        at += length + 1
        counts.append(struct.unpack_from("<q", data, at)[0])
        at += 9
    labels = [name.decode("utf-8", "replace") for name in names[n_words:]]
    if label not in labels:
        raise UserError(f"{what} has the labels {' and '.join(labels)}, and not {label}; name the good one")
    matrices = []
    for _ in range(2):
        quantised, rows, columns = struct.unpack_from("<?2q", data, at)
        at += struct.calcsize("<?2q")
        if quantised or rows < 0 or columns != dim:
            raise UserError(f"{what} is quantised; name the model as it was before, a .bin file")
        matrices.append(np.frombuffer(data, "<f4", rows * columns, at).reshape(rows, columns))
        at += 4 * rows * columns
    rows, outputs = matrices
    buckets = buckets if ngrams > 1 else 0
    if len(rows) < n_words + buckets:
        raise UserError(f"{what} is no whole fastText model; name a .bin file of a supervised model")
    good = labels.index(label)
    difference = outputs[good].astype(np.float64) - outputs[1 - good]
    weights = np.empty(n_words + buckets, np.float32)
    for start in range(0, len(weights), FOLDED_ROWS):   # not a product of matrices: BLAS sums as its threads fall
        end = min(start + FOLDED_ROWS, len(weights))
        weights[start:end] = (rows[start:end] * difference).sum(axis=1)
    if not np.isfinite(weights).all():
        raise UserError(f"{what} has weights that are no finite numbers; train the model anew, with a lower rate")
    return Model(Vocabulary.of(names[:n_words], counts[:n_words]), buckets, ngrams, weights, text)


def _until_zero(data: memoryview, at: int, longest: int = 1 << 20) -> int:
    window = bytes(data[at:at + 256])
    found = window.find(b"\0")
    if found < 0:
        found = bytes(data[at:at + longest]).index(b"\0")
    return found


@lru_cache(maxsize=2)
def load(path: str, sha256: str, label: str, text: Text) -> Model:
    """The model at a local path, checked against its sha256. Raises UserError when it is another or no such model."""
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            raise UserError(f"annotate.quality.model {path} has sha256 {found}, but annotate.quality.sha256 is "
                            f"{sha256.lower()}; get the right file, or pin the sum of this one")
        return from_bytes(np.memmap(path, np.uint8, "r"), f"annotate.quality.model {path}", label, text)
    except OSError as error:
        raise UserError(f"cannot read annotate.quality.model {path} ({type(error).__name__}); check the path, or take "
                        f"it out of the settings") from None

"""Bits per byte on plain text files, and accuracy on minimal pairs: what small models can already be judged by."""

import math

import numpy as np

from model.likelihood import nats_and_tokens, text_nats
from model.rows import name_of, read_bytes, read_rows
from model.settings import Evaluate
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tasks.errors import UserError


def read_texts(uri: str) -> list[dict]:
    """Documents of a file as {text, source, other fields}: rows with `text` of a jsonl{,.gz} file, or any other file as
    one document. `source` is the row's own, or the file's name. UserError for a file that cannot be read.
    """
    stem = uri.rstrip("/").rpartition("/")[2].removesuffix(".gz").partition(".")[0]
    if ".jsonl" in uri or ".ndjson" in uri:
        rows, _ = read_rows(uri, {"text": str | None})
        return [{"source": stem} | {key: value for key, value in row.items() if value not in (None, "")}
                for row in rows if row["text"]]
    content, _ = read_bytes(uri, "a text file, or jsonl{,.gz} with rows of text")
    try:
        return [{"text": content.decode(), "source": stem}]
    except UnicodeDecodeError:
        raise UserError(f"{uri}: not UTF-8; give UTF-8 text, or jsonl{{,.gz}} with rows of text") from None


def read_pairs(uri: str) -> list[dict]:
    """Rows {good, bad} of texts; UserError for a file that cannot be read."""
    return read_rows(uri, {"good": str, "bad": str})[0]


def rows_of(task: str, column: str, nats: np.ndarray, n_tokens: np.ndarray, n_bytes: np.ndarray, codes: np.ndarray,
            names: list[str], largest: int = 0) -> list[dict]:
    """Rows of results: bits per byte, and perplexity by token, of the documents of each name.

    A document's name is names[code], and none where the code is -1. `largest`: of so many names with the most bytes
    alone; 0: of all.
    """
    known = codes >= 0
    counts = np.bincount(codes[known], minlength=len(names))
    sums = [np.bincount(codes[known], values[known], len(names)) for values in (nats, n_tokens, n_bytes)]
    chosen = sorted(np.flatnonzero((sums[1] > 0) & (sums[2] > 0)).tolist(), key=lambda i: (-sums[2][i], names[i]))
    results = []
    for i in sorted(chosen[:largest or None], key=lambda i: names[i]):
        common = {"task": task, column: names[i], "domain": names[i] if column == "all" else f"{column}={names[i]}",
                  "documents": int(counts[i]), "tokens": int(sums[1][i]), "bytes": int(sums[2][i])}
        results.append(common | {"metric": "bits_per_byte", "value": float(sums[0][i] / math.log(2) / sums[2][i])})
        results.append(common | {"metric": "perplexity", "value": math.exp(min(sums[0][i] / sums[1][i], 700))})
    return results


def bits_per_byte(model: Transformer, tokenizer: Tokenizer, uri: str, settings: Evaluate) -> list[dict]:
    """Rows of results: bits per UTF-8 byte and perplexity of a file's documents, in all and by the fields that
    settings.by names. UserError for a field that no row has."""
    rows = read_texts(uri)
    rows = rows[:settings.documents] if settings.documents else rows
    if not rows:
        raise UserError(f"{uri}: no text in it; give documents to read")
    for name in settings.by:
        if not any(row.get(name) is not None for row in rows):
            raise UserError(f"setting by: no row of {uri} has a field {name!r}; they have "
                            f"{', '.join(sorted({key for row in rows for key in row} - {'text'}))}")
    nats, n_tokens = nats_and_tokens(model, tokenizer, [row["text"] for row in rows], settings.batch)
    n_bytes = np.array([len(row["text"].encode()) for row in rows], float)
    results = rows_of(name_of(uri), "all", nats, n_tokens, n_bytes, np.zeros(len(rows), np.int64), ["all"])
    for field in settings.by:
        values = [str(row[field]) if row.get(field) is not None else None for row in rows]
        names = sorted({value for value in values if value is not None})
        numbers = {name: number for number, name in enumerate(names)}
        codes = np.array([numbers.get(value, -1) for value in values])
        if len(names) > 1 or -1 in codes:
            results += rows_of(name_of(uri), field, nats, n_tokens, n_bytes, codes, names, settings.largest)
    return results


def minimal_pairs(model: Transformer, tokenizer: Tokenizer, uri: str, settings: Evaluate) -> list[dict]:
    """Rows of results: how often the good sentence of a pair is likelier than the bad one (BLiMP, Warstadt et al. 2020,
    https://arxiv.org/abs/1912.00582); chance is 0.5.

    Rows of the file have `good` and `bad`. Where they have `uid`, a paradigm, the accuracy is the mean over paradigms,
    `settings.limit` is of each paradigm, and `field` groups them as well.
    """
    taken: dict[str, list[dict]] = {}
    for row in read_pairs(uri):
        paradigm = taken.setdefault(str(row.get("uid", "")), [])
        if not settings.limit or len(paradigm) < settings.limit:
            paradigm.append(row)
    rows = [row for paradigm in taken.values() for row in paradigm]
    nats = text_nats(model, tokenizer, [row[side] for row in rows for side in ("good", "bad")], settings.batch * 4)
    right = nats[::2] < nats[1::2]
    paradigms = np.array([str(row.get("uid", "")) for row in rows], dtype=object)
    fields = np.array([str(row.get("field", "")) for row in rows], dtype=object)

    def result(domain: str, which: np.ndarray) -> dict:
        value = np.mean([right[which & (paradigms == name)].mean() for name in sorted(set(paradigms[which]))])
        return {"task": name_of(uri), "metric": "accuracy", "domain": domain, "value": float(value),
                "questions": int(which.sum()), "chance": 0.5}

    return [result("all", np.ones(len(rows), bool)),
            *(result(f"field={name}", fields == name) for name in sorted(set(fields)) if name)]

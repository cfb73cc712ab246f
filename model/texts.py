"""Bits per byte on plain text files, and accuracy on minimal pairs: what small models can already be judged by."""

import gzip
import math
from pathlib import Path

import fsspec
import numpy as np
import torch

from model.finetune import read_rows
from model.settings import Evaluate
from model.tokenizer import Tokenizer
from model.transformer import Transformer, token_losses
from tasks.errors import UserError


def read_texts(uri: str) -> list[dict]:
    """Documents of a file as {text, source}: rows with `text` of a jsonl{,.gz} file, or any other file as one document.

    `source` is the row's own, or the file's name. UserError for a file that cannot be read.
    """
    stem = uri.rstrip("/").rpartition("/")[2].removesuffix(".gz").partition(".")[0]
    if ".jsonl" in uri or ".ndjson" in uri:
        rows, _ = read_rows(uri, ("text",))
        return [{"text": row["text"], "source": str(row.get("source") or stem)} for row in rows if row["text"]]
    try:
        with fsspec.open(uri, "rb") as file:
            raw = file.read()
        return [{"text": (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode(), "source": stem}]
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file; give a text file, or jsonl{{,.gz}} with rows of text") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{uri}: cannot be read ({type(error).__name__}); give UTF-8 text, or jsonl{{,.gz}} with rows "
                        "of text") from None


@torch.no_grad()
def text_nats(model: Transformer, tokenizer: Tokenizer, texts: list[str], batch: int) -> np.ndarray:
    """-log p in nats of each text, (texts,), read in windows of the model's context that do not overlap.

    The first window begins behind end-of-text, each other one behind the last token of the one before.
    """
    device, context = next(model.parameters()).device, model.config.context
    windows = []
    for number, text in enumerate(texts):
        tokens = [tokenizer.eot, *tokenizer.encode(text)]
        windows += [(number, tokens[begin:begin + context + 1]) for begin in range(0, len(tokens) - 1, context)]
    nats = np.zeros(len(texts))
    windows.sort(key=lambda window: -len(window[1]))
    for begin in range(0, len(windows), batch):
        rows = windows[begin:begin + batch]
        width = len(rows[0][1]) - 1
        inputs = torch.full((len(rows), width), tokenizer.eot, dtype=torch.int64)
        targets = torch.full((len(rows), width), -100, dtype=torch.int64)
        for at, (_, tokens) in enumerate(rows):
            inputs[at, :len(tokens) - 1] = torch.tensor(tokens[:-1])
            targets[at, :len(tokens) - 1] = torch.tensor(tokens[1:])
        losses = token_losses(model(inputs.to(device)), targets.to(device)).sum(1).double().cpu().numpy()
        np.add.at(nats, [number for number, _ in rows], losses)
    return nats


def bits_per_byte(model: Transformer, tokenizer: Tokenizer, uri: str, settings: Evaluate) -> list[dict]:
    """Rows of results: bits per UTF-8 byte of a file's documents, in all and by source."""
    rows = read_texts(uri)
    rows = rows[:settings.documents] if settings.documents else rows
    if not rows:
        raise UserError(f"{uri}: no text in it; give documents to read")
    nats = text_nats(model, tokenizer, [row["text"] for row in rows], settings.batch)
    n_bytes = np.array([len(row["text"].encode()) for row in rows], float)
    sources = np.array([row["source"] for row in rows], dtype=object)

    def result(domain: str, which: np.ndarray) -> dict:
        size = n_bytes[which].sum()
        return {"task": _stem(uri), "metric": "bits_per_byte", "domain": domain, "documents": int(which.sum()),
                "bytes": int(size), "value": float(nats[which].sum() / math.log(2) / size)}

    return [result("all", np.ones(len(rows), bool)),
            *(result(f"source={name}", sources == name) for name in sorted(set(sources)) if len(set(sources)) > 1)]


def minimal_pairs(model: Transformer, tokenizer: Tokenizer, uri: str, settings: Evaluate) -> list[dict]:
    """Rows of results: how often the good sentence of a pair is likelier than the bad one (BLiMP, Warstadt et al. 2020,
    https://arxiv.org/abs/1912.00582); chance is 0.5.

    Rows of the file have `good` and `bad`. Where they have `uid`, a paradigm, the accuracy is the mean over paradigms,
    `settings.limit` is of each paradigm, and `field` groups them as well.
    """
    rows, _ = read_rows(uri, ("good", "bad"))
    taken: dict[str, list[dict]] = {}
    for row in rows:
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
        return {"task": _stem(uri), "metric": "accuracy", "domain": domain, "value": float(value),
                "questions": int(which.sum()), "chance": 0.5}

    return [result("all", np.ones(len(rows), bool)),
            *(result(f"field={name}", fields == name) for name in sorted(set(fields)) if name)]


def _stem(uri: str) -> str:
    return Path(uri.removesuffix(".gz")).stem

"""Measures a trained run: `python -m model.evaluate CONFIG.json` writes evaluation.json.

Bits per byte and perplexity on the documents that were held out, by source, language and domain; accuracy on
multiple-choice files by the likelihood of the choices.
"""

import json
import os
import time
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from model import likelihood
from model.choices import benchmark, choices
from model.corpus import Corpus, document_hashes, held_out, open_corpus
from model.data import corpus_samples
from model.generate import load_run
from model.process import run_main
from model.rows import check_names, name_of
from model.settings import Evaluate, parse
from model.texts import bits_per_byte, minimal_pairs, read_pairs, read_texts, rows_of
from model.tokenizer import load_tokenizer
from model.train import document_losses
from model.transformer import Transformer
from tasks.errors import UserError

ROOM = "lower batch, or set device to cpu"      # where a GPU's memory is full


def held_out_rows(model: Transformer, corpus: Corpus, run_settings: dict, settings: Evaluate) -> list[dict]:
    """Bits per byte and perplexity (by token, end-of-text left out) of held-out documents: in all and by column.

    Which documents: those that the run held out, by the run's own `held_out` settings. They are read in rows of the
    context, or of as many tokens as likelihood.LOGITS has room for: longer documents are cut.
    """
    index = corpus.documents
    held = held_out(corpus, run_settings.get("held_out", 0.01), run_settings.get("held_out_at_least", 8))
    chosen = np.flatnonzero(held & (index["repeat"].to_numpy() == 0))
    if settings.documents:
        chosen = np.sort(chosen[np.argsort(document_hashes(corpus)[chosen], kind="stable")][:settings.documents])
    if not len(chosen):
        raise UserError(
            f"corpus {corpus.label} has no held-out documents under held_out = {run_settings.get('held_out')}: "
            "set held_out false, or train with documents held out"
        )
    room = max(1, likelihood.LOGITS // model.config.vocab_size)
    length = min(model.config.context, room)
    batch = max(1, min(settings.batch, room // length))
    samples = corpus_samples(corpus, chosen, length, 0, whole=True)
    device = next(model.parameters()).device
    passes = count(1)

    def counted(*inputs: torch.Tensor) -> torch.Tensor:
        likelihood.progress.get()(next(passes) * batch, samples.rows)
        return model(*inputs)

    sums = document_losses(counted, samples, batch, device)
    n_bytes = index["n_bytes"].to_numpy()[chosen].astype(np.float64)
    results = rows_of("held-out", "all", sums[:, 0], sums[:, 1], n_bytes, np.zeros(len(chosen), np.int64), ["all"])
    for column in ("source", "language", "domain"):
        values = index[column].take(chosen).combine_chunks()
        values = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
        codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        results += rows_of("held-out", column, sums[:, 0], sums[:, 1], n_bytes, codes, values.dictionary.to_pylist(),
                           settings.largest)
    return results


def evaluate(config: dict) -> dict:
    """All that the settings ask for of the run in config["run_folder"]; also written to config["output"]."""
    settings = parse(Evaluate, config["settings"])
    check(settings)
    model, tokenizer, about = load_run(config["run_folder"], settings.device, settings.precision, config.get("step"))
    results = []
    if config["corpus_folder"]:
        corpus = open_corpus(config["corpus_folder"])
        theirs = load_tokenizer(f"{corpus.folder}/tokenizer")
        if theirs.digest != tokenizer.digest:
            raise UserError(f"{corpus.folder}/tokenizer: tokenizer {theirs.name!r} is not the one that run "
                            f"{about['run']!r} was trained with ({tokenizer.name!r}): take a corpus made with that")
        tell(config, "held-out")
        results += held_out_rows(model, corpus, about.get("base", about)["settings"], settings)
    for measure, paths in ((benchmark, settings.benchmarks), (bits_per_byte, settings.texts),
                           (minimal_pairs, settings.pairs)):
        for path in paths:
            tell(config, name_of(path))
            results += measure(model, tokenizer, path, settings)
    if settings.harness:
        from model import harness

        tell(config, "harness")
        results += harness.run(model, tokenizer, settings)
    weight = model.embedding.weight
    result = {"run": about["run"], "step": about["step"], "device": weight.device.type,
              "precision": "bf16" if weight.dtype == torch.bfloat16 else "fp32", "results": results}
    _write(config["output"], json.dumps(result, indent=1, sort_keys=True))
    return result


def check(settings: Evaluate) -> None:
    """UserError for files that cannot be measured by, before anything is measured."""
    for setting in ("benchmarks", "texts", "pairs"):
        check_names(setting, getattr(settings, setting))
    known = {name_of(path) for path in settings.benchmarks}
    if unknown := sorted(settings.examples.keys() - known):
        raise UserError(f"setting examples.{unknown[0]}: no benchmark is called so; there are "
                        f"{', '.join(sorted(known)) or 'none'}")
    for path in (*settings.benchmarks, *settings.examples.values()):
        choices(path)
    for path in settings.texts:
        read_texts(path)
    for path in settings.pairs:
        read_pairs(path)


def tell(config: dict, part: str) -> None:
    """Has config["progress"] say once a second how far the part that begins now is: [part, done, of]."""
    said = [0.0]

    def show(done: int, of: int) -> None:
        if "progress" in config and (done >= of or time.monotonic() - said[0] > 1):
            said[0] = time.monotonic()
            _write(config["progress"], json.dumps([part, min(done, of), of]))

    likelihood.progress.set(show)


def _write(path: str, text: str) -> None:
    temporary = Path(path).with_suffix(".partial")
    temporary.write_text(text)
    os.replace(temporary, path)


if __name__ == "__main__":
    run_main(evaluate, ROOM)

"""Measures a trained run: `python -m model.evaluate CONFIG.json` writes evaluation.json.

Bits per byte and perplexity on the documents that were held out, by source, language and domain; accuracy on
multiple-choice files by the likelihood of the choices.
"""

import json
import math
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from model.corpus import Corpus, held_out, open_corpus
from model.data import corpus_samples
from model.finetune import read_rows
from model.generate import load_run
from model.process import run_main
from model.settings import Evaluate, parse
from model.texts import bits_per_byte, minimal_pairs
from model.tokenizer import Tokenizer, load_tokenizer
from model.train import document_losses
from model.transformer import Transformer, token_losses
from tasks.errors import UserError


def held_out_rows(model: Transformer, corpus: Corpus, run_settings: dict, settings: Evaluate) -> list[dict]:
    """Bits per byte and perplexity (by token, end-of-text left out) of held-out documents: in all and by column.

    Which documents: those that the run held out, by the run's own `held_out` settings.
    """
    index = corpus.documents
    held = held_out(corpus, run_settings.get("held_out", 0.01), run_settings.get("held_out_at_least", 8))
    chosen = np.flatnonzero(held & (index["repeat"].to_numpy() == 0))
    if settings.documents:
        chosen = chosen[:settings.documents]
    if not len(chosen):
        raise UserError(
            f"corpus {corpus.label} has no held-out documents under held_out = {run_settings.get('held_out')}: "
            "set held_out false, or train with documents held out"
        )
    samples = corpus_samples(corpus, chosen, model.config.context, 0)
    device = next(model.parameters()).device
    sums = document_losses(lambda *inputs: model(*inputs), samples, settings.batch, device)
    n_bytes = index["n_bytes"].to_numpy()[chosen].astype(np.float64)
    results = []

    def add(column: str, name: str, which: np.ndarray) -> None:
        nats, n_tokens = sums[which].sum(0)
        common = {"task": "held-out", column or "all": name, "domain": f"{column}={name}" if column else "all",
                  "documents": int(which.sum()), "tokens": int(n_tokens), "bytes": int(n_bytes[which].sum())}
        if n_tokens and common["bytes"]:
            results.append(common | {"metric": "bits_per_byte", "value": nats / math.log(2) / common["bytes"]})
            results.append(common | {"metric": "perplexity", "value": math.exp(min(nats / n_tokens, 700))})

    add("", "all", np.ones(len(chosen), bool))
    for column in ("source", "language", "domain"):
        values = np.array(index[column].take(chosen).to_pylist(), dtype=object)
        for name in sorted({value for value in values if value is not None}):
            add(column, name, values == name)
    return results


@torch.no_grad()
def continuation_scores(model: Transformer, tokenizer: Tokenizer, pairs: list[tuple[str, str]],
                        batch: int) -> np.ndarray:
    """log p(continuation | context) in nats of each (context, continuation).

    Tokens of the continuation are those of context + continuation behind as many as the context alone has (as
    lm-evaluation-harness); too long a context loses its beginning.
    """
    device, context = next(model.parameters()).device, model.config.context
    rows = []
    for before, after in pairs:
        n_before = len(tokenizer.encode(before))
        whole = tokenizer.encode(before + after)
        n_after = max(1, len(whole) - n_before)
        tokens = [tokenizer.eot, *whole][-(context + 1):]
        rows.append((tokens, min(n_after, len(tokens) - 1)))
    scores = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    for begin in range(0, len(order), batch):
        numbers = order[begin:begin + batch]
        width = max(len(rows[i][0]) for i in numbers) - 1
        inputs = torch.full((len(numbers), width), tokenizer.eot, dtype=torch.int64)
        targets = torch.full((len(numbers), width), -100, dtype=torch.int64)
        for at, i in enumerate(numbers):
            tokens, n_after = rows[i]
            inputs[at, :len(tokens) - 1] = torch.tensor(tokens[:-1])
            targets[at, len(tokens) - 1 - n_after:len(tokens) - 1] = torch.tensor(tokens[-n_after:])
        losses = token_losses(model(inputs.to(device)), targets.to(device)).sum(1)
        scores[numbers] = -losses.double().cpu().numpy()
    return scores


def multiple_choice(model: Transformer, tokenizer: Tokenizer, rows: list[dict], few_shot: int,
                    settings: Evaluate) -> Iterator[tuple[str, float, int]]:
    """Yields (metric, value, questions): accuracy by likelihood, and by likelihood a UTF-8 byte of the choice.

    A prompt is `few_shot` other rows with their right choice, then the question, parted by empty lines. The other
    rows are chosen by hash of (seed, question number), the same for every model.
    """
    asked = rows[:settings.limit] if settings.limit else rows
    pairs, sizes, gold = [], [], []
    for number, row in enumerate(asked):
        shown = sorted((other for other in range(len(rows)) if other != number),
                       key=lambda other: blake2b(f"{settings.seed} {number} {other}".encode(), digest_size=8).digest()
                       )[:few_shot] if few_shot else []
        examples = [f"{rows[other]['query']} {rows[other]['choices'][rows[other]['gold']]}" for other in shown]
        prompt = "\n\n".join([*examples, row["query"]])
        pairs += [(prompt, f" {choice}") for choice in row["choices"]]
        sizes.append(len(row["choices"]))
        gold.append(int(row["gold"]))
    scores = continuation_scores(model, tokenizer, pairs, settings.batch)
    n_bytes = np.array([len(choice.encode()) for _, choice in pairs], float)
    ends = np.cumsum(sizes)
    for metric, values in (("accuracy", scores), ("accuracy_by_byte", scores / n_bytes)):
        right = [int(np.argmax(values[end - size:end])) == answer
                 for end, size, answer in zip(ends, sizes, gold, strict=True)]
        yield metric, float(np.mean(right)), len(right)


def check_choices(path: str, rows: list[dict]) -> None:
    """UserError for a row whose choices or gold cannot be scored."""
    for number, row in enumerate(rows, 1):
        choices, gold = row["choices"], row["gold"]
        if not isinstance(choices, list) or len(choices) < 2 or not isinstance(gold, int) \
                or not 0 <= gold < len(choices):
            raise UserError(f"{path}, row {number}: choices is a list of two or more texts and gold the index of the "
                            "right one")


def evaluate(config: dict) -> dict:
    """All that the settings ask for of the run in config["run_folder"]; also written to config["output"]."""
    settings = parse(Evaluate, config["settings"])
    model, tokenizer, about = load_run(config["run_folder"], settings.device)
    results = []
    if config["corpus_folder"]:
        corpus = open_corpus(config["corpus_folder"])
        theirs = load_tokenizer(f"{corpus.folder}/tokenizer")
        if theirs.digest != tokenizer.digest:
            raise UserError(f"{corpus.folder}/tokenizer: tokenizer {theirs.name!r} is not the one that run "
                            f"{about['run']!r} was trained with ({tokenizer.name!r}): take a corpus made with that")
        results += held_out_rows(model, corpus, about.get("base", about)["settings"], settings)
    for path in settings.benchmarks:
        rows, _ = read_rows(path, ("query", "choices", "gold"))
        check_choices(path, rows)
        task = Path(path.removesuffix(".gz")).stem
        for few_shot in settings.few_shot:
            for metric, value, count in multiple_choice(model, tokenizer, rows, few_shot, settings):
                results.append({"task": task, "metric": metric, "value": value, "domain": f"{few_shot}-shot",
                                "few_shot": few_shot, "questions": count,
                                "chance": float(np.mean([1 / len(row["choices"]) for row in rows]))})
    for path in settings.texts:
        results += bits_per_byte(model, tokenizer, path, settings)
    for path in settings.pairs:
        results += minimal_pairs(model, tokenizer, path, settings)
    result = {"run": about["run"], "step": about["step"], "results": results}
    temporary = Path(config["output"]).with_suffix(".partial")
    temporary.write_text(json.dumps(result, indent=1, sort_keys=True))
    os.replace(temporary, config["output"])
    return result


if __name__ == "__main__":
    run_main(evaluate)

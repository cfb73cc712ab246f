"""Multiple choice: the answer is the choice that the model finds the likeliest behind the question.

A file has rows {query, choices, gold}: a text, two texts or more, and the index of the right one. Nothing here trains,
so that a training can measure itself.
"""

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from model.likelihood import continuation_scores
from model.rows import name_of, read_rows
from model.settings import Evaluate
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tasks.errors import UserError


def benchmark(model: Transformer, tokenizer: Tokenizer, path: str, settings: Evaluate) -> list[dict]:
    """Rows of results of a multiple-choice file, for each number of worked examples that the settings name."""
    rows, examples, task = choices(path), None, name_of(path)
    if task in settings.examples:
        examples = choices(settings.examples[task])
    chance = float(np.mean([1 / len(row["choices"]) for row in rows[:settings.limit or None]]))
    return [{"task": task, "metric": metric, "value": value, "domain": f"{few_shot}-shot", "few_shot": few_shot,
             "questions": count, "chance": chance, "stderr": (value * (1 - value) / max(1, count - 1)) ** 0.5}
            for few_shot in settings.few_shot
            for metric, value, count in multiple_choice(model, tokenizer, rows, few_shot, settings, examples)]


def multiple_choice(model: Transformer, tokenizer: Tokenizer, rows: list[dict], few_shot: int, settings: Evaluate,
                    examples: list[dict] | None = None) -> Iterator[tuple[str, float, int]]:
    """Yields (metric, value, questions): how often the right choice is the one with the highest

    - acc: log p(choice | prompt), behind a blank;
    - acc_norm: that divided by the characters of the choice, as lm-evaluation-harness;
    - acc_bytes: divided by its UTF-8 bytes.

    A prompt is `few_shot` worked examples, then the question, parted by empty lines: rows of the training part
    `examples`, or of the other questions where there is none; see `shown`.
    """
    asked = rows[:settings.limit] if settings.limit else rows
    pairs = []
    for number, row in enumerate(asked):
        solved = [f"{other['query']} {other['choices'][other['gold']]}"
                  for other in shown(rows, number, few_shot, settings, examples)]
        prompt = "\n\n".join([*solved, row["query"]])
        pairs += [(prompt, f" {choice}") for choice in row["choices"]]
    scores = continuation_scores(model, tokenizer, pairs, settings.batch)
    choices = [choice for row in asked for choice in row["choices"]]
    ends = np.cumsum([len(row["choices"]) for row in asked])
    for metric, values in (("acc", scores), ("acc_norm", scores / [len(choice) for choice in choices]),
                           ("acc_bytes", scores / [len(choice.encode()) for choice in choices])):
        right = [int(np.argmax(values[end - len(row["choices"]):end])) == row["gold"]
                 for end, row in zip(ends, asked, strict=True)]
        yield metric, float(np.mean(right)), len(right)


def shown(rows: list[dict], number: int, few_shot: int, settings: Evaluate,
          examples: list[dict] | None = None) -> list[dict]:
    """The worked examples before question `number` of `rows`: the first of `examples`, or drawn without repetition by
    hash of (seed, question, draw): the same for every model. UserError when there are too few."""
    pool = rows if examples is None else examples
    own = number if examples is None else -1
    if few_shot > len(pool) - (own >= 0):
        raise UserError(f"setting few_shot: {few_shot} worked examples, and there are {len(pool) - (own >= 0)}; lower "
                        "it, or name a larger training part in the setting examples")
    if settings.examples_by == "first":
        return [row for other, row in enumerate(pool[:few_shot + 1]) if other != own][:few_shot]
    taken: dict[int, None] = {}
    draw = 0
    while len(taken) < few_shot:
        digest = blake2b(f"{settings.seed} {number} {draw}".encode(), digest_size=8).digest()
        other, draw = int.from_bytes(digest, "big") % len(pool), draw + 1
        if other != own:
            taken[other] = None
    return [pool[other] for other in taken]


def unscorable(row: dict) -> str:
    """What keeps a question's choices or gold from being scored; "" when nothing does."""
    choices, gold = row["choices"], row["gold"]
    if len(choices) < 2 or not all(isinstance(choice, str) and choice for choice in choices):
        return "choices is a list of two or more texts"
    return "" if type(gold) is int and 0 <= gold < len(choices) else "gold is the index of the right choice"


def choices(path: str) -> list[dict]:
    """The rows of a multiple-choice file; UserError for one that cannot be scored."""
    return read_rows(path, {"query": str, "choices": list, "gold": int}, unscorable)[0]

"""How likely a model finds a text: what bits per byte, minimal pairs and multiple choice are computed from.

A text begins behind end-of-text, as documents do in training. One that is longer than the context is read in windows,
the same as lm-evaluation-harness cuts (https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/utils.py,
get_rolling_token_windows, with a context of one token).
"""

from collections.abc import Sequence

import numpy as np
import torch

from model.tokenizer import Tokenizer
from model.transformer import Transformer, token_losses

LOGITS = 1 << 28                # computed at once at most: 1 GiB in fp32


@torch.no_grad()
def target_nats(model: Transformer, rows: Sequence[tuple[list[int], int]], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Of rows (tokens, n), context + 1 tokens at most: -log p in nats of the last n tokens behind those before them,
    and whether each of these was the likeliest; two arrays (rows,)."""
    device, room = next(model.parameters()).device, max(1, LOGITS // model.config.vocab_size)
    nats, greedy = np.zeros(len(rows)), np.ones(len(rows), bool)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]))
    while order:
        taken = min(batch, max(1, room // max(1, len(rows[order[0]][0]) - 1)))
        numbers, order = order[:taken], order[taken:]
        width = max(1, len(rows[numbers[0]][0]) - 1)
        inputs, targets = np.zeros((len(numbers), width), np.int64), np.full((len(numbers), width), -100)
        for at, number in enumerate(numbers):
            tokens, n = rows[number]
            end = len(tokens) - 1
            inputs[at, :end] = tokens[:-1]
            targets[at, end - n:end] = tokens[len(tokens) - n:]
        wanted = torch.from_numpy(targets != -100)
        expected = torch.from_numpy(targets)[wanted].to(device)
        if not len(expected):
            continue
        logits = model(torch.from_numpy(inputs).to(device), wanted=wanted.to(device))
        of = wanted.nonzero()[:, 0].numpy()
        np.add.at(nats, np.array(numbers)[of], token_losses(logits, expected).double().cpu().numpy())
        np.logical_and.at(greedy, np.array(numbers)[of], (logits.argmax(-1) == expected).cpu().numpy())
    return nats, greedy


def text_nats(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], batch: int) -> np.ndarray:
    """-log p in nats of each text, (texts,)."""
    return nats_and_tokens(model, tokenizer, texts, batch)[0]


def nats_and_tokens(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str],
                    batch: int) -> tuple[np.ndarray, np.ndarray]:
    """-log p in nats of each text and its number of tokens, (texts,) each; end-of-text behind it is not counted.

    Each token is predicted once, in windows of the context: the first ones lie side by side, the last begins as early
    as it can. Each window sees one token at least before those that it predicts.
    """
    context, windows, owners = model.config.context, [], []
    lengths = np.zeros(len(texts), np.int64)
    for number, text in enumerate(texts):
        tokens = [tokenizer.eot, *tokenizer.encode(text)]
        lengths[number] = len(tokens) - 1
        for begin in range(0, len(tokens) - 1, context):
            end = min(begin + context, len(tokens) - 1)
            windows.append((tokens[max(0, end - context):end + 1], end - begin))
            owners.append(number)
    nats = np.zeros(len(texts))
    np.add.at(nats, owners, target_nats(model, windows, batch)[0])
    return nats, lengths


def continuation_rows(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]],
                      context: int) -> list[tuple[list[int], int]]:
    """(tokens, how many of them are the continuation's) of each (text before, continuation).

    The continuation's are those of both texts together behind as many as the text before has alone; blanks at its end
    belong to the continuation. Too long a text loses its beginning. All as in lm-evaluation-harness.
    """
    rows = []
    for before, after in pairs:
        whole = [tokenizer.eot, *tokenizer.encode(before + after)]
        n_after = max(1, len(whole) - 1 - len(tokenizer.encode(before.rstrip())))
        tokens = whole[-(context + 1):]
        rows.append((tokens, min(n_after, len(tokens) - 1)))
    return rows


def continuation_scores(model: Transformer, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]],
                        batch: int) -> np.ndarray:
    """log p(continuation | text before) in nats of each (text before, continuation)."""
    return -target_nats(model, continuation_rows(tokenizer, pairs, model.config.context), batch)[0]

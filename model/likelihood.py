"""How likely a model finds a text: what bits per byte, minimal pairs and multiple choice are computed from.

A text begins as documents do in training: behind end-of-text, or the token that its tokenizer has for that. One that is
longer than the context is read in windows, the same as lm-evaluation-harness cuts
(https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/utils.py, get_rolling_token_windows, with a context of one
token).
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import numpy as np
import torch
import torch.distributed as dist

from model.tokenizer import Tokenizer
from model.transformer import Transformer, token_losses

LOGITS = 1 << 28                # computed at once at most: 1 GiB in fp32
# called with how many rows are done, of how many: who waits for a long evaluation sets it
progress: ContextVar[Callable[[int, int], None]] = ContextVar("progress", default=lambda done, of: None)


@torch.no_grad()
def target_nats(model: Transformer, rows: Sequence[tuple[list[int], int]], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Of rows (tokens, n), context + 1 tokens at most: -log p in nats of the last n tokens behind those before them,
    and whether each of these was the likeliest; two arrays (rows,).

    Ranks that train together share the batches, so all of them must ask. Each takes the same number of forward passes
    (ZeRO-3 gathers weights in them) and gets the same result.
    """
    device, room = next(model.parameters()).device, max(1, LOGITS // model.config.vocab_size)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    sums = torch.zeros(2, len(rows), dtype=torch.float64, device=device)            # nats, tokens that were likeliest
    batches = in_batches([len(tokens) - 1 if n else 0 for tokens, n in rows], batch, room)
    for first in range(0, len(batches), world):
        numbers = batches[min(first + rank, len(batches) - 1)]                      # a pass too many, for the others
        width = len(rows[numbers[0]][0]) - 1
        inputs, targets = np.zeros((len(numbers), width), np.int64), np.full((len(numbers), width), -100)
        for at, number in enumerate(numbers):
            tokens, n = rows[number]
            end = len(tokens) - 1
            inputs[at, :end] = tokens[:-1]
            targets[at, end - n:end] = tokens[len(tokens) - n:]
        wanted = torch.from_numpy(targets != -100)
        expected = torch.from_numpy(targets)[wanted].to(device)
        logits = model(torch.from_numpy(inputs).to(device), wanted=wanted.to(device))
        if first + rank < len(batches):
            of = torch.tensor(numbers)[wanted.nonzero()[:, 0]].to(device)
            sums[0].index_add_(0, of, token_losses(logits, expected).double())
            sums[1].index_add_(0, of, (logits.argmax(-1) == expected).double())
        progress.get()(sum(map(len, batches[:first + world])), len(rows))
    if world > 1:
        dist.all_reduce(sums)
    nats, greedy = sums.cpu().numpy()
    return nats, greedy == [n for _, n in rows]


def in_batches(widths: Sequence[int], batch: int, room: int) -> list[list[int]]:
    """Numbers of the rows that have a width, the widest first: `batch` of them at once, and no more than `room` places
    unless a row alone has more."""
    order, found = sorted((row for row, width in enumerate(widths) if width), key=lambda row: -widths[row]), []
    while order:
        taken = min(batch, max(1, room // widths[order[0]]))
        found.append(order[:taken])
        order = order[taken:]
    return found


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
        tokens = [tokenizer.bos, *tokenizer.encode(text)]
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
        whole = [tokenizer.bos, *tokenizer.encode(before + after)]
        n_after = max(1, len(whole) - 1 - len(tokenizer.encode(before.rstrip())))
        tokens = whole[-(context + 1):]
        rows.append((tokens, min(n_after, len(tokens) - 1)))
    return rows


def continuation_scores(model: Transformer, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]],
                        batch: int) -> np.ndarray:
    """log p(continuation | text before) in nats of each (text before, continuation)."""
    return -target_nats(model, continuation_rows(tokenizer, pairs, model.config.context), batch)[0]

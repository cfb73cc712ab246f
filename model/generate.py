"""Samples text from a trained run."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from model import checkpoint
from model.config import ModelConfig
from model.convert import load_model
from model.tokenizer import Tokenizer, load_tokenizer
from model.transformer import KeyValueCache, Transformer
from tasks.errors import UserError


def load_run(folder: str | Path, device: str = "auto", encoders: bool = False) -> tuple[Transformer, Tokenizer, dict]:
    """The model, tokenizer and checkpoint.json of a run's newest checkpoint, or of a checkpoint folder named itself.

    UserError when there is none, when it is corrupt, when the tokenizer has more tokens than the model, or for an
    encoder, unless those are asked for too: it predicts no next token.
    """
    folder = Path(folder)
    last = folder if (folder / checkpoint.ABOUT).exists() else checkpoint.latest(folder / "checkpoints")
    if last is None:
        raise UserError(
            f"{folder}: no checkpoint there yet; name a run under trainings, or train one with `gristmill pretrain`"
        )
    about = checkpoint.read(last)
    config = ModelConfig(**about["model"])
    if not config.causal and not encoders:
        raise UserError(f"{folder}: the model is an encoder, which fills in masked tokens and predicts no next one: "
                        "export it with `gristmill convert`, or name the run of a decoder")
    tokenizer = load_tokenizer(str(last.parent.parent / "tokenizer"))
    if tokenizer.n_vocab > config.vocab_size:
        raise UserError(
            f"{last.parent.parent / 'tokenizer'}: {tokenizer.n_vocab} tokens, but the model's embedding has "
            f"{config.vocab_size} rows: the tokenizer is not this model's; copy the corpus's tokenizer there"
        )
    where = "cuda" if device == "cuda" or device == "auto" and torch.cuda.is_available() else "cpu"
    return load_model(last / checkpoint.WEIGHTS, config).to(where).eval(), tokenizer, about


def sample(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """One token id from logits (V). Temperature 0 takes the likeliest; top_k 0 and top_p 1 cut nothing.

    top_p keeps the fewest likeliest tokens whose probabilities reach it (nucleus sampling, arXiv:1904.09751).
    """
    logits = logits.float().cpu()
    if temperature == 0:
        return int(logits.argmax())
    values, order = (logits / temperature).sort(descending=True, stable=True)
    if top_k:
        values = values[:top_k]
    probabilities = values.softmax(-1)
    probabilities[probabilities.cumsum(-1) - probabilities >= top_p] = 0
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])


@torch.no_grad()
def generate(model: Transformer, tokens: list[int], count: int, *, n_vocab: int, stop: frozenset[int] = frozenset(),
             temperature: float = 0.8, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
             cached: bool = True) -> Iterator[int]:
    """Yields up to `count` tokens that follow `tokens` (not empty), ending before one of `stop`.

    When the context is full the last half of it is kept and read again. Without the cache every token reads the
    whole text again: the same tokens, slower, to test against.
    """
    if not tokens:
        raise UserError("a prompt needs a token: begin it with end-of-text")
    if temperature < 0 or not 0 < top_p <= 1 or top_k < 0:
        raise UserError("settings temperature, top_k and top_p: at least 0, at least 0, and above 0 up to 1")
    device, context = next(model.parameters()).device, model.config.context
    generator = torch.Generator().manual_seed(seed)
    text = list(tokens)[-context:]
    fresh, cache = text, None
    for _ in range(count):
        if len(text) > context:
            text = text[-(context // 2):]
            fresh, cache = text, None
        if cached and cache is None:
            cache = KeyValueCache(model.config, 1, device, next(model.parameters()).dtype)
        read = fresh if cached else text
        logits = model(torch.tensor([read], device=device), cache=cache)[0, -1, :n_vocab]
        token = sample(logits, temperature, top_k, top_p, generator)
        if token in stop:
            return
        yield token
        text = [*text, token]
        fresh = [token]


def stream_text(model: Transformer, tokenizer: Tokenizer, prompt: str, count: int = 200, *, chat: bool = False,
                **sampling) -> Iterator[str]:
    """Yields pieces of text that continue `prompt`, or answer it where `chat` (see model/finetune), as they come."""
    tokens = [tokenizer.eot, *tokenizer.encode(prompt)]
    if chat:
        tokens = [tokenizer.eot, tokenizer.token("<|user|>"), *tokenizer.encode(prompt), tokenizer.token("<|end|>"),
                  tokenizer.token("<|assistant|>")]
    stop = frozenset({tokenizer.eot} | ({tokenizer.special["<|end|>"]} if "<|end|>" in tokenizer.special else set()))
    special = set(tokenizer.special.values())
    known = tokenizer.encoding.max_token_value + 1
    decoder = codecs.getincrementaldecoder("utf-8")("replace")         # a character may span tokens
    for token in generate(model, tokens, count, n_vocab=known, stop=stop, **sampling):
        if token not in special:
            piece = decoder.decode(tokenizer.encoding.decode_single_token_bytes(token))
            if piece:
                yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def run_summary(folder: str | Path) -> dict | None:
    """summary.json of a run that is complete, or None."""
    path = Path(folder) / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None

"""Text from a trained model: many prompts at once, or one as it comes.

Prompts of a batch are padded on the left, so that all write their next token at the same place of one key/value cache;
`segments` hide the padding and `positions` count from each prompt's own start (see Transformer.forward). What a prompt
gets does not depend on the others beside it, but for the rounding of sums in another order (1e-6 of a logit).
"""

import codecs
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from model import checkpoint
from model.config import ModelConfig
from model.convert import load_model
from model.engine import bf16, check_compiler
from model.settings import Evaluate, Optimisation, parse
from model.tokenizer import Tokenizer, load_tokenizer
from model.transformer import KeyValueCache, Transformer
from tasks.errors import UserError

log = logging.getLogger("gristmill.generate")


def load_run(folder: str | Path, device: str = "auto", precision: str = "auto", step: int | None = None,
             encoders: bool = False) -> tuple[Transformer, Tokenizer, dict]:
    """The model, tokenizer and checkpoint.json of a run's newest checkpoint, or of that of `step`.

    The weights are fp32, or bf16 where `precision` says so: auto, on GPUs that have it. Norms, rotations, softmax and
    sums of likelihoods are computed in fp32 even so. UserError when there is no such checkpoint, when it is corrupt,
    when the tokenizer has more tokens than the model, when there is no such device, or for an encoder, unless those are
    asked for too: it predicts no next token.
    """
    folder, settings = Path(folder), parse(Evaluate, {"device": device, "precision": precision})
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("setting device: cuda, but PyTorch sees no GPU here; set device to auto or cpu")
    where = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")

    def load(path: Path, about: dict) -> tuple[Transformer, Tokenizer, dict]:
        config = ModelConfig(**about["model"])
        if not config.causal and not encoders:
            raise UserError(f"{folder}: the model is an encoder, which fills in masked tokens and predicts no next "
                            "one: export it with `gristmill convert`, or name the run of a decoder")
        tokenizer = load_tokenizer(str(folder / "tokenizer"))
        if tokenizer.n_vocab > config.vocab_size:
            raise UserError(
                f"{folder / 'tokenizer'}: {tokenizer.n_vocab} tokens, but the model's embedding has "
                f"{config.vocab_size} rows: the tokenizer is not this model's; copy the corpus's tokenizer there"
            )
        return load_model(path / checkpoint.WEIGHTS, config), tokenizer, about

    model, tokenizer, about = checkpoint.opened(folder / "checkpoints", step, load)
    dtype = torch.bfloat16 if bf16(settings, where) else torch.float32
    try:
        check_compiler(Optimisation(), where)
    except UserError:
        log.warning("no C compiler on PATH, which FlexAttention's kernels need: attention is computed by SDPA")
        model.attention = "sdpa"
    return model.to(where, dtype).eval(), tokenizer, about


def choose(logits: Tensor, draws: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """One token id (B) of each row of logits (B, V), by numbers `draws` (B) drawn from [0, 1).

    Tokens are laid side by side, each as long as its probability; the draw, a share of the whole length, falls on one.
    Temperature 0 takes the likeliest; top_k 0 and top_p 1 cut nothing. top_p keeps the fewest likeliest tokens whose
    probabilities reach it (nucleus sampling, arXiv:1904.09751).
    """
    if temperature == 0:
        return logits.argmax(-1)
    values, order = logits.float(), None
    if 0 < top_k < values.shape[-1]:
        values, order = values.topk(top_k)
    elif top_p < 1:
        values, order = values.sort(descending=True, stable=True)
    above = (values - values.amax(-1, keepdim=True)) / temperature
    probabilities = above.double().softmax(-1)
    ends = probabilities.cumsum(-1)
    last = torch.full_like(draws, ends.shape[-1] - 1, dtype=torch.int64)
    if top_p < 1:
        last = ((ends - probabilities) < top_p).sum(-1) - 1
    total = ends.gather(-1, last[:, None])
    picked = torch.searchsorted(ends, draws.double()[:, None] * total, right=True).clamp(max=last[:, None])
    return (picked if order is None else order.gather(-1, picked))[:, 0]


class _Reading:
    """A batch of texts that a model has read: gives the logits (B, V) behind each, and reads a token more of each."""

    def __init__(self, model: Transformer, texts: list[list[int]], room: int):
        weight = next(model.parameters())
        self.model, lengths = model, torch.tensor([len(text) for text in texts])
        width = int(lengths.max())
        self.tokens = torch.zeros(len(texts), width, dtype=torch.int64)
        for row, text in enumerate(texts):
            self.tokens[row, width - len(text):] = torch.tensor(text)
        self.tokens = self.tokens.to(weight.device)
        pads = (width - lengths).to(weight.device)
        self.pads = pads if pads.any() else None        # texts of one length need no mask
        self.segments = -(torch.arange(max(room, width), device=weight.device) < pads[:, None]).long()
        self.cache = KeyValueCache(model.config, len(texts), weight.device, weight.dtype, room) if room else None

    def first(self) -> Tensor:
        width, positions, segments = self.tokens.shape[1], None, None
        if self.pads is not None:
            positions = (torch.arange(width, device=self.pads.device) - self.pads[:, None]).clamp(min=0)
            segments = self.segments[:, :width]
        last = torch.zeros_like(self.tokens, dtype=torch.bool)
        last[:, -1] = True
        return self.model(self.tokens, positions, segments, self.cache, wanted=last)

    def next(self, tokens: list[int]) -> Tensor:
        past, positions, segments = self.cache.length, None, None
        if self.pads is not None:
            positions, segments = past - self.pads[:, None], self.segments[:, :past + 1]
        return self.model(torch.tensor(tokens, device=self.tokens.device)[:, None], positions, segments,
                          self.cache)[:, -1]

    def keep(self, rows: list[int]) -> None:
        """Goes on with these rows alone."""
        which = torch.tensor(rows, device=self.tokens.device)
        self.cache.keep(which)
        self.segments = self.segments[which]
        self.pads = self.pads[which] if self.pads is not None else None


@torch.inference_mode()
def generate_rows(model: Transformer, prompts: Sequence[Sequence[int]], count: int, *, n_vocab: int,
                  stop: frozenset[int] = frozenset(), temperature: float = 0.8, top_k: int = 0, top_p: float = 1.0,
                  seed: int | Sequence[int] = 0, cached: bool = True,
                  ended: set[int] | None = None) -> Iterator[dict[int, int]]:
    """Yields step by step the next token of each prompt (number: token), up to `count` of each, each ending before one
    of `stop`. A prompt whose number the caller puts into `ended` gets no more.

    The draws of prompt i are those of seed + i, or of seed[i], whatever the others are. When the context is full the
    last half of a text is kept and read again. Without the cache every token reads the whole text again: the same
    tokens, slower, to test against. UserError for a prompt that is empty or longer than the context.
    """
    context, ended = model.config.context, set() if ended is None else ended
    _check(prompts, context, temperature, top_k, top_p)
    seeds = [seed + number for number in range(len(prompts))] if isinstance(seed, int) else list(seed)
    draws = torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(one)) for one in seeds])
    texts, rows, reading = [list(prompt) for prompt in prompts], [], None
    for step in range(count):
        alive = [number for number in range(len(texts)) if number not in ended]
        if not alive:
            return
        if reading is None or not cached or reading.cache.length == reading.cache.room:
            for number in alive:
                if len(texts[number]) > context:
                    texts[number] = texts[number][-(context // 2):]
            rows = alive
            longest = max(len(texts[number]) for number in rows)
            room = min(context, longest + count - step - 1) if cached else 0
            reading = _Reading(model, [texts[number] for number in rows], room)
            logits = reading.first()
        else:
            if 2 * len(alive) <= len(rows):             # each time half have ended: a copy a row in all
                reading.keep([rows.index(number) for number in alive])
                rows = alive
            logits = reading.next([texts[number][-1] for number in rows])
        drawn = draws[rows, step].to(logits.device)
        chosen = choose(logits[:, :n_vocab], drawn, temperature, top_k, top_p).tolist()
        found = {number: token for number, token in zip(rows, chosen, strict=True) if number not in ended}
        ended.update(number for number, token in found.items() if token in stop)
        for number in found.keys() - ended:
            texts[number].append(found[number])
        yield {number: token for number, token in found.items() if number not in ended}


def _check(prompts: Sequence[Sequence[int]], context: int, temperature: float, top_k: int, top_p: float) -> None:
    if temperature < 0 or not 0 < top_p <= 1 or top_k < 0:
        raise UserError("settings temperature, top_k and top_p: at least 0, at least 0, and above 0 up to 1")
    for prompt in prompts:
        if not len(prompt):
            raise UserError("a prompt needs a token: begin it with the token that texts begin with")
        if len(prompt) > context:
            raise UserError(f"the prompt has {len(prompt)} tokens and the model's context {context}: shorten it")


def generate(model: Transformer, tokens: Sequence[int], count: int, **given) -> Iterator[int]:
    """Yields up to `count` tokens that follow `tokens`; `given` as in generate_rows."""
    for found in generate_rows(model, [tokens], count, **given):
        yield from found.values()


class Writer:
    """Text of tokens as they come: whole characters alone, and nothing from the first of the `stop` strings on.

    What may be the beginning of a stop string is held back until it is known not to be one. Which stop string is first
    depends on the text alone, not on its tokens: the one that is complete first, the longest of several.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        if "" in stop:
            raise UserError("setting stop: an empty text stops everything; leave it out")
        self.tokenizer, self.stop, self.ended = tokenizer, tuple(stop), False
        self._special = set(tokenizer.special.values())
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")       # a character may span tokens
        self._held = ""

    def add(self, token: int) -> str:
        """The text that is certain with this token. `ended` is True when a stop string is complete."""
        if token in self._special or self.ended:
            return ""
        try:
            self._held += self._decoder.decode(self.tokenizer.encoding.decode_single_token_bytes(token))
        except KeyError:                                # a number that no token has
            return ""
        found = [(at + len(stop), at) for stop in self.stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.ended = True
            text, self._held = self._held[:min(found)[1]], ""
            return text
        held = max((n for stop in self.stop for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0)
        text, self._held = self._held[:len(self._held) - held], self._held[len(self._held) - held:]
        return text

    def finish(self) -> str:
        """What was held back. Bytes that are no whole character are left out."""
        text, self._held = self._held, ""
        return text


def prompt_tokens(tokenizer: Tokenizer, prompt: str, chat: bool = False) -> list[int]:
    """Tokens of a text to go on from, or where `chat` of a question to answer (see model/finetune)."""
    if not chat:
        return [tokenizer.bos, *tokenizer.encode(prompt)]
    if not prompt:
        raise UserError("the prompt is empty: a model that was taught to answer needs a question")
    return [tokenizer.bos, tokenizer.token("<|user|>"), *tokenizer.encode(prompt), tokenizer.token("<|end|>"),
            tokenizer.token("<|assistant|>")]


def _text_tokens(tokenizer: Tokenizer) -> dict:
    """What generate_rows is told of a tokenizer: the tokens that have a text, and those that end one."""
    ends = {tokenizer.eot} | {tokenizer.special[name] for name in ("<|end|>",) if name in tokenizer.special}
    return {"n_vocab": tokenizer.encoding.max_token_value + 1, "stop": frozenset(ends)}


def _tell_overflow(prompt: int, count: int, context: int) -> None:
    if prompt <= context < prompt + count - 1:
        log.warning("prompt and %d new tokens are more than the model's context of %d tokens: when it is full, the "
                    "model goes on from the last %d", count, context, context // 2)


def stream_text(model: Transformer, tokenizer: Tokenizer, prompt: str, count: int = 200, *, chat: bool = False,
                stop: Sequence[str] = (), **sampling) -> Iterator[str]:
    """Yields pieces of text that continue `prompt`, or answer it where `chat`, as they come, up to one of `stop`."""
    tokens, writer = prompt_tokens(tokenizer, prompt, chat), Writer(tokenizer, stop)
    _tell_overflow(len(tokens), count, model.config.context)
    for token in generate(model, tokens, count, **_text_tokens(tokenizer), **sampling):
        if piece := writer.add(token):
            yield piece
        if writer.ended:
            return
    if rest := writer.finish():
        yield rest


def several(model: Transformer, tokenizer: Tokenizer, prompt: str, number: int, count: int = 200, *, chat: bool = False,
            stop: Sequence[str] = (), **sampling) -> list[str]:
    """`number` texts that continue `prompt`, at once: the first is what stream_text gives with the same seed."""
    tokens = prompt_tokens(tokenizer, prompt, chat)
    _tell_overflow(len(tokens), count, model.config.context)
    return complete(model, tokenizer, [tokens] * number, count, stop=stop, **sampling)


def complete(model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], count: int, *,
             stop: Sequence[str] = (), batch: int = 16, seed: int = 0, **sampling) -> list[str]:
    """The text that follows each of `prompts` (tokens), up to one of `stop` or end-of-text, `batch` of them at once.

    Prompt i draws as with seed + i by itself."""
    writers, texts = [Writer(tokenizer, stop) for _ in prompts], ["" for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for begin in range(0, len(order), batch):
        numbers, ended = order[begin:begin + batch], set()
        for found in generate_rows(model, [prompts[number] for number in numbers], count, **_text_tokens(tokenizer),
                                   seed=[seed + number for number in numbers], ended=ended, **sampling):
            for row, token in found.items():
                texts[numbers[row]] += writers[numbers[row]].add(token)
                if writers[numbers[row]].ended:
                    ended.add(row)
    return [text + writer.finish() for text, writer in zip(texts, writers, strict=True)]

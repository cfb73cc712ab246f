"""The shape of a transformer, and a table of known shapes.

A GPT-2, a Llama, a Qwen3 and a BERT are the same model here under four configurations.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

from tasks.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of one transformer. Raises UserError when they contradict each other.

    A decoder (`causal`) predicts each next token from those before it. An encoder sees the whole text and predicts
    tokens that were masked; its output has BERT's extra layer (arXiv:1810.04805).
    """

    vocab_size: int = 4096              # rows of the embedding: at least the tokenizer's n_vocab
    context: int = 256                  # longest sequence, tokens
    n_layers: int = 4
    n_heads: int = 4                    # query heads
    n_kv_heads: int = 2                 # key and value heads; fewer than n_heads: grouped-query attention
    width: int = 128                    # of the residual stream
    hidden: int = 352                   # of the feed-forward layer
    head_width: int = 0                 # of one head; 0: width / n_heads
    causal: bool = True                 # False: an encoder
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    norm_place: Literal["pre", "post"] = "pre"          # before each layer, or behind its sum (as BERT, no final norm)
    qk_norm: bool = False               # queries and keys are normalised head by head before they are turned (Qwen3)
    mlp: Literal["swiglu", "gelu", "gelu-exact"] = "swiglu"     # gelu is the tanh form that GPT-2 uses
    position: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: Literal["none", "linear", "llama3"] = "none"  # how positions beyond the trained context are reached
    rope_factor: float = 1.0            # times the context that was trained on
    rope_original: int = 8192           # llama3: the context that was trained on
    rope_low: float = 1.0               # llama3: wavelengths above rope_original / rope_low are stretched by the factor
    rope_high: float = 4.0              # llama3: those below rope_original / rope_high stay
    window: int = 0                     # a token sees itself and window - 1 tokens before it; 0: all of them
    token_types: int = 0                # kinds of segment, such as BERT's sentences A and B, with an embedding each
    embedding_norm: bool = False        # a norm behind the embeddings (BERT)
    tied: bool = True                   # one matrix for embedding and output
    bias: bool = False                  # in linear layers and layer norms
    init_std: float = 0.02              # GPT-2's; what writes to the residual stream gets / sqrt(2 n_layers)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        if not self.head_width:
            if self.width % self.n_heads:
                raise UserError(f"model.width {self.width} is not a multiple of model.n_heads {self.n_heads}: "
                                "change one, or set model.head_width")
            object.__setattr__(self, "head_width", self.width // self.n_heads)
        if self.n_heads % self.n_kv_heads:
            raise UserError(f"model.n_heads {self.n_heads} is not a multiple of model.n_kv_heads {self.n_kv_heads}: "
                            "query heads share key/value heads in equal groups")
        if self.position == "rope" and self.head_width % 2:
            raise UserError(f"model.head_width is {self.head_width}, and rope rotates pairs: make it even")
        if self.rope_factor < 1 or self.rope_scaling != "none" and self.position != "rope":
            raise UserError("model.rope_scaling stretches rope by model.rope_factor of 1 or more: "
                            "set model.position to rope and the factor so, or rope_scaling to none")
        if self.rope_scaling == "llama3" and not 0 < self.rope_low < self.rope_high:
            raise UserError(f"model.rope_low {self.rope_low} and model.rope_high {self.rope_high}: "
                            "0 < rope_low < rope_high")
        if self.window and not self.causal:
            raise UserError("model.window: an encoder sees the whole text here; set window to 0, or causal to true")

    @property
    def parameters(self) -> int:
        """Number of trained values (embedding counted once when tied)."""
        d, bias = self.width, int(self.bias)
        heads, qkv = self.n_heads * self.head_width, (self.n_heads + 2 * self.n_kv_heads) * self.head_width
        attention = d * qkv + heads * d + bias * (qkv + d) + (2 * self.head_width if self.qk_norm else 0)
        matrices = 3 if self.mlp == "swiglu" else 2
        mlp = matrices * d * self.hidden + bias * ((matrices - 1) * self.hidden + d)
        norm = d * (1 + (bias if self.norm == "layer" else 0))
        norms = 2 * self.n_layers + (self.norm_place == "pre") + self.embedding_norm + (not self.causal)
        ends = self.vocab_size * d * (1 if self.tied else 2) + (self.context * d if self.position == "learned" else 0)
        ends += self.token_types * d + (0 if self.causal else d * d + bias * d + self.vocab_size)
        return self.n_layers * (attention + mlp) + norms * norm + ends

    def flops_per_token(self, length: int) -> int:
        """Floating point operations of forward and backward a token of sequences of `length`.

        6 N + 12 layers heads head_width length (PaLM, arXiv:2204.02311, appendix B): causal attention is counted as
        if it were full, as everybody's MFU does; a token of a sliding window meets the window alone.
        """
        embedding = 0 if self.tied else self.vocab_size * self.width
        if self.position == "learned":                  # looked up, not multiplied
            embedding += self.context * self.width
        met = min(length, self.window or length)
        return 6 * (self.parameters - embedding) + 12 * self.n_layers * self.n_heads * self.head_width * met


def _check_value(field: dataclasses.Field, value) -> None:
    """UserError for a word that is not among a field's, and for anything but a number of its kind."""
    least = 0 if field.name in ("window", "token_types", "head_width") else 1
    if get_origin(field.type) is Literal:
        right, allowed = value in get_args(field.type), f"one of {', '.join(get_args(field.type))}"
    elif field.type is bool:
        right, allowed = isinstance(value, bool), "true or false"
    elif field.type is int:
        right, allowed = type(value) is int and value >= least, f"a whole number from {least} on"
    else:
        right, allowed = type(value) in (int, float) and 0 < value < math.inf, "a number above 0"
    if not right:
        raise UserError(f"setting model.{field.name}: {value!r} is not {allowed}")


LLAMA = {"norm": "rms", "mlp": "swiglu", "position": "rope", "bias": False}
GPT2 = {"norm": "layer", "mlp": "gelu", "position": "learned", "bias": True, "tied": True, "norm_eps": 1e-5}
QWEN3 = {**LLAMA, "qk_norm": True, "norm_eps": 1e-6, "rope_theta": 1_000_000.0}
BERT = {"causal": False, "norm": "layer", "norm_place": "post", "mlp": "gelu-exact", "position": "learned",
        "token_types": 2, "embedding_norm": True, "bias": True, "tied": True, "norm_eps": 1e-12}
LLAMA_LONG = {"rope_theta": 500_000.0, "rope_scaling": "llama3", "rope_factor": 8.0}

PRESETS: dict[str, dict] = {
    # about 1M parameters with a vocabulary of 4,096: the sample trains it on a laptop. GPT-2's 0.02 suits widths near
    # 1,600 (1/sqrt(width)); here 0.06 ends 400,000 tokens at 1.60 bits per byte in place of 1.69
    "tiny": {**LLAMA, "context": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "width": 128, "hidden": 352,
             "init_std": 0.06},
    "mini": {**LLAMA, "context": 512, "n_layers": 6, "n_heads": 6, "n_kv_heads": 2, "width": 384, "hidden": 1024},
    "small": {**LLAMA, "context": 1024, "n_layers": 12, "n_heads": 12, "n_kv_heads": 4, "width": 768, "hidden": 2048},
    "medium": {**LLAMA, "context": 2048, "n_layers": 24, "n_heads": 16, "n_kv_heads": 4, "width": 1024, "hidden": 2816},
    "gpt2-tiny": {**GPT2, "context": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 4, "width": 128, "hidden": 512},
    "gpt2-124m": {**GPT2, "context": 1024, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "width": 768,
                  "hidden": 3072},
    "gpt2-350m": {**GPT2, "context": 1024, "n_layers": 24, "n_heads": 16, "n_kv_heads": 16, "width": 1024,
                  "hidden": 4096},
    # the sizes of Llama 3.2 1B and 3B, of Llama 2 7B and of Llama 3.1 8B
    "llama-1b": {**LLAMA, "context": 4096, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "width": 2048,
                 "hidden": 8192, "rope_theta": 500_000.0},
    "llama-3b": {**LLAMA, "context": 4096, "n_layers": 28, "n_heads": 24, "n_kv_heads": 8, "width": 3072,
                 "hidden": 8192, "rope_theta": 500_000.0},
    "llama-7b": {**LLAMA, "context": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "width": 4096,
                 "hidden": 11008, "tied": False},
    "llama-8b-long": {**LLAMA, **LLAMA_LONG, "context": 131072, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8,
                      "width": 4096, "hidden": 14336, "tied": False},
    # Qwen3 0.6B, whose heads are wider than width / n_heads, and a small one of that kind
    "qwen3-tiny": {**QWEN3, "context": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "width": 128, "hidden": 352,
                   "head_width": 64, "init_std": 0.06},
    "qwen3-0.6b": {**QWEN3, "context": 4096, "n_layers": 28, "n_heads": 16, "n_kv_heads": 8, "width": 1024,
                   "hidden": 3072, "head_width": 128},
    "bert-tiny": {**BERT, "context": 128, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "width": 128, "hidden": 512},
    "bert-base": {**BERT, "context": 512, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "width": 768,
                  "hidden": 3072},
    "bert-large": {**BERT, "context": 512, "n_layers": 24, "n_heads": 16, "n_kv_heads": 16, "width": 1024,
                   "hidden": 4096},
}


def model_config(preset: str, **overrides) -> ModelConfig:
    """The configuration of a known preset with some fields replaced; UserError for an unknown preset or field."""
    if preset not in PRESETS:
        raise UserError(f"setting preset: there is no {preset!r}; there are {', '.join(PRESETS)}")
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for name in overrides:
        if name not in known:
            raise UserError(f"setting model.{name}: no such field; a model has {', '.join(sorted(known))}")
    return ModelConfig(**(PRESETS[preset] | overrides))


def check_fit(settings, shape: ModelConfig, n_vocab: int, label: str) -> None:
    """UserError when the sequences do not fit the model's context, or the tokenizer of `label` not its embedding."""
    length = settings.sequence_length or shape.context
    if length > shape.context:
        raise UserError(f"setting sequence_length: {length} is longer than the model's context of {shape.context}; "
                        "lower it, or set model.context")
    rows = n_vocab + (0 if shape.causal else 1)         # an encoder's mask token is the first behind the tokenizer's
    if n_vocab and rows > shape.vocab_size:
        raise UserError(
            f"{label} has a tokenizer of {n_vocab} tokens and the model's embedding {shape.vocab_size} rows: "
            f"set model.vocab_size to {rows} or more, or leave it out"
        )

"""The shape of a decoder-only transformer, and a table of known shapes.

A GPT-2 and a Llama are the same model here under two configurations.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from tasks.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of one decoder-only transformer. Raises UserError when they contradict each other."""

    vocab_size: int = 4096              # rows of the embedding: at least the tokenizer's n_vocab
    context: int = 256                  # longest sequence, tokens
    n_layers: int = 4
    n_heads: int = 4                    # query heads
    n_kv_heads: int = 2                 # key and value heads; fewer than n_heads: grouped-query attention
    width: int = 128                    # of the residual stream
    hidden: int = 352                   # of the feed-forward layer
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    mlp: Literal["swiglu", "gelu"] = "swiglu"           # gelu is the tanh form that GPT-2 uses
    position: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    tied: bool = True                   # one matrix for embedding and output
    bias: bool = False                  # in linear layers and layer norms
    init_std: float = 0.02              # GPT-2's; what writes to the residual stream gets / sqrt(2 n_layers)

    def __post_init__(self):
        if self.width % self.n_heads:
            raise UserError(f"model.width {self.width} is not a multiple of model.n_heads {self.n_heads}: change one")
        if self.n_heads % self.n_kv_heads:
            raise UserError(f"model.n_heads {self.n_heads} is not a multiple of model.n_kv_heads {self.n_kv_heads}: "
                            "query heads share key/value heads in equal groups")
        if self.position == "rope" and self.head_width % 2:
            raise UserError(f"model.width / model.n_heads is {self.head_width}, and rope rotates pairs: make it even")

    @property
    def head_width(self) -> int:
        return self.width // self.n_heads

    @property
    def parameters(self) -> int:
        """Number of trained values (embedding counted once when tied)."""
        d, bias = self.width, int(self.bias)
        qkv = (self.n_heads + 2 * self.n_kv_heads) * self.head_width
        attention = d * qkv + d * d + bias * (qkv + d)
        matrices = 3 if self.mlp == "swiglu" else 2
        mlp = matrices * d * self.hidden + bias * ((matrices - 1) * self.hidden + d)
        norm = d * (1 + (bias if self.norm == "layer" else 0))
        ends = self.vocab_size * d * (1 if self.tied else 2) + (self.context * d if self.position == "learned" else 0)
        return self.n_layers * (attention + mlp + 2 * norm) + norm + ends

    def flops_per_token(self, length: int) -> int:
        """Floating point operations of forward and backward a token: 6 N + 12 layers width length (PaLM, app. B)."""
        embedding = 0 if self.tied else self.vocab_size * self.width
        return 6 * (self.parameters - embedding) + 12 * self.n_layers * self.width * length


LLAMA = {"norm": "rms", "mlp": "swiglu", "position": "rope", "bias": False}
GPT2 = {"norm": "layer", "mlp": "gelu", "position": "learned", "bias": True, "tied": True, "norm_eps": 1e-5}

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
    # the sizes of Llama 3.2 1B and Llama 2 7B
    "llama-1b": {**LLAMA, "context": 4096, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "width": 2048,
                 "hidden": 8192, "rope_theta": 500_000.0},
    "llama-7b": {**LLAMA, "context": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "width": 4096,
                 "hidden": 11008, "tied": False},
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
    if n_vocab > shape.vocab_size:
        raise UserError(
            f"{label} has a tokenizer of {n_vocab} tokens and the model's embedding {shape.vocab_size} rows: "
            f"set model.vocab_size to {n_vocab} or more, or leave it out"
        )

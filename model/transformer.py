"""A transformer: a Llama, a GPT-2, a Qwen3 or a BERT by configuration.

Shapes in the comments: B sequences, T tokens each, H heads, G key/value heads, D width of a head, C the width of the
residual stream, V the vocabulary.
"""

import math
from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.attention import NARROWEST, attend, flex_mask, sdpa_mask
from model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in fp32 (Zhang and Sennrich, arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normal = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).type_as(x)
        return normal * self.weight.type_as(x)          # under autocast the weight is in fp32, and x may be in bf16


def norm(config: ModelConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.bias)


def frequencies(config: ModelConfig, device=None) -> Tensor:
    """Radians a position of each pair of a head, fp32 (D / 2): theta^(-2i/D) (RoPE, arXiv:2104.09864), slowed down
    where the context is longer than what the weights were trained on.

    linear divides all by the factor (arXiv:2306.15595). llama3 divides those whose wavelength is above
    original / low, leaves those below original / high, and goes evenly from one to the other between
    (https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py, apply_scaling).
    """
    D = config.head_width
    frequency = config.rope_theta ** (-torch.arange(0, D, 2, device=device, dtype=torch.float32) / D)
    if config.rope_scaling == "none":
        return frequency
    slowed = frequency / config.rope_factor
    if config.rope_scaling == "linear":
        return slowed
    turns = config.rope_original * frequency / (2 * math.pi)            # within the context that was trained on
    kept = ((turns - config.rope_low) / (config.rope_high - config.rope_low)).clamp(0, 1)
    return kept * frequency + (1 - kept) * slowed


def rotary(positions: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """cos of the angles position * frequency, twice side by side, and their -sin and sin, fp32, (B, 1, T, D)."""
    angle = positions[:, None, :, None].float() * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (a, b) at (i, i + D/2) of each head by their angle, to (a cos - b sin, b cos + a sin): Llama's
    half-split layout. x is (B, H, T, D)."""
    wide = x.float()
    return (wide * cos + wide.roll(x.shape[-1] // 2, -1) * sin).type_as(x)


class KeyValueCache:
    """Keys and values of the tokens seen so far, (layers, B, G, room, D), for generation. `room` is the context, unless
    less is asked for."""

    def __init__(self, config: ModelConfig, batch: int, device=None, dtype=torch.float32, room: int = 0):
        self.room = room or config.context
        shape = (config.n_layers, batch, config.n_kv_heads, self.room, config.head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def keep(self, rows: Tensor) -> None:
        """Forgets all texts but these."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores T new keys and values of `layer` behind the old ones and gives all of them."""
        end = self.length + key.shape[2]
        self.keys[layer, :, :, self.length:end] = key
        self.values[layer, :, :, self.length:end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Attention(nn.Module):
    """Attention with grouped key/value heads (GQA, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.causal = layer, config.causal
        self.heads, self.kv_heads, self.head_width = config.n_heads, config.n_kv_heads, config.head_width
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=config.bias)
        self.out = nn.Linear(self.heads * self.head_width, config.width, bias=config.bias)
        self.query_norm, self.key_norm = ((RMSNorm(self.head_width, config.norm_eps) for _ in "qk") if config.qk_norm
                                          else (None, None))

    def forward(self, x: Tensor, angles, mask, cache: KeyValueCache | None) -> Tensor:
        B, T, _ = x.shape
        heads = self.qkv(x).view(B, T, -1, self.head_width).transpose(1, 2)
        both, value = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.query_norm is not None:
            query, key = both.split((self.heads, self.kv_heads), dim=1)
            both = torch.cat((self.query_norm(query), self.key_norm(key)), dim=1)
        if angles is not None:
            both = rotate(both, *angles)
        query, key = both.split((self.heads, self.kv_heads), dim=1)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        return self.out(attend(query, key, value, mask, self.causal).transpose(1, 2).reshape(B, T, -1))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.up = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GELU(nn.Module):
    """down(gelu(up(x))): with the tanh approximation as GPT-2 was trained, or exact as BERT (1e-4 apart)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.approximate = "tanh" if config.mlp == "gelu" else "none"
        self.up = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate=self.approximate))


class Block(nn.Module):
    """A residual block. Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)). Post-norm, as in the original
    transformer (arXiv:1706.03762) and BERT: norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.pre = config.norm_place == "pre"
        self.attention_norm = norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = norm(config)
        self.mlp = SwiGLU(config) if config.mlp == "swiglu" else GELU(config)

    def forward(self, x: Tensor, angles, mask, cache: KeyValueCache | None) -> Tensor:
        if self.pre:
            x = x + self.attention(self.attention_norm(x), angles, mask, cache)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x + self.attention(x, angles, mask, cache))
        return self.mlp_norm(x + self.mlp(x))


class Transformer(nn.Module):
    """`attention`: sdpa, or for rows of packed documents flex; auto is flex on a GPU."""

    def __init__(self, config: ModelConfig, attention: Literal["auto", "sdpa", "flex"] = "auto"):
        super().__init__()
        self.config, self.attention = config, attention
        self.checkpointing = False                      # keep each block's input alone for the backward pass
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.token_type = nn.Embedding(config.token_types, config.width) if config.token_types else None
        self.embedding_norm = norm(config) if config.embedding_norm else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = norm(config) if config.norm_place == "pre" else None
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        if not config.causal:                           # BERT's head for masked tokens
            self.transform = nn.Linear(config.width, config.width, bias=config.bias)
            self.transform_norm = norm(config)
            self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def initialise(self, seed: int) -> "Transformer":
        """Normal weights as in GPT-2; what writes to the residual stream is scaled by 1/sqrt(2 layers)."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                std = self.config.init_std / (math.sqrt(2 * self.config.n_layers) if residual else 1)
                nn.init.normal_(weight, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        return self

    def forward(self, tokens: Tensor, positions: Tensor | None = None, segments: Tensor | None = None,
                cache: KeyValueCache | None = None, token_types: Tensor | None = None,
                wanted: Tensor | None = None) -> Tensor:
        """Logits (B, T, V): of the token that follows each of `tokens` (B, T), or for an encoder of the token itself.

        `segments` (B, T) numbers the documents packed into a row: a token attends to tokens of its own document
        alone, so a packed row gives what its documents give by themselves. `positions` (B, T) counts from each
        document's start. With a `cache` the tokens follow those already in it, and `segments` has those too.
        `token_types` (B, T) are zeros by default. `wanted` (B, T), booleans, asks for the logits of those tokens
        alone, (N, V), row by row: most of a prompt's are of no use. ValueError where the tokens do not fit the context.
        """
        B, T = tokens.shape
        past = cache.length if cache is not None else 0
        room = self.config.context if cache is None else cache.room
        if past + T > room:
            raise ValueError(f"{past + T} tokens do not fit the context of {room}")
        if positions is None:
            positions = torch.arange(past, past + T, device=tokens.device).expand(B, T)
        x = self.embed(tokens, positions, token_types)
        angles = None if self.position is not None else rotary(positions, frequencies(self.config, tokens.device))
        mask = self.mask(T, past, segments, cache, tokens.device)
        for block in self.blocks:
            x = checkpoint(block, x, angles, mask, cache, use_reentrant=False) if self.checkpointing \
                else block(x, angles, mask, cache)
        if cache is not None:
            cache.length += T
        if wanted is not None:
            x = x[wanted]
        return self.logits(x if self.norm is None else self.norm(x))

    def embed(self, tokens: Tensor, positions: Tensor, token_types: Tensor | None = None) -> Tensor:
        """The residual stream at its start (B, T, C)."""
        x = self.embedding(tokens)
        if self.token_type is not None:
            x = x + self.token_type(torch.zeros_like(tokens) if token_types is None else token_types)
        if self.position is not None:
            x = x + self.position(positions)
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def mask(self, length: int, past: int, segments: Tensor | None, cache: KeyValueCache | None, device):
        """Which tokens see which: see model/attention. None is all that a causal model, or an encoder, may see."""
        config = self.config
        window = config.window if config.window < past + length else 0
        flex = self.attention == "flex" or (self.attention == "auto" and device.type == "cuda"
                                            and config.head_width >= NARROWEST)
        if flex and cache is None and segments is not None:
            return flex_mask(segments, config.causal, window)
        return sdpa_mask(length, past, segments, config.causal, window, device)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, T, V) of the residual stream at its end."""
        if not self.config.causal:
            x = self.transform_norm(F.gelu(self.transform(x), approximate="none"))
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits if self.config.causal else logits + self.output_bias


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target, fp32, in the shape of `targets`; 0 where the target is -100."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=-100,
                           reduction="none").view(targets.shape)

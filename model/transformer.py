"""A decoder-only transformer: a Llama or a GPT-2 by configuration.

Shapes in the comments: B sequences, T tokens each, H heads, G key/value heads, D width of a head, C = H * D
the width of the residual stream, V the vocabulary.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in fp32 (Zhang and Sennrich, arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight


def norm(config: ModelConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.bias)


def rotary(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles position * theta^(-2i/width), fp32, (B, 1, T, width/2) (RoPE, arXiv:2104.09864)."""
    frequency = theta ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
    angle = positions[:, None, :, None].float() * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + D/2) of each head by their angle: Llama's half-split layout. x is (B, H, T, D)."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).type_as(x)


class KeyValueCache:
    """Keys and values of the tokens seen so far, (layers, B, G, context, D), for generation."""

    def __init__(self, config: ModelConfig, batch: int, device=None, dtype=torch.float32):
        shape = (config.n_layers, batch, config.n_kv_heads, config.context, config.head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores T new keys and values of `layer` behind the old ones and gives all of them."""
        end = self.length + key.shape[2]
        self.keys[layer, :, :, self.length:end] = key
        self.values[layer, :, :, self.length:end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Attention(nn.Module):
    """Causal attention with grouped key/value heads (GQA, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_width = config.n_heads, config.n_kv_heads, config.head_width
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor, angles, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        B, T, C = x.shape
        heads = self.qkv(x).view(B, T, -1, self.head_width).transpose(1, 2)
        query, key, value = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if angles is not None:
            query, key = rotate(query, *angles), rotate(key, *angles)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None,
                                           enable_gqa=self.kv_heads != self.heads)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


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
    """down(gelu(up(x))) with the tanh approximation, as GPT-2 was trained (the exact form differs by 1e-4)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.attention_norm = norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = norm(config)
        self.mlp = SwiGLU(config) if config.mlp == "swiglu" else GELU(config)

    def forward(self, x: Tensor, angles, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), angles, mask, cache)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = norm(config)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

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
                cache: KeyValueCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token that follows each of `tokens` (B, T).

        `segments` (B, T) numbers the documents packed into a row: a token attends to earlier tokens of
        its own document alone, so a packed row gives what its documents give by themselves. `positions`
        (B, T) counts from each document's start. With a `cache` the tokens follow those already in it.
        """
        B, T = tokens.shape
        past = cache.length if cache is not None else 0
        if past + T > self.config.context:
            raise ValueError(f"{past + T} tokens do not fit the context of {self.config.context}")
        if positions is None:
            positions = torch.arange(past, past + T, device=tokens.device).expand(B, T)
        x = self.embedding(tokens)
        angles = None
        if self.position is not None:
            x = x + self.position(positions)
        else:
            angles = rotary(positions, self.config.head_width, self.config.rope_theta)
        mask = attention_mask(T, past, segments, tokens.device)
        for block in self.blocks:
            x = block(x, angles, mask, cache)
        if cache is not None:
            cache.length += T
        x = self.norm(x)
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)


def attention_mask(length: int, past: int, segments: Tensor | None, device) -> Tensor | None:
    """Which keys each query may see, (B or 1, 1, T, past + T), or None where plain causal attention says it all."""
    if segments is None and past == 0:
        return None
    query = torch.arange(past, past + length, device=device)
    causal = torch.arange(past + length, device=device) <= query[:, None]
    if segments is None:
        return causal[None, None]
    return causal & (segments[:, None, :, None] == segments[:, None, None, :])


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target, fp32, in the shape of `targets`; 0 where the target is -100."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=-100,
                           reduction="none").view(targets.shape)

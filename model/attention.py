"""Which tokens see which, and attention under it: by scaled_dot_product_attention or by FlexAttention.

Both compute softmax(Q K^T / sqrt(D)) V over the pairs that `visible` allows. SDPA is told them as a matrix of
booleans, T x T a sequence, which its fused GPU kernels for grouped heads do not take. FlexAttention
(https://pytorch.org/blog/flexattention/) is told the rule, compiles a kernel of it and skips the blocks of 128 x 128
pairs in which nothing is visible: packed documents then cost what they would cost alone.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def visible(query: Tensor, key: Tensor, causal: bool, window: int) -> Tensor:
    """Whether the token at place `key` may be seen from place `query` of the same document; the two broadcast."""
    if not causal:
        return torch.ones_like(query - key, dtype=torch.bool)
    seen = key <= query
    return seen & (query - key < window) if window else seen


def sdpa_mask(length: int, past: int, segments: Tensor | None, causal: bool, window: int, device) -> Tensor | None:
    """The pairs (B or 1, 1, T, past + T) of the last `length` of past + length tokens, or None where plain causal or
    plain full attention says it all. `segments` (B, past + T) numbers the documents: none sees another."""
    everything = window == 0 or past + length <= window
    if segments is None and everything and (not causal or past == 0 or length == 1):
        return None
    place = torch.arange(past + length, device=device)
    seen = visible(place[past:, None], place, causal, window)
    if segments is None:
        return seen[None, None]
    return seen & (segments[:, None, past:, None] == segments[:, None, None, :])


def flex_mask(length: int, segments: Tensor | None, causal: bool, window: int, device) -> BlockMask:
    """The same pairs, of whole rows, as FlexAttention's blocks."""

    def rule(batch, head, query, key):
        seen = visible(query, key, causal, window)
        return seen if segments is None else seen & (segments[batch, query] == segments[batch, key])

    return create_block_mask(rule, None if segments is None else segments.shape[0], None, length, length,
                             device=device)


@cache
def compiled():
    """FlexAttention as one fused kernel. Uncompiled it writes out all T x T scores: right, and slow."""
    return torch.compile(flex_attention, dynamic=False)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | BlockMask | None, causal: bool) -> Tensor:
    """(B, H, T, D) of queries (B, H, T, D) over keys and values (B, G, S, D), G dividing H."""
    B, H, T, D = query.shape
    G = key.shape[1]
    grouped = H != G
    if isinstance(mask, BlockMask):
        kernel = compiled() if query.is_cuda else flex_attention
        return kernel(query, key, value, block_mask=mask, enable_gqa=grouped)
    if grouped and T == 1:
        # the heads of a group as so many queries of one head: a cache's keys and values are read as they lie
        return attend(query.reshape(B, G, H // G, D), key, value, mask, causal=False).reshape(B, H, 1, D)
    # one query behind a cache sees all of it
    is_causal = causal and mask is None and query.shape[2] > 1
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped)

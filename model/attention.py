"""Which tokens see which, and attention under it: by scaled_dot_product_attention or by FlexAttention.

Both compute softmax(Q K^T / sqrt(D)) V over the pairs that `visible` allows. SDPA is told them as a matrix of
booleans, T x T a sequence, which its fused GPU kernels for grouped heads do not take. FlexAttention
(https://pytorch.org/blog/flexattention/) is told the rule, compiles a kernel of it and skips the blocks of 128 x 128
pairs in which nothing is visible: packed documents then cost what they would cost alone. It is for rows of one width,
such as those of a training: another width is another kernel, and after eight of them PyTorch compiles no more.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128                                 # tokens on a side of FlexAttention's blocks
NARROWEST = 16                              # head that its kernels multiply


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


def flex_mask(segments: Tensor, causal: bool, window: int) -> BlockMask:
    """The same pairs, of whole rows (B, T) whose documents lie in one piece each, as FlexAttention's blocks.

    What a block has of documents follows from its first and its last token, so no T x T pairs are written out, as
    create_block_mask does for each row.
    """
    B, T = segments.shape
    number = F.pad((segments[:, 1:] != segments[:, :-1]).cumsum(1), (1, 0))     # of the document, along the row
    begin = torch.arange(0, T, BLOCK, device=segments.device)
    end = (begin + BLOCK - 1).clamp(max=T - 1)
    low, high = number[:, begin], number[:, end]
    some = (low[:, :, None] <= high[:, None, :]) & (low[:, None, :] <= high[:, :, None])
    every = (low[:, :, None] == high[:, None, :]) & (low[:, None, :] == high[:, :, None])
    whole = end - begin == BLOCK - 1
    every = every & whole[:, None] & whole
    if causal:
        ahead = begin[:, None] - begin
        some, every = some & (ahead >= 0), every & (ahead > 0)
        if window:
            some, every = some & (ahead - (BLOCK - 1) < window), every & (ahead + BLOCK - 1 < window)

    def rule(batch, head, query, key):
        return visible(query, key, causal, window) & (number[batch, query] == number[batch, key])

    def listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
        """How many blocks each block of queries has to do with, and their numbers first, (B, 1, ...)."""
        count, order = blocks.sum(-1), blocks.int().argsort(dim=-1, descending=True, stable=True)
        return count[:, None].int(), order[:, None].int()

    return BlockMask.from_kv_blocks(*listed(some & ~every), *listed(every), BLOCK_SIZE=BLOCK, mask_mod=rule,
                                    seq_lengths=(T, T))


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
        kernel = compiled() if query.is_cuda and not torch.compiler.is_compiling() else flex_attention
        return kernel(query, key, value, block_mask=mask, enable_gqa=grouped)
    if grouped and T == 1:
        # the heads of a group as so many queries of one head: a cache's keys and values are read as they lie
        return attend(query.reshape(B, G, H // G, D), key, value, mask, causal=False).reshape(B, H, 1, D)
    if grouped and query.is_cuda and (mask is not None or query.dtype == torch.float32):
        # only FlashAttention takes grouped heads, without a mask and in half precision: else all scores are written out
        key, value, grouped = *(heads.repeat_interleave(H // G, dim=1) for heads in (key, value)), False
    # one query behind a cache sees all of it
    is_causal = causal and mask is None and query.shape[2] > 1
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped)

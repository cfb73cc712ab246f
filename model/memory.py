"""How much memory a training takes on each of its GPUs, told before it is started.

Weights, gradients and optimiser state by ZeRO stage (arXiv:1910.02054, section 3): AdamW keeps two moments in fp32,
and in bf16 also the fp32 weights that the steps are added up in. Activations are counted tensor by tensor: what
autograd keeps of our model for the backward pass, without torch.compile, which keeps less. Importing this module does
not import PyTorch.
"""

from dataclasses import dataclass

from model.config import PRESETS, ModelConfig, model_config


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. `logits` is what the loss needs of the vocabulary's width at its worst moment; `buffers` are
    DeepSpeed's, in which ZeRO puts gradients together."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers


def memory(config: ModelConfig, micro_batch: int, length: int, *, stage: int = 1, ranks: int = 1, bf16: bool = True,
           checkpointing: bool = False, engine: str = "deepspeed", bucket: int = 500_000_000) -> Memory:
    """What a rank needs for `micro_batch` sequences of `length`, of which `checkpointing` keeps each layer's input
    alone (arXiv:1604.06174). `bucket` is DeepSpeed's reduce_bucket_size. What the allocator cannot use and the
    libraries of the GPU (about a GiB) come on top."""
    width, master = (2, 4) if bf16 else (4, 4)          # bytes of a weight, and of its fp32 copy
    if engine == "torch":                               # fp32 throughout, whatever is computed in
        width, stage, master = 4, 0, 0
    elif stage == 0:
        master = 0

    def shared(size: int, from_stage: int) -> int:
        return -(-config.parameters * size // (ranks if stage >= from_stage else 1))

    tokens = micro_batch * length
    return Memory(shared(width, 3), shared(width, 2), shared(8 + master, 1),
                  tokens * activations(config, bf16, checkpointing),
                  # its softmax in fp32, the gradient of that, and of the logits where they are in bf16
                  tokens * config.vocab_size * (10 if bf16 else 8),
                  width * bucket if stage else 0)


def activations(config: ModelConfig, bf16: bool = True, checkpointing: bool = False) -> int:
    """Bytes a token that the backward pass of the layers needs."""
    size = 2 if bf16 else 4
    layer = layer_activations(config, bf16)
    layers = config.n_layers * size * config.width + layer if checkpointing else config.n_layers * layer
    ends = 8 + (config.norm_place == "pre") * _norm(config, bf16) + config.embedding_norm * _norm(config, bf16)
    ends += 0 if config.causal else size * config.width + _norm(config, bf16)
    ends += 8 * config.head_width if config.position == "rope" else 8       # cos and sin; or the positions
    return layers + ends + (8 if config.token_types else 0)


def layer_activations(config: ModelConfig, bf16: bool = True) -> int:
    """Bytes a token of one layer; attention is fused and keeps no T x T scores (arXiv:2205.14135)."""
    size = 2 if bf16 else 4
    queries, keys = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
    attention = size * (queries + 2 * keys) + size * queries + 4 * config.n_heads   # qkv, output, log sum of exp
    if config.qk_norm:                                  # what is normalised (in fp32) and what came of it
        attention += (4 if bf16 else 0) * (queries + keys) + size * (queries + keys)
        attention += 4 * (config.n_heads + config.n_kv_heads)
    if config.position == "rope":                       # turned queries and keys; normalised, the output as rows too
        attention += size * (queries + keys + (queries if config.qk_norm else 0))
    mlp = size * config.hidden * (4 if config.mlp == "swiglu" else 2)
    return attention + mlp + 2 * _norm(config, bf16)


def _norm(config: ModelConfig, bf16: bool) -> int:
    """Bytes a token of a norm: what went in and what came out, to the next matrix; ours also what was normalised."""
    size = 2 if bf16 else 4
    if config.norm == "layer":
        return 2 * size * config.width + 2 * size
    return (4 + 2 * size) * config.width + 4            # RMSNorm computes in fp32


def largest_micro_batch(config: ModelConfig, length: int, gib: float, **choices) -> int:
    """The most sequences of `length` that fit a GPU of `gib` GiB, 0 where none does; 5 % are left free."""
    without = memory(config, 0, length, **choices).total
    one = memory(config, 1, length, **choices).total - without
    return max(0, int((0.95 * gib * 2**30 - without) // one))


def table(ranks: int, gib: float, vocabulary: int, length: int = 0) -> list[dict[str, str | int]]:
    """A row for each preset: its size, FLOPs a token, and GiB of a rank in bf16 by stage and by sequence."""
    rows = []
    for name in PRESETS:
        config = model_config(name, vocab_size=vocabulary)
        tokens = min(length or 4096, config.context)
        stages = {stage: memory(config, 0, tokens, stage=stage, ranks=ranks) for stage in (1, 2, 3)}
        each = {kept: memory(config, 1, tokens, checkpointing=kept).total - memory(config, 0, tokens).total
                for kept in (False, True)}
        fits = [largest_micro_batch(config, tokens, gib, ranks=ranks, checkpointing=kept) for kept in (False, True)]
        rows.append({"preset": name, "parameters": f"{config.parameters / 1e6:,.1f}M", "sequence": tokens,
                     "flops_per_token": f"{config.flops_per_token(tokens):.3g}",
                     **{f"zero_{stage}_gib": _gib(one.total) for stage, one in stages.items()},
                     "sequence_gib": _gib(each[False]), "checkpointed_gib": _gib(each[True]),
                     "fits": f"{fits[0]} / {fits[1]}"})
    return rows


def sentence(config: ModelConfig, micro_batch: int, length: int, **choices) -> str:
    """What a run is told when it starts."""
    found = memory(config, micro_batch, length, **choices)
    return (f"memory of a rank, predicted: {_gib(found.total)} GiB (weights {_gib(found.weights)}, gradients "
            f"{_gib(found.gradients)}, optimizer {_gib(found.optimizer)}, activations {_gib(found.activations)}, "
            f"logits {_gib(found.logits)}, buffers {_gib(found.buffers)})")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f}"

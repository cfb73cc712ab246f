"""How much memory a training takes on each of its GPUs, told before it is started.

Weights, gradients and optimiser state by ZeRO stage (arXiv:1910.02054, section 3): AdamW keeps two moments in fp32,
and in bf16 also the fp32 weights that the steps are added up in. Activations are counted tensor by tensor: what
autograd keeps of our model for the backward pass, without torch.compile, which keeps less. Importing this module does
not import PyTorch.
"""

from bisect import bisect_right
from dataclasses import dataclass

from model.config import PRESETS, ModelConfig, model_config

BUCKET = 500_000_000                        # DeepSpeed's reduce_bucket_size, in values, unless the model has fewer
LIVE = 500_000_000                          # values that ZeRO-3 holds gathered: half of its max_reuse_distance
SUB_GROUP = 1_000_000_000                   # values that ZeRO-3 steps at once, its sub_group_size


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. `logits` is what the loss needs of the vocabulary's width at its worst moment. `buffers` are
    there during forward and backward: those in which ZeRO puts gradients together and weights are gathered, or the
    bf16 copies of fp32 weights. `backward` and `step` are the most that forward and backward, and a step, hold at once
    beside weights and optimiser state."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int
    backward: int
    step: int

    @property
    def total(self) -> int:
        """The most at once: activations and logits are gone when the step begins."""
        return self.weights + self.optimizer + max(self.backward, self.step)


def memory(config: ModelConfig, micro_batch: int, length: int, *, stage: int = 1, ranks: int = 1, bf16: bool = True,
           checkpointing: bool = False, engine: str = "deepspeed", zero: dict | None = None, optimizer: str = "adamw",
           offload: str = "none", z_loss: float = 0.0, accumulated: bool = False) -> Memory:
    """What a rank needs for `micro_batch` sequences of `length`, of which `checkpointing` keeps each layer's input
    alone (arXiv:1604.06174). `zero` lies over DeepSpeed's zero_optimization: a reduce_bucket_size told there is taken
    whole, by stages 1 and 2 twice under overlap_comm. `offload` as in the settings. `accumulated`: gradients of earlier
    micro-steps lie beside the activations, and DeepSpeed adds them up in fp32; else gradients come as activations go.
    What the allocator cannot use and the libraries of the GPU (about a GiB) come on top."""
    n, muon = config.parameters, hidden_parameters(config) if optimizer == "muon" else 0
    stage = 0 if engine == "torch" else stage
    summed = accumulated and bf16 and stage > 0
    stage = 2 if summed and stage == 1 else stage       # see engine.deepspeed_config
    part = -(-n // ranks) if stage else n               # values that this rank steps
    # bf16 weights under DeepSpeed; plain PyTorch keeps them in fp32 and computes in bf16 by autocast
    width = 2 if bf16 and engine != "torch" else 4
    cast = bf16 and engine == "torch"
    zero = {"reduce_bucket_size": min(BUCKET, n), "overlap_comm": False} | (zero or {})
    bucket = width * int(zero["reduce_bucket_size"]) * (2 if zero["overlap_comm"] and stage < 3 else 1)
    moments = 8 * part - 4 * muon                       # Muon keeps one in place of two
    if not stage:
        weights, gradients, held = 4 * n, 4 * n, moments
        # DeepSpeed sends a flat copy of the gradients; Muon has the updates of all matrices at once
        step = gradients + 4 * (ranks > 1 and engine != "torch") * min(BUCKET, n) + 4 * muon
        buffers = 2 * cast_parameters(config) if cast else 0
    else:
        weights, held = width * (part if stage == 3 else n), moments + 4 * part     # and the fp32 weights
        size = 4 if summed else width                   # bytes of a gradient
        gradients, buffers = size * (n if stage == 1 else part), bucket
        step = (4 if summed else 8) * part              # the gradients, their flat copy and that in fp32; or all in one
    if stage == 3:                                      # its bucket stays, and weights are gathered
        step = size * part + (8 - size) * min(part, SUB_GROUP) + bucket
        buffers += width * min(n, LIVE)
    if offload != "none":
        largest = config.vocab_size * config.width      # goes by way of a buffer
        gradients = gradients if stage == 1 or stage == 2 and summed else 0
        held, step, buffers = 0, bucket if stage == 3 else gradients, buffers + (width * largest if stage < 3 else 0)
        weights = 0 if offload == "parameters" else weights
    tokens = micro_batch * length
    kept = tokens * activations(config, bf16, checkpointing, cast)
    # backward: log softmax, its gradient and that of the logits, fp32 each; in that of log(Z)^2 there are log softmax,
    # logits, logits - log(Z), exp of that, and the gradient
    logits = tokens * config.vocab_size * (20 if z_loss else 12)
    if accumulated or stage == 3:                       # whose gradients have their place for good
        backward = gradients + kept + logits + buffers
    elif stage:                                         # the bucket comes with the first gradient
        backward = max(kept + max(logits, buffers), gradients + buffers)
    else:
        backward = max(kept + logits + buffers, gradients)
    return Memory(weights, gradients, held, kept, logits, buffers, backward, step)


def hidden_parameters(config: ModelConfig) -> int:
    """Values of the matrices inside the model, which Muon steps."""
    heads, keys = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
    layer = config.width * (2 * heads + 2 * keys + (3 if config.mlp == "swiglu" else 2) * config.hidden)
    return config.n_layers * layer + (0 if config.causal else config.width**2)


def cast_parameters(config: ModelConfig) -> int:
    """Values that autocast keeps a bf16 copy of until the backward pass: what x is multiplied with."""
    biases = (config.n_heads + 2 * config.n_kv_heads) * config.head_width + 2 * config.width
    biases += config.hidden * (2 if config.mlp == "swiglu" else 1)
    return (hidden_parameters(config) + config.vocab_size * config.width
            + config.bias * (config.n_layers * biases + (0 if config.causal else config.width)))


def activations(config: ModelConfig, bf16: bool = True, checkpointing: bool = False, cast: bool = False) -> int:
    """Bytes a token that the backward pass of the layers needs. `cast`: bf16 by autocast of fp32 weights, which leaves
    the residual stream and the norms in fp32."""
    size, stream = 2 if bf16 else 4, 2 if bf16 and not cast else 4
    layer, norm = layer_activations(config, bf16, cast), _norm(config, size, stream)
    layers = config.n_layers * stream * config.width + layer if checkpointing else config.n_layers * layer
    ends = 8 + (config.norm_place == "pre") * norm + config.embedding_norm * norm
    ends += 0 if config.causal else size * config.width + norm
    ends += 8 * config.head_width if config.position == "rope" else 8       # cos and sin; or the positions
    return layers + ends + (8 if config.token_types else 0)


def layer_activations(config: ModelConfig, bf16: bool = True, cast: bool = False) -> int:
    """Bytes a token of one layer; attention is fused and keeps no T x T scores (arXiv:2205.14135)."""
    size, stream = 2 if bf16 else 4, 2 if bf16 and not cast else 4
    queries, keys = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
    attention = size * (queries + 2 * keys) + size * queries + 4 * config.n_heads   # qkv, output, log sum of exp
    if config.qk_norm:                                  # what is normalised (in fp32) and what came of it
        attention += (4 if bf16 else 0) * (queries + keys) + size * (queries + keys)
        attention += 4 * (config.n_heads + config.n_kv_heads)
    if config.position == "rope":                       # turned queries and keys; normalised, the output as rows too
        attention += size * (queries + keys + (queries if config.qk_norm else 0))
    mlp = size * config.hidden * (4 if config.mlp == "swiglu" else 2)
    mlp += size * config.width * (cast and config.mlp == "swiglu")          # gate and up each cast what they are given
    return attention + mlp + 2 * _norm(config, size, stream)


def _norm(config: ModelConfig, size: int, stream: int) -> int:
    """Bytes a token of a norm: what went in and what came out, to the next matrix; ours also what was normalised."""
    if config.norm == "layer":
        return (stream + size) * config.width + 2 * stream
    return (4 + stream + size) * config.width + 4       # RMSNorm computes in fp32


def largest_micro_batch(config: ModelConfig, length: int, gib: float, **choices) -> int:
    """The most sequences of `length` that fit a GPU of `gib` GiB, 0 where none does; 5 % are left free."""
    return bisect_right(range(1, 1 << 20), 0.95 * gib * 2**30,
                        key=lambda count: memory(config, count, length, **choices).total)


def table(ranks: int, gib: float, vocabulary: int, length: int = 0) -> list[dict[str, str | int]]:
    """A row for each preset: its size, FLOPs a token, and GiB of a rank in bf16 by stage and by sequence."""
    rows = []
    for name in PRESETS:
        config = model_config(name, vocab_size=vocabulary)
        tokens = min(length or 4096, config.context)
        stages = {stage: memory(config, 0, tokens, stage=stage, ranks=ranks) for stage in (1, 2, 3)}
        ones = [memory(config, 1, tokens, checkpointing=kept) for kept in (False, True)]
        each = [one.activations + one.logits for one in ones]
        fits = [largest_micro_batch(config, tokens, gib, ranks=ranks, checkpointing=kept) for kept in (False, True)]
        rows.append({"preset": name, "parameters": f"{config.parameters / 1e6:,.1f}M", "sequence": tokens,
                     "flops_per_token": f"{config.flops_per_token(tokens):.3g}",
                     **{f"zero_{stage}_gib": _gib(one.total) for stage, one in stages.items()},
                     "sequence_gib": _gib(each[0]), "checkpointed_gib": _gib(each[1]),
                     "fits": f"{fits[0]} / {fits[1]}"})
    return rows


def sentence(config: ModelConfig, micro_batch: int, length: int, there: int = 0, **choices) -> str:
    """What a run is told when it starts; a warning where its GPU has `there` bytes and that is not enough."""
    found = memory(config, micro_batch, length, **choices)
    said = (f"memory of a rank, predicted: {_gib(found.total)} GiB (weights {_gib(found.weights)}, gradients "
            f"{_gib(found.gradients)}, optimizer {_gib(found.optimizer)}, activations {_gib(found.activations)}, "
            f"logits {_gib(found.logits)}, buffers {_gib(found.buffers)}; a step {_gib(found.step)})")
    if there and found.total > there:
        said += f"\nwarning: the GPU has {_gib(there)} GiB: {ROOM}"
    return said


ROOM = ("lower micro_batch, set activation_checkpointing to true, or under engine deepspeed raise zero_stage or set "
        "offload to optimizer")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f}"

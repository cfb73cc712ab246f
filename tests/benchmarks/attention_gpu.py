"""FlexAttention beside SDPA on one GPU: the same losses and gradients, and what each costs.

    python tests/benchmarks/attention_gpu.py [PRESET] [--micro-batch 8] [--steps 20]

Rows are packed with documents of log-normal lengths (median 400 tokens). First small models: largest difference of
logits and gradients, in fp32, and in bf16 by autocast (with norms of queries and keys, whose weights are fp32). Then
rows of ten widths one after the other, which no training has: milliseconds of each, which show kernels that are
compiled anew. Then bf16 of PRESET: milliseconds of forward and backward, tokens/s, MFU at --tflops (989 dense bf16
TFLOP/s of an H100), peak memory, under sdpa and flex, each also with the model compiled and with activation
checkpointing.
"""

import argparse
import time
from itertools import product

import numpy as np
import torch

from model.config import ModelConfig, model_config
from model.memory import memory
from model.transformer import Transformer, token_losses


def packed(rows: int, length: int, vocabulary: int, device: str) -> list[torch.Tensor]:
    """Tokens, targets, positions and segments of rows full of documents."""
    rng = np.random.default_rng(0)
    segments, positions = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.int64)
    for row in range(rows):
        at = number = 0
        while at < length:
            n = min(length - at, max(8, int(rng.lognormal(6, 1))))
            segments[row, at:at + n], positions[row, at:at + n] = number, np.arange(n)
            at, number = at + n, number + 1
    tokens = rng.integers(0, vocabulary, (rows, length))
    return [torch.from_numpy(array).to(device) for array in (tokens, np.roll(tokens, -1, 1), positions, segments)]


def difference(config: ModelConfig, autocast: bool = False) -> tuple[float, float]:
    """Largest difference of logits and of gradients between the two, in fp32 or in bf16 by autocast."""
    tokens, targets, positions, segments = packed(2, config.context, config.vocab_size, "cuda")
    logits, gradients = [], []
    for attention in ("sdpa", "flex"):
        model = Transformer(config, attention).initialise(0).cuda()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            logits.append(model(tokens, positions, segments).float())
        token_losses(logits[-1], targets).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return float((logits[0] - logits[1]).abs().max()), float((gradients[0] - gradients[1]).abs().max())


@torch.no_grad()
def widths(config: ModelConfig, attention: str) -> list[float]:
    """Milliseconds of rows of ten widths, each seen for the first time."""
    model, found = Transformer(config, attention).initialise(0).cuda().bfloat16(), []
    for length in range(config.context - 9 * 16, config.context + 1, 16):
        tokens, _, positions, segments = packed(2, length, config.vocab_size, "cuda")
        torch.cuda.synchronize()
        began = time.perf_counter()
        model(tokens, positions, segments)
        torch.cuda.synchronize()
        found.append(1000 * (time.perf_counter() - began))
    return found


def cost(config: ModelConfig, attention: str, compiled: bool, micro_batch: int, steps: int,
         checkpointing: bool = False) -> tuple[float, int, int]:
    """Seconds a step, its tokens, and the peak bytes of weights, gradients and activations in bf16."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Transformer(config, attention).initialise(0).cuda().bfloat16()
    model.checkpointing = checkpointing
    called = torch.compile(model) if compiled else model
    tokens, targets, positions, segments = packed(micro_batch, config.context, config.vocab_size, "cuda")
    for step in range(3 + steps):
        if step == 3:
            torch.cuda.synchronize()
            began = time.perf_counter()
        token_losses(called(tokens, positions, segments), targets).mean().backward()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps, tokens.numel(), torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("preset", nargs="?", default="gpt2-124m")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tflops", type=float, default=989.0)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, changes in (("tiny", {}), ("qwen3-tiny", {"window": 48}), ("gpt2-tiny", {}), ("bert-tiny", {})):
        logits, gradients = difference(model_config(name, vocab_size=512, **changes))
        print(f"{name} {changes or ''}: flex - sdpa, logits {logits:.1e}, gradients {gradients:.1e}")
    for name in ("tiny", "qwen3-tiny"):
        logits, gradients = difference(model_config(name, vocab_size=512), autocast=True)
        print(f"{name}, autocast: flex - sdpa, logits {logits:.1e}, gradients {gradients:.1e}")
    for attention in ("sdpa", "flex"):
        each = widths(model_config("mini", vocab_size=512), attention)
        print(f"ten widths, {attention}: {' '.join(f'{ms:.0f}' for ms in each)} ms")
    config = model_config(arguments.preset, vocab_size=50304)
    expected = memory(config, arguments.micro_batch, config.context, stage=2)
    held = expected.weights + expected.gradients + expected.activations + expected.logits
    print(f"{torch.cuda.get_device_name()}, {arguments.preset}, {config.parameters / 1e6:.1f}M, micro batch "
          f"{arguments.micro_batch} x {config.context}; predicted uncompiled {held / 2**30:.2f} GiB\n"
          "| attention | compiled | checkpointed | ms | tokens/s | MFU | peak GiB |\n|---|---|---|---|---|---|---|")
    for attention, compiled, kept in product(("sdpa", "flex"), (False, True), (False, True)):
        seconds, tokens, peak = cost(config, attention, compiled, arguments.micro_batch, arguments.steps, kept)
        mfu = config.flops_per_token(config.context) * tokens / seconds / (arguments.tflops * 1e12)
        print(f"| {attention} | {'yes' if compiled else 'no'} | {'yes' if kept else 'no'} | {1000 * seconds:.1f} | "
              f"{tokens / seconds:,.0f} | {100 * mfu:.1f} % | {peak / 2**30:.2f} |", flush=True)


if __name__ == "__main__":
    main()

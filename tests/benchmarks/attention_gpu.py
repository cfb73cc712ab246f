"""FlexAttention beside SDPA on one GPU: the same losses and gradients, and what each costs.

    python tests/benchmarks/attention_gpu.py [PRESET] [--micro-batch 8] [--steps 20]

Rows are packed with documents of log-normal lengths (median 400 tokens). First fp32 of a small model: largest
difference of logits and gradients. Then bf16 of PRESET: milliseconds of forward and backward, tokens/s, MFU at
--tflops (989 dense bf16 TFLOP/s of an H100), peak memory, under sdpa, flex, and both with the model compiled.
"""

import argparse
import time

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


def difference(config: ModelConfig) -> tuple[float, float]:
    """Largest difference of logits and of gradients between the two in fp32."""
    tokens, targets, positions, segments = packed(2, config.context, config.vocab_size, "cuda")
    logits, gradients = [], []
    for attention in ("sdpa", "flex"):
        model = Transformer(config, attention).initialise(0).cuda()
        logits.append(model(tokens, positions, segments))
        token_losses(logits[-1], targets).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return float((logits[0] - logits[1]).abs().max()), float((gradients[0] - gradients[1]).abs().max())


def cost(config: ModelConfig, attention: str, compiled: bool, micro_batch: int, steps: int) -> tuple[float, int, int]:
    """Seconds a step, its tokens, and the peak bytes of weights, gradients and activations in bf16."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Transformer(config, attention).initialise(0).cuda().bfloat16()
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
    config = model_config(arguments.preset, vocab_size=50304)
    expected = memory(config, arguments.micro_batch, config.context, stage=1, bucket=0)
    held = expected.weights + expected.gradients + expected.activations + expected.logits
    print(f"{torch.cuda.get_device_name()}, {arguments.preset}, {config.parameters / 1e6:.1f}M, micro batch "
          f"{arguments.micro_batch} x {config.context}; predicted uncompiled {held / 2**30:.2f} GiB\n"
          "| attention | compiled | ms | tokens/s | MFU | peak GiB |\n|---|---|---|---|---|---|")
    for attention in ("sdpa", "flex"):
        for compiled in (False, True):
            seconds, tokens, peak = cost(config, attention, compiled, arguments.micro_batch, arguments.steps)
            mfu = config.flops_per_token(config.context) * tokens / seconds / (arguments.tflops * 1e12)
            print(f"| {attention} | {'yes' if compiled else 'no'} | {1000 * seconds:.1f} | {tokens / seconds:,.0f} | "
                  f"{100 * mfu:.1f} % | {peak / 2**30:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Memory as model/memory.py predicts it, beside what is there.

    python tests/benchmarks/memory_prediction.py [PRESET] [--ranks 2] [--micro-steps 2]   on CPUs: bytes of a rank's
                                                                                          tensors
    python tests/benchmarks/memory_prediction.py gpt2-124m --cuda         on one GPU: peak of a step of pretraining

On CPUs one step is taken under each engine and stage, and the storages that are alive after the next backward pass are
summed up: weights, optimiser state and gradients, and of the buffers the one that ZeRO 3 keeps. Of the gradients ZeRO 1
keeps its part alone once they are summed over the ranks, which is when this looks: beside what memory() predicts, the
whole, the table has in brackets what is left of that. On a GPU torch.cuda.max_memory_allocated() of a step in bf16,
uncompiled, is compared with the whole prediction.
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
CASES = [("torch", 0, "fp32"), ("torch", 0, "bf16"), ("deepspeed", 0, "fp32"),
         *(("deepspeed", stage, precision) for precision in ("fp32", "bf16") for stage in (1, 2, 3))]


def step(arguments) -> dict:
    """One rank's step, and what it holds afterwards or held at most."""
    import torch

    from model.config import model_config
    from model.engine import DeepSpeed, Torch, start
    from model.memory import BUCKET, memory
    from model.settings import Optimisation
    from model.transformer import Transformer, token_losses

    sequences = arguments.ranks * arguments.micro_batch * arguments.micro_steps
    settings = Optimisation(batch=sequences, micro_batch=arguments.micro_batch,
                            engine=arguments.engine, zero_stage=arguments.stage, precision=arguments.precision,
                            device="cuda" if arguments.cuda else "cpu")
    rank, world, device = start(settings)
    config = model_config(arguments.preset, vocab_size=arguments.vocabulary)
    length = config.context if arguments.cuda else 32
    kind = Torch if arguments.engine == "torch" else DeepSpeed
    engine = kind(Transformer(config).initialise(0), settings, device)
    tokens = torch.randint(0, config.vocab_size, (arguments.micro_batch, length), device=device)
    segments = torch.zeros_like(tokens)
    for number in range(2):
        if number == 1 and arguments.cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(arguments.micro_steps):
            loss = token_losses(engine.model(tokens, None, segments), tokens.roll(-1, 1)).mean()
            engine.backward(loss / arguments.micro_steps)
        if number == 1 and not arguments.cuda:
            break                                       # gradients are there, and the state of the first step
        engine.step(1e-4)
    del loss
    expected = memory(config, arguments.micro_batch if arguments.cuda else 0, length, stage=arguments.stage,
                      ranks=world, bf16=arguments.precision == "bf16", engine=arguments.engine,
                      accumulated=arguments.micro_steps > 1)
    if arguments.cuda:
        found, predicted, gone = torch.cuda.max_memory_allocated(), expected.total, 0
    else:
        summed = arguments.stage == 1 and (arguments.micro_steps == 1 or arguments.precision == "fp32")
        predicted = expected.weights + expected.optimizer + expected.gradients
        gone = expected.gradients - expected.gradients // world if summed else 0
        if arguments.stage == 3:
            predicted += min(BUCKET, config.parameters) * (2 if arguments.precision == "bf16" else 4)
        gc.collect()
        alive = [one for one in gc.get_objects() if isinstance(one, torch.Tensor) and one.layout == torch.strided]
        alive += [one.grad for one in alive if one.is_leaf and one.grad is not None]    # known to C++ alone
        found = sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}.values())
    return {"found": found, "predicted": predicted, "left": predicted - gone, "parameters": config.parameters}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("preset", nargs="?", default="mini")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--micro-steps", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--engine")
    parser.add_argument("--stage", type=int)
    parser.add_argument("--precision")
    arguments = parser.parse_args()
    if arguments.engine:
        result = step(arguments)
        if int(os.environ.get("RANK", "0")) == 0:
            print(json.dumps(result))
        return
    print("| engine | ZeRO | precision | ranks | predicted, B a parameter | found | ratio |\n" + "|---" * 7 + "|")
    for engine, stage, precision in CASES:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = str(one.getsockname()[1])
        world = {"WORLD_SIZE": str(arguments.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                 "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, __file__, *sys.argv[1:], "--engine", engine, "--stage", str(stage), "--precision",
                   precision]
        ranks = [subprocess.Popen(command, env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for rank in range(arguments.ranks)]
        output = [rank.communicate()[0].decode() for rank in ranks][0]
        try:
            result = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError):
            print(f"| {engine} | {stage} | {precision} | {arguments.ranks} | refused or failed | | |")
            continue
        predicted, left, found = (result[key] / result["parameters"] for key in ("predicted", "left", "found"))
        told = f"{predicted:.2f}" + f" ({left:.2f})" * (left != predicted)
        print(f"| {engine} | {stage} | {precision} | {arguments.ranks} | {told} | {found:.2f} | {found / left:.3f} |",
              flush=True)


if __name__ == "__main__":
    main()

"""Tokens/s of generation beside transformers' generate, on the same exported weights in one sitting.

    python tests/benchmarks/generate_speed.py                               GPT-2 124M and Llama small, batch 1 and 8
    python tests/benchmarks/generate_speed.py --presets gpt2-124m llama-1b --dtype bf16 --tokens 512         a GPU
    python tests/benchmarks/generate_speed.py --cuts top_k=50 --presets small

Random weights are written as transformers' folder and read from it by both. Greedy, prompts of 32 tokens (of batch 8
from 4 to 32, padded on the left), no stop token. The two take turns, `--rounds` times; the median counts, the first
round of each (warm-up) does not. The last column is the share of rows in which both wrote the same: in fp32 all, unless
two logits are within rounding of each other.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tasks"))


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    from published_corpus import write_tokenizer
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from model.config import model_config
    from model.convert import DTYPES, load_pretrained, save_pretrained
    from model.generate import generate_rows
    from model.tokenizer import load_tokenizer
    from model.transformer import Transformer

    parser = argparse.ArgumentParser()
    parser.add_argument("--presets", nargs="*", default=["gpt2-124m", "small"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=50304)
    parser.add_argument("--dtype", default="f32", choices=sorted(DTYPES))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cuts", nargs="*", default=[], metavar="NAME=VALUE",
                        help="temperature, top_k or top_p: both sample, each with its own draws")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cuts = {name: float(value) if name != "top_k" else int(value) for name, value in
            (cut.split("=") for cut in given.cuts)}
    print(f"{device}, {given.dtype}, {torch.get_num_threads()} threads, {given.tokens} tokens, {cuts or 'greedy'}")
    for preset in given.presets:
        config = model_config(preset, vocab_size=given.vocabulary)
        with tempfile.TemporaryDirectory() as folder:
            write_tokenizer(Path(folder) / "tokenizer")
            save_pretrained(Path(folder) / "exported", Transformer(config).initialise(0).state_dict(), config,
                            load_tokenizer(f"{folder}/tokenizer"), dtype=given.dtype)
            theirs = AutoModelForCausalLM.from_pretrained(f"{folder}/exported", dtype=DTYPES[given.dtype])
            config, weights = load_pretrained(f"{folder}/exported")
        theirs = theirs.to(device).eval()
        ours = Transformer(config)
        ours.load_state_dict(weights)
        ours = ours.to(device, DTYPES[given.dtype]).eval()
        theirs.generation_config.eos_token_id = None
        for batch in given.batches:
            rng = np.random.default_rng(0)
            sizes = [32, 4, 17, 29, 8, 32, 21, 12][:batch] if batch <= 8 else rng.integers(4, 33, batch)
            prompts = [rng.integers(0, given.vocabulary, size).tolist() for size in sizes]
            width = max(map(len, prompts))
            padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
            seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)

            def we() -> list[list[int]]:
                texts = [[] for _ in prompts]       # noqa: B023
                sampling = {"temperature": 1.0, **cuts} if cuts else {"temperature": 0.0}
                for found in generate_rows(ours, prompts, given.tokens, n_vocab=given.vocabulary,       # noqa: B023
                                           **sampling):
                    for row, token in found.items():
                        texts[row].append(token)
                return texts

            def they() -> list[list[int]]:
                sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, **cuts} if cuts else {
                    "do_sample": False}
                out = theirs.generate(padded, attention_mask=seen, max_new_tokens=given.tokens,         # noqa: B023
                                      min_new_tokens=given.tokens, pad_token_id=0, **sampling)
                return out[:, width:].tolist()      # noqa: B023

            seconds, cpu, texts = {we: [], they: []}, {we: [], they: []}, {}
            for _ in range(given.rounds + 1):
                for who in (we, they):
                    begin, busy = clock(device), time.process_time()
                    texts[who] = who()
                    seconds[who].append(clock(device) - begin)
                    cpu[who].append(time.process_time() - busy)
            speed = {who: batch * given.tokens / float(np.median(seconds[who][1:])) for who in seconds}
            busy = {who: float(np.median(cpu[who][1:])) for who in cpu}
            same = np.mean([a == b for a, b in zip(texts[we], texts[they], strict=True)])
            print(f"{preset:12} batch {batch}: ours {speed[we]:8.1f} tokens/s, transformers {speed[they]:8.1f}, ratio "
                  f"{speed[we] / speed[they]:.2f}; CPU s {busy[we]:.2f} and {busy[they]:.2f}, ratio "
                  f"{busy[they] / busy[we]:.2f}; same {same:.0%}", flush=True)


if __name__ == "__main__":
    main()

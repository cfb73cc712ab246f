"""shakespeare-char at the settings that nanoGPT's README gives for CPUs, by our model and our training loop.

    python tests/benchmarks/shakespeare_char.py TEXT [--preset tiny] [--set learning_rate=1e-3 ...]

4 layers, 4 heads, width 128, blocks of 64 characters, 2,000 steps of 12 blocks, AdamW at 1e-3 down to 1e-4 by a cosine
after 100 steps of warm-up, betas 0.9 and 0.99 (https://github.com/karpathy/nanoGPT, README and
config/train_shakespeare_char.py, whose README reports a validation loss of 1.88). The last tenth of TEXT (.gz or plain)
is the validation split, and all of it is scored. The model is the preset `tiny` at these sizes, a Llama; `--preset
gpt2-tiny` has nanoGPT's own architecture. The last line is `val loss X in S s`: nats a character, and the seconds from
the first import to the end, evaluation and checkpoint included.
"""

import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")         # on a busy machine threads that spin take far longer
BEGAN = time.monotonic()

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import gzip  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from hashlib import sha256  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from model.config import ModelConfig, model_config  # noqa: E402
from model.data import Samples  # noqa: E402
from model.settings import Pretrain, parse  # noqa: E402
from model.train import Material, train  # noqa: E402

SETTINGS = {"steps": 2000, "batch": 12, "micro_batch": 12, "learning_rate": 1e-3, "final_lr": 0.1, "warmup": 0.05,
            "betas": (0.9, 0.99), "weight_decay": 0.1, "clip": 1.0, "checkpoint_every": 0, "evaluate_every": 0,
            "engine": "torch"}
SHAPE = {"context": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 4, "width": 128}


def characters(path: Path, folder: Path):
    """`prepare` of model/train: nine tenths of the characters to train on, one tenth held out."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    symbols = sorted(set(text))
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    tokens = np.array([numbers[symbol] for symbol in text])
    digest, eot, cut = sha256(raw).hexdigest(), len(symbols), int(0.9 * len(tokens))
    (folder / "tokenizer").mkdir()

    def samples(part: np.ndarray, seed: int, length: int) -> Samples:
        return Samples(np.array([len(part)]), lambda document: (part, None), eot, length, digest, seed)

    def prepare(config: dict, settings: Pretrain, model: ModelConfig, length: int) -> Material:
        return Material(samples(tokens[:cut], settings.seed, length), samples(tokens[cut:], 0, length), None,
                        lambda path, last: path.touch(), str(folder / "tokenizer"), {})

    return prepare, len(symbols) + 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--model", type=json.loads, default={}, help="JSON laid over the preset")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON")
    arguments = parser.parse_args()
    changes = {name: json.loads(value) for name, _, value in (one.partition("=") for one in arguments.set)}
    with tempfile.TemporaryDirectory() as folder:
        prepare, vocabulary = characters(arguments.text, Path(folder))
        shape = model_config(arguments.preset, vocab_size=vocabulary, **SHAPE | {"bias": False} | arguments.model)
        settings = parse(Pretrain, SETTINGS | changes)
        summary = train({"kind": "pretrain", "run": "shakespeare-char", "folder": folder,
                         "model": dataclasses.asdict(shape), "settings": settings.model_dump(mode="json")},
                        settings, prepare)
    print(f"val loss {summary['held_out_loss']:.4f} in {time.monotonic() - BEGAN:.1f} s")


if __name__ == "__main__":
    main()

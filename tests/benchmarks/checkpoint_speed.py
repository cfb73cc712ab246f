"""How long a checkpoint holds up the training, in the background and not: `python tests/benchmarks/checkpoint_speed.py
PRESET [FOLDER]` (gpt2-124m; FOLDER on the disk to measure), one process, plain PyTorch, on a GPU where there is one.

Last line: seconds that the training waited in the background, and without it; seconds until the checkpoint was whole;
seconds to go on from it.
"""

import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from model import checkpoint, run_folder
from model.config import model_config
from model.engine import Torch, start
from model.saver import Saver
from model.settings import Optimisation
from model.transformer import Transformer


def main(preset: str, where: str | None) -> None:
    config, settings = model_config(preset), Optimisation(engine="torch", keep_checkpoints=1)
    rank, world, device = start(settings)
    engine = Torch(Transformer(config).initialise(0), settings, device)
    engine.backward(engine.model(torch.zeros(1, 8, dtype=torch.int64, device=device)).float().square().mean())
    engine.step(1e-4)
    folder = Path(tempfile.mkdtemp(dir=where))
    taken = {}
    try:
        for step, background in enumerate((True, False, True, False), 1):
            with Saver(folder, config, settings.model_copy(update={"background_checkpoints": background}),
                       None) as saver:
                began = time.monotonic()
                saver.save(engine, {"step": step, "model": dataclasses.asdict(config)})
                held = time.monotonic() - began
                saver.wait()
                taken[background] = (held, time.monotonic() - began)
        size = sum(path.stat().st_size for path in saver.last.rglob("*") if path.is_file())
        began = time.monotonic()
        checkpoint.read(saver.last)
        run_folder.load(engine, saver.last, rank, world)
        loaded = time.monotonic() - began
    finally:
        shutil.rmtree(folder)
    print(f"{preset}: {size / 2**30:.2f} GiB; held up {taken[True][0]:.2f} s in the background, "
          f"{taken[False][0]:.2f} s without; whole after {taken[True][1]:.2f} s; verified and loaded in {loaded:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "gpt2-124m", sys.argv[2] if len(sys.argv) > 2 else None)

"""The training loop: `python -m model.train CONFIG.json` under torchrun or the deepspeed launcher.

The configuration is written by tasks/launch; model/run_folder says what the folder it names gets. A mistake of the
user is left in error.json for the launcher.
"""

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from model import checkpoint, run_folder
from model.config import ModelConfig, check_fit
from model.convert import initial_weights
from model.corpus import held_out, open_corpus
from model.data import Batch, Samples, corpus_samples, write_packing
from model.energy import Meter
from model.engine import DeepSpeed, Torch, bf16, start
from model.masked import Masked, word_joins
from model.memory import sentence
from model.mixture import mixed_samples
from model.optimizer import learning_rate
from model.process import run_main
from model.settings import Optimisation, Pretrain, parse
from model.tokenizer import load_tokenizer
from model.transformer import Transformer, token_losses
from tasks.errors import UserError


@dataclass
class Material:
    """What a run reads. `held_out_bytes` is the UTF-8 size of the held-out documents (None: not asked)."""

    samples: Samples
    held_out: Samples | None
    held_out_bytes: int | None
    write_packing: Callable[[Path, int], None]      # (path, number of samples the run will see)
    tokenizer: str                                  # folder to copy
    about: dict                                     # goes into the checkpoints: the corpus and its sha256


def pretraining(config: dict, settings: Pretrain, model: ModelConfig, length: int) -> Material:
    """The documents of a published corpus version. UserError when it does not fit the model."""
    corpus = open_corpus(config["corpus"]["folder"])
    if corpus.digest != config["corpus"]["manifest_sha256"]:
        raise UserError(f"{corpus.folder}/manifest.json changed since the run was configured: "
                        "start a run of another name")
    n_vocab = corpus.manifest["tokenizer"]["n_vocab"]
    check_fit(settings, model, n_vocab, f"corpus {corpus.label}")
    held = held_out(corpus, settings.held_out, settings.held_out_at_least)
    chosen = np.flatnonzero(~held)
    samples = mixed_samples(corpus, chosen, length, settings.seed, settings.mixture)
    n_tokens = int(samples.lengths.sum())
    if n_tokens < length * settings.batch:
        raise UserError(
            f"corpus {corpus.label} has {n_tokens:,} tokens to train on, fewer than one step of {settings.batch} "
            f"sequences of {length}: lower batch or sequence_length, or build a larger corpus"
        )
    test = np.flatnonzero(held & (corpus.documents["repeat"].to_numpy() == 0))
    in_loop = np.cumsum(corpus.documents["n_tokens"].to_numpy()[test]) <= settings.evaluate_rows * length
    test = test[:max(1, int(in_loop.sum()))]            # whole documents, so that their bytes are known
    n_bytes = int(corpus.documents["n_bytes"].to_numpy()[test].sum())
    few = corpus_samples(corpus, test, length, 0) if len(test) else None

    packing = partial(write_packing, corpus=corpus, samples=samples)
    if not model.causal:
        joins = word_joins(load_tokenizer(f"{corpus.folder}/tokenizer")) if settings.whole_words else None
        masked = [Masked(each, n_vocab, n_vocab, settings.masking, joins) if each else None for each in (samples, few)]
        samples, few, n_bytes = *masked, None           # bits per byte are for models that predict every token
    return Material(samples, few, n_bytes, packing, f"{corpus.folder}/tokenizer",
                    {"corpus": {"name": corpus.manifest["name"], "version": corpus.manifest["version"],
                                "manifest_sha256": corpus.digest}})


def tensors(batch: Batch, device: torch.device) -> list[torch.Tensor]:
    """Inputs, targets, positions, segments on the device."""
    return [torch.from_numpy(array).to(device, non_blocking=True)
            for array in (batch.inputs, batch.targets, batch.positions, batch.segments)]


@torch.no_grad()
def document_losses(model: Callable, samples: Samples, micro_batch: int, device: torch.device,
                    ranks: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Sums of token losses in nats and numbers of tokens of each document, (documents, 2), end-of-text left out.

    End-of-text has no bytes; leaving it out makes bits per byte comparable with lm-evaluation-harness. All ranks
    take the same number of forward passes (ZeRO-3 gathers weights in them) and get the same result.
    """
    rank, world = ranks
    sums = torch.zeros(len(samples.lengths) + 1, 2, dtype=torch.float64, device=device)
    for begin in range(0, samples.rows, micro_batch * world):
        mine = [row if row < samples.rows else -1 for row in range(begin + rank * micro_batch,
                                                                   begin + (rank + 1) * micro_batch)]
        inputs, targets, positions, segments = tensors(samples.batch(mine), device)
        counted = (targets != -100) & (targets != samples.eot)
        losses = token_losses(model(inputs, positions, segments), targets)[counted]
        where = segments[counted]
        sums[:, 0].index_add_(0, where, losses.double())
        sums[:, 1].index_add_(0, where, torch.ones_like(losses, dtype=torch.float64))
    if world > 1:
        dist.all_reduce(sums)
    return sums[:-1].cpu().numpy()


def prefetched(samples: Samples, batches: Iterable[range]) -> Iterator[Batch]:
    """The batches in order, the next one cut in a thread while this one is computed."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for numbers in batches:
            coming = pool.submit(samples.batch, numbers)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def train(config: dict, settings: Optimisation, prepare: Callable = pretraining) -> dict | None:
    """Trains to `settings.steps` from the last checkpoint or from the start. Returns the summary, None when stopped."""
    stop = _stop_flag()
    rank, world, device = start(settings)
    folder, model_config = Path(config["folder"]), ModelConfig(**config["model"])
    if settings.attention == "flex" and device.type == "cpu":
        raise UserError("setting attention: FlexAttention has no gradients on CPUs; use auto or sdpa")
    length = settings.sequence_length or model_config.context
    check_fit(settings, model_config, 0, config["run"])
    if settings.batch % (settings.micro_batch * world):
        raise UserError(f"setting batch: {settings.batch} sequences are not a multiple of micro_batch "
                        f"{settings.micro_batch} x {world} ranks; change one of them")
    material = prepare(config, settings, model_config, length)
    samples = material.samples
    if not settings.steps:
        settings = settings.model_copy(update={"steps": max(1, round(settings.epochs * samples.rows / settings.batch))})
    torch.manual_seed(settings.seed * 1_000_003 + rank)
    module = Transformer(model_config, settings.attention).initialise(settings.seed)
    if config.get("initial"):
        module.load_state_dict(initial_weights(config["initial"], model_config))
    engine = (Torch if settings.engine == "torch" else DeepSpeed)(module, settings, device)
    about = {"run": config["run"], "kind": config["kind"], "model": dataclasses.asdict(model_config),
             "engine": settings.engine, "zero_stage": settings.zero_stage, "world_size": world,
             "settings": settings.model_dump(mode="json"), **material.about, **config.get("about", {})}
    done = {"step": 0, "samples": 0, "tokens": 0, "seconds": 0.0, "energy_joules": 0.0}
    last = checkpoint.latest(folder / "checkpoints")
    if last:
        done = run_folder.resume(engine, last, about, done, rank)
    if rank == 0:
        run_folder.open_folder(folder, material.write_packing, settings.steps * settings.batch, material.tokenizer,
                               done["step"])
        print(f"{config['run']}: {model_config.parameters:,} parameters, {samples.rows} rows of {length} an epoch, "
              f"{world} x {device.type}, {settings.engine} ZeRO {settings.zero_stage}, step {done['step']}", flush=True)
        print(sentence(model_config, settings.micro_batch, length, stage=settings.zero_stage, ranks=world,
                       bf16=bf16(settings, device), engine=settings.engine), flush=True)
    meter, began = Meter(device.index, settings.cpu_watts), time.monotonic()
    metrics = open(folder / "metrics.jsonl", "a", buffering=1) if rank == 0 else None
    board = _tensorboard(folder) if settings.tensorboard and rank == 0 else None
    accumulate = settings.batch // (settings.micro_batch * world)

    def share(step: int, micro: int) -> range:
        first = step * settings.batch + (micro * world + rank) * settings.micro_batch
        return range(first, first + settings.micro_batch)

    batches = prefetched(samples, (share(step, micro) for step in range(done["step"], settings.steps)
                                   for micro in range(accumulate)))
    stopped = False
    for step in range(done["step"] + 1, settings.steps + 1):
        started = time.monotonic()
        seen = range((step - 1) * settings.batch, step * settings.batch)
        n_targets = samples.n_targets(seen)
        # loss of this rank, and whether anyone was told to stop: ranks must agree, so both are summed
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        for _ in range(accumulate):
            inputs, targets, positions, segments = tensors(next(batches), device)
            loss = token_losses(engine.model(inputs, positions, segments), targets).sum()
            engine.backward(loss / max(1, n_targets))
            totals[0] += loss.detach()
        totals[1] = float(stop.is_set)
        dist.all_reduce(totals)
        loss, stopped = float(totals[0]) / max(1, n_targets), bool(totals[1])
        if not math.isfinite(loss):
            raise UserError(
                f"run {config['run']}: the loss is {loss} at step {step} (samples {seen[0]} to {seen[-1]} of "
                "packing.parquet): lower learning_rate, lengthen warmup, or look at those documents"
            )
        lr = learning_rate(step, settings)
        norm = engine.step(lr)
        done |= {"step": step, "samples": seen[-1] + 1, "tokens": done["tokens"] + n_targets}
        seconds = time.monotonic() - started
        line = {"step": step, "loss": loss, "lr": lr, "grad_norm": norm, "tokens": done["tokens"],
                "samples": done["samples"], "seconds": seconds, "tokens_per_second": n_targets / seconds}
        every = settings.evaluate_every
        if material.held_out and (step == settings.steps or every and step % every == 0):
            line |= _evaluate(engine, material, settings, device, rank, world)
        if rank == 0:
            metrics.write(json.dumps(line) + "\n")
            for key in ("loss", "lr", "grad_norm", "bits_per_byte") if board else ():
                if key in line:
                    board.add_scalar(key, line[key], step)
            if step == 1 or step % 10 == 0:
                speed = line["tokens_per_second"]
                print(f"step {step}/{settings.steps} loss {loss:.4f} lr {lr:.2e} {speed:,.0f} tokens/s"
                      + (f" bits/byte {line['bits_per_byte']:.4f}" if "bits_per_byte" in line else ""), flush=True)
        every = settings.checkpoint_every
        if stopped or step == settings.steps or every and step % every == 0:
            now = done | {
                "seconds": done["seconds"] + time.monotonic() - began,
                "loss": loss,
                "energy_joules": done["energy_joules"] + _sum(meter.joules(), device),
                "energy_how": meter.how,
            }
            last = run_folder.save(engine, folder, now | about, model_config, rank, settings.keep_checkpoints)
        if stopped:
            break
    batches.close()
    if stopped and done["step"] < settings.steps:
        return None
    summary = run_folder.finish(folder, last, world, model_config, samples) if rank == 0 else {}
    dist.barrier()                              # no node ends before the summary that its launcher reads
    return summary


class _Stop:
    is_set = False


def _stop_flag() -> _Stop:
    """SIGTERM and SIGINT end the run after the step under way and a checkpoint; the death of the launcher kills it."""
    flag = _Stop()

    def stop(signum, frame):
        flag.is_set = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return flag


def _evaluate(engine, material: Material, settings: Optimisation, device, rank: int, world: int) -> dict:
    sums = document_losses(engine.model, material.held_out, settings.micro_batch, device, (rank, world))
    nats, n_tokens = sums.sum(0)
    result = {"held_out_loss": float(nats / max(1, n_tokens))}
    if material.held_out_bytes:
        result["bits_per_byte"] = float(nats / math.log(2) / material.held_out_bytes)
    return result


def _sum(value: float, device) -> float:
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def _tensorboard(folder: Path):
    from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder / "tensorboard"))


def main(config: dict) -> dict | None:
    return train(config, parse(Pretrain, config["settings"]))


if __name__ == "__main__":
    run_main(main)

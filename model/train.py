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
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from model import checkpoint, in_loop, run_folder
from model.attention import NARROWEST
from model.boards import Boards, open_boards
from model.config import ModelConfig, check_fit
from model.convert import initial_model
from model.data import Batch, Samples
from model.energy import Meter, peak_flops
from model.engine import DeepSpeed, Torch, bf16, start
from model.material import Material, pretraining
from model.memory import sentence
from model.objective import objective
from model.packing import ORDER
from model.parametrisation import rescale
from model.process import run_main
from model.saver import Saver
from model.schedule import learning_rate
from model.settings import Optimisation, Pretrain, at_once, check, parse
from model.spikes import RECENT, add_range, complaint, write_down
from model.tokenizer import load_tokenizer
from model.transformer import Transformer, token_losses
from tasks.errors import UserError

T = TypeVar("T")


def pinned(batch: Batch, device: torch.device) -> list[torch.Tensor]:
    """Inputs, targets, positions, segments in the host's memory, from where a GPU takes them while it computes."""
    arrays = [torch.from_numpy(array) for array in batch]
    if device.type == "cpu":
        return arrays
    with torch.cuda.device(device):                     # in a thread it is the first GPU
        return [array.pin_memory() for array in arrays]


def on_device(batch: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    return [array.to(device, non_blocking=True) for array in batch]


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
        inputs, targets, positions, segments = on_device(pinned(samples.batch(mine), device), device)
        counted = (targets != -100) & (targets != samples.eot)
        losses = token_losses(model(inputs, positions, segments), targets)[counted]
        where = segments[counted]
        sums[:, 0].index_add_(0, where, losses.double())
        sums[:, 1].index_add_(0, where, torch.ones_like(losses, dtype=torch.float64))
    if world > 1:
        dist.all_reduce(sums)
    return sums[:-1].cpu().numpy()


def share(settings: Optimisation, rank: int, world: int, step: int, micro: int) -> range:
    """The samples of a rank's micro-step (counted from 0) of step 1, 2 ...: micro_batch to each rank in turn."""
    first = (step - 1) * settings.batch + (micro * world + rank) * settings.micro_batch
    return range(first, first + settings.micro_batch)


def prefetched(make: Callable[[range], T], samples: Iterable[range]) -> Iterator[T]:
    """make(numbers) of each range of samples in order, the next one in a thread while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for numbers in samples:
            coming = pool.submit(make, numbers)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def train(config: dict, settings: Optimisation, prepare: Callable = pretraining) -> dict | None:
    """Trains to `settings.steps` from the last checkpoint or from the start. Returns the summary, None when stopped."""
    stop = _stop_flag()
    check(settings)
    rank, world, device = start(settings)
    last = run_folder.meet(Path(config["folder"]), device)
    folder, model_config = Path(config["folder"]), ModelConfig(**config["model"])
    if settings.attention == "flex" and device.type == "cpu":
        raise UserError("setting attention: FlexAttention has no gradients on CPUs; use auto or sdpa")
    if settings.attention == "flex" and model_config.head_width < NARROWEST:
        raise UserError(f"setting attention: FlexAttention has no kernel for heads narrower than {NARROWEST}, and "
                        f"model.head_width is {model_config.head_width}; use auto or sdpa")
    length = settings.sequence_length or model_config.context
    check_fit(settings, model_config, 0, config["run"])
    settings = settings.model_copy(update={"micro_batch": at_once(settings, world)})
    accumulate = settings.batch // (settings.micro_batch * world)
    in_loop.check(settings, model_config)
    material = prepare(config, settings, model_config, length)
    tokenizer = load_tokenizer(material.tokenizer) if settings.benchmarks else None
    samples = material.samples
    if not settings.steps:
        settings = settings.model_copy(update={"steps": max(1, round(settings.epochs * samples.rows / settings.batch))})
    torch.manual_seed(settings.seed * 1_000_003 + rank)
    engine = make_engine(config, settings, model_config, device)
    about = {"run": config["run"], "kind": config["kind"], "model": dataclasses.asdict(model_config),
             "engine": settings.engine, "zero_stage": settings.zero_stage, "world_size": world, "order": ORDER,
             "settings": settings.model_dump(mode="json"), **material.about, **config.get("about", {})}
    done = {"step": 0, "samples": 0, "tokens": 0, "seconds": 0.0, "energy_joules": 0.0, "recent": [], "in_a_row": 0,
            "skipped": [], "back_to": []}
    if last:
        done = run_folder.resume(engine, last, about, done, rank, world)
    boards, packing = Boards(), None
    if rank == 0:
        packing = run_folder.open_folder(folder, material.write_packing, settings.steps * settings.batch,
                                         material.tokenizer, done["step"])
        boards = open_boards(folder, config["run"], settings, done["step"])
        print(f"{config['run']}: {model_config.parameters:,} parameters, {samples.rows} rows of {length} an epoch with "
              f"{samples.padding:.2%} padding, {world} x {device.type} taking {settings.micro_batch} at once, "
              f"{settings.engine} ZeRO {settings.zero_stage}, step {done['step']}", flush=True)
        there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
        print(sentence(model_config, settings.micro_batch, length, there, stage=settings.zero_stage, ranks=world,
                       bf16=bf16(settings, device), checkpointing=settings.activation_checkpointing,
                       engine=settings.engine, optimizer=settings.optimizer, offload=settings.offload,
                       z_loss=settings.z_loss, accumulated=accumulate > 1,
                       zero=settings.deepspeed.get("zero_optimization")), flush=True)
    meter, began = Meter(device.index, settings.cpu_watts), time.monotonic()
    metrics = open(folder / "metrics.jsonl", "a", buffering=1) if rank == 0 else None
    flops = model_config.flops_per_token(length)
    peak = 1e12 * settings.peak_tflops or (peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda"
                                           else None)
    minimised = torch.compile(objective) if settings.compile else objective

    steps = range(done["step"] + 1, settings.steps + 1)
    batches = prefetched(lambda numbers: pinned(samples.batch(numbers), device),
                         (share(settings, rank, world, step, micro) for step in steps for micro in range(accumulate)))
    counts = prefetched(lambda numbers: (samples.n_targets(numbers), int(samples.filled(numbers).sum())),
                        (range((step - 1) * settings.batch, step * settings.batch) for step in steps))
    stopped = False
    with boards, Saver(folder / "checkpoints", model_config, settings, last, packing) as saver:
        for step in steps:
            started = time.monotonic()
            seen = range((step - 1) * settings.batch, step * settings.batch)
            n_targets, n_tokens = next(counts)          # of all ranks
            # nats and joules of this rank, and whether anyone was told to stop: ranks must agree, so all are summed
            totals = torch.zeros(3, dtype=torch.float64, device=device)
            for _ in range(accumulate):
                inputs, targets, positions, segments = on_device(next(batches), device)
                loss, nats = minimised(engine.model(inputs, positions, segments), targets, settings.z_loss)
                engine.backward(loss / max(1, n_targets))
                totals[0] += nats
            totals[1].fill_(meter.joules())
            totals[2].fill_(float(stop.is_set))
            dist.all_reduce(totals)
            saver.look()
            lr, norm, reason = learning_rate(step, settings), math.nan, ""
            if settings.spike_deviations:               # else the host does not wait for the loss before the step
                reason = complaint(float(totals[0]) / max(1, n_targets), done["recent"], settings.spike_deviations)
            if reason:
                engine.drop()
            else:
                norm = engine.step(lr)
            nats, joules, stopped = totals.tolist()
            loss = nats / max(1, n_targets)
            reason = reason or complaint(loss, [], 0) or ("" if math.isfinite(norm) else "the gradient is not finite")
            done |= {"step": step, "samples": seen[-1] + 1}
            line = {"step": step, "loss": loss, "lr": lr, "grad_norm": norm, "samples": done["samples"]}
            if reason:
                back = leave_out(engine, folder, done, seen, reason, saver, material, settings, rank)
                line |= {"left_out": reason} | ({} if back is None else {"back_to": back})
            else:
                done |= {"tokens": done["tokens"] + n_tokens, "in_a_row": 0,
                         "recent": [*done["recent"], loss][-RECENT:] if settings.spike_deviations else []}
            seconds = time.monotonic() - started
            speed = n_tokens / seconds
            line |= {"tokens": done["tokens"], "seconds": seconds, "tokens_per_second": speed,
                     "tflops": flops * speed / 1e12, "energy_joules": done["energy_joules"] + joules}
            if peak:
                line["mfu"] = flops * speed / (peak * world)
            every = settings.evaluate_every
            if step == settings.steps or every and step % every == 0 and not stopped:     # who stops it does not wait
                if material.held_out:
                    line |= _evaluate(engine, material, settings, device, rank, world)
                if settings.benchmarks:
                    line["benchmarks"] = in_loop.scores(engine, tokenizer, settings, model_config, device)
            if rank == 0:
                write_line(metrics, boards, line, settings.steps)
            every = settings.checkpoint_every
            if stopped or step == settings.steps or every and step % every == 0:
                now = done | {
                    "seconds": done["seconds"] + time.monotonic() - began,
                    "loss": loss,
                    "energy_joules": done["energy_joules"] + _sum(meter.joules(), device),
                    "energy_how": meter.how,
                }
                saver.save(engine, run_folder.strict(now | about))
                boards.outcome = "finished" if step == settings.steps else "stopped"
            if stopped:
                break
    batches.close()
    counts.close()
    if stopped and done["step"] < settings.steps:
        return None
    summary = run_folder.finish(folder, saver.last, world, model_config, samples) if rank == 0 else {}
    dist.barrier()                              # no node ends before the summary that its launcher reads
    return summary


def make_engine(config: dict, settings: Optimisation, shape: ModelConfig, device: torch.device):
    """The model with its first weights, under the engine that the settings name."""
    if settings.engine == "deepspeed" and dist.get_rank():
        with torch.device("meta"):                      # it sends them those of rank 0
            module = Transformer(shape)
    else:
        module = initial_model(config["initial"], shape) if config.get("initial") else \
            Transformer(shape).initialise(settings.seed)
        if settings.parametrisation == "mup" and not config.get("initial"):
            rescale(module, settings.base_width)
    module.attention, module.checkpointing = settings.attention, settings.activation_checkpointing
    return (Torch if settings.engine == "torch" else DeepSpeed)(module, settings, device)


def leave_out(engine, folder: Path, done: dict, seen: range, reason: str, saver: Saver, material: Material,
              settings: Optimisation, rank: int) -> int | None:
    """Records in `done` and spikes.jsonl that the batch `seen` was not stepped on; after `spike_rewind` in a row takes
    back the weights of the last checkpoint and returns its step.

    The steps since then are lost with their samples, so that other batches follow: what order samples come in never
    changes. UserError where the settings leave no batch out, where no checkpoint is there, and when the same one was
    gone back to three times.
    """
    step = done["step"]
    place = f"{reason} at step {step} (samples {seen[0]} to {seen[-1]} of packing.parquet)"
    advice = "lower learning_rate, lengthen warmup, or look at those documents"
    if not settings.spike_deviations:
        raise UserError(f"run {folder.name}: {place}: {advice}; with spike_deviations such batches are left out")
    done["in_a_row"] += 1
    done["skipped"] = add_range(done["skipped"], seen[0], seen[-1])
    back = None
    if done["in_a_row"] >= settings.spike_rewind:
        saver.wait()
        last = saver.last
        if last is None or done["back_to"].count(checkpoint.step(last)) >= 3:
            why = f"{last.name} was gone back to three times" if last else "there is no checkpoint to go back to"
            raise UserError(f"run {folder.name}: {place}, number {done['in_a_row']} in a row, and {why}: {advice}")
        was = checkpoint.read(last, rank, dist.get_world_size())
        run_folder.load(engine, last, rank, dist.get_world_size())
        back = was["step"]
        done |= {"in_a_row": 0, "tokens": was["tokens"], "recent": was.get("recent", []),
                 "back_to": [*done["back_to"], back], "skipped": add_range(done["skipped"], was["samples"], seen[-1])}
    if rank == 0:
        documents = dict.fromkeys(material.samples.pieces(seen[0], seen[-1] + 1)[1].tolist())
        write_down(folder, step, seen, reason, [material.name(document) for document in documents], back)
        print(f"step {step} left out: {reason}" + ("" if back is None else f"; back to the weights of step {back}"),
              flush=True)
    return back


def write_line(metrics, boards: Boards, line: dict, steps: int) -> None:
    """A step's line of metrics.jsonl, its figures on the boards, and some of them on the terminal.

    The line says how many steps the run has: one of so many epochs is followed by those who cannot know.
    """
    metrics.write(json.dumps(run_folder.strict(line | {"steps": steps})) + "\n")
    figures = {name: value for name, value in line.items() if isinstance(value, float)}
    figures |= {f"bits_per_byte/{name}": value for name, value in line.get("bits_per_byte_by", {}).items()}
    for task, values in line.get("benchmarks", {}).items():
        figures |= {f"{task}/{metric}": value for metric, value in values.items()}
    boards(line["step"], figures)
    if line["step"] == 1 or line["step"] % 10 == 0 or line["step"] == steps:
        print(f"step {line['step']}/{steps} loss {line['loss']:.4f} lr {line['lr']:.2e} "
              f"{line['tokens_per_second']:,.0f} tokens/s" + (f" MFU {line['mfu']:.1%}" if "mfu" in line else "")
              + (f" bits/byte {line['bits_per_byte']:.4f}" if "bits_per_byte" in line else ""), flush=True)


class _Stop:
    is_set = False


def _stop_flag() -> _Stop:
    """SIGTERM and SIGINT end the run after the step under way and a checkpoint; so does the launcher's death (see
    tasks/guardian)."""
    flag = _Stop()

    def stop(signum, frame):
        flag.is_set = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return flag


def _evaluate(engine, material: Material, settings: Optimisation, device, rank: int, world: int) -> dict:
    """Mean loss of the held-out tokens; bits per byte of all documents and of each group."""
    sums = document_losses(engine.model, material.held_out, settings.micro_batch, device, (rank, world))
    nats, n_tokens = sums.sum(0)
    result = {"held_out_loss": float(nats / max(1, n_tokens))}
    if material.held_out_bytes is None:
        return result

    def bits(which: np.ndarray) -> float:
        return float(sums[which, 0].sum() / math.log(2) / max(1, material.held_out_bytes[which].sum()))

    groups = {name: bits(which) for name, which in material.groups.items()}
    return result | {"bits_per_byte": bits(slice(None))} | ({"bits_per_byte_by": groups} if groups else {})


def _sum(value: float, device) -> float:
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def main(config: dict) -> dict | None:
    return train(config, parse(Pretrain, config["settings"]))


if __name__ == "__main__":
    run_main(main)

"""Starts training, finetuning and evaluation as processes of their own, watches them, and records them.

A run lives in HOME/trainings/RUN. Launched again with the same settings it goes on from its last checkpoint, and a
run that is complete is skipped. Whatever ends the wait here (an error, a cancelled flow, Ctrl-C) ends every rank.
"""

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import fsspec

from model import checkpoint
from model.config import ModelConfig, check_fit, model_config
from model.corpus import corpus_folder, open_corpus, verify
from model.settings import FREE, Evaluate, Finetune, Optimisation, Pretrain, Processes
from tasks import process_group
from tasks.errors import UserError
from tasks.ledger import record
from tasks.storage import Root, home_uri

log = logging.getLogger("gristmill.launch")
Progress = Callable[[dict], None]               # called with the newest line of metrics.jsonl


class Stopped(RuntimeError):
    """The ranks were told to stop, saved a checkpoint and ended: launch again to go on."""


def pretrain(
    home: str,
    corpus: str,
    version: int | None = None,
    run: str | None = None,
    settings: Pretrain | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
    run_id: str | None = None,
) -> dict:
    """Trains on a published corpus version and returns the run's summary (with `skipped` true when it was complete).

    `corpus` is a name under HOME/corpora or the URI of a corpus's folder; `run` defaults to a name made of corpus,
    version and a digest of all settings. Raises UserError for mistakes, Stopped when the run was told to stop,
    RuntimeError with the end of the log when a rank failed.
    """
    settings, root = _resolved(settings or Pretrain()), _root(home)
    published = open_corpus(corpus_folder(root.uri, corpus, version))
    n_vocab = published.manifest["tokenizer"]["n_vocab"]
    # rows beyond the tokenizer's are never targets; a multiple of 64 suits the matrix units of GPUs
    shape = model_config(settings.preset, **{"vocab_size": -(-n_vocab // 64) * 64} | settings.model)
    check_fit(settings, shape, n_vocab, f"corpus {published.label}")
    identity = {"manifest": published.digest, "model": asdict(shape), "settings": settings.model_dump(mode="json")}
    run = run or f"{published.manifest['name']}-v{published.manifest['version']}-{_key(identity)}"
    folder = _run_folder(root, run)
    about = {"name": published.manifest["name"], "version": published.manifest["version"],
             "manifest_sha256": published.digest}
    config = {"kind": "pretrain", "run": run, "folder": str(folder), "cache": str(root.local / "cache" / "tokens"),
              "corpus": {"folder": published.folder, **about}, "model": asdict(shape),
              "settings": settings.model_dump(mode="json")}
    if summary := _complete(folder, config):
        return summary
    verify(published)
    ledger = {"task": "pretrain", "corpus": about["name"], "version": about["version"], "manifest": published.digest,
              "model_parameters": shape.parameters}
    return _train(root, folder, "model.train", config, settings, processes or Processes(), ledger, progress,
                  run_id)


def finetune(home: str | Root, base: str, rows: str, run: str | None = None, settings: Finetune | None = None,
             processes: Processes | None = None, progress: Progress | None = None,
             run_id: str | None = None) -> dict:
    """Finetunes run `base` on the instruction rows of file `rows`; otherwise as `pretrain`."""
    settings, root = _resolved(settings or Finetune()), _root(home)
    last, was = _last(root, base)
    shape = ModelConfig(**was["model"])
    check_fit(settings, shape, 0, run or base)
    weights = was["files"][checkpoint.WEIGHTS]
    try:
        with fsspec.open(rows, "rb") as file:
            digest = sha256(file.read()).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{rows}: no such file; give a jsonl{{,.gz}} file of {{instruction, input, output}}") from None
    source = was.get("base", was)  # a finetuned base keeps naming the corpus at the bottom
    below = {
        "run": base,
        "step": was["step"],
        "weights": weights,
        "corpus": source["corpus"],
        "settings": source["settings"],
    }
    run = run or f"{base}-sft-{_key({'base': below, 'rows': digest, 'settings': settings.model_dump(mode='json')})}"
    folder = _run_folder(root, run)
    config = {
        "kind": "finetune",
        "run": run,
        "folder": str(folder),
        "rows": os.path.abspath(rows) if "://" not in rows else rows,
        "rows_sha256": digest,
        "tokenizer": str(last.parent.parent / "tokenizer"),
        "about": {"base": below},
        "initial": str(last / checkpoint.WEIGHTS),
        "model": was["model"],
        "settings": settings.model_dump(mode="json"),
    }
    if summary := _complete(folder, config):
        return summary
    ledger = {"task": "finetune", "base": weights, "corpus": below["corpus"]["name"],
              "version": below["corpus"]["version"],
              "manifest": below["corpus"]["manifest_sha256"], "model_parameters": shape.parameters}
    return _train(root, folder, "model.finetune", config, settings, processes or Processes(), ledger, progress,
                  run_id)


def evaluate(home: str | Root, run: str, settings: Evaluate | None = None, corpus: str | None = None,
             version: int | None = None, processes: Processes | None = None, run_id: str | None = None) -> dict:
    """Evaluates the newest checkpoint of `run`: {"run", "step", "results": [{task, metric, domain, value ...}]}.

    The held-out documents are those of the corpus version it was trained on, or of `corpus` where given.
    """
    settings, root = settings or Evaluate(), _root(home)
    last, was = _last(root, run)
    folder = last.parent.parent
    config = {"kind": "evaluate", "run": run, "folder": str(folder), "run_folder": str(folder), "home": root.uri,
              "cache": str(root.local / "cache" / "tokens"), "output": str(folder / "evaluation.json"),
              "corpus_folder": corpus_folder(root.uri, corpus, version) if corpus else None,
              "settings": settings.model_dump(mode="json")}
    work = folder / "evaluate"
    work.mkdir(exist_ok=True)
    _write(work / "config.json", config)
    processes = processes or Processes()
    _run([sys.executable, "-m", "model.evaluate", str(work / "config.json")], work,
                   _environment(root, processes, 1), processes.grace, lambda: None)
    result = json.loads((folder / "evaluation.json").read_text())
    for row in result["results"]:
        payload = {key: row[key] for key in ("task", "metric", "domain", "value")}
        record(
            root,
            "evaluation",
            run,
            payload
            | {
                "step": result["step"],
                "checkpoint": str(last.relative_to(root.local)),
                "n": row.get("questions", row.get("documents")),
            },
        )
    return result


def stream_text(home: str | Root, run: str, prompt: str, max_tokens: int = 200, **sampling) -> Iterator[str]:
    """Yields pieces of text from a run, in this process. `sampling`: temperature, top_k, top_p, seed, chat."""
    from model import generate  # PyTorch is loaded by this alone

    model, tokenizer, _ = generate.load_run(_run_folder(_root(home), run, must_exist=True))
    yield from generate.stream_text(model, tokenizer, prompt, max_tokens, **sampling)


def runs(home: str | Root) -> list[dict]:
    """The runs under HOME/trainings: run, kind, complete, step, and the summary's figures where there are any."""
    found = []
    for path in sorted((_root(home).local / "trainings").glob("*/config.json")):
        config = json.loads(path.read_text())
        summary = path.parent / "summary.json"
        done = json.loads(summary.read_text()) if summary.exists() else {}
        last = checkpoint.latest(path.parent / "checkpoints")
        found.append({"run": config["run"], "kind": config["kind"], "complete": bool(done),
                      "step": int(last.name.removeprefix("step-")) if last else 0, **done})
    return found


def command(processes: Processes, n: int, module: str, config: Path) -> list[str]:
    """The launcher's command line for `n` ranks on this machine."""
    if processes.nodes > 1 and not processes.rendezvous:
        raise UserError(f"setting rendezvous: {processes.nodes} nodes need the HOST:PORT of the first one")
    host, _, port = processes.rendezvous.partition(":")
    if processes.launcher == "deepspeed":
        script = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", str(n), "--no_local_rank"]
        if processes.nodes > 1:                 # each machine runs its own command: no SSH
            script += ["--no_ssh", "--num_nodes", str(processes.nodes), "--node_rank", str(processes.node_rank),
                       "--master_addr", host, "--master_port", port or "29500"]
        return [*script, "--module", module, str(config)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)]
    if processes.nodes > 1:
        torchrun += ["--nnodes", str(processes.nodes), "--rdzv-backend", "c10d",
                     "--rdzv-endpoint", processes.rendezvous,
                     "--rdzv-id", processes.rendezvous_id]
    else:
        torchrun += ["--standalone"]
    return [*torchrun, "-m", module, str(config)]


def _train(
    root: Root,
    folder: Path,
    module: str,
    config: dict,
    settings: Optimisation,
    processes: Processes,
    ledger: dict,
    progress: Progress | None,
    run_id: str | None,
) -> dict:
    n = processes.processes or (_gpus() if settings.device != "cpu" else 0) or 1
    run = config["run"]
    if settings.batch % (settings.micro_batch * n * processes.nodes):
        raise UserError(f"setting batch: {settings.batch} sequences are not a multiple of micro_batch "
                        f"{settings.micro_batch} x {n * processes.nodes} ranks; change one of them")
    _write(folder / "config.json", config)
    ledger |= {
        "world_size": n * processes.nodes,
        "zero_stage": settings.zero_stage if settings.engine == "deepspeed" else 0,
        "settings": {**config["settings"], "model": config["model"]},
        "device": "gpu" if _gpus() else "cpu",
    }
    watch = _Watch(root, folder, run, progress, run_id)
    record(root, "training", run, {"state": "started", **ledger}, run_id)
    outcome, reason = "failed", None
    try:
        _run(command(processes, n, module, folder / "config.json"), folder, _environment(root, processes, n),
                       processes.grace, watch.look)
        watch.look()
        outcome = "ok"
    except (UserError, RuntimeError) as error:
        outcome, reason = ("cancelled" if isinstance(error, Stopped) else "failed"), type(error).__name__
        raise
    except BaseException as error:
        outcome, reason = "cancelled", type(error).__name__
        raise
    finally:
        watch.progress = None  # what it raises ended the wait: it must not keep the end out of the ledger
        watch.look()
        summary = json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").exists() else {}
        ended = {"steps": watch.step, "tokens": watch.tokens, "loss_first": watch.first, "loss_last": watch.last}
        ended |= {key: summary[key] for key in ("seconds", "energy_joules") if key in summary}
        record(root, "training", run, {"state": "ended", "outcome": outcome, "reason": reason, **ledger, **ended,
                                       "energy_method": summary.get("energy_how")}, run_id)
    return summary | {"skipped": False, "folder": str(folder)}


class _Watch:
    """Follows metrics.jsonl and checkpoints/: progress as it comes, the ledger once a checkpoint makes steps durable.

    Steps behind the last checkpoint are computed again after a crash; recording them late records them once.
    """

    def __init__(self, root: Root, folder: Path, run: str, progress: Progress | None, run_id: str | None):
        self.root, self.folder, self.run, self.progress, self.run_id = root, folder, run, progress, run_id
        known = checkpoint.latest(folder / "checkpoints")
        self.recorded = int(known.name.removeprefix("step-")) if known else 0
        self.step = self.tokens = 0
        self.first = self.last = None
        self.lines: dict[int, dict] = {}
        self.size = -1

    def look(self) -> None:
        path = self.folder / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size != self.size:
            self.size = size
            self.lines = {}
            for text in path.read_text().splitlines() if size else []:
                with contextlib.suppress(ValueError):          # a line half written
                    line = json.loads(text)
                    self.lines[line["step"]] = line
            if self.lines:
                newest = self.lines[max(self.lines)]
                self.first, self.last = self.lines[min(self.lines)]["loss"], newest["loss"]
                self.step, self.tokens = newest["step"], newest["tokens"]
                if self.progress:
                    self.progress(newest | {"loss_first": self.first})
        for path in checkpoint.all_whole(self.folder / "checkpoints"):
            step = int(path.name.removeprefix("step-"))
            if step > self.recorded:
                self._record(path, step)

    def _record(self, path: Path, step: int) -> None:
        try:
            about = json.loads((path / checkpoint.ABOUT).read_text())
        except FileNotFoundError:
            return                                              # pruned this moment
        steps = [self.lines[number] for number in sorted(self.lines) if self.recorded < number <= step]
        names = ("step", "loss", "lr", "tokens", "seconds", "grad_norm")
        record(self.root, "step", self.run, {"steps": [{name: line[name] for name in names} for line in steps]},
               self.run_id)
        record(self.root, "checkpoint", self.run, {
            "step": step, "path": str(path.relative_to(self.root.local)), "sha256": about["files"][checkpoint.WEIGHTS],
            "tokens": about["tokens"], "samples": about["samples"],
            "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file())}, self.run_id)
        for line in steps:
            if "bits_per_byte" in line:
                record(self.root, "evaluation", self.run, {
                    "step": line["step"], "task": "held-out", "domain": "in the loop", "metric": "bits_per_byte",
                    "value": line["bits_per_byte"]}, self.run_id)
        self.recorded = step


def _run(arguments: list[str], folder: Path, environment: dict, grace: float, look: Callable[[], None]) -> None:
    """Runs a launcher to its end. Raises UserError with what a rank left in error.json, Stopped, or RuntimeError."""
    left = folder / "error.json"
    left.unlink(missing_ok=True)
    status = process_group.run(arguments, folder / "log.txt", environment, grace, look)
    if status == 0:
        return
    if left.exists():
        about = json.loads(left.read_text())
        if about.get("stopped"):
            raise Stopped(f"{folder.name}: stopped with a checkpoint; launch it again to go on")
        raise UserError(about["message"])
    raise RuntimeError(
        f"{folder.name}: a process of the run ended with status {status}; {folder / 'log.txt'} ends with:\n"
        + _tail(folder / "log.txt")
    )


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _environment(root: Root, processes: Processes, n: int) -> dict[str, str]:
    project = str(Path(__file__).parent.parent)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")])),
        # ninja, which DeepSpeed's build calls, is beside this Python
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "TORCH_EXTENSIONS_DIR": str(root.local / "cache" / "torch_extensions"),
        "OMP_NUM_THREADS": str(processes.threads or max(1, (os.cpu_count() or 1) // n)),
        "OMP_WAIT_POLICY": "PASSIVE",           # on a busy machine threads that spin take five times as long
        "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
    }


def _complete(folder: Path, config: dict) -> dict | None:
    """The summary when the run in `folder` is complete under these settings; UserError when it has others."""
    if not (folder / "config.json").exists():
        return None
    before = json.loads((folder / "config.json").read_text())
    for part in ("kind", "corpus", "rows_sha256", "about", "model", "settings"):
        was, now = (
            {"": value} if not isinstance(value, dict) else value for value in (before.get(part), config.get(part))
        )
        free = FREE if part == "settings" else {"folder"}      # a home that has moved is the same home
        differ = sorted(name for name in was.keys() | now.keys() if name not in free and was.get(name) != now.get(name))
        if differ:
            raise UserError(
                f"run {folder.name!r} exists with other settings ({part}: {', '.join(differ)}): name another "
                f"run, or remove {folder}"
            )
    if not (folder / "summary.json").exists():
        return None
    log.info("run %s is complete: skipped", folder.name)
    return json.loads((folder / "summary.json").read_text()) | {"skipped": True, "folder": str(folder)}


def _last(root: Root, run: str) -> tuple[Path, dict]:
    folder = _run_folder(root, run, must_exist=True)
    last = checkpoint.latest(folder / "checkpoints")
    if last is None:
        raise UserError(f"run {run!r} has no checkpoint in {folder / 'checkpoints'}: let it train to one first")
    return last, checkpoint.read(last)


def _root(home: str | Root) -> Root:
    root = home if isinstance(home, Root) else Root(home_uri(home))
    if root.local is None:
        raise UserError(
            f"home {root.uri}: training writes to a local or mounted folder; set GRISTMILL_HOME to one and give the "
            f"corpus as a URI, such as corpus={root.uri}/corpora/NAME"
        )
    return root


def _run_folder(root: Root, run: str, must_exist: bool = False) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run):
        raise UserError(f"run name {run!r}: letters, digits, dot, dash and underscore alone")
    folder = root.local / "trainings" / run
    if must_exist and not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("*")) if folder.parent.exists() else []
        raise UserError(f"no run {run!r} in {folder.parent}: there are {', '.join(others) or 'none yet'}")
    if not must_exist:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _gpus() -> int:
    """GPUs of this machine, without loading PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").exists() else 0


def _resolved(settings: Optimisation) -> Optimisation:
    """`settings.deepspeed` as keys where it names a JSON file: a run is told apart by content, not by a path."""
    if not isinstance(settings.deepspeed, str):
        return settings
    try:
        return settings.model_copy(update={"deepspeed": json.loads(Path(settings.deepspeed).read_text())})
    except (OSError, ValueError) as error:
        raise UserError(f"setting deepspeed: {settings.deepspeed} is no readable JSON file ({type(error).__name__}); "
                        "see infra/deepspeed") from None


def _key(value: dict) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _write(path: Path, value: dict) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True))
    os.replace(temporary, path)

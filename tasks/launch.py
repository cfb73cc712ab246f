"""What a training, a finetuning and an evaluation are made of: the corpus, the run's folder, its configuration.

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
from model.config import ModelConfig, check_fit
from model.corpus import corpus_folder, open_corpus, verify
from model.resuming import differing
from model.rows import instruction_rows
from model.settings import FREE, SCHEDULE, Evaluate, Finetune, Optimisation, Pretrain, Processes
from model.verdict import SUMMARY
from tasks import ranks
from tasks.errors import UserError
from tasks.ledger import record
from tasks.pretrained import export_run, import_run, shape_and_start
from tasks.ranks import Progress, Stopped
from tasks.storage import Root, home_uri

__all__ = ["Stopped", "convert", "evaluate", "finetune", "pretrain", "runs", "several_texts", "stream_text"]

log = logging.getLogger("gristmill.launch")


def pretrain(home: str | Root, corpus: str, version: int | None = None, run: str | None = None,
             settings: Pretrain | None = None, processes: Processes | None = None, progress: Progress | None = None,
             run_id: str | None = None) -> dict:
    """Trains on a published corpus version and returns the run's summary (with `skipped` true when it was complete).

    `corpus` is a name under HOME/corpora or the URI of a corpus's folder; `run` defaults to a name made of corpus,
    version and a digest of all settings. Raises UserError for mistakes, Stopped when the run was told to stop,
    RuntimeError with the end of the log when a rank failed.
    """
    settings, root = _resolved(settings or Pretrain()), _root(home)
    published = open_corpus(corpus_folder(root.uri, corpus, version))
    shape, start = shape_and_start(root, settings, published)
    check_fit(settings, shape, published.manifest["tokenizer"]["n_vocab"], f"corpus {published.label}")
    run = run or f"{published.manifest['name']}-v{published.manifest['version']}-" + _key(
        {"manifest": published.digest, "model": shape, "settings": settings, **start.get("about", {})})
    folder = _run_folder(root, run)
    about = {"name": published.manifest["name"], "version": published.manifest["version"],
             "manifest_sha256": published.digest}
    config = {"kind": "pretrain", "run": run, "folder": str(folder),
              "corpus": {"folder": published.folder, **about}, "model": asdict(shape),
              "settings": settings.model_dump(mode="json"), **start}
    ledger = {"task": "pretrain", "corpus": about["name"], "version": about["version"], "manifest": published.digest,
              "model_parameters": shape.parameters}
    if summary := _complete(folder, config):
        ranks.settle(root, folder, run, ledger, run_id)
        return summary
    if not (processes and processes.node_rank):         # one machine of several is enough
        verify(published, root.local / "cache" / "verified" / f"{published.digest[:16]}.json")
    return ranks.train(root, folder, "model.train", config, settings, processes or Processes(), ledger, progress,
                       run_id)


def finetune(home: str | Root, base: str, rows: str, run: str | None = None, settings: Finetune | None = None,
             processes: Processes | None = None, progress: Progress | None = None,
             run_id: str | None = None) -> dict:
    """Finetunes run `base` on the instruction rows of file `rows`; otherwise as `pretrain`."""
    settings, root = _resolved(settings or Finetune()), _root(home)
    last, was = _last(root, base)
    shape = ModelConfig(**was["model"])
    if not shape.causal:
        raise UserError(f"run {base!r} is an encoder, which sees the answer that it would learn to write: name the run "
                        "of a decoder, or export it with `gristmill convert` and finetune it for a task elsewhere")
    check_fit(settings, shape, 0, run or base)
    weights = was["files"][checkpoint.WEIGHTS]
    _, digest = instruction_rows(rows)
    source = was.get("base", was)  # a finetuned base keeps naming the corpus at the bottom
    below = {"run": base, "step": was["step"], "weights": weights, "corpus": source["corpus"],
             "settings": source["settings"]}
    run = run or f"{base}-sft-{_key({'base': below, 'rows': digest, 'settings': settings})}"
    folder = _run_folder(root, run)
    config = {"kind": "finetune", "run": run, "folder": str(folder), "rows_sha256": digest,
              "rows": os.path.abspath(rows) if "://" not in rows else rows,
              "tokenizer": str(last.parent.parent / "tokenizer"), "initial": str(last / checkpoint.WEIGHTS),
              "about": {"base": below}, "model": was["model"], "settings": settings.model_dump(mode="json")}
    ledger = {"task": "finetune", "base": weights, "corpus": below["corpus"]["name"],
              "version": below["corpus"]["version"], "manifest": below["corpus"]["manifest_sha256"],
              "model_parameters": shape.parameters}
    if summary := _complete(folder, config):
        ranks.settle(root, folder, run, ledger, run_id)
        return summary
    return ranks.train(root, folder, "model.finetune", config, settings, processes or Processes(), ledger, progress,
                       run_id)


def evaluate(home: str | Root, run: str, settings: Evaluate | None = None, corpus: str | None = None,
             version: int | None = None, processes: Processes | None = None, run_id: str | None = None,
             step: int | None = None, progress: Callable[[str, int, int], None] = lambda part, done, of: None) -> dict:
    """Evaluates the newest checkpoint of `run`, or that of `step`: {"run", "step", "device", "precision", "results":
    [{task, metric, domain, value ...}]}. In one process, on one device.

    The held-out documents are those of the corpus version it was trained on, or of `corpus` where given. `progress` is
    told now and then which part is being measured and how far.
    """
    settings, root, processes = settings or Evaluate(), _root(home), processes or Processes()
    folder = _run_folder(root, run, must_exist=True)
    checkpoint.find(folder / "checkpoints", step)
    held_out = _corpus_of(root, folder, corpus, version) if settings.held_out else None
    work = folder / "evaluate"
    config = {"kind": "evaluate", "run": run, "folder": str(folder), "run_folder": str(folder), "step": step,
              "output": str(folder / "evaluation.json"), "progress": str(work / "progress.json"),
              "corpus_folder": held_out, "settings": settings.model_dump(mode="json")}
    work.mkdir(exist_ok=True)

    def look() -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            progress(*json.loads((work / "progress.json").read_text()))

    with root.lock(f"trainings/{run}/evaluate/lock", f"the evaluation of {run!r}"):
        (work / "progress.json").unlink(missing_ok=True)
        ranks.write(work / "config.json", config)
        ranks.run([sys.executable, "-m", "model.evaluate", str(work / "config.json")], work / "log.txt",
                  work / "error.json", ranks.environment(root, processes, 1), processes.grace, look)
        result = json.loads((folder / "evaluation.json").read_text())
    about = {"step": result["step"], "checkpoint": f"trainings/{run}/checkpoints/{checkpoint.name(result['step'])}"}
    for row in result["results"]:
        record(root, "evaluation", run, {key: row[key] for key in ("task", "metric", "domain", "value")} | about
               | {"n": row.get("questions", row.get("documents"))}, run_id)
    return result


def _corpus_of(root: Root, folder: Path, corpus: str | None, version: int | None) -> str:
    """Folder of the corpus version whose held-out documents tell about a run: its own, or the one asked for."""
    if corpus:
        return corpus_folder(root.uri, corpus, version)
    was = json.loads((folder / "config.json").read_text())
    base = was.get("about", {}).get("base", was)            # what a finetuned run's base was trained on
    of = base["corpus"]
    folders = [f"{root.uri.rstrip('/')}/corpora/{of['name']}/versions/{of['version']:06d}"]
    for path in (root.local / "trainings" / name / "config.json" for name in (was["run"], base["run"])):
        if path.exists():                       # a corpus that was given by its URI
            folders.append(json.loads(path.read_text()).get("corpus", {}).get("folder", folders[0]))
    for folder in folders:
        fs, path = fsspec.core.url_to_fs(f"{folder}/manifest.json")
        if fs.exists(path) and open_corpus(folder).digest == of["manifest_sha256"]:
            return folder
    raise UserError(f"corpus {of['name']} version {of['version']}, which run {was['run']!r} was trained on, is not in "
                    f"{folders[-1]} (gone, or published anew): restore it, name another with the parameter corpus, "
                    "or set held_out to false")


def stream_text(home: str | Root, run: str, prompt: str, max_tokens: int = 200, *, device: str = "auto",
                precision: str = "auto", step: int | None = None, **asked) -> Iterator[str]:
    """Yields pieces of the text that a run puts after `prompt`, in this process, up to end-of-text.

    `step`: by an older checkpoint than the newest. `asked`: temperature, top_k, top_p, seed, stop, and chat: answer the
    prompt, as finetuned runs do by default.
    """
    from model import generate  # PyTorch is loaded by this alone

    parts = generate.load_run(_run_folder(_root(home), run, must_exist=True), device, precision, step)
    yield from generate.stream_text(*parts[:2], prompt, max_tokens, **_asked(parts[2], asked))


def several_texts(home: str | Root, run: str, prompt: str, number: int, max_tokens: int = 200, *, device: str = "auto",
                  precision: str = "auto", step: int | None = None, **asked) -> list[str]:
    """`number` texts at once, of which stream_text gives the first."""
    from model import generate

    parts = generate.load_run(_run_folder(_root(home), run, must_exist=True), device, precision, step)
    return generate.several(*parts[:2], prompt, number, max_tokens, **_asked(parts[2], asked))


def _asked(about: dict, asked: dict) -> dict:
    return asked | ({"chat": about["kind"] == "finetune"} if asked.get("chat") is None else {})


def convert(home: str | Root, run: str, to: str | None = None, output: str | Path | None = None,
            source: str | None = None, dtype: str | None = None, step: int | None = None) -> dict:
    """Exports `run` (its newest checkpoint, or that of `step`) to the folder `output` in the form `to` (huggingface or
    gguf) and in `dtype` (f32, f16 or bf16; None: f32), or makes a run of the model `source` (a transformers folder, or
    OWNER/NAME@COMMIT of Hugging Face's hub)."""
    root = _root(home)
    if (source is None) == (to is None):
        raise UserError("say either --to (huggingface or gguf) and --output, or --from")
    if source is not None:
        for name, given in (("--output", output), ("--dtype", dtype), ("--step", step)):
            if given is not None:
                raise UserError(f"{name} is for exports: what --from names becomes run {run!r}, in fp32; leave it out")
        return import_run(root, run, _run_folder(root, run), source)
    dtype = dtype or "f32"
    if output is None or to not in ("huggingface", "gguf"):
        raise UserError("--to is huggingface or gguf, and --output names a folder")
    if dtype not in ("f32", "f16", "bf16"):
        raise UserError(f"--dtype {dtype!r}: there are f32, f16 and bf16")
    return export_run(_run_folder(root, run, must_exist=True), to, Path(output), dtype, step)


def runs(home: str | Root) -> list[dict]:
    """The runs under HOME/trainings: run, kind, complete, step, and the summary's figures where there are any."""
    found = []
    for path in sorted((_root(home).local / "trainings").glob("*/config.json")):
        config = json.loads(path.read_text())
        summary = path.parent / SUMMARY
        done = json.loads(summary.read_text()) if summary.exists() else {}
        last = checkpoint.latest(path.parent / "checkpoints")
        found.append({"run": config["run"], "kind": config["kind"], "complete": bool(done),
                      "step": checkpoint.step(last) if last else 0, **done})
    return found


def _complete(folder: Path, config: dict) -> dict | None:
    """The summary when the run in `folder` is complete under these settings; UserError when it has others."""
    if not (folder / "config.json").exists():
        return None
    before = json.loads((folder / "config.json").read_text())
    last = checkpoint.latest(folder / "checkpoints")
    taken = checkpoint.step(last) if last else 0
    for part in ("kind", "corpus", "rows_sha256", "about", "model", "settings"):
        if differ := differing(part, config["kind"], before.get(part), config.get(part), taken):
            hint = "; its schedule may change where the steps taken keep their learning rates" \
                if SCHEDULE & differ.keys() else ""
            raise UserError(
                f"run {folder.name!r} exists with other settings ({part}: {', '.join(differ)}): name another "
                f"run, or remove {folder}{hint}"
            )
    if not (folder / SUMMARY).exists() or config["settings"]["steps"] > taken:
        return None
    log.info("run %s is complete: skipped", folder.name)
    return json.loads((folder / SUMMARY).read_text()) | {"skipped": True, "folder": str(folder)}


def _last(root: Root, run: str) -> tuple[Path, dict]:
    return checkpoint.opened(_run_folder(root, run, must_exist=True) / "checkpoints", None, lambda *found: found)


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


def _resolved(settings: Optimisation) -> Optimisation:
    """`settings.deepspeed` as keys where it names a JSON file: a run is told apart by content, not by a path."""
    if not isinstance(settings.deepspeed, str):
        return settings
    try:
        return settings.model_copy(update={"deepspeed": json.loads(Path(settings.deepspeed).read_text())})
    except (OSError, ValueError) as error:
        raise UserError(f"setting deepspeed: {settings.deepspeed} is no readable JSON file ({type(error).__name__}); "
                        "see infra/deepspeed") from None


def _key(identity: dict) -> str:
    """A digest of what decides a run: neither settings that are free to change nor what is as by default, so that the
    same command goes on under a version that has more settings."""
    def plain(value):
        if isinstance(value, ModelConfig):
            default = asdict(ModelConfig())
            return {name: each for name, each in asdict(value).items() if each != default[name]}
        return value.model_dump(mode="json", exclude_defaults=True, exclude=FREE)

    return sha256(json.dumps(identity, sort_keys=True, default=plain).encode()).hexdigest()[:8]

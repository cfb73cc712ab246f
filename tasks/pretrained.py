"""Models from elsewhere and for elsewhere: what a training starts from, runs imported and runs exported.

PyTorch is loaded by importing and exporting alone.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import tiktoken

from model import checkpoint, hf_tokenizer, hub
from model.config import ModelConfig, model_config
from model.corpus import Corpus
from model.families import read_folder
from model.settings import Pretrain
from model.verdict import SUMMARY
from tasks import tokenizer
from tasks.errors import UserError
from tasks.ledger import record
from tasks.storage import Root

UNKNOWN = {"name": "unknown", "version": 0, "manifest_sha256": ""}     # what an imported model was trained on


def shape_and_start(root: Root, settings: Pretrain, corpus: Corpus) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape of the model to train on `corpus`, and what a run's configuration says of where it starts.

    From nothing it is the preset's, with as many rows as the corpus's tokenizer needs; from pretrained weights it is
    theirs. UserError when those know other tokens than the corpus has.
    """
    n_vocab = corpus.manifest["tokenizer"]["n_vocab"]
    if not settings.initial:
        encoder = not model_config(settings.preset, **settings.model).causal
        return model_config(settings.preset, **{"vocab_size": _rows(n_vocab, encoder)} | settings.model), {}
    folder = hub.locate(settings.initial, root.local / "cache" / "models")
    theirs, _ = read_folder(folder)
    known, ours = read_tokenizer(folder), tokenizer.load(f"{corpus.folder}/tokenizer")
    theirs_ours = [(one._mergeable_ranks, one.eot_token, tokenizer.begin(one)) for one in (known, ours)]
    if theirs_ours[0] != theirs_ours[1]:
        raise UserError(f"setting initial: {settings.initial} knows other tokens than corpus {corpus.label} is made "
                        "of: import it with `gristmill convert RUN --from ...` and build the corpus with "
                        "tokenize.tokenizer = the folder trainings/RUN/tokenizer")
    rows = max(theirs.vocab_size, _rows(n_vocab, not theirs.causal))
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    for name in set(settings.model) - fields:
        raise UserError(f"setting model.{name}: no such field; a model has {', '.join(sorted(fields))}")
    shape = dataclasses.replace(theirs, **{"vocab_size": rows} | settings.model)
    about = {"source": settings.initial, "sha256": hub.weights_digest(folder)}
    return shape, {"initial": str(folder), "about": {"initial": about}}


def _rows(n_vocab: int, encoder: bool) -> int:
    """Rows beyond the tokenizer's are never targets, and a multiple of 64 suits the matrix units of GPUs; an encoder's
    mask token is the first of them."""
    return -(-(n_vocab + encoder) // 64) * 64


def read_tokenizer(folder: Path) -> tiktoken.Encoding:
    """The tokenizer of a transformers folder in our form."""
    path = folder / "tokenizer.json"
    try:
        content = path.read_bytes()
    except OSError:
        raise UserError(f"{path}: cannot be read, so which tokens the model knows cannot be told; save its tokenizer "
                        "there too") from None
    return hf_tokenizer.from_file(content, folder.name, str(path))


def import_run(root: Root, run: str, folder: Path, source: str) -> dict[str, Any]:
    """Makes the transformers model `source` (a folder or a model on the hub) the run in `folder`, as of step 0.

    The run can be finetuned, evaluated, sampled from and exported like any other. UserError when it exists.
    """
    from model import convert

    if (folder / "config.json").exists():
        raise UserError(f"run {run!r} exists: name another, or remove {folder}")
    found = hub.locate(source, root.local / "cache" / "models")
    encoding = read_tokenizer(found)
    config, weights = convert.load_pretrained(found)
    config = dataclasses.replace(config, vocab_size=max(
        config.vocab_size, _rows(encoding.n_vocab, not config.causal) if encoding.n_vocab > config.vocab_size else 0))
    tokenizer.save(encoding, str(folder / "tokenizer"))
    about = {"run": run, "kind": "import", "model": dataclasses.asdict(config), "settings": {}, "corpus": UNKNOWN,
             "initial": {"source": source, "sha256": hub.weights_digest(found)}}
    (folder / "checkpoints").mkdir(exist_ok=True)
    temporary = checkpoint.begin(folder / "checkpoints", 0)
    convert.save_weights(temporary / checkpoint.WEIGHTS, convert.grow(weights, config.vocab_size), config)
    last = checkpoint.commit(temporary, about | {"step": 0, "samples": 0, "tokens": 0, "seconds": 0.0,
                                                 "energy_joules": 0.0, "engine": "torch", "zero_stage": 0,
                                                 "world_size": 1})
    summary = about | {"complete": True, "step": 0, "tokens": 0, "parameters": config.parameters,
                       "checkpoint": str(last.relative_to(folder))}
    root.write_bytes(f"trainings/{run}/{SUMMARY}", json.dumps(summary, indent=1, sort_keys=True).encode())
    root.write_bytes(f"trainings/{run}/config.json", json.dumps(about | {"folder": str(folder)}, indent=1,
                                                                sort_keys=True).encode())
    record(root, "checkpoint", run, {
        "step": 0, "path": str(last.relative_to(root.local)), "sha256": hub.sha256_of(last / checkpoint.WEIGHTS),
        "tokens": 0, "samples": 0, "bytes": sum(path.stat().st_size for path in last.rglob("*") if path.is_file())})
    return {"run": run, "source": source, "parameters": config.parameters, "folder": str(folder)}


def export_run(folder: Path, to: str, output: Path, dtype: str = "f32", step: int | None = None) -> dict[str, Any]:
    """Writes the newest checkpoint of the run in `folder`, or that of `step`, for others, whole or not at all.

    huggingface: `output` becomes a folder that transformers' AutoModel and AutoTokenizer read. gguf: `output` gets
    RUN.gguf, which llama.cpp reads. UserError when that exists already.
    """
    from model import convert, gguf_file
    from model.generate import load_run

    target = output / f"{folder.name}.gguf" if to == "gguf" else output
    if target.is_file() or target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: exists already; name another --output, or remove it")
    model, ours, about = load_run(folder, "cpu", step=step, encoders=True)
    if to == "gguf":
        output.mkdir(parents=True, exist_ok=True)
        gguf_file.write(target, model.state_dict(), model.config, ours, folder.name, dtype, about["kind"] == "finetune")
    else:
        temporary = target.with_name(f".{target.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        convert.save_pretrained(temporary, model.state_dict(), model.config, ours, about["kind"], dtype)
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()                              # it was empty
        os.replace(temporary, target)
    return {"run": about["run"], "step": about["step"], "format": to, "parameters": model.config.parameters,
            "output": str(target)}

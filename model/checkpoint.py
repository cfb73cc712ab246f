"""Checkpoints that are whole or not there.

    checkpoints/step-00000100/
      checkpoint.json      step, samples, tokens, corpus, settings, world size ..., the sha256 of every other file, and
                           that of all this
      model.safetensors    the weights, with the model's configuration in the header
      state/...            optimiser and random state, for any number of ranks to go on from (see model/state)

The folder is written under a temporary name, its files synced and hashed, then renamed.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TypeVar

from tasks.errors import UserError

Loaded = TypeVar("Loaded")

ABOUT, WEIGHTS, STATE = "checkpoint.json", "model.safetensors", "state"
FORMAT = 2                                  # 1 had no sha256 of checkpoint.json itself


def name(step: int) -> str:
    return f"step-{step:08d}"


def step(path: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    return int(path.name.removeprefix("step-"))


def temporary(folder: Path, step: int) -> Path:
    """The folder that holds the files of `step` until they are whole."""
    return folder / f".{name(step)}.partial"


def begin(folder: Path, step: int) -> Path:
    """An empty temporary folder to write the files of `step` into; what crashes left of any step is removed."""
    mend(folder)
    for left in [*folder.glob(".step-*.partial"), *folder.glob(".step-*.removed")]:
        shutil.rmtree(left, ignore_errors=True)
    (temporary(folder, step) / STATE).mkdir(parents=True)
    return temporary(folder, step)


def sync(path: Path) -> str:
    """The sha256 of a file, which is on the disk when it returns."""
    with open(path, "rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest


def commit(temporary: Path, about: dict, known: dict[str, str] | None = None) -> Path:
    """Hashes and syncs the files, writes checkpoint.json last and renames the folder to its name, which it returns.

    `known`: the sha256 of files that others have hashed and synced.
    """
    files = dict(known or {})
    for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
        if (relative := str(path.relative_to(temporary))) not in files:
            files[relative] = sync(path)
    about = json.loads(json.dumps({**about, "format": FORMAT, "files": files}))    # as it will be read
    with open(temporary / ABOUT, "w") as file:
        json.dump(about | {"sha256": _digest(about)}, file, sort_keys=True, indent=1)
        file.flush()
        os.fsync(file.fileno())
    final = temporary.parent / name(about["step"])
    for inner in [path for path in temporary.rglob("*") if path.is_dir()] + [temporary]:
        _sync(inner)
    aside = final.with_name(f".{final.name}.aside")
    if final.exists():                      # the same step written again after a resume: the same content
        os.rename(final, aside)
    os.rename(temporary, final)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
    return final


def mend(folder: Path) -> None:
    """Puts back what a crash in `commit` left aside; for rank 0, before a run looks where to go on from."""
    for aside in folder.glob(".step-*.aside"):
        final = aside.with_name(aside.name.removeprefix(".").removesuffix(".aside"))
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, final)


def _digest(about: dict) -> str:
    return sha256(json.dumps({key: value for key, value in about.items() if key != "sha256"}, sort_keys=True).encode()
                  ).hexdigest()


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None. Folders under a temporary name are not looked at."""
    found = all_whole(folder)
    return found[-1] if found else None


def all_whole(folder: Path) -> list[Path]:
    """Checkpoints in `folder` by step, oldest first. A copy under a name of the user's own is none of the run's."""
    found = (path.parent for path in Path(folder).glob(f"step-*/{ABOUT}"))
    return sorted((path for path in found if re.fullmatch(r"step-\d{8,}", path.name)), key=step)


def find(folder: Path, wanted: int | None = None) -> Path:
    """The newest whole checkpoint in `folder`, or that of step `wanted`; UserError where there is none."""
    found = all_whole(folder)
    if not found:
        raise UserError(f"{folder.parent}: no checkpoint there yet; let the run train to one first, or name another")
    steps = [step(path) for path in found]
    if wanted is not None and wanted not in steps:
        raise UserError(f"{folder}: no checkpoint of step {wanted}; there are {', '.join(map(str, steps))}")
    return found[-1 if wanted is None else steps.index(wanted)]


def opened(folder: Path, wanted: int | None, load: Callable[[Path, dict], Loaded]) -> Loaded:
    """What load(path, checkpoint.json) makes of the newest checkpoint in `folder`, or of that of step
    `wanted`.

    For readers of a run: the weights alone are compared with their sha256. A run that goes on meanwhile may remove
    what is being read: then it is looked for again. UserError as for `find` and `read`.
    """
    while True:
        path = find(folder, wanted)
        try:
            return load(path, read(path, names=[WEIGHTS]))
        except (UserError, FileNotFoundError):
            if path.exists():
                raise


def read(path: Path, rank: int = 0, world: int = 1, names: Sequence[str] = ()) -> dict:
    """checkpoint.json after the sha256 of every file, or of `names` alone, was compared; UserError for one that is
    missing or changed.

    Ranks that read the same checkpoint compare each its share of the files.
    """
    path = Path(path)
    remedy = f"remove {path} to go on from the checkpoint before it"
    try:
        about = json.loads((path / ABOUT).read_text())
        files, format = about["files"], about["format"]
    except FileNotFoundError:
        raise UserError(f"{path}: not a checkpoint (no {ABOUT}); name a folder step-... under checkpoints") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path / ABOUT}: the checkpoint is corrupt; {remedy}") from None
    if format not in range(1, FORMAT + 1):
        raise UserError(f"{path / ABOUT}: the checkpoint has format {format!r} and this version of Gristmill knows "
                        f"those up to {FORMAT}: go on with the version that wrote it")
    if format > 1 and about.pop("sha256", None) != _digest(about) or name(about["step"]) != path.name:
        raise UserError(f"{path / ABOUT}: the checkpoint is corrupt: what it says is not what was written as "
                        f"{path.name}; {remedy}")
    if WEIGHTS not in files:
        raise UserError(f"{path}: the checkpoint lists no {WEIGHTS}, and weights in another form are not read: a "
                        f"pickle (.pt, .bin, .ckpt) can run code when it is opened; {remedy}")
    for relative, expected in [(name, files[name]) for name in names or files][rank::world]:
        try:
            with open(path / relative, "rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise UserError(f"{path / relative}: missing, so the checkpoint is corrupt; {remedy}") from None
        if digest != expected:
            raise UserError(f"{path / relative}: sha256 is not that of {ABOUT}, so the checkpoint is corrupt; {remedy}")
    return about


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints; 0 keeps all."""
    for path in all_whole(folder)[:-keep] if keep else []:
        doomed = path.with_name(f".{path.name}.removed")
        os.rename(path, doomed)             # gone at once: never a half-removed one under its name
        shutil.rmtree(doomed, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

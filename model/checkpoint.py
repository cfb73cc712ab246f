"""Checkpoints that are whole or not there.

    checkpoints/step-00000100/
      checkpoint.json      step, samples, tokens, corpus, settings, world size ... and the sha256 of every other file
      model.safetensors    the weights, with the model's configuration in the header
      state/...            optimiser and random state, for any number of ranks to go on from (see model/state)

The folder is written under a temporary name, its files synced and hashed, then renamed.
"""

import json
import os
import shutil
from hashlib import file_digest
from pathlib import Path

from tasks.errors import UserError

ABOUT, WEIGHTS, STATE = "checkpoint.json", "model.safetensors", "state"


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
    with open(temporary / ABOUT, "w") as file:
        json.dump({"format": 1, **about, "files": files}, file, sort_keys=True, indent=1)
        file.flush()
        os.fsync(file.fileno())
    final = temporary.parent / name(about["step"])
    for inner in [path for path in temporary.rglob("*") if path.is_dir()] + [temporary]:
        _sync(inner)
    if final.exists():                      # the same step written again after a resume: the same content
        shutil.rmtree(final)
    os.rename(temporary, final)
    _sync(final.parent)
    return final


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None. Folders under a temporary name are not looked at."""
    found = all_whole(folder)
    return found[-1] if found else None


def all_whole(folder: Path) -> list[Path]:
    """Checkpoints in `folder` by step, oldest first."""
    return sorted(path.parent for path in Path(folder).glob(f"step-*/{ABOUT}"))


def read(path: Path, rank: int = 0, world: int = 1) -> dict:
    """checkpoint.json after the sha256 of every file was compared; UserError for one that is missing or changed.

    Ranks that read the same checkpoint compare each its share of the files.
    """
    path = Path(path)
    remedy = f"remove {path} to go on from the checkpoint before it"
    try:
        about = json.loads((path / ABOUT).read_text())
        files = about["files"]
    except FileNotFoundError:
        raise UserError(f"{path}: not a checkpoint (no {ABOUT}); name a folder step-... under checkpoints") from None
    except (ValueError, KeyError):
        raise UserError(f"{path / ABOUT}: the checkpoint is corrupt; {remedy}") from None
    if WEIGHTS not in files:
        raise UserError(f"{path}: the checkpoint lists no {WEIGHTS}, and weights in another form are not read: a "
                        f"pickle (.pt, .bin, .ckpt) can run code when it is opened; {remedy}")
    for relative, expected in list(files.items())[rank::world]:
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

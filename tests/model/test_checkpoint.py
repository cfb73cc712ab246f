"""Checkpoints as folders: what counts as one, what is noticed of a change, and what a crash anywhere leaves."""

import json
import os
import shutil

import pytest

from model import checkpoint
from tasks.errors import UserError


def write(folder, step: int, content: bytes = b"weights"):
    temporary = checkpoint.begin(folder, step)
    (temporary / checkpoint.WEIGHTS).write_bytes(content)
    return checkpoint.commit(temporary, {"step": step, "tokens": 10 * step, "loss": float("nan")})


def test_a_copy_under_another_name_is_none_of_the_runs(tmp_path):
    for step in (8, 99_999_999, 100_000_000):
        last = write(tmp_path, step)
    for name in (f"{last.name}.bak", "step-9", "step-new"):
        shutil.copytree(last, tmp_path / name)
    assert [checkpoint.step(path) for path in checkpoint.all_whole(tmp_path)] == [8, 99_999_999, 100_000_000]
    checkpoint.prune(tmp_path, 1)
    assert checkpoint.latest(tmp_path) == last and (tmp_path / f"{last.name}.bak" / checkpoint.ABOUT).exists()


@pytest.mark.parametrize("change", [
    lambda about: about | {"tokens": 999}, lambda about: about | {"step": 3}, lambda about: {**about, "new": 1},
    lambda about: {key: value for key, value in about.items() if key != "sha256"}, lambda about: [],
    lambda about: None, lambda about: {}])
def test_a_change_in_what_a_checkpoint_says_is_noticed(tmp_path, change):
    path = write(tmp_path, 2)
    assert checkpoint.read(path)["tokens"] == 20 and "sha256" not in checkpoint.read(path)
    about = json.loads((path / checkpoint.ABOUT).read_text())
    (path / checkpoint.ABOUT).write_text(json.dumps(change(about)))
    with pytest.raises(UserError, match="the checkpoint is corrupt.*remove .*step-00000002 to go on"):
        checkpoint.read(path)


def test_the_name_and_the_format_have_to_fit(tmp_path):
    path = write(tmp_path, 2)
    moved = path.rename(path.with_name(checkpoint.name(4)))
    with pytest.raises(UserError, match="what it says is not what was written as step-00000004"):
        checkpoint.read(moved)
    about = json.loads((moved / checkpoint.ABOUT).read_text())
    (moved / checkpoint.ABOUT).write_text(json.dumps(about | {"format": 3}))
    with pytest.raises(UserError, match="has format 3 and this version of Gristmill knows those up to 2"):
        checkpoint.read(moved)
    del about["sha256"]                         # as those before there was one
    (moved / checkpoint.ABOUT).write_text(json.dumps(about | {"format": 1, "step": 4}))
    assert checkpoint.read(moved)["step"] == 4


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(30))
def test_killed_anywhere_a_whole_checkpoint_is_left(tmp_path, monkeypatch, at):
    """Step 2 is there. Step 4 is written, written again, and older ones removed, until the `at`th call that changes
    the disk; nothing behind that is done."""
    write(tmp_path, 2)
    calls = []

    def killing(plain):
        def call(*arguments, **options):
            calls.append(plain)
            if len(calls) > at:
                raise Killed
            return plain(*arguments, **options)
        return call

    with monkeypatch.context() as patch:
        for module, name in ((os, "rename"), (os, "fsync"), (os, "unlink"), (os, "rmdir"), (os, "mkdir")):
            patch.setattr(module, name, killing(getattr(module, name)))
        try:
            write(tmp_path, 4)
            write(tmp_path, 4)
            checkpoint.prune(tmp_path, 1)
        except Killed:
            pass
    known = checkpoint.latest(tmp_path)         # for those who read only
    assert known and checkpoint.read(known)
    checkpoint.mend(tmp_path)
    last = checkpoint.latest(tmp_path)
    assert last and checkpoint.read(last)["step"] in (2, 4)
    if at == 29:
        assert len(calls) > 20 and checkpoint.step(last) == 4
    assert checkpoint.read(write(tmp_path, 6)) and not [path for path in tmp_path.iterdir() if path.name[0] == "."]

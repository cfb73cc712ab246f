"""Checkpoints written while the training goes on."""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from trainings import configure, losses, run

from model import checkpoint, saver
from tasks.errors import UserError

PROJECT = Path(__file__).parents[2]
KILLED = """
import json, os, signal, sys
from model import checkpoint, saver, train

plain, steps = saver.save_weights, []

def save_weights(path, *rest):
    plain(path, *rest)
    if "00000004" in str(path):
        with open(path, "r+b") as file:
            file.truncate(99)
        os.kill(os.getpid(), signal.SIGKILL)

saver.save_weights = save_weights
train.main(json.load(open(sys.argv[1])))
"""


def test_in_the_background_or_not_it_is_the_same(mill, tmp_path):
    for name, background in (("one", True), ("other", False)):
        run(configure(mill, tmp_path / name, background_checkpoints=background, keep_checkpoints=0))
    for step in (2, 4, 6):
        one, other = (checkpoint.read(tmp_path / name / "checkpoints" / checkpoint.name(step))
                      for name in ("one", "other"))
        assert one["files"] == other["files"]


def test_training_goes_on_while_one_is_written_and_one_at_a_time_is(mill, tmp_path, monkeypatch):
    """The first checkpoint (of step 2) is held up until the second is about to be taken."""
    plain, wait, going, seen = saver.save_weights, saver.Saver.wait, threading.Event(), []

    def save_weights(path, *rest):
        assert going.wait(30)
        plain(path, *rest)

    def waiting(self):
        if self.running is not None and not going.is_set():
            seen.append(len(losses(self.folder.parent)))
            going.set()
        wait(self)

    monkeypatch.setattr(saver, "save_weights", save_weights)
    monkeypatch.setattr(saver.Saver, "wait", waiting)
    run(configure(mill, tmp_path / "run", keep_checkpoints=0))
    assert seen == [4]
    assert [checkpoint.step(path) for path in checkpoint.all_whole(tmp_path / "run" / "checkpoints")] == [2, 4, 6]


def test_what_goes_wrong_in_the_background_ends_the_run_at_the_next_step(mill, tmp_path, monkeypatch):
    failed, look = threading.Event(), saver.Saver.look

    def save_weights(*_):
        failed.set()
        raise OSError(28, "No space left on device")

    def looking(self):
        if self.running is not None:
            failed.wait(30)
            while not self.running.done():
                pass
        look(self)

    monkeypatch.setattr(saver, "save_weights", save_weights)
    monkeypatch.setattr(saver.Saver, "look", looking)
    with pytest.raises(OSError, match="No space left"):
        run(configure(mill, tmp_path / "run"))
    assert len(losses(tmp_path / "run")) == 2 and checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_a_mistake_that_ends_the_run_leaves_the_checkpoint_under_way(mill, tmp_path, monkeypatch):
    monkeypatch.setattr("model.train.complaint", lambda loss, recent, _: "the loss is nan" if len(
        losses(tmp_path / "run")) == 4 else "")
    with pytest.raises(UserError, match="the loss is nan at step 5"):
        run(configure(mill, tmp_path / "run"))
    assert checkpoint.step(checkpoint.latest(tmp_path / "run" / "checkpoints")) == 4


def test_killed_in_the_midst_the_checkpoint_before_it_is_gone_on_from(mill, tmp_path):
    run(configure(mill, tmp_path / "whole"))
    folder = tmp_path / "run"
    config = configure(mill, folder)
    child = subprocess.run([sys.executable, "-c", KILLED, str(folder / "config.json")], cwd=PROJECT,
                           capture_output=True)
    assert child.returncode == -signal.SIGKILL
    assert checkpoint.read(checkpoint.latest(folder / "checkpoints"))["step"] == 2
    left = folder / "checkpoints" / ".step-00000004.partial"
    assert left.exists()
    shutil.copytree(left, left.with_name(".step-00000005.partial"))     # of a step that does not come again
    run(config)
    assert losses(folder) == losses(tmp_path / "whole")
    ends = [checkpoint.read(checkpoint.latest(path / "checkpoints"))["files"] for path in (folder, tmp_path / "whole")]
    assert ends[0] == ends[1] and not list((folder / "checkpoints").glob(".*"))

"""What every process of a run does around its work: read the configuration, die with the launcher, report mistakes."""

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from model import verdict
from model.memory import ROOM
from tasks.errors import UserError

STOPPED = 143                               # exit status after SIGTERM, as a shell reports it


def run_main(work: Callable[[dict], object], room: str = ROOM) -> None:
    """Runs work(config) on the configuration file named in argv; exits 2 on a UserError and where the GPU's memory or
    the disk is full, 143 when work returns None. `room`: what gives the GPU's memory room.

    The message of a UserError, or that the run was stopped, goes into error.json beside it, where tasks/launch looks.
    """
    _die_with_parent()
    if len(sys.argv) < 2:
        print(f"usage: {sys.argv[0]} CONFIG.json", file=sys.stderr)
        sys.exit(2)
    path = Path(sys.argv[-1])
    _started_again(verdict.place(path))
    try:
        config = json.loads(path.read_text())
        result = work(config)
    except (UserError, torch.OutOfMemoryError) as error:
        message = str(error)
        if isinstance(error, torch.OutOfMemoryError):
            traceback.print_exc()
            message = f"the GPU's memory is full: {room}"
        verdict.leave(path, {"message": message})
        print(f"error: {message}", file=sys.stderr, flush=True)
        _leave(2)
    except Exception as error:
        traceback.print_exc()
        if _disk_full(error, path.parent):
            for half in [*path.parent.glob("*.partial"), *path.parent.glob("checkpoints/*.partial")]:
                shutil.rmtree(half, ignore_errors=True)                         # makes room for the next line
                with contextlib.suppress(OSError):
                    half.unlink()                                               # a file; other ranks do this too
            verdict.leave(path, {"message": (
                f"the disk is full: {path.parent} could not be written ({str(error) or type(error).__name__}); free "
                "some space, raise the quota or lower keep_checkpoints, and launch the same run again: it goes on from "
                "its last checkpoint")})
            _leave(2)
        _leave(1)
    if result is None:
        verdict.leave(path, {"stopped": True})
        _leave(STOPPED)
    _leave(0)


def _started_again(error: Path) -> None:
    """What a rank said before torchrun started it again: a mistake of the user is still one, a stop is over."""
    about = verdict.read(error)
    if "message" in about and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        _leave(2)
    if "stopped" in about and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        error.unlink(missing_ok=True)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _disk_full(error: BaseException, folder: Path) -> bool:
    """Whether that is why `error` was raised.

    safetensors tells the number in its text alone, and PyTorch says "unexpected pos": so the disk itself is asked too.
    """
    told = re.search(r"os error (\d+)", str(error))
    return (getattr(error, "errno", None) in FULL or told is not None and int(told[1]) in FULL
            or shutil.disk_usage(folder).free < 1 << 20)


def _leave(status: int) -> None:
    """Ends at once: the teardown of process groups can wait for ranks that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _die_with_parent() -> None:
    """SIGKILL when the parent dies (Linux): torchrun gives ranks sessions that no signal to its group reaches."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)              # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return                                                  # not Linux: the launcher kills what it finds
    launcher = os.environ.get("GRISTMILL_LAUNCHER")
    try:
        if launcher:
            os.kill(int(launcher), 0)                           # it may be gone since before this line
    except ProcessLookupError:
        sys.exit(1)

"""What every process of a run does around its work: read the configuration, die with the launcher, report mistakes."""

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tasks.errors import UserError

STOPPED = 143                               # exit status after SIGTERM, as a shell reports it


def run_main(work: Callable[[dict], object]) -> None:
    """Runs work(config) on the configuration file named in argv; exits 2 on a UserError, 143 when work returns None.

    The message of a UserError, or that the run was stopped, goes into error.json beside it, where tasks/launch looks.
    """
    _die_with_parent()
    if len(sys.argv) < 2:
        print(f"usage: {sys.argv[0]} CONFIG.json", file=sys.stderr)
        sys.exit(2)
    path = Path(sys.argv[-1])
    rank = int(os.environ.get("RANK", "0"))
    try:
        config = json.loads(path.read_text())
        result = work(config)
    except UserError as error:
        (path.parent / "error.json").write_text(json.dumps({"message": str(error)}))
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(2)
    except Exception:
        traceback.print_exc()
        _leave(1)
    if result is None and rank == 0:
        (path.parent / "error.json").write_text(json.dumps({"stopped": True}))
        _leave(STOPPED)
    _leave(0)


def _leave(status: int) -> None:
    """Ends at once: the teardown of process groups can wait for ranks that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _die_with_parent() -> None:
    """SIGKILL when the parent dies (Linux): torchrun gives ranks sessions that no signal to its group reaches."""
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)              # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return                                                  # not Linux: the launcher kills what it finds
    if os.getppid() != parent:
        sys.exit(1)

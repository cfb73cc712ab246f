"""Runs a command as a process group of its own and makes sure that nothing of it is left, whoever dies first."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

log = logging.getLogger("gristmill.launch")

# Becomes the command, with SIGKILL as the parent's last will (prctl(2), PR_SET_PDEATHSIG, survives exec): no handler
# of ours runs after kill -9. A function between fork and exec would do it too, but may deadlock beside threads.
TIED = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9)
except (OSError, AttributeError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def run(arguments: list[str], log_file: Path, environment: dict[str, str], grace: float,
        look: Callable[[], None] = lambda: None) -> int:
    """Runs a command to its end and returns its exit status; its output goes to `log_file` and the logger.

    `look` is called every second. Whatever is raised while waiting (Ctrl-C, a cancelled flow, SIGTERM) ends the
    command first: SIGTERM, then SIGKILL to what is left after `grace` seconds. The command is killed when this
    thread or process dies without doing so (Linux).
    """
    family: dict[int, psutil.Process] = {}
    with _sigterm_as_exception(), open(log_file, "ab") as out:
        tied = [sys.executable, "-I", "-S", "-c", TIED, str(os.getpid()), *arguments]
        child = subprocess.Popen(tied, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                                 stdin=subprocess.DEVNULL, start_new_session=True)
        reader = threading.Thread(target=_stream, args=(child.stdout, out), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    return child.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    _meet(child, family)
                    look()
        except BaseException:
            _meet(child, family)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            psutil.wait_procs(list(family.values()), timeout=grace)
            raise
        finally:
            for process in family.values():     # also those whose launcher died before them
                with contextlib.suppress(psutil.Error):
                    process.kill()
            child.wait()
            reader.join(timeout=10)


def _meet(child: subprocess.Popen, family: dict[int, psutil.Process]) -> None:
    """Remembers the descendants: torchrun gives ranks sessions of their own, and a dead parent lists no children."""
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(child.pid)
        family |= {process.pid: process for process in [parent, *parent.children(recursive=True)]}


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """SIGTERM raises SystemExit(143) meanwhile, unless somebody (Prefect) already turns it into an exception."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(signum, frame):
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stream(pipe, out) -> None:
    """Copies the command's output until it ends: a pipe that nobody empties would stop the command."""
    for line in pipe:
        with contextlib.suppress(OSError, ValueError):      # a full disk: the command fails by itself
            out.write(line)
            out.flush()
        log.info("%s", line.decode(errors="replace").rstrip())

"""Stands between a process that launches and what it launched, and leaves nothing of that behind, whoever dies first.

    python guardian.py PARENT GRACE WHOM LOG COMMAND...

Asked by SIGTERM it passes that on, gives all below GRACE seconds to save, and kills what is left then. The death of the
process PARENT, by kill -9 too, is such a SIGTERM (prctl(2), PR_SET_PDEATHSIG): no handler of the parent runs then.
What loses its parent below, or goes into a session of its own as torchrun's ranks do, is still found
(PR_SET_CHILD_SUBREAPER). The command itself is killed when the guardian is. Output goes to LOG, and on to the parent
while there is one: ranks that save must not stumble over a pipe that nobody reads.

WHOM: `command`, or `below` for the processes that it started: DeepSpeed's launcher gives them 30 seconds, whatever it
is told, and ends when they do.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import psutil

PDEATHSIG, CHILD_SUBREAPER = 1, 36


class _Asked(Exception):
    pass


def main(parent: str, grace: str, whom: str, log: str, *command: str) -> int:
    """Runs the command to its end; returns its exit status, as a shell reports it."""
    def ask(signum, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)           # once is enough
        raise _Asked

    _prctl(CHILD_SUBREAPER, 1)
    status = 128 + signal.SIGTERM
    try:
        signal.signal(signal.SIGTERM, ask)
        _prctl(PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            return 1                            # it died before the line above
        file = open(log, "ab")
        # single-threaded yet, so that a function between fork and exec does no harm
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                 preexec_fn=lambda: _prctl(PDEATHSIG, signal.SIGKILL))  # noqa: PLW1509
        reader = threading.Thread(target=_copy, args=(child.stdout, file), daemon=True)
        reader.start()
        status = child.wait()
    except _Asked:
        family, top, below = psutil.Process().children(recursive=True), psutil.Process().children(), []
        for process in top:
            with contextlib.suppress(psutil.Error):             # it ended meanwhile: the others save all the same
                below += process.children()
        for process in below if whom == "below" and below else top:
            _signal(process, psutil.Process.terminate)
        psutil.wait_procs(family, timeout=float(grace))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(10):                     # one that is killed may just have started another
            if not (left := psutil.Process().children(recursive=True)):
                break
            for process in left:
                _signal(process, psutil.Process.kill)
            psutil.wait_procs(left, timeout=1.0)
        with contextlib.suppress(NameError):
            reader.join(timeout=5.0)
    return status if status >= 0 else 128 - status


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):          # not Linux
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _signal(process: psutil.Process, send) -> None:
    with contextlib.suppress(psutil.Error):
        send(process)


def _copy(pipe, file) -> None:
    """Empties the command's output until it ends: a pipe that nobody empties would stop the command."""
    for line in pipe:
        for to in (file, sys.stdout.buffer):
            with contextlib.suppress(OSError, ValueError):      # a full disk, a parent that is gone
                to.write(line)
                to.flush()


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))               # no last flush, which a parent that is gone would turn into an error

"""Runs a command for as long as somebody wants it, and leaves nothing of it behind.

    python -m flows.supervise LOCK LOG COMMAND...

Who wants the command alive holds a shared flock on LOCK. Locks end with their holder, however it died, so
neither `kill -9` nor a lost terminal leaves a server or a worker running. The supervisor is a "subreaper"
(prctl(2)): descendants that lost their parent, or moved to a session of their own, still count as its
children, and all of them are ended with the command.

SIGTERM stops the command at once, in this order: flow runs first (they end their own pools and trainings and report
their state), then the command, then whatever is left. LOCK and LOG may be `-`: wanted until SIGTERM, and this process's
own output. So a container runs Prefect's worker, which does not pass SIGTERM on to its flow runs.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

import psutil

POLL = 0.2            # seconds between looks at the command and the lock
FLOW_GRACE = 75.0     # seconds a flow run gets: a training writes its last checkpoint (see processes.grace)
COMMAND_GRACE = 10.0  # seconds the command gets after that
REST_GRACE = 3.0      # seconds before SIGKILL for everything else
PR_SET_CHILD_SUBREAPER = 36


def main(lock: str, log: str, *command: str) -> int:
    """Runs `command` with its output appended to `log`; returns its exit status, or 0 when asked to stop."""
    # A shell starts background jobs with SIGINT ignored, children inherit that, and Prefect's worker stops by SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: asked.append(signum))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    nothing = contextlib.nullcontext()
    with nothing if lock == "-" else open(lock, "a") as wanted, nothing if log == "-" else open(log, "ab") as output:
        child = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output and subprocess.STDOUT)
        try:
            while not asked and child.poll() is None and (wanted is None or _held(wanted)):
                time.sleep(POLL)
                _reap(child)
        finally:
            status = child.poll()
            stop(child)
    return status or 0


def _held(lock) -> bool:
    """Whether anybody holds the lock. If not, it is ours from now to the end of this process: who comes next waits."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _reap(child: psutil.Popen) -> None:
    """Collects orphans that ended; the command itself is left to `child.poll`."""
    for process in psutil.Process().children():
        if process.pid != child.pid and process.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(process.pid, os.WNOHANG)


def stop(child: psutil.Popen) -> None:
    """Ends flow runs, then the command, then all that is left of either.

    The command polls until it ends, so flow runs are looked for until none is left, and once more behind it.
    """
    told: set[psutil.Process] = set()
    deadline = time.monotonic() + FLOW_GRACE
    _end_flow_runs(told, deadline)
    _terminate([child], COMMAND_GRACE)
    _end_flow_runs(told, deadline)
    rest = psutil.Process().children(recursive=True)
    _terminate(rest, REST_GRACE)
    for process in rest:
        _signal(process, psutil.Process.kill)


def _end_flow_runs(told: set[psutil.Process], deadline: float) -> None:
    """Tells every flow run once, those too that begin meanwhile, and returns when all have ended or time is up."""
    while flows := [process for process in psutil.Process().children(recursive=True) if _is_flow_run(process)]:
        for process in flows:
            if process not in told:
                _signal(process, psutil.Process.terminate)
        told.update(flows)
        if time.monotonic() > deadline:
            break
        psutil.wait_procs(flows, timeout=POLL)


def _is_flow_run(process: psutil.Process) -> bool:
    try:
        return any(part in ("prefect.engine", "prefect.flow_engine") for part in process.cmdline())
    except psutil.Error:
        return False


def _terminate(processes: Iterable[psutil.Process], seconds: float) -> None:
    processes = list(processes)
    for process in processes:
        _signal(process, psutil.Process.terminate)
    psutil.wait_procs(processes, timeout=seconds)


def _signal(process: psutil.Process, send) -> None:
    try:
        send(process)
    except psutil.Error:
        pass  # it ended meanwhile


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

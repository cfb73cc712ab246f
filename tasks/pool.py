"""A pool of processes that can be killed: deadlines for a shard and for a single page, a memory limit.

Extractors hang, explode and crash on hostile pages, in C code that no signal handler or timeout in
the same process interrupts. So the work runs in child processes, each says which item it is at
(`attempt`), and the parent kills one that stays too long or grows too large, puts a fresh one in
its place, and reports the item, so that the next attempt at the shard leaves it out.

The children (`tasks.pool_child`) are plain Python processes, not multiprocessing's: nothing of the
parent's main module is imported again, and they may be started from anywhere (a Dask or Ray worker too).
"""

import atexit
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from tasks.errors import UserError
from tasks.pool_child import BEAT, NO_ITEM

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """How long and how large a child may get before it is killed."""

    shard_seconds: float = 3600.0
    item_seconds: float = 30.0
    memory_bytes: int = 4 << 30


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its `value`, or `error` (raised by the function), or `killed` (why) at `item`."""

    index: int
    value: Any = None
    error: BaseException | None = None
    killed: str | None = None  # timeout | memory | crash
    passing: bool = False  # the error is one of reading or writing, and may not come again
    item: int = NO_ITEM


class ShardError(RuntimeError):
    """A function failed in a child: the class of the error and where it arose, never its message."""


@dataclass
class _Child:
    process: subprocess.Popen
    pipe: Connection
    beat: mmap.mmap
    job: int | None = None
    started: float = field(default=0.0)

    def item(self) -> tuple[int, int]:
        return BEAT.unpack(self.beat[: BEAT.size])


class Pool:
    """`workers` child processes. Use `map`; `close` kills them. One thread at a time may use it."""

    def __init__(self, workers: int):
        self.workers = workers
        self._children: list[_Child] = []
        self._lock = threading.Lock()

    def start(self, modules: Sequence[str] = ()) -> None:
        """Starts the children now, so that they import `modules` while the parent does something else."""
        while len(self._children) < self.workers:
            self._children.append(_spawn(modules))

    def map(self, function: Callable, jobs: Sequence[tuple], limits: Limits) -> Iterator[Outcome]:
        """Runs `function(*job)` for each job and yields the outcomes as they come, in any order.

        `function` must be importable by name. A job whose child was killed is not tried again here.
        """
        with self._lock:
            self.start()
            waiting = deque(enumerate(jobs))
            busy: list[_Child] = []
            try:
                while waiting or busy:
                    idle = [c for c in self._children if c.job is None]
                    while waiting and idle:
                        child, (index, job) = idle.pop(), waiting.popleft()
                        child.job, child.started = index, time.monotonic()
                        child.beat[: BEAT.size] = BEAT.pack(NO_ITEM, 0)
                        try:
                            child.pipe.send_bytes(pickle.dumps((function, job), protocol=5))
                        except OSError:  # it died while idle
                            self._replace(child)
                            waiting.appendleft((index, job))
                    busy = [c for c in self._children if c.job is not None]
                    ready = wait([c.pipe for c in busy], timeout=_POLL_SECONDS)
                    for child in busy:
                        outcome = self._collect(child) if child.pipe in ready else self._overrun(child, limits)
                        if outcome is not None:
                            yield outcome
                    busy = [c for c in self._children if c.job is not None]
            finally:
                for child in [c for c in self._children if c.job is not None]:  # the caller stopped early
                    self._replace(child)

    def _collect(self, child: _Child) -> Outcome:
        index, (item, _) = child.job, child.item()
        try:
            # Our own child wrote this, into a pipe that nobody else holds.
            kind, value = pickle.loads(child.pipe.recv_bytes())
        except (EOFError, OSError):
            self._replace(child)
            return Outcome(index, killed="crash", item=item)
        child.job = None
        if kind == "value":
            return Outcome(index, value=value)
        error = UserError(value) if kind == "user" else ShardError(value)
        return Outcome(index, error=error, passing=kind == "passing", item=item)

    def _overrun(self, child: _Child, limits: Limits) -> Outcome | None:
        now, (item, since) = time.monotonic(), child.item()
        if item != NO_ITEM and now - since / 1e9 > limits.item_seconds:
            reason = "timeout"
        elif now - child.started > limits.shard_seconds:
            reason = "timeout"
        elif _resident(child.process.pid) > limits.memory_bytes:
            reason = "memory"
        else:
            return None
        index = child.job
        self._replace(child)
        return Outcome(index, killed=reason, item=item)

    def _replace(self, child: _Child) -> None:
        _kill(child)
        self._children[self._children.index(child)] = _spawn()

    def close(self) -> None:
        while self._children:
            _kill(self._children.pop())


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared_pool(workers: int) -> Pool:
    """The one pool of this process, kept between stages: starting a child and importing takes a second or two."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared.workers != workers:
            if _shared is not None:
                _shared.close()
            _shared = Pool(workers)
        return _shared


@atexit.register
def close_shared_pool() -> None:
    """Kills the children of this process's pool."""
    global _shared
    with _shared_lock:
        if _shared is not None:
            _shared.close()
            _shared = None


def _spawn(modules: Sequence[str] = ()) -> _Child:
    ours, theirs = Pipe()
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        beat = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        single = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # The parent's import path, so that a function it can name is one the child can import.
        path = os.pathsep.join(dict.fromkeys([str(Path(__file__).parent.parent), *filter(None, sys.path)]))
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from tasks.pool_child import main; main()",
                str(theirs.fileno()),
                str(file.fileno()),
                str(os.getpid()),
                *modules,
            ],
            pass_fds=(theirs.fileno(), file.fileno()),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | single | {"PYTHONPATH": path},
        )
    theirs.close()
    return _Child(process, ours, beat)


def _kill(child: _Child) -> None:
    child.process.kill()
    child.process.wait()
    child.pipe.close()
    child.beat.close()


def _resident(pid: int) -> int:
    import psutil  # not for those who only name a stage

    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0

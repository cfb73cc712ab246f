"""The child's side of the pool: takes jobs from a pipe, says which item it is at, answers."""

import importlib
import mmap
import os
import pickle
import struct
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from tasks.errors import UserError

NO_ITEM = -1
BEAT = struct.Struct("<qq")  # the item a child is at, and when it began (ns; the monotonic clock is one for all)

_beat: mmap.mmap | None = None
_poisoned: dict[int, str] = {}


def attempt(item: int) -> str | None:
    """Says that the work on `item` of the current shard begins, before anything dangerous is done with it.

    Returns None, or why (timeout, crash, memory) an earlier attempt at this shard was killed in this
    very item: then leave it out and record that as its fate. Outside a pool it returns None.
    """
    if _beat is not None:
        _beat[: BEAT.size] = BEAT.pack(item, time.monotonic_ns())
    return _poisoned.get(item)


def set_poisoned(items: dict[int, str]) -> None:
    """The items of the shard about to be worked on that earlier attempts died in."""
    _poisoned.clear()
    _poisoned.update(items)


def _without_data(error: BaseException) -> str:
    """Where an error arose, without its message: that may quote the page it arose on."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__} at {where}"


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:  # a parent that was killed cannot say goodbye
        time.sleep(1)
    os._exit(1)


def _work(pipe: Connection) -> None:
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            # Our own parent wrote this, into a pipe that nobody else holds.
            function, job = pickle.loads(message)
            answer = pickle.dumps(("value", function(*job)), protocol=5)
        except UserError as error:
            answer = pickle.dumps(("user", str(error)))
        except OSError as error:  # of a file system or a store: it may pass
            answer = pickle.dumps(("passing", _without_data(error)))
        except BaseException as error:
            answer = pickle.dumps(("error", _without_data(error)))
        _beat[: BEAT.size] = BEAT.pack(NO_ITEM, 0)
        pipe.send_bytes(answer)


def main() -> None:
    """Serves the pipe of file descriptor argv[1] until the parent (process argv[3]) closes it or ends."""
    global _beat
    pipe, beat, parent, *modules = sys.argv[1:]
    _beat = mmap.mmap(int(beat), mmap.PAGESIZE)
    threading.Thread(target=_leave_with, args=(int(parent),), daemon=True).start()
    import pyarrow as pa

    pa.set_cpu_count(1)  # the parallelism is across processes
    pa.set_io_thread_count(1)
    for name in modules:
        importlib.import_module(name)
    _work(Connection(int(pipe)))

"""Runs a command under a guardian and makes sure that nothing of it is left, whoever dies first."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks import guardian

log = logging.getLogger("gristmill.launch")
WAIT = 20.0                                     # seconds that the guardian gets beyond the grace


def run(arguments: list[str], log_file: Path, environment: dict[str, str], grace: float,
        look: Callable[[], None] = lambda: None, held: int | None = None, ask_below: bool = False) -> int:
    """Runs a command to its end and returns its exit status; its output goes to `log_file` and the logger.

    `look` is called every second. Whatever is raised while waiting (Ctrl-C, a cancelled flow, SIGTERM) ends the
    command first: SIGTERM, then SIGKILL to what is left after `grace` seconds. When this thread or process dies without
    doing so the guardian does (Linux), and `held`, the descriptor of a lock, keeps others out until it has.
    `ask_below`: SIGTERM goes to what the command started, not to the command.
    """
    guarded = [sys.executable, "-I", guardian.__file__, str(os.getpid()), str(grace),
               "below" if ask_below else "command", str(log_file), *arguments]
    with _sigterm_as_exception():
        # a session of its own: a signal to this process's group is for this process to pass on
        child = subprocess.Popen(guarded, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                                 stdin=subprocess.DEVNULL, start_new_session=True,
                                 pass_fds=() if held is None else (held,))
        reader = threading.Thread(target=_stream, args=(child.stdout,), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    return child.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    look()
        except BaseException:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=grace + WAIT)
            raise
        finally:
            child.kill()
            child.wait()
            reader.join(timeout=10)


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


def _stream(pipe) -> None:
    """Gives the command's output to the logger until it ends."""
    for line in pipe:
        log.info("%s", line.decode(errors="replace").rstrip())

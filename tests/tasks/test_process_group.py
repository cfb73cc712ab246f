"""Commands that are waited for, and what is left of them when the one who waits dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks import process_group
from tasks.errors import UserError
from tasks.storage import Root

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.parametrize("thread", [False, True])
def test_the_death_of_the_waiting_process_kills_what_it_started(tmp_path, number, status, thread):
    """SIGTERM to a command that waits: its child gets SIGTERM too, and SIGKILL when it will not listen.

    No handler can be set outside the main thread, and none runs after SIGKILL: the guardian ends the child then.
    """
    script = ("import signal, time, pathlib, os; signal.signal(15, signal.SIG_IGN); "
              f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)")
    wait = ("import os, threading; from tasks import process_group; "
            f"run = lambda: process_group.run([{sys.executable!r}, '-c', {script!r}], "
            f"{str(tmp_path / 'log.txt')!r}, dict(os.environ), 0.5); "
            + ("thread = threading.Thread(target=run); thread.start(); thread.join()" if thread else "run()"))
    waiting = subprocess.Popen([sys.executable, "-c", wait], cwd=PROJECT)
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert waiting.poll() is None
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    waiting.send_signal(number)
    assert waiting.wait(timeout=60) == (-number if thread else status)
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_what_the_killed_process_started_saves_first_and_holds_its_lock_meanwhile(tmp_path):
    """kill -9 of the one who waits: the command gets SIGTERM and its grace, may print, and none gets in before."""
    code = f"""
import os, signal, time
from pathlib import Path
def save(*_):
    print("x" * 200_000, flush=True)            # more than a pipe holds: somebody has to read it still
    while not Path({str(tmp_path / 'go')!r}).exists():
        time.sleep(0.01)
    Path({str(tmp_path / 'saved')!r}).touch()
    os._exit(0)
signal.signal(signal.SIGTERM, save)
Path({str(tmp_path / 'ready')!r}).touch()
time.sleep(600)
"""
    wait = ("import os; from tasks import process_group; from tasks.storage import Root\n"
            f"with Root({str(tmp_path)!r}).lock('lock', 'the run') as held:\n"
            f"    process_group.run([{sys.executable!r}, '-c', {code!r}], {str(tmp_path / 'log.txt')!r}, "
            "dict(os.environ), 60.0, held=held)")
    waiting = psutil.Popen([sys.executable, "-c", wait], cwd=PROJECT)
    while not (tmp_path / "ready").exists():
        assert waiting.poll() is None
        time.sleep(0.02)
    below = waiting.children(recursive=True)
    waiting.kill()
    waiting.wait()
    with pytest.raises(UserError, match="the run is locked"), Root(str(tmp_path)).lock("lock", "the run"):
        pass
    (tmp_path / "go").touch()
    assert len(below) == 2 and not psutil.wait_procs(below, timeout=30)[1]
    assert (tmp_path / "saved").exists() and (tmp_path / "log.txt").stat().st_size > 200_000
    with Root(str(tmp_path)).lock("lock", "the run"):
        pass


def test_a_helper_that_vanishes_while_it_is_looked_at_costs_nobody_the_time_to_save(tmp_path):
    """The guardian's list of processes holds one that has ended and was reaped, which answers nothing any more."""
    command = f"""
import os, signal, time
from pathlib import Path
def save(*_):
    Path({str(tmp_path / 'saved')!r}).touch()
    os._exit(0)
signal.signal(signal.SIGTERM, save)
Path({str(tmp_path / 'ready')!r}).touch()
time.sleep(600)
"""
    guarded = """
import os, sys, psutil
from tasks import guardian
gone, children = psutil.Popen(["true"]), psutil.Process.children
gone.wait()
psutil.Process.children = lambda self, recursive=False: (
    children(self, recursive) + [gone] * (self.pid == os.getpid()))
os._exit(guardian.main(*sys.argv[1:]))
"""
    child = subprocess.Popen([sys.executable, "-c", guarded, str(os.getpid()), "60", "below", str(tmp_path / "log.txt"),
                              sys.executable, "-c", command], cwd=PROJECT)
    while not (tmp_path / "ready").exists():
        assert child.poll() is None
        time.sleep(0.02)
    child.terminate()
    assert child.wait(30) == 143 and (tmp_path / "saved").exists()


def test_the_exit_status_and_the_log_are_given(tmp_path):
    status = process_group.run([sys.executable, "-c", "print('said'); raise SystemExit(7)"], tmp_path / "log.txt",
                               dict(os.environ), 1.0)
    assert status == 7 and "said" in (tmp_path / "log.txt").read_text()

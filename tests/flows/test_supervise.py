"""The supervisor leaves nothing behind, however its user ends."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]

# a command that loses a grandchild to a session of its own, as Prefect's worker and training launchers do
COMMAND = """
import subprocess, sys, time
p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
open(sys.argv[1], 'w').write(str(p.pid))
time.sleep(float(sys.argv[2]))
"""


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def supervised(tmp_path):
    """Starts a supervised command; gives (supervisor, lock path, pid of the command's detached child)."""
    started = []

    def start(seconds="600", **options):
        pid_file, lock = tmp_path / "pid", tmp_path / "lock"
        holder = open(lock, "a")
        fcntl.flock(holder, fcntl.LOCK_SH)
        command = [sys.executable, "-m", "flows.supervise", str(lock), str(tmp_path / "log"),
                   sys.executable, "-c", COMMAND, str(pid_file), seconds]  # fmt: skip
        process = subprocess.Popen(command, cwd=PROJECT, start_new_session=True, **options)
        started.append(process)
        pid = int(until(lambda: pid_file.exists() and pid_file.read_text()))
        return process, holder, pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_ends_everything_when_nobody_holds_the_lock(supervised):
    process, holder, grandchild = supervised()
    assert psutil.pid_exists(grandchild)
    holder.close()  # what the kernel does too when the holder is killed
    assert process.wait(30) == 0
    assert not psutil.pid_exists(grandchild)


def test_ends_everything_on_sigterm(supervised):
    process, _, grandchild = supervised()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not psutil.pid_exists(grandchild)


def test_ends_what_is_left_when_the_command_ends(supervised):
    process, _, grandchild = supervised("0.5")
    process.wait(30)
    assert not psutil.pid_exists(grandchild)


def test_stays_while_another_holds_the_lock(supervised):
    process, holder, _ = supervised()
    with open(holder.name, "a") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        holder.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert process.wait(30) == 0


def test_passes_on_the_status_of_a_command_that_fails(tmp_path):
    with open(tmp_path / "lock", "a") as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)
        command = [sys.executable, "-m", "flows.supervise", holder.name, str(tmp_path / "log"),
                   sys.executable, "-c", "print('said'); raise SystemExit(3)"]  # fmt: skip
        assert subprocess.run(command, cwd=PROJECT).returncode == 3
    assert (tmp_path / "log").read_text() == "said\n"


def test_as_the_first_process_of_a_container_it_passes_sigterm_on_to_flow_runs(tmp_path):
    """No lock, no log. Prefect's worker waits for its flow runs and tells them nothing, until all is killed; it starts
    others meanwhile: here the second while the first saves, and the third as its last deed."""
    flow = """
import signal, sys, time
from pathlib import Path
folder, name, after = Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
def save(*_):
    (folder / f"{name} told").touch()
    while not all((folder / each).exists() for each in after):
        time.sleep(0.01)
    print(name, "saved", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, save)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
(folder / name).touch()
if name == "first":
    print("ready", flush=True)
time.sleep(600)
"""
    worker = f"""
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path({str(tmp_path)!r})
def start(*name):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])      # until the flow run listens
    subprocess.Popen([sys.executable, "-c", {flow!r}, "prefect.engine", str(folder), *name])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
def until(name):
    while not (folder / name).exists():
        time.sleep(0.01)
def leave(*_):
    print("worker told", flush=True)
    start("third")
    until("third")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
start("first", "second")
until("first told")
start("second")
time.sleep(600)
"""
    code = ("import sys; from flows import supervise; supervise.REST_GRACE = 0.0; "      # none for what is no flow run
            "sys.exit(supervise.main('-', '-', sys.executable, '-c', sys.argv[1]))")
    process = subprocess.Popen([sys.executable, "-c", code, worker], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(60) == 0
    said = process.stdout.read().splitlines()
    assert {*said[:2]} == {"first saved", "second saved"} and said[2:] == ["worker told", "third saved"]


def test_interrupts_reach_a_command_that_was_started_with_them_ignored(tmp_path):
    """A shell's background jobs ignore SIGINT and pass that on; Prefect's worker stops by SIGINT."""
    script = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    with open(tmp_path / "lock", "a") as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)
        command = [sys.executable, "-m", "flows.supervise", holder.name, str(tmp_path / "log"),
                   sys.executable, "-c", script]  # fmt: skip
        ignoring = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
        subprocess.run(command, cwd=PROJECT, preexec_fn=ignoring, check=True)
    assert (tmp_path / "log").read_text() == "True\n"
    assert os.path.exists(holder.name)

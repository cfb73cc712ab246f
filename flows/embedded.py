"""Prefect for one machine: a server and a worker that live as long as somebody uses them.

    with server(home) as api_url, worker(api_url, home):
        register(api_url, home)
        ...

The server is SQLite under HOME/prefect, bound to 127.0.0.1. One server serves all commands on one HOME: each
holds a shared lock while it uses it, and the last one to leave stops it. Where PREFECT_API_URL is set, that server is
used and none is started.

    python -m flows.embedded            server, deployments and worker until Ctrl-C (`make serve`)
    python -m flows.embedded env        the shell line that points another shell at the server that runs
"""

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from flows.deployments import LOOPBACK, POOL, PROJECT, create_pool, deploy, healthy
from tasks.errors import UserError
from tasks.storage import home_uri

PORT = 4200            # Prefect's own; another one where it is taken
START_SECONDS = 180.0  # a fresh database takes 10 s, on slow and busy machines some times that
STOP_SECONDS = 100.0   # more than the supervisor's own patience

# Own values in the environment win. Leases on disk outlive the server; by heartbeats the automation finds dead runs.
DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
}

def folder(home: str | None = None) -> Path:
    """Where Prefect's own files lie: HOME/prefect, or under the user's cache when HOME is on an object store."""
    uri = home_uri(home)
    if "://" in uri:
        uri = os.path.join(os.path.expanduser("~/.cache/gristmill"), hashlib.sha256(uri.encode()).hexdigest()[:16])
    return Path(uri) / "prefect"


def environment(home: str | None = None, api_url: str | None = None) -> dict[str, str]:
    """The environment for Prefect's processes on `home`; with `api_url`, for those that talk to that server."""
    env = {**DEFAULTS, **os.environ, "GRISTMILL_HOME": home_uri(home)}
    if not os.environ.get("PREFECT_API_URL"):  # a server of one's own keeps its settings, profile and key
        env["PREFECT_HOME"] = str(folder(home))
        env.pop("PREFECT_API_KEY", None)
        env.pop("PREFECT_PROFILE", None)
        for name in ("no_proxy", "NO_PROXY"):
            env[name] = ",".join(filter(None, [env.get(name), LOOPBACK]))
    if api_url:
        env["PREFECT_API_URL"] = api_url
    return env


def running(home: str | None = None) -> str | None:
    """The API URL of the server that runs on `home` and answers, or None."""
    state = _state(folder(home))
    return state["api_url"] if state and healthy(state["api_url"]) else None


@contextlib.contextmanager
def server(home: str | None = None, meanwhile: Callable[[], Any] | None = None) -> Iterator[str]:
    """A Prefect server for `home`, as its API URL; the last one to leave stops it.

    `meanwhile` is called once, while the server starts. Raises UserError when PREFECT_API_URL is set and does not
    answer, or when the server does not start.
    """
    own = os.environ.get("PREFECT_API_URL")
    if own:
        if not healthy(own):
            raise UserError(
                f"no Prefect server answers at PREFECT_API_URL={own}; start it, or unset this to use Gristmill's own"
            )
        if meanwhile:
            meanwhile()
        yield own
        return
    base = folder(home)
    (base / "logs").mkdir(parents=True, exist_ok=True)
    with open(base / "users.lock", "a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a server is being stopped
        try:
            yield _start(home, base, meanwhile or (lambda: None))
        finally:
            _leave(base, users)


def _start(home: str | None, base: Path, meanwhile: Callable[[], Any]) -> str:
    """Starts a server unless one runs, and waits until it answers."""
    with open(base / "start.lock", "a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        state, waited = _state(base), False
        for _ in range(3):  # somebody else may take the port in the seconds before the server binds it
            if not state:
                port = _free_port()
                command = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
                process = _supervise(base / "users.lock", base / "logs" / "server.log", command, environment(home))
                state = {"pid": process.pid, "port": port, "api_url": f"http://{LOOPBACK}:{port}/api"}
                _write(base / "server.json", state)  # before it answers: who leaves early must know what to stop
            if not waited:
                meanwhile()
                waited = True
            if _answers(state):
                return state["api_url"]
            _stop(psutil.Process(state["pid"])) if _state(base) else None
            state = None
    raise UserError(f"the Prefect server did not start; the reason is at the end of {base}/logs/server.log")


def _answers(state: dict[str, Any]) -> bool:
    """Waits for the server of this supervisor, not for another one that may hold the port."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if _listens(psutil.Process(state["pid"]), state["port"]) and healthy(state["api_url"]):
                return True
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.1)
    return False


def _listens(supervisor: psutil.Process, port: int) -> bool:
    if supervisor.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(supervisor.pid)
    with contextlib.suppress(psutil.AccessDenied):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for process in supervisor.children(recursive=True)
            for connection in process.net_connections("tcp")
        )
    return True


def _leave(base: Path, users) -> None:
    """Stops the server if nobody else uses it."""
    fcntl.flock(users, fcntl.LOCK_UN)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if state := _state(base):
        _stop(psutil.Process(state["pid"]))
    (base / "server.json").unlink(missing_ok=True)


@contextlib.contextmanager
def worker(api_url: str, home: str | None = None, pool: str = POOL) -> Iterator[psutil.Popen]:
    """A process worker on `pool` (made if missing), as the process that supervises it.

    It takes a few seconds until it picks up runs; nobody need wait, they queue. Flow runs end with it.
    """
    base = folder(home)
    (base / "logs").mkdir(parents=True, exist_ok=True)
    create_pool(api_url, pool)
    with tempfile.NamedTemporaryFile(dir=base, prefix="worker-", suffix=".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        process = _supervise(Path(lock.name), base / "logs" / "worker.log", command, environment(home, api_url))
        try:
            yield process
        finally:
            _stop(process)


@contextlib.contextmanager
def in_process(home: str | None = None) -> Iterator[str]:
    """For a flow that runs in this process: the server that runs, or one for as long as the block takes.

    Prefect is imported while the server starts, and this process's Prefect settings point at it.
    """
    before = dict(os.environ)
    os.environ.update(environment(home))
    try:
        with server(home, meanwhile=lambda: importlib.import_module("prefect.main")) as api_url:
            from prefect.events.worker import EventsWorker
            from prefect.logging.handlers import APILogHandler
            from prefect.settings import PREFECT_API_URL, temporary_settings

            os.environ["PREFECT_API_URL"] = api_url  # for processes that the flow starts
            with temporary_settings({PREFECT_API_URL: api_url}):
                try:
                    yield api_url
                finally:  # Prefect sends these from the background; they must arrive while there is a server
                    EventsWorker.drain_all(timeout=5)
                    APILogHandler().flush()
    finally:
        os.environ.clear()
        os.environ.update(before)


def register(api_url: str, home: str | None = None, project: Path = PROJECT) -> int:
    """Registers the deployments of `project`/prefect.yaml where they changed; returns how many there are."""
    return deploy(api_url, environment(home, api_url), folder(home), project)


def _supervise(lock: Path, log: Path, command: list[str], env: dict[str, str]) -> psutil.Popen:
    path = os.pathsep.join([str(PROJECT), *filter(None, [env.get("PYTHONPATH")])])
    # a session of its own: Ctrl-C at the terminal goes to us alone, and we stop things in order
    return psutil.Popen([sys.executable, "-m", "flows.supervise", str(lock), str(log), *command], cwd=lock.parent,
                        env={**env, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, start_new_session=True)


def _stop(process: psutil.Process) -> None:
    """Stops what a supervisor runs; waits until all of it is gone."""
    with contextlib.suppress(psutil.Error):
        process.terminate()
        process.wait(STOP_SECONDS)


def _free_port() -> int:
    for port in (PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return probe.getsockname()[1]
    raise UserError(f"no port of {LOOPBACK} is free for the Prefect server")


def _state(base: Path) -> dict[str, Any] | None:
    """What server.json says of a server whose supervisor is alive. A pid alone may be another process by now."""
    try:
        state = json.loads((base / "server.json").read_text())
        process = psutil.Process(state["pid"])
        mine = str(base / "users.lock") in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return None
    return state if mine else None


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and a lost terminal end the block like Ctrl-C, so that what it started is stopped in order."""
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(home: str | None = None) -> None:
    """Server, deployments and worker until Ctrl-C."""
    with terminable(), server(home) as api_url, worker(api_url, home) as process:
        count = register(api_url, home)
        print(f"Prefect UI        {api_url.removesuffix('/api')}\nin another shell  {_export(api_url, home)}\n"
              f"{count} deployments on work pool {POOL}; Ctrl-C stops all of it.", flush=True)
        process.wait()
    raise UserError(f"the worker ended; the reason is at the end of {folder(home)}/logs/worker.log")


def _export(api_url: str, home: str | None) -> str:
    return f"export PREFECT_API_URL={api_url} GRISTMILL_HOME={shlex.quote(home_uri(home))}"


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["env"]:
            api_url = running()
            if not api_url:
                raise UserError(f"no server runs on {home_uri()}; start one with `make serve`")
            print(_export(api_url, None))
        else:
            serve()
    except UserError as error:
        print(f"gristmill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

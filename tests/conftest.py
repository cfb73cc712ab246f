"""What all tests share: no network, none of the developer's settings, a fresh data root, one Prefect server."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports Prefect or PyTorch, which read these once.
for name in [n for n in os.environ if n.startswith(("PREFECT_", "GRISTMILL_")) and n != "GRISTMILL_SHARED"]:
    del os.environ[name]
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="gristmill-tests-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""     # the same tests on machines with GPUs
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores, each with one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Examples have no time limit: the first one may wait for compiled code, and no test asserts a time.
# Each run has the same examples; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("same")

LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def _no_network(event: str, arguments: tuple) -> None:
    """Names and addresses beyond this machine look like those of a machine without a network."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1]:
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not str(host).startswith(LOCAL):
        raise OSError(101, f"tests have no network: {event} to {host}")


sys.addaudithook(_no_network)

# What most tests run of compiled code.
KERNELS = ("from tasks.extract import _compiled; _compiled()", """
import pyarrow as pa
from tasks.annotate import Annotate, signals
from tasks.lines import Lines, cut_lines
from tasks.schema import doc_id, id_array
from tasks.scrub import find
text = "It grinds grain, and so does +1 202 555 0173. " * 30
table = pa.table({"doc_id": id_array([doc_id("made", 0)]), "text": [text]})
signals(table, cut_lines(table, Lines()), Annotate())
find([text])
""")


def pytest_unconfigure(config) -> None:
    """Each process of a run made a folder of its own."""
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


def pytest_sessionstart(session) -> None:
    """Compiles before the test processes start, once on a fresh machine: else each, and each child of theirs, would."""
    if session.config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        compilers = [subprocess.Popen([sys.executable, "-c", code], cwd=session.config.rootpath) for code in KERNELS]
        for compiler in compilers:
            compiler.wait()


def pytest_collection_modifyitems(items) -> None:
    """The files of the longest tests begin: the processes of `make test` then end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A data root of the test's own, which GRISTMILL_HOME names."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("GRISTMILL_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory, request) -> Path:
    """The data root whose server all tests, and all processes of a run, share."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # xdist: the folder above is the run's
        base = base.parent
    path = base / "prefect-home"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def prefect_server(prefect_home) -> str:
    """A Prefect server's API URL. It takes ten seconds to start: for the few tests that need one."""
    from flows import embedded

    with embedded.server(str(prefect_home)) as api_url:
        yield api_url

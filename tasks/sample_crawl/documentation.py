"""The documentation of the Python installation as pages: the standard library and chosen packages.

Real text in bulk that every machine has: English with the boilerplate of its template, signatures, long lists, and
near-duplicates (the codecs of `encodings`).
"""

import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Importing these opens a window or a browser, prints, or needs another system; or they are tests.
LEFT_OUT = frozenset("antigravity this idlelib turtle turtledemo tkinter test tests lib2to3 msilib winreg winsound "
                     "msvcrt nt distutils ensurepip asyncio.windows_events asyncio.windows_utils pydantic.v1 "
                     "pydantic.mypy multiprocessing.popen_spawn_win32 encodings.mbcs encodings.oem".split())
# Much imported: once, before the forks, instead of in each.
PRELOAD = ("asyncio", "concurrent.futures", "ctypes", "curses", "email.mime.text", "http.client", "importlib.metadata",
           "json", "logging.config", "multiprocessing.pool", "sqlite3", "ssl", "unittest.mock", "urllib.request",
           "wsgiref", "xml.dom.minidom", "xml.etree.ElementTree", "xml.sax", "xmlrpc.client", "zipfile")
# Distribution -> its modules: a package stands for itself and its public modules down to so many levels.
PACKAGES = {
    "rich": {"rich": 1}, "fsspec": {"fsspec": 2}, "pydantic": {"pydantic": 1}, "click": {"click": 1},
    "Jinja2": {"jinja2": 1}, "packaging": {"packaging": 1}, "datasketch": {"datasketch": 1},
    "numpy": {"numpy.fft": 0, "numpy.linalg": 0, "numpy.polynomial": 0, "numpy.random": 0, "numpy.strings": 0},
}
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
MODULE_SECONDS = 30.0
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "TZ": "UTC", "COLUMNS": "80",
                "PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TERM": "dumb"}


def standard_library() -> list[str]:
    """The public modules of the standard library, sorted, without those of LEFT_OUT."""
    names = [name for name in sys.stdlib_module_names if not name.startswith("_") and name not in LEFT_OUT]
    folder = sysconfig.get_paths()["stdlib"]
    below = [inner for name in names for inner in _below(os.path.join(folder, name), name, 9)]
    return sorted({*names, *below})


def packages() -> dict[str, list[str]]:
    """The modules of PACKAGES that are installed, by distribution."""
    found: dict[str, list[str]] = {}
    for distribution, chosen in PACKAGES.items():
        for name, depth in chosen.items():
            top, *inner = name.split(".")
            spec = importlib.util.find_spec(top)
            if spec and spec.submodule_search_locations:
                folder = os.path.join(spec.submodule_search_locations[0], *inner)
                found.setdefault(distribution, []).extend([name, *sorted(_below(folder, name, depth))])
    return found


def versions() -> dict[str, str]:
    """What the pages depend on: the Python, and the packages with their versions."""
    installed = {"python": sys.version}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _below(folder: str, prefix: str, depth: int) -> Iterator[str]:
    """The modules in a package's folder, found without importing it."""
    if not depth:
        return
    for module in pkgutil.iter_modules([folder]):
        name = f"{prefix}.{module.name}"
        if module.name.startswith("_") or module.name in LEFT_OUT or name in LEFT_OUT:
            continue
        yield name
        if module.ispkg:
            yield from _below(os.path.join(folder, module.name), name, depth - 1)


def render(modules: Sequence[str] | None = None, workers: int = 2) -> dict[str, dict[str, bytes]]:
    """Pages of HTML by module, for the sources `stdlib` and `packages`; only those of `modules`, all by default.

    Takes some 20 s for all on two cores. A module that cannot be imported, or takes more than MODULE_SECONDS, has no
    page. Pages are free of addresses and folders of this machine: equal for equal installations.
    """
    def wanted(names: Sequence[str]) -> list[str]:
        return [name for name in names if modules is None or name in modules]

    standard, installed = wanted(standard_library()), [wanted(names) for names in packages().values()]
    jobs = [(names[0].split(".")[:1], names) for names in installed if names]
    jobs += [(PRELOAD if modules is None else (), standard[i::4]) for i in range(4)]
    # The temporary folder's name shows up in some pages until it is replaced there: it must not be a word.
    with tempfile.TemporaryDirectory(prefix="gristmill-pages-") as folder:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda job: _run(*job, folder), (job for job in jobs if job[1])))

        def read(names: Sequence[str]) -> dict[str, bytes]:
            paths = {name: Path(folder, "pages", f"{name}.html") for name in names}
            return {name: path.read_bytes() for name, path in paths.items() if path.exists()}

        return {"stdlib": read(standard), "packages": read([n for names in installed for n in names])}


def _run(preload: Sequence[str], modules: Sequence[str], folder: str) -> None:
    """Renders modules in a process of their own, with a bare environment, no input and no output."""
    pages, home = Path(folder, "pages"), Path(folder, "home")
    pages.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    job = {"preload": list(preload), "modules": list(modules), "folder": str(pages), "seconds": MODULE_SECONDS}
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", encoding="utf-8") as file:
        json.dump(job, file)
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("pydoc_pages.py")), file.name], cwd=home,
            env=_ENVIRONMENT | {"HOME": str(home), "TMPDIR": str(home)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

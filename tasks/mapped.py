"""Arrays that take long to make: made once, then mapped into memory by every process that needs them.

They lie in `gristmill/tables/` of the user's cache folder (XDG_CACHE_HOME), one file for what one function makes, its
name a digest of all that decides its content: so nothing there is ever out of date, and all of it may be removed at
any time. They take 120 MB of disk; in memory processes share what they look at. Where the folder cannot be written to,
each process makes its own.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from pathlib import Path

import numpy as np
import pyarrow as pa

Arrays = tuple[np.ndarray, ...]
_ALIGNMENT = 64              # bytes: where each array begins


def library_version(name: str) -> str:
    """The version of an installed distribution, or of the `unicodedata` of this Python."""
    return unicodedata.unidata_version if name == "unicodedata" else importlib.metadata.version(name)


def mapped(*files: str | Path, libraries: tuple[str, ...] = ()) -> Callable[[Callable[[], Arrays]], Callable]:
    """Decorates a function without arguments that makes numeric arrays of one or more dimensions: once, and read-only.

    `files` and `libraries` (`library_version`) are all that decides what it makes, beside the file that it stands in.
    """
    def decorate(make: Callable[[], Arrays]) -> Callable[[], Arrays]:
        @lru_cache(maxsize=1)
        @wraps(make)
        def arrays() -> Arrays:
            digest = hashlib.sha256(sys.byteorder.encode())
            for name in libraries:
                digest.update(f"{name} {library_version(name)}\n".encode())
            for file in (sys.modules[make.__module__].__file__, *files):
                digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
            name = f"{make.__module__}.{make.__name__}.{digest.hexdigest()[:32]}"
            with contextlib.suppress(OSError, RuntimeError, pa.ArrowInvalid):   # RuntimeError: a user without a home
                return _read(_folder() / name)
            made = make()
            with contextlib.suppress(OSError, RuntimeError):
                _write(_folder() / name, made)
            return _frozen(made)

        return arrays

    return decorate


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill" / "tables"


def _read(path: Path) -> Arrays:
    found, at = [], 0
    with pa.memory_map(str(path)) as file:
        while at < file.size():
            file.seek(at)
            found.append(pa.ipc.read_tensor(file).to_numpy())
            at = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    if not found:
        raise OSError(f"{path} is empty")
    return _frozen(found)


def _frozen(arrays: Iterable[np.ndarray]) -> Arrays:
    for array in arrays:
        array.setflags(write=False)
    return tuple(arrays)


def _write(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pa.OSFile(str(temporary), "wb") as file:
            for array in arrays:
                pa.ipc.write_tensor(pa.Tensor.from_numpy(np.ascontiguousarray(array)), file)
                file.write(bytes(-file.tell() % _ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

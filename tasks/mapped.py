"""Arrays that take long to make: made once, then mapped into memory by every process that needs them.

They lie in `gristmill/tables/` of the user's cache folder (XDG_CACHE_HOME), one file for what one function makes, its
name a digest of all that decides its content: so nothing there is ever out of date, and all of it may be removed at
any time. They take 120 MB of disk; in memory processes share what they look at. What stands there is believed when
nobody but its owner, this user, could write it, and it is whole; otherwise, or where the folder cannot be written to,
each process makes its own. What an older version left goes after a month.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from pathlib import Path

import numpy as np
import pyarrow as pa

Arrays = tuple[np.ndarray, ...]
_ALIGNMENT = 64              # bytes: where each array begins
_TRAILER = 8                 # bytes: the size of the file, which says that it is whole
_KEPT_SECONDS = 30 * 24 * 3600


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
    for part in (path.parent, path):
        status = part.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:     # the arrays are indices of compiled code
            raise OSError(f"{part} may be another user's")
    with pa.memory_map(str(path)) as file:
        ends = file.size() - _TRAILER
        file.seek(max(0, ends))
        if file.read(_TRAILER) != file.size().to_bytes(_TRAILER, "little"):
            raise OSError(f"{path} is not whole")
        while at < ends:
            file.seek(at)
            found.append(pa.ipc.read_tensor(file).to_numpy())
            at = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    return _frozen(found)


def _frozen(arrays: Iterable[np.ndarray]) -> Arrays:
    for array in arrays:
        array.setflags(write=False)
    return tuple(arrays)


def _write(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")   # for this user's eyes, and no other process
    os.close(descriptor)
    try:
        with pa.OSFile(temporary, "wb") as file:
            for array in arrays:
                pa.ipc.write_tensor(pa.Tensor.from_numpy(np.ascontiguousarray(array)), file)
                file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write((file.tell() + _TRAILER).to_bytes(_TRAILER, "little"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    for other in path.parent.glob(f"{path.name.rpartition('.')[0]}.*"):
        if other.stat().st_mtime < time.time() - _KEPT_SECONDS:
            other.unlink(missing_ok=True)

"""Files under one root, local or on an object store: whole or not at all.

A write goes to a temporary name, is flushed to the disk and renamed; on an object store it is a
single PUT. What exists is therefore complete, and the sha256 that a write returns is of the bytes
that a reader will get. Tables are Parquet with page checksums, and reading verifies them: without
them more than half of flipped bits read silently wrong.
"""

from __future__ import annotations  # Root.list would hide the type of that name

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import posixpath
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import AfterValidator

from tasks.errors import UserError

DEFAULT_HOME = "data"


def home_uri(home: str | None = None) -> str:
    """The data root: `home` if given, else GRISTMILL_HOME, else ./data; a local one as an absolute path."""
    uri = home or os.environ.get("GRISTMILL_HOME") or DEFAULT_HOME
    return uri if "://" in uri and not uri.startswith("file://") else str(Path(uri.removeprefix("file://")).absolute())


def from_anywhere(path: str) -> str:
    """A local path as it is found from any folder; addresses (`sample:` too) as they are."""
    return path if re.match(r"[a-z][a-z0-9+]+:", path) else os.path.abspath(os.path.expanduser(path))


# A file that a setting names: a refresh may run in another folder than the build whose settings it goes by.
Place = Annotated[str, AfterValidator(from_anywhere)]


@dataclass(frozen=True)
class Root:
    """The data root at `uri` (a path or any fsspec URI). Paths given to its methods are relative to it."""

    uri: str

    @cached_property
    def _located(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Other processes write too: what a store listed a minute ago may not be what is there.
        fs, base = fsspec.core.url_to_fs(self.uri, **({"use_listings_cache": False} if "://" in self.uri else {}))
        return fs, base.rstrip("/")

    def __getstate__(self):  # a connection must not travel to another process
        return {"uri": self.uri}

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._located[0]

    @property
    def local(self) -> Path | None:
        """The folder, or None on an object store."""
        fs, base = self._located
        return Path(base) if isinstance(fs, LocalFileSystem) else None

    def at(self, path: str) -> str:
        """Where `path` lies in the file system. Raises UserError when it would leave the root."""
        clean = posixpath.normpath(path)
        if clean.startswith(("/", "../")) or clean == "..":
            raise UserError(f"the path {path!r} leaves the data root; use a path relative to it")
        return self._located[1] if clean == "." else posixpath.join(self._located[1], clean)

    def url(self, path: str) -> str:
        """`path` as something DuckDB or another program can open: an absolute path or a URI."""
        return self.at(path) if self.local else self.fs.unstrip_protocol(self.at(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.at(path)) if self.local else self.fs.exists(self.at(path))

    def size(self, path: str) -> int:
        return self.fs.size(self.at(path))

    def open(self, path: str):
        """A binary file to read from."""
        return open(self.at(path), "rb") if self.local else self.fs.open(self.at(path), "rb")

    def read_bytes(self, path: str) -> bytes:
        with self.open(path) as file:
            return file.read()

    def read_json(self, path: str):
        return json.loads(self.read_bytes(path))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders directly below `folder`, sorted."""
        try:
            entries = self.fs.ls(self.at(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory")

    def list(self, folder: str) -> list[str]:
        """Every file below `folder`, sorted, without unfinished ones; empty when there is no such folder."""
        base = self._located[1]
        try:
            found = self.fs.find(self.at(folder))
        except FileNotFoundError:
            return []
        return sorted(p[len(base) :].lstrip("/") for p in found if not p.endswith(".tmp"))

    def remove(self, path: str) -> None:
        """Removes a file; one that is absent is no error."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.at(path))

    def remove_folder(self, folder: str) -> None:
        """Removes a folder with all that is in it, unfinished files too; one that is absent is no error."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.at(folder), recursive=True)

    def digest(self, path: str) -> str:
        """The sha256 of a file, hex."""
        with self.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write_bytes(self, path: str, data: bytes | memoryview) -> str:
        """Writes a file whole, replacing an older one, and returns its sha256 (hex).

        Raises UserError when the disk is full; nothing is left behind then.
        """
        target = self.at(path)
        if self.local is None:
            self.fs.pipe_file(target, bytes(data))
        else:
            with replacing(target) as file:
                file.write(data)
        return hashlib.sha256(data).hexdigest()

    def write_json(self, path: str, value) -> str:
        """Writes canonical JSON (sorted keys, so equal values are equal bytes); returns the sha256."""
        return self.write_bytes(path, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Reads Parquet with its page checksums verified. Raises OSError when they do not hold."""
        with self.open(path) as file:
            return pq.read_table(file, columns=columns, page_checksum_verification=True)

    def write_table(self, path: str, table: pa.Table, **options) -> str:
        """Writes Parquet (zstd, page checksums; `options` go to pyarrow) whole; returns its sha256."""
        return self.write_bytes(path, parquet(table, **options))

    def link(self, source: str, target: str) -> None:
        """Makes `target` the same file as `source`, durably: a hard link where there is one, else a copy."""
        with self.open(source) as file:
            if self.local is not None:
                folder = os.path.dirname(self.at(target))
                with contextlib.suppress(FileExistsError), _told_when_full(self.at(target)):
                    os.makedirs(folder, exist_ok=True)
                    try:
                        os.link(self.at(source), self.at(target))
                        _sync(folder)
                    except OSError as error:
                        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                            raise
                        self.write_bytes(target, file.read())
            else:
                self.write_bytes(target, file.read())

    @contextlib.contextmanager
    def lock(self, path: str, what: str) -> Iterator[int | None]:
        """Holds `path` as a lock while the block runs.

        On a local disk the lock is the kernel's (flock): it ends with the process that holds it,
        however that ends, and a process that inherits the descriptor given here holds it too. On an
        object store it is a file put there on the condition that none exists. Raises UserError when
        another process holds it, or the file system has no locks; `what` names what is locked.
        """
        target = self.at(path)
        holder = f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        if self.local is not None:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "a+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    raise UserError(
                        f"{what} is locked by another process ({file.read().strip() or 'unknown'}); "
                        f"wait for it to end, or stop it"
                    ) from None
                except OSError as error:        # ENOLCK, ENOSYS, ENOTSUP: NFS without its lock service, Lustre
                    raise UserError(
                        f"{target}: this file system gives no locks ({error.strerror}), and without them two processes "
                        f"may write {what} at once: mount it with them (Lustre: the option flock; NFS: version 4, or "
                        "its lock service), or set GRISTMILL_HOME to another"
                    ) from None
                file.truncate(0)
                file.write(holder)
                file.flush()
                yield file.fileno()
            return
        try:
            self.fs.pipe_file(target, holder.encode(), mode="create")
        except FileExistsError:
            raise UserError(
                f"{what} is locked ({self.read_bytes(path).decode()}); if that process is gone, remove {self.url(path)}"
            ) from None
        try:
            yield None
        finally:
            self.remove(path)


def parquet(table: pa.Table, **options) -> memoryview:
    """A table as the bytes of a Parquet file: zstd and page checksums; `options` go to pyarrow."""
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table, buffer, **({"compression": "zstd", "compression_level": 1, "write_page_checksum": True} | options)
    )
    return memoryview(buffer.getvalue())


@contextlib.contextmanager
def replacing(target: str) -> Iterator[io.BufferedWriter]:
    """A local file to write that takes the place of `target` when the block ends without an error."""
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{os.path.basename(target)}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with _told_when_full(target):
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            _sync(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _told_when_full(target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full: {target} could not be written; free some space or move the data root "
                f"with GRISTMILL_HOME, and run the same again: it goes on where it stopped"
            ) from error
        raise


def _sync(folder: str) -> None:
    """Flushes the entries of a folder: without it a name that was given may be gone after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

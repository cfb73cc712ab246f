"""Bringing remote files near, over connections that are cut and servers that say "slow down".

A download is tried again with exponential back-off and full jitter (Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015), goes on where it was cut by asking for the range that is missing, and is put in place
whole, its length checked. What is there is not fetched again: files of a crawl do not change under their address.
"""

import email.utils
import hashlib
import http.client
import json
import logging
import os
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import fsspec

from tasks.storage import Root, replacing

if TYPE_CHECKING:
    from tasks.ingest import Ingest

log = logging.getLogger("gristmill.ingest")

# Common Crawl throttles with 403 and 503, S3 with 503 "Slow Down" (https://commoncrawl.org/faq); 404 is final.
RETRIED = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
MAX_WAIT_SECONDS = 120.0
_PIECE = 1 << 20
_CACHED_FROM = 4 << 20       # bytes from which on looking a digest up is cheaper than taking it


class FetchError(Exception):
    """A download that failed for good. The message is a reason code: http_404, cut, FileNotFoundError ..."""


class _Again(Exception):
    """A failure that may pass: its reason code, and the seconds that the server asks to wait."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


def fetch(url: str, root: Root, settings: "Ingest", sleep: Callable[[float], None] = time.sleep, *,
          fresh: bool = False) -> str:
    """A path (or fsspec URI, when the data root is on an object store) at which the bytes of `url` can be read.

    Files go to `cache/raw/` in the data root. With `fresh` the file is fetched again, because it may grow (a list of
    paths), and the one from before serves when that fails. Raises FetchError with a reason code, UserError when the
    disk is full.
    """
    web = url.startswith(("http://", "https://"))
    if not web and root.local is None:
        return url  # readable from wherever the data root is
    name = f"cache/raw/{hashlib.sha256(url.encode()).hexdigest()[:16]}-{os.path.basename(url.split('?')[0])[-120:]}"
    if root.exists(name):
        if fresh:
            try:
                _bring_near(url, root, name, settings, sleep, web)
            except FetchError as error:
                log.warning("%s could not be fetched again (%s); the one from before serves", url.split("?")[0], error)
        return root.url(name)
    _bring_near(url, root, name, settings, sleep, web)
    return root.url(name)


def _bring_near(url: str, root: Root, name: str, settings: "Ingest", sleep: Callable, web: bool) -> None:
    if root.local is not None:
        with replacing(root.at(name)) as file:
            _download(url, file, settings, sleep, _open_web if web else _open_store)
        return
    with tempfile.NamedTemporaryFile() as file:
        _download(url, file, settings, sleep, _open_web)
        file.flush()
        root.fs.makedirs(os.path.dirname(root.at(name)), exist_ok=True)
        root.fs.put_file(file.name, root.at(name))


def _download(url: str, file: BinaryIO, settings: "Ingest", sleep: Callable[[float], None], open_at: Callable) -> None:
    tag: str | None = None
    failed = most = 0
    while True:
        before = file.tell()
        try:
            source, start, total, tag = open_at(url, before, tag, settings.timeout_seconds)
            with source:
                file.seek(start)  # a server that knows no ranges begins anew
                file.truncate()
                cut = False
                while not cut:
                    piece, cut = _read(source)
                    file.write(piece)
                    if not piece:
                        break
            if file.tell() == total or total is None and not cut:
                return
            if total is not None and file.tell() > total:
                file.seek(0)
                file.truncate()
            raise _Again("cut")
        except _Again as again:
            # A connection that brought more than any before it counts as a first failure.
            failed = 1 if file.tell() > most else failed + 1
            most = max(most, file.tell())
            if failed >= settings.attempts:
                raise FetchError(str(again)) from None
            # Jitter comes from the system: it decides when bytes come, never which.
            jitter = random.SystemRandom().uniform(0.5, 1.0)
            sleep(min(MAX_WAIT_SECONDS, max(again.wait, settings.backoff_seconds * 2 ** (failed - 1) * jitter)))


def _read(source) -> tuple[bytes, bool]:
    """(the next piece, empty at the end; whether the connection was cut)."""
    try:
        return source.read(_PIECE), False
    except http.client.IncompleteRead as cut:
        return cut.partial, True
    except (OSError, http.client.HTTPException):
        return b"", True


def _open_web(url: str, start: int, tag: str | None, timeout: float):
    """(open response, byte at which it begins, bytes of the whole file or None, its entity tag)."""
    request = urllib.request.Request(url, headers={"User-Agent": "gristmill", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # nothing is left of it, or it is another file now: begin anew
                raise _Again("http_416") from None
            if error.code not in RETRIED:
                raise FetchError(f"http_{error.code}") from None
            raise _Again(f"http_{error.code}", _wait(error.headers.get("Retry-After"))) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _Again(type(reason).__name__ if isinstance(reason, Exception) else "connection") from None
    length = response.headers.get("Content-Length", "")
    tag = response.headers.get("ETag")
    tag = None if tag and tag.startswith("W/") else tag
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return response, start, int(total) if total.isdecimal() else None, tag
    return response, 0, int(length) if length.isdecimal() else None, tag


def _wait(retry_after: str | None) -> float:
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _open_store(url: str, start: int, tag: str | None, timeout: float):
    try:
        fs, path = fsspec.core.url_to_fs(url)
        size = fs.size(path)
        source = fs.open(path, "rb", cache_type="readahead")
        source.seek(start)
    except (FileNotFoundError, PermissionError, ImportError, ValueError) as error:
        raise FetchError(type(error).__name__) from None
    except Exception as error:  # every store has its own classes for "slow down"
        raise _Again(type(error).__name__) from None
    return source, start, size, None


def cached_digest(path: str, root: Root) -> tuple[str, int]:
    """(sha256, bytes) of the file at `path`, from `cache/digests/` when it is unchanged by size and mtime there."""
    if "://" in path:
        fs, place = fsspec.core.url_to_fs(path)
        info = fs.info(place)
        size = info["size"]
        stamp = str(info.get("ETag") or info.get("LastModified") or info.get("created") or "")
    else:
        status = os.stat(path)
        size, stamp = status.st_size, str(status.st_mtime_ns)
    key = hashlib.sha256(json.dumps([path, size, stamp]).encode()).hexdigest()
    name = f"cache/digests/{key[:2]}/{key}"
    if stamp and size >= _CACHED_FROM and root.exists(name):
        return root.read_bytes(name).decode(), size
    with fsspec.open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
    if stamp and size >= _CACHED_FROM:
        root.write_bytes(name, digest.hexdigest().encode())
    return digest.hexdigest(), size

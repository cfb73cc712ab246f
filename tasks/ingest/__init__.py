"""Ingest: from what the user names to splits, the pieces of input that `extract` reads one by one.

An input is a string:

    crawls/*.warc.gz                        local WARC, WET, ARC, JSONL or Parquet; a folder is what lies below
    s3://bucket/x/*.warc.gz, memory://x     any fsspec URI, with globs where the file system lists
    https://host/x.warc.gz
    commoncrawl:CC-MAIN-2025-18             a snapshot's path list, over `base_url`
    https://host/crawl-data/X/warc.paths.gz any path list (.paths or .paths.gz, local too)
    home:/crawls/*.warc.gz                  a path under the data root
    news=crawls/news/*.warc.gz              any of these with the name of its source
    sample:                                 the sample crawl under the data root, which is written if it is not there

The source, which the mixture weighs, is the name given, else "commoncrawl" for path lists, else the folder
that the file lies in (warc, wet, arc, raw, data and segments say nothing), else "web". The snapshot is the crawl's name
where the address has one (CC-MAIN-2025-18), else the setting `snapshot`.

Files come in the order given, those of a glob or folder sorted, each once.
"""

import glob
import gzip
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import UserError
from tasks.ingest.download import FetchError, cached_digest, fetch
from tasks.storage import Root

log = logging.getLogger("gristmill.ingest")

Kind = Literal["warc", "jsonl", "parquet"]

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,62})=(.+)", re.DOTALL)
_SNAPSHOT = re.compile(r"CC-[A-Z]+-\d{4}(?:-\d{2,4})?")
_SAYS_NOTHING = {"", ".", "..", "~", "warc", "wet", "wat", "arc", "raw", "data", "segments", "*", "**"}
_SUFFIXES = re.compile(r"\.(warc|wet|arc|jsonl|ndjson|json)(\.(gz|zst|lz4))?$|\.parquet$", re.IGNORECASE)
_SECRET = re.compile(r"(?i)(?:^|&)(?:x-amz-|x-goog-|sig=|signature=|token=|access_token=|api_?key=|se=.*&sig)")
_MAGIC = [(b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4")]


class Ingest(BaseModel):
    """Settings of reading what to build from. They say where input lies and how it is cut, never what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[str, list[str]] = Field({}, description="inputs by the name of their source, read after the others")
    snapshot: str = Field("", description="snapshot of input whose address names none")
    base_url: str = Field("https://data.commoncrawl.org/", description="what the entries of path lists are relative "
                          "to: a mirror over http(s), s3://commoncrawl/, or a folder")
    paths: Literal["warc", "wet"] = Field("warc", description="which path list commoncrawl:SNAPSHOT means")
    limit: int | None = Field(None, gt=0, description="files to take of each path list; all by default")
    split_bytes: int = Field(16 << 20, gt=0, description="compressed bytes of a large file that are read as one shard")
    attempts: int = Field(8, gt=0, description="times that a download is tried before it counts as failed")
    backoff_seconds: float = Field(1.0, ge=0, description="wait before the second try; doubled each time, with jitter")
    timeout_seconds: float = Field(60.0, gt=0, description="silence after which a connection counts as cut")
    connections: int = Field(4, gt=0, description="downloads at once")


@dataclass(frozen=True)
class Input:
    """A file of input. `uri` names it for ever; `path` is where it lies now."""

    uri: str
    source: str
    snapshot: str
    digest: str                 # sha256 of its bytes, hex
    bytes: int
    path: str
    kind: Kind

    def manifest(self) -> dict[str, str | int]:
        """What a version's manifest says of it: no path of this machine."""
        return {"uri": self.uri, "source": self.source, "snapshot": self.snapshot, "digest": self.digest,
                "bytes": self.bytes}


@dataclass(frozen=True)
class Split:
    """A piece of an input: the records that begin at the bytes (Parquet: rows) [start, end)."""

    uri: str
    path: str
    start: int
    end: int
    source: str
    snapshot: str
    digest: str
    kind: Kind

    @property
    def identity(self) -> dict[str, str | int]:
        """What decides the documents it gives: everything but where the file lies now."""
        identity = asdict(self)
        del identity["path"]
        return identity


class Failure(NamedTuple):
    """An input that could not be fetched or opened, and why (a reason code)."""

    uri: str
    reason: str


class Plan(NamedTuple):
    """Splits in the order of arrival, the inputs they cut up, and the inputs that failed."""

    splits: list[Split]
    inputs: list[Input]
    failures: list[Failure]


class _NoMatch(UserError):
    """A glob or path that leads to no file."""


class _Item(NamedTuple):
    uri: str
    location: str
    source: str
    snapshot: str


def plan(inputs: Sequence[str], settings: Ingest, root: Root, known: Sequence[str] = ()) -> Plan:
    """Finds the files that `inputs` and `settings.sources` name, fetches remote ones, and cuts them into splits.

    Raises UserError when a glob or path matches nothing, unless it is among `known` (a corpus was built of it, and its
    files may be gone since), or a path list cannot be read; a file that cannot be fetched is a failure of the plan
    and no error.
    """
    named: list[tuple[str | None, str]] = [(None, text) for text in inputs if text != "sample:"]
    if "sample:" in inputs:
        named += [(None, text) for text in _sample(root)]
    named += [(name, text) for name, texts in settings.sources.items() for text in texts]
    if not named:
        raise UserError("no input was given; name WARC files by a glob, or a snapshot as commoncrawl:CC-MAIN-2025-18")
    items: dict[str, _Item] = {}
    uris: set[str] = set()
    failures: list[Failure] = []
    for name, text in named:
        try:
            for item in _expand(text, name, settings, root):
                if item.uri not in uris:  # a mirror has the same files under the same names
                    uris.add(item.uri)
                    items.setdefault(_same_file(item.location), item)
        except _NoMatch as nothing:
            if text not in known:
                raise
            log.warning("%s; what the corpus has of it stays", nothing)
    splits: list[Split] = []
    files: list[Input] = []
    with ThreadPoolExecutor(settings.connections) as pool:
        for item, fetched in zip(items.values(), pool.map(lambda item: _bring(item, settings, root), items.values()),
                                 strict=True):
            if isinstance(fetched, Failure):
                failures.append(fetched)
                continue
            try:
                cuts = _cut(fetched, settings.split_bytes)
            except (OSError, pa.ArrowInvalid):
                failures.append(Failure(item.uri, "unreadable_file"))
                continue
            files.append(fetched)
            splits += [Split(fetched.uri, fetched.path, start, end, fetched.source, fetched.snapshot, fetched.digest,
                             fetched.kind) for start, end in cuts]
    return Plan(splits, files, failures)


def anchored(text: str, root: Root) -> str:
    """An input as a manifest may hold it: found again from any folder, and without a secret.

    Raises UserError for an address that carries a credential: it would stand in manifests and fates for ever.
    """
    match = None if os.path.exists(text) else _NAMED.fullmatch(text)
    name, path = match.groups() if match else (None, text)
    if _is_remote(path):
        address = urlsplit(path)
        if "@" in address.netloc or _SECRET.search(address.query):
            raise UserError(f"the input {address.hostname}{address.path} carries a credential in its address; give the "
                            "address without it, and the credential through the environment of that store")
    elif not re.match(r"[a-z]+:", path):
        path = _uri(os.path.expanduser(path), root).removeprefix("file://")
    return f"{name}={path}" if name else path


def check_local(inputs: Sequence[str]) -> None:
    """Raises UserError when a local input matches nothing; says nothing of remote ones."""
    for text in inputs:
        match = None if os.path.exists(text) else _NAMED.fullmatch(text)
        path = match.group(2) if match else text
        if not _is_remote(path) and not re.match(r"[a-z]+:", path):
            _local(path)


def compression(head: bytes) -> str:
    """The compression of a file that begins with `head` (4 bytes): gzip, zstd, lz4 or none."""
    if head[1:] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_":  # a zstd frame that may carry a dictionary
        return "zstd"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


def _expand(text: str, name: str | None, settings: Ingest, root: Root) -> Iterator[_Item]:
    if name is None and (match := _NAMED.fullmatch(text)) and not os.path.exists(text):
        name, text = match.groups()
    if text.startswith("home:/"):
        text = root.url(text.removeprefix("home:/").lstrip("/"))
    if text.startswith("commoncrawl:"):
        text = posixpath.join(settings.base_url, "crawl-data", text.removeprefix("commoncrawl:"),
                              f"{settings.paths}.paths.gz")
    if text.endswith((".paths", ".paths.gz")):
        yield from _path_list(text, name, settings, root)
        return
    for location in _remote(text) if _is_remote(text) else _local(text.removeprefix("file://")):
        folder = posixpath.basename(posixpath.dirname(location if _is_remote(text) or "/" in text else text))
        source = name or ("web" if folder.lower() in _SAYS_NOTHING or ":" in folder else folder)
        yield _Item(_uri(location, root), location, source, _snapshot(location, settings))


def _sample(root: Root) -> list[str]:
    from tasks.sample_crawl import inputs, write_sample_crawl

    if root.local is None:
        raise UserError(f"the sample crawl needs a data root on a local disk, and it is {root.uri}; give --home or "
                        "GRISTMILL_HOME a folder")
    write_sample_crawl(root.local / "sample")
    return inputs("home:/sample")


def _path_list(text: str, name: str | None, settings: Ingest, root: Root) -> Iterator[_Item]:
    try:
        if _is_remote(text):
            path = fetch(text, root, settings, fresh=True)
            with fsspec.open(path, "rb") as file:
                data = file.read()
        else:
            with open(os.path.expanduser(text), "rb") as file:
                data = file.read()
        lines = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode().split()
    except (FetchError, OSError, EOFError, ValueError) as error:
        reason = error if isinstance(error, FetchError) else type(error).__name__
        raise UserError(f"the path list {text} cannot be read ({reason}); check the snapshot's name, the setting "
                        "ingest.base_url and the connection") from None
    before, found, _ = text.partition("crawl-data/")
    base = before if found else settings.base_url
    for line in lines[:settings.limit]:
        location = posixpath.join(base, line.lstrip("/"))
        uri = f"commoncrawl:{line}" if line.startswith("crawl-data/") else _uri(location, root)
        yield _Item(uri, location, name or "commoncrawl", _snapshot(line, settings))


def _is_remote(text: str) -> bool:
    return "://" in text and not text.startswith("file://")


def _remote(text: str) -> list[str]:
    web = text.startswith(("http://", "https://"))
    if not any(c in text for c in ("*[" if web else "*?[")):
        return [text]
    try:
        fs, pattern = fsspec.core.url_to_fs(text)
        found = sorted(fs.unstrip_protocol(path) for path in fs.glob(pattern))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"the input {text} cannot be listed ({type(error).__name__}); check the address and the "
                        "credentials of that store") from None
    if not found:
        raise _NoMatch(f"the input {text} matches no file; check the address, or list it by hand")
    return found


def _local(text: str) -> list[str]:
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        found = [p for p in glob.glob(os.path.join(glob.escape(path), "**"), recursive=True) if _SUFFIXES.search(p)]
    else:
        found = glob.glob(path, recursive=True) or ([path] if os.path.exists(path) else [])
    found = sorted(os.path.abspath(p) for p in found if os.path.isfile(p))
    if not found:
        raise _NoMatch(f"the input {text} matches no file; check the path (a relative one begins at {os.getcwd()})")
    return found


def _uri(location: str, root: Root) -> str:
    """The name of a file for ever: relative to the data root where it lies there, so that the root may move."""
    if _is_remote(location):
        return location
    path = os.path.abspath(location)
    if root.local is not None:
        home = os.path.abspath(root.local)
        if os.path.commonpath([home, path]) == home:
            return f"home:/{os.path.relpath(path, home)}"
    return f"file://{path}"


def _same_file(location: str) -> str:
    return location if _is_remote(location) else os.path.realpath(location)


def _snapshot(location: str, settings: Ingest) -> str:
    match = _SNAPSHOT.search(location)
    return match.group() if match else settings.snapshot


def _bring(item: _Item, settings: Ingest, root: Root) -> Input | Failure:
    try:
        path = fetch(item.location, root, settings) if _is_remote(item.location) else os.path.abspath(item.location)
        digest, size = cached_digest(path, root)
    except FetchError as error:
        return Failure(item.uri, str(error))
    except OSError as error:
        return Failure(item.uri, type(error).__name__)
    if size == 0:
        return Failure(item.uri, "empty_file")
    name = re.sub(r"\.(gz|zst|lz4)$", "", item.location.lower())
    kind: Kind = "jsonl" if name.endswith((".jsonl", ".ndjson", ".json")) else "warc"
    return Input(item.uri, item.source, item.snapshot, digest, size, path,
                 "parquet" if name.endswith(".parquet") else kind)


def _cut(file: Input, split_bytes: int) -> list[tuple[int, int]]:
    """The ranges to read: of bytes where a file can be entered anywhere, of rows by row groups for Parquet."""
    with fsspec.open(file.path, "rb") as opened:
        if file.kind == "parquet":
            metadata = pq.ParquetFile(opened).metadata
            cuts, start, row, size = [], 0, 0, 0
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                row, size = row + group.num_rows, size + group.total_byte_size
                if size >= split_bytes:
                    cuts.append((start, row))
                    start, size = row, 0
            return cuts + [(start, row)] if row > start else cuts
        packed = compression(opened.read(4))
    whole = packed != "none" and file.kind == "jsonl"  # archives can be entered at any member or frame
    step = file.bytes if whole else split_bytes
    # Equal pieces: a last one of a few bytes would be a shard for nothing.
    n = max(1, -(-file.bytes // step))
    edges = [file.bytes * i // n for i in range(n + 1)]
    return list(zip(edges, edges[1:], strict=False))

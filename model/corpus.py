"""Reads a published corpus version: its manifest, its documents' sizes, its token shards.

A version is a folder (any fsspec URI) with `manifest.json` and the files that it lists with their sha256.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import tokenizer
from tasks.errors import UserError
from tasks.schema import id_words
from tasks.storage import replacing

INDEX_COLUMNS = ["doc_id", "source", "domain", "language", "repeat", "n_bytes", "n_tokens"]


@dataclass(frozen=True)
class Corpus:
    """A published version. `digest` is the sha256 of manifest.json: the version's name that cannot be reused."""

    folder: str
    manifest: dict
    digest: str

    @property
    def label(self) -> str:
        return f"{self.manifest['name']} version {self.manifest['version']}"

    @property
    def documents(self) -> pa.Table:
        """One row a document of the token shards, in their order: INDEX_COLUMNS, shard and row (int32)."""
        return self._index[0]

    @property
    def groups(self) -> np.ndarray:
        """Of each Parquet row group, int64 (n, 3): its shard, its number there, its first row of `documents`."""
        return self._index[1]

    @cached_property
    def bos(self) -> int:
        """The token that texts begin with, as the corpus's own tokenizer has it."""
        return tokenizer.begin(tokenizer.load(f"{self.folder}/tokenizer"))

    @cached_property
    def _index(self) -> tuple[pa.Table, np.ndarray]:
        def read(shard: int) -> tuple[pa.Table, list[int]]:
            with _parquet(self, shard) as file:
                table = file.read(INDEX_COLUMNS, use_threads=False)
                rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            return table.append_column("shard", pa.array(np.full(len(table), shard, np.int32))) \
                        .append_column("row", pa.array(np.arange(len(table), dtype=np.int32))), rows

        if not self.manifest["shards"]:
            raise UserError(f"{self.folder}/manifest.json: corpus {self.label} has no token shards: build it with "
                            "input that survives the filters")
        with ThreadPoolExecutor(8) as pool:             # an object store takes its time to answer
            tables, sizes = zip(*pool.map(read, range(len(self.manifest["shards"]))), strict=True)
        numbers = [(shard, number) for shard, rows in enumerate(sizes) for number in range(len(rows))]
        ends = np.cumsum([n for rows in sizes for n in rows])
        groups = np.column_stack([np.array(numbers, np.int64).reshape(-1, 2), np.concatenate([[0], ends[:-1]])])
        return pa.concat_tables(tables).combine_chunks(), groups


def corpus_folder(home: str, name: str, version: int | None = None) -> str:
    """Folder of a version, the current one when `version` is None.

    `name` is a corpus under `home`, or the URI of a corpus's own folder where it holds a slash. UserError
    names the corpora or the versions that there are when the one asked for is unknown.
    """
    base = name.rstrip("/") if "/" in name else f"{home.rstrip('/')}/corpora/{name}"
    fs, path = fsspec.core.url_to_fs(base)
    if not fs.exists(path):
        parent = path.rsplit("/", 1)[0]
        others = sorted(entry.rsplit("/", 1)[-1] for entry in fs.ls(parent, detail=False)) if fs.exists(parent) else []
        raise UserError(f"no corpus {name!r} in {base.rsplit('/', 1)[0]}: "
                        + (f"there are {', '.join(others)}" if others else "build one with `gristmill build`"))
    if version is None:
        if not fs.exists(f"{path}/current"):
            raise UserError(f"{base}/current: corpus {name!r} has no published version yet: run `gristmill build`")
        version = int(fs.cat_file(f"{path}/current").decode())
    folder = f"{base}/versions/{int(version):06d}"
    if not fs.exists(f"{path}/versions/{int(version):06d}/manifest.json"):
        found = [entry.rsplit("/", 1)[-1] for entry in fs.ls(f"{path}/versions", detail=False)]
        numbers = ", ".join(str(int(entry)) for entry in sorted(found) if entry.isdigit())
        raise UserError(f"corpus {name!r} has no version {version}: it has {numbers or 'none'}")
    return folder


def open_corpus(folder: str) -> Corpus:
    """The published version in `folder`. UserError when its manifest is missing or no manifest."""
    folder = str(folder).rstrip("/")
    try:
        with fsspec.open(f"{folder}/manifest.json", "rb") as file:
            raw = file.read()
        manifest = json.loads(raw)
        if manifest["format"] != 1:
            raise UserError(f"{folder}/manifest.json: format {manifest['format']} is not the one read here (1): "
                            "update Gristmill")
        manifest["shards"], manifest["tokenizer"]["n_vocab"], manifest["dtype"]
    except FileNotFoundError:
        raise UserError(f"{folder}/manifest.json: no such file; training reads a published corpus version") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{folder}/manifest.json: not a corpus manifest ({error}): publish the corpus again") from None
    return Corpus(folder, manifest, sha256(raw).hexdigest())


def verify(corpus: Corpus, known: Path | None = None) -> None:
    """Reads every token shard and tokenizer file; UserError names the first whose sha256 is not the manifest's.

    `known` is a file that remembers size and time of the local files that were verified: those that are still as they
    were are not read again (their pages are checked whenever they are read to train on).
    """
    listed = {entry["path"]: entry["sha256"] for entry in corpus.manifest["shards"]}
    listed |= corpus.manifest["tokenizer"].get("files", {})
    before = json.loads(known.read_text()) if known is not None and known.exists() else {}

    def check(entry: tuple[str, str]) -> list:
        path, expected = entry
        where = f"{corpus.folder}/{path}"
        try:
            state = [expected, *_size_and_time(where)]
            if len(state) > 1 and before.get(where) == state:
                return state
            with fsspec.open(where, "rb") as file:
                digest = sha256()
                while block := file.read(1 << 22):
                    digest.update(block)
        except FileNotFoundError:
            raise UserError(f"{where}: listed in the manifest but not there: restore it or build again") from None
        if digest.hexdigest() != expected:
            raise UserError(f"{where}: sha256 {digest.hexdigest()[:12]} is not the manifest's {expected[:12]}: the "
                            "file changed after publishing; restore it or build again")
        return state

    with ThreadPoolExecutor(8) as pool:                 # hashing lets other threads run
        states = zip(listed, pool.map(check, listed.items()), strict=True)
        now = {f"{corpus.folder}/{path}": state for path, state in states if len(state) > 1}
    if known is not None and now != before:
        with replacing(str(known)) as file:
            file.write(json.dumps(now, indent=1).encode())


def _size_and_time(uri: str) -> tuple[int, ...]:
    """Of a local file, bytes and nanoseconds; nothing of one in an object store."""
    if "://" in uri and not uri.startswith("file://"):
        return ()
    found = os.stat(uri.removeprefix("file://"))
    return found.st_size, found.st_mtime_ns


def tokens(corpus: Corpus, group: int, at_once: int = 512) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The documents of a row group, `at_once` of them at a time: all their tokens end to end (uint16 or uint32), and
    each document's start (n + 1).

    A row group is decoded piece by piece: in a quarter of the memory and half the time of reading it whole. UserError
    when a token is outside the tokenizer that the manifest names.
    """
    shard, number, _ = corpus.groups[group].tolist()
    n_vocab = corpus.manifest["tokenizer"]["n_vocab"]
    with _parquet(corpus, shard) as file:
        for batch in file.iter_batches(at_once, row_groups=[number], columns=["tokens"], use_threads=False):
            starts = batch.column(0).offsets.to_numpy().astype(np.int64)
            flat = batch.column(0).values.to_numpy()[starts[0]:starts[-1]]
            if len(flat) and int(flat.max()) >= n_vocab:
                path = corpus.manifest["shards"][shard]["path"]
                raise UserError(f"{corpus.folder}/{path}: token {int(flat.max())} is outside its tokenizer of "
                                f"{n_vocab} tokens: the tokenizer does not match the corpus; tokenize it again")
            yield flat, starts - starts[0]


def held_out(corpus: Corpus, fraction: float = 0.01, at_least: int = 8) -> np.ndarray:
    """Marks the documents (bool, a row of `corpus.documents` each) that are never trained on.

    A document is held out by a hash of its doc_id, so it is so in every version, and all repeats of it with
    it. Small corpora hold out the `at_least` documents of the lowest hashes, but never more than half.
    """
    hashes = document_hashes(corpus)
    distinct = np.unique(hashes)
    count = max(int(np.searchsorted(distinct, np.uint64(min(fraction, 1.0) * (2**64 - 2**11)))),
                min(at_least, len(distinct) // 2))
    if fraction <= 0 or count == 0:
        return np.zeros(len(hashes), bool)
    return hashes <= distinct[min(count, len(distinct)) - 1]


def document_hashes(corpus: Corpus) -> np.ndarray:
    """A random number (uint64) of each document of `corpus.documents`, by its doc_id: in this order any first few are
    like the whole, which lies by source and crawl."""
    words = id_words(corpus.documents["doc_id"]).astype(np.uint64)
    return mix(words[:, 0] ^ mix(words[:, 1]))


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser on uint64 (Steele et al., OOPSLA 2014): NumPy's streams may change with its version."""
    with np.errstate(over="ignore"):
        z = np.asarray(values, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@contextmanager
def _parquet(corpus: Corpus, shard: int) -> Iterator[pq.ParquetFile]:
    """A token shard to read from: names as dictionaries, one request for each stretch of bytes that is wanted."""
    uri = f"{corpus.folder}/{corpus.manifest['shards'][shard]['path']}"
    fs, path = fsspec.core.url_to_fs(uri)
    try:
        with fs.open(path, "rb", cache_type="none") as file:
            yield pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=True,
                                 read_dictionary=["source", "domain", "language"])
    except FileNotFoundError:
        raise UserError(f"{uri}: listed in the manifest but not there: restore it or build again") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{uri}: not a readable token shard ({type(error).__name__}): "
                        "restore it or build again") from None

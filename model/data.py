"""Cuts batches from packed documents, in an order that any rank can join at any sample.

A document of n tokens t0 .. t(n-1), the last of them end-of-text, takes n slots: the model reads (bos, t0 .. t(n-2))
and predicts (t0 .. t(n-1)), so each token of the corpus is a target exactly once an epoch, also where a document is
split over rows: a later piece reads the token before it first, and counts its positions from 0. Rows never share
attention between documents. bos is end-of-text again, unless the tokenizer has a token that texts begin with.

A corpus is cut into blocks of about BLOCK tokens, each of row groups from all over the corpus. Blocks are packed by
themselves and come in another order, packed anew, in each epoch; one is in memory and the next is being read. So
memory is bounded whatever the size of the corpus, and all follows from (manifest sha256, length, seed) alone: sample s
of the run is row s % rows of epoch s // rows. Which rank computes it is decided by the trainer: the order survives a
change of world size.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.corpus import Corpus, tokens
from model.packing import Plan, hashes, n_rows, pack, plan_key, shuffle
from tasks.errors import UserError

BLOCK = 1 << 26         # tokens read together and mixed with each other: 128 MiB as uint16
READERS = 2             # row groups of a block that are fetched and decoded at once

PACKING = pa.schema([("sample_id", pa.int64()), ("segment", pa.int32()), ("shard", pa.int32()), ("row", pa.int32()),
                     ("offset", pa.int32()), ("length", pa.int32()), ("doc_id", pa.uuid())])

Read = Callable[[int], tuple[np.ndarray, np.ndarray | None]]


class Batch(NamedTuple):
    """Arrays (rows, length), int64. `segments` holds document indices: a row has at most one piece of a document.

    Padding has input eot, target -100, segment -1.
    """

    inputs: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


def empty_batch(rows: int, length: int) -> Batch:
    return Batch(*(np.empty((rows, length), np.int64) for _ in Batch._fields))


@dataclass
class Samples:
    """Rows for the model, in an endless order over epochs.

    `read(i)` gives document i's tokens and which of them count as targets (None: all of them). Documents that are not
    in memory come in `blocks` (their indices) instead: `load(b)` reads a block, ahead of its turn in a thread of its
    own, and gives the `read` of its documents, counted within the block.
    """

    lengths: np.ndarray                         # tokens of each document
    read: Read | None
    eot: int
    length: int
    digest: str
    seed: int
    targets_each: np.ndarray | None = None      # targets of each document, where `read` masks some: `whole` then
    blocks: list[np.ndarray] | None = None
    load: Callable[[int], Read] | None = None
    index: np.ndarray | None = None             # of each document its row in the corpus's documents
    whole: bool = False                         # no document that fits a row is cut to save padding
    bos: int | None = None                      # with which documents begin; None: end-of-text

    def __post_init__(self):
        self.blocks = self.blocks or [np.arange(len(self.lengths))]
        self.whole = self.whole or self.targets_each is not None
        self.bos = self.eot if self.bos is None else self.bos
        self._rows = np.array([n_rows(self.lengths[block], self.length, self.whole) for block in self.blocks])
        self.rows = int(self._rows.sum())       # the same in every epoch: it depends on the lengths alone
        self._plans: dict[int, Future[Plan]] = {}
        self._reading: dict[int, Future[Read]] = {}
        self._lock, self._pool = Lock(), ThreadPoolExecutor(1, "read-ahead")
        self._now: tuple[int, Read | None] = -1, None
        self._count = np.arange(self.length)
        self._order = lru_cache(4)(self._order)

    @property
    def padding(self) -> float:
        """The fraction of the slots of an epoch that hold no token."""
        return 1 - float(self.lengths.sum()) / (self.rows * self.length)

    def source_epochs(self, samples: int) -> dict[str, float]:
        """As of a mixture: nothing, each token of each source comes once an epoch."""
        return {}

    def _order(self, epoch: int) -> tuple[list[int], list[int]]:
        """The blocks of an epoch in turn, and the first row of each."""
        order = shuffle(len(self.blocks), plan_key(self.digest, self.length, self.seed, epoch))
        return order.tolist(), (np.cumsum(self._rows[order]) - self._rows[order]).tolist()

    def place(self, sample: int) -> tuple[int, int]:
        """Of a sample the turn (blocks counted on through the epochs) and the row in that turn's plan."""
        epoch, row = divmod(int(sample), self.rows)
        begins = self._order(epoch)[1]
        turn = bisect_right(begins, row) - 1
        return epoch * len(self.blocks) + turn, row - begins[turn]

    def _block(self, turn: int) -> tuple[int, int]:
        epoch, at = divmod(turn, len(self.blocks))
        return epoch, self._order(epoch)[0][at]

    def plan(self, turn: int) -> Plan:
        """How the block of a turn is packed; the turns of a corpus in one block are its epochs."""
        with self._lock:                        # asked for by threads that cut batches, count targets and write packing
            mine = turn not in self._plans
            found = Future() if mine else self._plans.pop(turn)
            self._plans[turn] = found           # the last one used comes last
            while len(self._plans) > 4:
                del self._plans[next(iter(self._plans))]
        if mine:                                # without the lock: others wait for this plan alone
            epoch, block = self._block(turn)
            key = plan_key(self.digest, self.length, self.seed, epoch, block)
            try:
                found.set_result(pack(self.lengths[self.blocks[block]], self.length, key, self.whole))
            except BaseException as error:
                found.set_exception(error)
        return found.result()

    def _reader(self, turn: int) -> Read:
        """The documents of a turn's block. Holds that block and reads the next; forgets all others."""
        if self.load is None:
            return self.read
        with self._lock:
            wanted = [self._block(number)[1] for number in (turn, turn + 1)]
            for block in self._reading.keys() - set(wanted):
                del self._reading[block]
            for block in wanted:
                if block not in self._reading:
                    self._reading[block] = self._pool.submit(self.load, block)
            now = self._reading[wanted[0]]
        return now.result()

    def segments(self, sample: int) -> list[tuple[int, int, int]]:
        """(document, offset, length) of the segments of a sample."""
        return list(zip(*(column.tolist() for column in self.pieces(sample, sample + 1)[1:]), strict=True))

    def pieces(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """Sample, document, offset and length of each segment of the samples from `first` to before `last`."""
        parts = [(np.zeros(0, np.int64),) * 4]
        while first < last:
            turn, row = self.place(first)
            plan, block = self.plan(turn), self.blocks[self._block(turn)[1]]
            n = min(last - first, plan.rows - row)
            span = slice(plan.starts[row], plan.starts[row + n])
            sample = np.repeat(np.arange(first, first + n), np.diff(plan.starts[row:row + n + 1]))
            parts.append((sample, block[plan.document[span]], plan.offset[span], plan.length[span]))
            first += n
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))

    def filled(self, samples: range) -> np.ndarray:
        """Tokens in each of the samples (int64), from the first to the last of them: the rest is padding."""
        first, parts = samples.start, [np.zeros(0, np.int64)]
        while first < samples.stop:
            turn, row = self.place(first)
            parts.append(self.plan(turn).totals[row:row + samples.stop - first])
            first += len(parts[-1])
        return np.concatenate(parts)

    def n_targets(self, samples: range) -> int:
        """How many tokens of `samples` count in the loss, known without reading them."""
        if self.targets_each is not None:
            return int(self.targets_each[self.pieces(samples.start, samples.stop)[1]].sum())
        return int(self.filled(samples).sum())

    def batch(self, samples) -> Batch:
        """The samples as arrays; a sample of -1 is a row of padding."""
        batch = empty_batch(len(samples), self.length)
        for i, sample in enumerate(samples):
            self.fill(batch, i, sample)
        return batch

    def fill(self, batch: Batch, i: int, sample: int, first: int = 0) -> None:
        """Writes a sample to row i of `batch`; its documents are counted from `first`."""
        inputs, targets, positions, segments = (array[i] for array in batch)
        at = 0
        for own, document, cut, n in self._pieces_to_read(sample) if sample >= 0 else ():
            text, counted = self._now[1](own)
            piece, end = text[cut:cut + n], at + n
            inputs[at] = text[cut - 1] if cut else self.bos
            inputs[at + 1:end] = piece[:-1]
            targets[at:end] = piece
            if counted is not None:
                targets[at:end][~counted[cut:cut + n]] = -100
            positions[at:end] = self._count[:n]
            segments[at:end] = document + first
            at = end
        if at < self.length:
            inputs[at:], targets[at:], positions[at:], segments[at:] = self.eot, -100, 0, -1

    def _pieces_to_read(self, sample: int) -> Iterator[tuple[int, int, int, int]]:
        """Number in the block, document, offset and length of each segment; `_now` can read them then."""
        turn, row = self.place(sample)
        plan = self.plan(turn)
        if self._now[0] != turn:
            self._now = -1, None                # so that the block before can go
            self._now = turn, self._reader(turn)
        span = slice(plan.starts[row], plan.starts[row + 1])
        own = plan.document[span]
        columns = own, self.blocks[self._block(turn)[1]][own], plan.offset[span], plan.length[span]
        return zip(*(column.tolist() for column in columns), strict=True)


def blocks_of(sizes: np.ndarray, block_tokens: int, key: int) -> np.ndarray:
    """The block of each row group, from its tokens: about `block_tokens` each, one row group at least.

    The corpus lies in the order of arrival, by source and crawl. It is cut into as many stretches as a block has row
    groups, and each block gets one row group of each stretch, which `key` picks: every block is like the whole.
    """
    n = min(max(1, -(-int(sizes.sum()) // block_tokens)), max(1, len(sizes)))
    stretch = np.arange(len(sizes)) // n
    blocks = np.empty(len(sizes), np.int64)
    blocks[np.lexsort((hashes(len(sizes), key), stretch))] = np.arange(len(sizes)) % n
    return blocks


def corpus_samples(corpus: Corpus, chosen: np.ndarray, length: int, seed: int, block_tokens: int = BLOCK,
                   whole: bool = False) -> Samples:
    """Samples of the documents of `corpus` that `chosen` names (ascending indices into `corpus.documents`); `whole`:
    none that fits a row is cut, as what is measured by document should not be.

    In memory at once: two blocks (of about `block_tokens`; a block is no less than one row group) and a few megabytes
    for each of READERS row groups that are decoded; and of each document 50 bytes, its row of `corpus.documents`.
    """
    chosen = np.asarray(chosen, np.int64)
    lengths = corpus.documents["n_tokens"].to_numpy()[chosen].astype(np.int64)
    group = np.searchsorted(corpus.groups[:, 2], chosen, "right") - 1
    used, sizes = np.unique(group), np.bincount(group, lengths, len(corpus.groups))
    block_of = np.zeros(len(corpus.groups), np.int64)
    block_of[used] = blocks_of(sizes[used], block_tokens, plan_key(corpus.digest, length, seed, "blocks"))
    by_block = np.argsort(block_of[group], kind="stable")
    blocks = np.split(by_block, np.flatnonzero(np.diff(block_of[group[by_block]])) + 1)

    def load(block: int) -> Read:
        documents = blocks[block]
        starts = np.concatenate([[0], np.cumsum(lengths[documents])])
        out = np.empty(starts[-1], corpus.manifest["dtype"])
        edges = [*np.flatnonzero(np.diff(group[documents], prepend=-1)).tolist(), len(documents)]

        def copy(begin: int, end: int) -> None:         # the documents of one row group
            number = int(group[documents[begin]])
            wanted = chosen[documents[begin:end]] - corpus.groups[number, 2]
            first = 0
            for flat, at in tokens(corpus, number):
                n_tokens = np.diff(at)
                end = begin + np.searchsorted(wanted, first + len(n_tokens))
                here, wanted = wanted[:end - begin] - first, wanted[end - begin:]
                if not np.array_equal(n_tokens[here], lengths[documents[begin:end]]):
                    shard = corpus.manifest["shards"][corpus.groups[number, 0]]["path"]
                    raise UserError(f"{corpus.folder}/{shard}: n_tokens is not the length of tokens: tokenize it again")
                if len(here) < len(n_tokens):
                    flat = flat[np.repeat(np.isin(np.arange(len(n_tokens)), here), n_tokens)]
                out[starts[begin]:starts[end]] = flat
                begin, first = end, first + len(n_tokens)

        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(copy, edges[:-1], edges[1:]))
        begins = starts.tolist()
        return lambda i: (out[begins[i]:begins[i + 1]], None)

    return Samples(lengths, None, int(corpus.manifest["tokenizer"]["eot"]), length, corpus.digest, seed,
                   blocks=blocks, load=load, index=chosen, whole=whole, bos=corpus.bos)


def packing(corpus: Corpus, samples: Samples, last: int, chunk: int = 1 << 16) -> Iterator[pa.Table]:
    """Which tokens the samples before `last` hold, in the PACKING schema, `chunk` samples a table."""
    index = corpus.documents
    for first in range(0, last, chunk):
        sample, document, offset, length = samples.pieces(first, min(last, first + chunk))
        segment = np.arange(len(sample)) - np.searchsorted(sample, sample)
        columns = {"sample_id": sample, "segment": segment, "offset": offset, "length": length}
        arrays = {name: pa.array(values).cast(PACKING.field(name).type) for name, values in columns.items()}
        rows = pa.array(samples.index[document])
        arrays |= {name: index[name].combine_chunks().take(rows) for name in ("shard", "row", "doc_id")}
        yield pa.table([arrays[name] for name in PACKING.names], schema=PACKING)


def write_packing(path: Path, last: int, corpus: Corpus, samples: Samples) -> None:
    """`packing` as a Parquet file."""
    with pq.ParquetWriter(path, PACKING, compression="zstd", write_page_checksum=True) as writer:
        for table in packing(corpus, samples, last):
            writer.write_table(table)

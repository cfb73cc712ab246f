"""Near-duplicate pairs by MinHash and locality-sensitive hashing.

A signature's 112 positions are cut into bands; documents with an equal band fall into one bucket (Leskovec,
Rajaraman, Ullman: Mining of Massive Datasets, section 3.4). A bucket is only a suspicion: each pair is verified by
the share of equal positions in the whole signatures, an unbiased estimate of the Jaccard similarity (Broder 1997).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tasks.dedup.settings import BANDS, DECISIONS, PAIRS, PERMUTATIONS, Dedup
from tasks.schema import id_bytes, id_words
from tasks.stage import Stage

_CHUNK = 1 << 16  # pairs verified at once: two gathers of 29 MB

bands = Stage("dedup-bands", version=1, settings=Dedup, makes=BANDS,
              needs={"signals": ["doc_id", "n_words", "minhash"]})
pairs = Stage("dedup-pairs", version=1, settings=Dedup, makes=PAIRS,
              needs={"bands": ["hash", "row"], "signals": ["doc_id", "minhash"], "exact": DECISIONS.names})


def signatures(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A minhash column without nulls as an array of shape (n, 112), dtype uint32, without a copy."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, PERMUTATIONS)


def band_hashes(signature: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """64-bit hashes of the bands: (n, 112) uint32 -> (n, bands) uint64.

    Each position is folded in with a multiply and shift, the end is splitmix64's finaliser (Steele, Lea, Flood 2014).
    The band's number seeds its hash, so equal hashes mean equal bands and a range of hashes holds all bands alike.
    """
    parts = signature[:, :bands * rows].reshape(-1, bands, rows)
    with np.errstate(over="ignore"):
        h = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
                            parts.shape[:2]).copy()
        for k in range(rows):
            h = (h ^ parts[:, :, k]) * np.uint64(0xFF51AFD7ED558CCD)
            h ^= h >> np.uint64(32)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return h ^ (h >> np.uint64(31))


@bands.shard
def index(signals: pa.Table, settings: Dedup) -> pa.Table:
    """The BANDS rows of a shard: those of the documents with at least `min_words` words and a signature."""
    usable = signals["n_words"].to_numpy() >= max(settings.min_words, 1)  # no words: an empty signature, like to none
    usable &= ~signals["minhash"].combine_chunks().is_null().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(usable).astype(np.int32)
    if not settings.near or not len(rows):
        return BANDS.empty_table()
    hashes = band_hashes(signatures(signals["minhash"].take(pa.array(rows))), settings.bands, settings.rows)
    number = np.broadcast_to(np.arange(settings.bands, dtype=np.uint8), hashes.shape).ravel()
    row = np.repeat(rows, settings.bands)
    order = np.lexsort((row, number, hashes.ravel()))
    row = row[order]
    ids = signals["doc_id"].combine_chunks().take(pa.array(row))
    return pa.table([number[order], hashes.ravel()[order], ids, row], schema=BANDS)


def hash_range(partition: int, partitions: int) -> tuple[int, int]:
    """The first and the last hash (both included) of a partition of the 64-bit hashes."""
    return (partition << 64) // partitions, ((partition + 1 << 64) // partitions) - 1


def candidates(shards: Sequence[tuple[np.ndarray, np.ndarray]], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that share a bucket, from each shard's (hash, row) in any order.

    A document is named by shard << 32 | row, which sorts by arrival. In a bucket each document meets the first
    `first` ones before it. So a crowded bucket costs linear work, and of many copies each still meets the first.
    Returns unique pairs (a, b) of int64 with a < b, sorted by (b, a).
    """
    hashes = np.concatenate([h for h, _ in shards] or [np.empty(0, np.uint64)])
    names = np.concatenate([row.astype(np.int64) | shard << 32 for shard, (_, row) in enumerate(shards)]
                           or [np.empty(0, np.int64)])
    order = np.lexsort((names, hashes))
    hashes, names = hashes[order], names[order]
    new = np.ones(len(hashes), bool)
    new[1:] = hashes[1:] != hashes[:-1]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(hashes)))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)    # of a document in its bucket
    start = np.repeat(starts, sizes)
    later = names[start + place]
    a, b = [], []
    for j in range(first):
        behind = place > j
        a.append(names[start[behind] + j])
        b.append(later[behind])
    a, b = np.concatenate(a), np.concatenate(b)
    order = np.lexsort((a, b))
    a, b = a[order], b[order]
    new = np.ones(len(a), bool)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    new &= a != b                                   # one document twice in a bucket: two of its bands collide
    return a[new], b[new]


def equal_positions(a: np.ndarray, b: np.ndarray, signals: Sequence[pa.Table]) -> np.ndarray:
    """How many positions of the two signatures agree, for each pair of names; int16.

    Only the signatures of these documents are held: one shard's table at a time is looked at.
    """
    names = np.unique(np.concatenate([a, b]))
    held = np.empty((len(names), PERMUTATIONS), np.uint32)
    shard_of = names >> 32
    for shard in np.unique(shard_of).tolist():
        mine = slice(*np.searchsorted(shard_of, [shard, shard + 1]))
        rows = pa.array(names[mine] & 0xFFFFFFFF)
        held[mine] = signatures(signals[shard]["minhash"].combine_chunks().take(rows))
    at, bt = np.searchsorted(names, a), np.searchsorted(names, b)
    equal = np.empty(len(a), np.int16)
    for i in range(0, len(a), _CHUNK):
        s = slice(i, i + _CHUNK)
        equal[s] = (held[at[s]] == held[bt[s]]).sum(axis=1, dtype=np.int16)
    return equal


@pairs.shard
def verified(bands: Sequence[pa.Table], signals: Sequence[pa.Table], exact: pa.Table, settings: Dedup, *,
             partition: int = 0, partitions: int = 1) -> pa.Table:
    """The verified near-duplicate PAIRS of the buckets in one range of hashes.

    Args:
        bands, signals: a table for each shard of the build, in order of arrival. Sequences that read a table when
            asked for it will do: each is looked at once.
        exact: the decisions of the URL and exact rules; what they dropped takes no part.
        partition, partitions: which range, of how many (`Dedup.partitions`).
    """
    low, high = hash_range(partition, partitions)
    gone_shard, gone_row = exact["shard"].to_numpy(), exact["row"].to_numpy()
    entries = []
    for shard, table in enumerate(bands):
        hashes = table["hash"].to_numpy()
        begin = np.searchsorted(hashes, np.uint64(low))
        end = np.searchsorted(hashes, np.uint64(high), side="right")
        hashes, rows = hashes[begin:end], table["row"].to_numpy()[begin:end]
        alive = ~np.isin(rows, gone_row[gone_shard == shard])
        entries.append((hashes[alive], rows[alive]))
    a, b = candidates(entries, settings.first)
    equal = equal_positions(a, b, signals)
    good = equal >= settings.min_equal
    a, b, equal = a[good], b[good], equal[good]
    columns = [a >> 32, a & 0xFFFFFFFF, b >> 32, b & 0xFFFFFFFF]
    return pa.table([*(c.astype(np.int32) for c in columns), equal], schema=PAIRS)


def check_ids(found: pa.Array, expected: pa.Array, shard: int | None) -> None:
    """Raises ValueError when decisions do not belong to the shard they are applied to."""
    if not id_bytes(found).equals(id_bytes(expected)):
        wrong = np.flatnonzero((id_words(found) != id_words(expected)).any(axis=1))
        raise ValueError(f"{len(wrong)} decisions do not belong to shard {shard}: row and doc_id disagree")

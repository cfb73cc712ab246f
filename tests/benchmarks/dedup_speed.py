"""Deduplication of synthetic signatures at scale: `python tests/benchmarks/dedup_speed.py [documents] [shards]`.

A fifth of the documents are near-copies of earlier ones, and 2 % share one band (a template's crowded bucket).
"""

import resource
import sys
import time

import numpy as np
import pyarrow as pa

from tasks.dedup import Dedup
from tasks.dedup.lsh import index, verified
from tasks.dedup.survivors import decisions, exact_decisions, survivors
from tasks.schema import id_array


def build(documents: int, shards: int, seed: int = 1):
    """Documents and signals tables of a made-up build, a fifth of it near-copies at 5 to 40 changed positions."""
    random = np.random.default_rng(seed)
    signature = random.integers(0, 2**32, (documents, 112), dtype=np.uint32)
    copies = np.flatnonzero(random.random(documents) < 0.2)
    copies = copies[copies > 0]
    signature[copies] = signature[(copies * random.random(len(copies))).astype(int)]
    for i in range(0, len(copies), 1 << 16):
        some = copies[i:i + (1 << 16)]
        changed = random.random((len(some), 112)) < random.uniform(0.05, 0.4, (len(some), 1))
        signature[some] = np.where(changed, random.integers(0, 2**32, changed.shape, dtype=np.uint32), signature[some])
    signature[random.random(documents) < 0.02, :8] = 7
    ids = np.frombuffer(random.bytes(documents * 16), "S16")
    columns = {"doc_id": id_array(pa.py_buffer(ids) and pa.FixedSizeBinaryArray.from_buffers(
                   pa.binary(16), documents, [None, pa.py_buffer(ids)])),
               "url": pa.array([f"https://www.example{i % 9973}.org/page/{i}?q=1" for i in range(documents)]),
               "fetched_at": pa.array(np.arange(documents), pa.timestamp("us", tz="UTC")),
               "n_words": pa.array(np.full(documents, 300, np.int32)),
               "minhash": pa.FixedSizeListArray.from_arrays(pa.array(signature.ravel()), 112)}
    columns["content_id"] = columns["doc_id"]
    for name in ("domain", "snapshot", "source", "warc_file"):
        columns[name] = pa.array(["x"] * documents)
    columns["warc_offset"] = pa.array(np.arange(documents))
    table = pa.table(columns)
    size = -(-documents // shards)
    return [table.slice(i, size).combine_chunks() for i in range(0, documents, size)]


def main(documents: int = 1_000_000, shards: int = 50):
    tables = build(documents, shards)
    settings = Dedup()

    def timed(name, function):
        began = time.perf_counter()
        value = function()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:8} {time.perf_counter() - began:7.2f} s   peak {peak:.2f} GiB", flush=True)
        return value

    bands = timed("bands", lambda: [index(t, settings) for t in tables])
    exact = timed("exact", lambda: exact_decisions(tables, settings))
    n = settings.partitions(documents)
    pairs = timed("pairs", lambda: [verified(bands, tables, exact, settings, partition=i, partitions=n)
                                    for i in range(n)])
    decided = timed("decide", lambda: decisions(tables, exact, pairs, settings))
    results = timed("dedup", lambda: [survivors(t, decided, settings, shard=i) for i, t in enumerate(tables)])
    print(f"{documents} documents, {n} partitions, {sum(map(len, pairs))} verified pairs, {len(decided)} dropped, "
          f"{sum(len(r.table) for r in results)} kept")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""The loader beside others: tokens a second into batches of one shape, by the clock and by CPU time, and memory.

    python tests/benchmarks/loader_speed.py CORPUS_VERSION_FOLDER [--copies 80] [--rounds 3] [--millions 200]

CORPUS_VERSION_FOLDER is a published version (HOME/corpora/NAME/versions/NNNNNN); --copies repeats its documents, in
another order each time, into 8 token shards written as the tokenize stage writes them, so that a small corpus fills
blocks. The same tokens are written for the others: a flat file of uint16 (nanoGPT's way: windows from np.memmap at
random places), LitData's TokensLoader and MosaicML Streaming's MDS (rows of the batch's length; both are skipped where
they cannot be imported). Each case runs in a process of its own, the cases in turn, `--rounds` times; the median
counts. The clock starts before the corpus is opened and stops at `--millions` of tokens or after `--seconds`; imports
are left out. Batches are (8, 2048) pairs of int64 inputs and targets; ours have positions and document numbers too.
"""

import argparse
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.corpus import open_corpus, tokens
from model.data import corpus_samples
from tasks.schema import doc_id, id_array
from tasks.stage import parquet_options
from tasks.tokenizer import load, save

ROWS, LENGTH = 8, 2048


def repeated(folder: str, copies: int, out: Path, shards: int = 8) -> Path:
    """A corpus version whose documents are those of `folder`, `copies` times."""
    corpus, rng, entries = open_corpus(folder), np.random.default_rng(0), []
    paths = [f"{folder}/{entry['path']}" for entry in corpus.manifest["shards"]]
    table = pa.concat_tables([pq.read_table(path) for path in paths]).combine_chunks()
    (out / "tokens").mkdir(parents=True)
    for shard in range(shards):
        take = np.concatenate([rng.permutation(len(table)) for _ in range(max(1, copies // shards))])
        made = table.take(pa.array(take)).combine_chunks()
        made = made.set_column(0, table.schema.field(0), id_array([doc_id(f"{shard}", i) for i in range(len(made))]))
        path = out / f"tokens/shard-{shard:05d}.parquet"
        pq.write_table(made, path, **{"compression": "zstd", "compression_level": 1, "write_page_checksum": True}
                       | parquet_options(made))
        entries.append({"path": f"tokens/{path.name}", "sha256": sha256(path.read_bytes()).hexdigest(),
                        "rows": len(made), "tokens": int(made["n_tokens"].to_numpy().sum())})
    save(load(f"{folder}/tokenizer"), str(out / "tokenizer"))
    (out / "manifest.json").write_text(json.dumps(corpus.manifest | {"shards": entries}))
    return out


def write_others(corpus_folder: Path, work: Path) -> None:
    corpus = open_corpus(str(corpus_folder))
    with open(work / "train.bin", "wb") as file:
        for group in range(len(corpus.groups)):
            for flat, _ in tokens(corpus, group):
                file.write(flat.tobytes())
    flat = np.memmap(work / "train.bin", dtype=np.uint16)
    windows = [flat[at:at + LENGTH + 1] for at in range(0, len(flat) - LENGTH - 1, LENGTH)]
    if importlib.util.find_spec("litdata"):
        import torch
        from litdata.streaming import TokensLoader
        from litdata.streaming.writer import BinaryWriter
        writer = BinaryWriter(str(work / "litdata"), chunk_size=(LENGTH + 1) * 4096,
                              item_loader=TokensLoader(block_size=LENGTH + 1))
        for i, at in enumerate(range(0, len(flat), 1 << 20)):
            writer.add_item(i, torch.from_numpy(flat[at:at + (1 << 20)].astype(np.int32)))
        writer.done()
        writer.merge()
    if importlib.util.find_spec("streaming"):
        from streaming import MDSWriter
        with MDSWriter(out=str(work / "mds"), columns={"tokens": f"ndarray:uint16:{LENGTH + 1}"}) as writer:
            for window in windows:
                writer.write({"tokens": np.array(window)})


def ours(folder: Path, work: Path):
    corpus = open_corpus(str(folder))
    samples = corpus_samples(corpus, np.arange(len(corpus.documents)), LENGTH, 0)
    for at in itertools.count(0, ROWS):
        batch = samples.batch(range(at, at + ROWS))
        yield batch.inputs, batch.targets


def object_store(folder: Path, work: Path):
    import fsspec
    fsspec.filesystem("memory").put(str(folder), "/corpus", recursive=True)
    yield from ours("memory://corpus", work)


def bins(folder: Path, work: Path):
    """nanoGPT's get_batch."""
    import torch
    rng = torch.Generator().manual_seed(0)
    while True:
        flat = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
        places = torch.randint(len(flat) - LENGTH - 1, (ROWS,), generator=rng).tolist()
        yield (torch.stack([torch.from_numpy(flat[at:at + LENGTH].astype(np.int64)) for at in places]),
               torch.stack([torch.from_numpy(flat[at + 1:at + 1 + LENGTH].astype(np.int64)) for at in places]))


def litdata(folder: Path, work: Path):
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    loader = TokensLoader(block_size=LENGTH + 1)
    data = StreamingDataset(str(work / "litdata"), item_loader=loader, shuffle=True, seed=0)
    while True:
        for batch in StreamingDataLoader(data, batch_size=ROWS, num_workers=0, drop_last=True):
            yield batch[:, :-1].long(), batch[:, 1:].long()


def mosaic(folder: Path, work: Path):
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader
    data = StreamingDataset(local=str(work / "mds"), shuffle=True, shuffle_seed=0, batch_size=ROWS)
    while True:
        for batch in DataLoader(data, batch_size=ROWS, num_workers=0, drop_last=True):
            rows = batch["tokens"].long()
            yield rows[:, :-1], rows[:, 1:]


CASES = {"local Parquet": ours, "object store (memory://)": object_store, "memory-mapped bins": bins,
         "litdata": litdata, "mosaic streaming": mosaic}
PACKAGES = {"litdata": "litdata", "mosaic streaming": "streaming"}


def resident() -> float:
    """Most memory that this process has had, MB (getrusage would give that of the process it was forked from)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(case: str, folder: Path, work: Path, n_tokens: float, seconds: float) -> None:
    import torch
    torch.set_num_threads(1)
    if case in PACKAGES:
        importlib.import_module(PACKAGES[case])
    before, at, cpu, n, first = resident(), time.perf_counter(), time.process_time(), 0, 0.0
    batches = CASES[case](folder, work)
    while n < n_tokens and time.perf_counter() - at < seconds:
        n += next(batches)[0].shape[0] * LENGTH
        first = first or time.perf_counter() - at
    wall, cpu = time.perf_counter() - at, time.process_time() - cpu
    print(json.dumps({"first": first, "wall": n / wall / 1e6, "cpu": n / cpu / 1e6, "peak": resident() - before,
                      "tokens": n}), flush=True)
    os._exit(0)                                 # some leave processes and shared memory to be waited for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--copies", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--millions", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--work", type=Path, help="keep what is written here, and take it from here the next time")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="loader-speed-"))
    if args.measure:
        return measure(args.measure, work / "corpus", work, args.millions * 1e6, args.seconds)
    if not (work / "ready").exists():
        work.mkdir(exist_ok=True)
        write_others(repeated(args.corpus, args.copies, work / "corpus"), work)
        (work / "ready").touch()
    corpus = open_corpus(str(work / "corpus"))
    samples = corpus_samples(corpus, np.arange(len(corpus.documents)), LENGTH, 0)
    print(f"{int(samples.lengths.sum()):,} tokens, {len(samples.lengths):,} documents, {len(corpus.groups)} row "
          f"groups, {len(samples.blocks)} blocks, padding {samples.padding:.3%}; load {os.getloadavg()[0]:.1f}",
          flush=True)
    found: dict[str, list[dict]] = {case: [] for case in args.cases}
    for _ in range(args.rounds):
        for case in args.cases:
            child = subprocess.run([sys.executable, __file__, args.corpus, "--work", str(work), "--measure", case,
                                    "--seconds", str(args.seconds), "--millions", str(args.millions)],
                                   capture_output=True, text=True)
            if child.returncode:
                print(f"{case}: {child.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            found[case].append(json.loads(child.stdout.splitlines()[-1]))
    print(f"{'':26} M tokens/s: clock  CPU time   first batch s  MB added")
    for case, rows in found.items():
        if rows:
            wall, cpu, first, peak = (statistics.median(row[key] for row in rows)
                                      for key in ("wall", "cpu", "first", "peak"))
            print(f"{case:26} {wall:17.1f} {cpu:9.1f} {first:15.2f} {peak:8.0f}")
    if not args.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()

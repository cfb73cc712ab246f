"""How far the whole flow is from the least that any such program must do: read, parse, tokenize.

    python tests/benchmarks/whole_flow.py web/*.warc.gz bulk/*.warc.gz --tokenizer gpt2 --keep HOME
    python tests/benchmarks/floor.py HOME web/*.warc.gz bulk/*.warc.gz

The floor, in as many processes as the flow had: FastWARC reads and decodes every response, resiliparse parses it to a
tree (nothing is looked for in it), and tiktoken encodes the texts that the flow kept in HOME. Prints one JSON object:
CPU and wall seconds of the floor, and the flow's CPU seconds by stage from its ledger.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import tiktoken
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree


def read(path: str) -> dict:
    """CPU seconds of reading and of parsing, and what was read."""
    reading = parsing = 0.0
    pages = size = 0
    began = time.process_time()
    for record in ArchiveIterator(open(path, "rb"), record_types=WarcRecordType.response, parse_http=True,
                                  auto_decode="all"):
        body = record.reader.read()
        now = time.process_time()
        reading += now - began
        HTMLTree.parse_from_bytes(body, record.http_charset or detect_encoding(body))
        began = time.process_time()
        parsing += began - now
        pages, size = pages + 1, size + len(body)
    return {"reading": reading, "parsing": parsing, "pages": pages, "bytes": size}


def encode(path: str) -> dict:
    encoding = tiktoken.get_encoding("gpt2")
    texts = [encoding.decode(row[:-1]) for row in pq.read_table(path, columns=["tokens"])["tokens"].to_pylist()]
    began = time.process_time()
    tokens = sum(len(encoding.encode_ordinary(text)) for text in texts)
    return {"tokenizing": time.process_time() - began, "tokens": tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    shards = [str(path) for path in Path(args.home).glob("corpora/bench/versions/*/tokens/*.parquet")]
    files = sorted(args.files, key=lambda path: -Path(path).stat().st_size)
    with multiprocessing.Pool(args.workers) as pool:
        pool.map(abs, range(args.workers))
        began = time.perf_counter()
        done = pool.map(read, files, chunksize=1)
        wall = time.perf_counter() - began
        tokenized = pool.map(encode, shards, chunksize=1)
    tokenizing = sum(row["tokenizing"] for row in tokenized)
    floor = {step: round(sum(row[step] for row in done), 2) for step in ("reading", "parsing")}
    floor |= {"tokenizing": round(tokenizing, 2)}
    with duckdb.connect(f"{args.home}/lineage.duckdb", read_only=True) as lineage:
        stages = lineage.sql(
            "SELECT stage, round(sum(cpu_seconds), 2) FROM shards GROUP BY 1 ORDER BY 2 DESC").fetchall()
    cpu = sum(seconds for _, seconds in stages)
    print(json.dumps({
        "pages": sum(row["pages"] for row in done), "html_mb": round(sum(row["bytes"] for row in done) / 1e6, 1),
        "tokens": sum(row["tokens"] for row in tokenized),
        "floor_cpu_seconds": floor | {"all": round(sum(floor.values()), 2)},
        "floor_wall_seconds": round(wall + tokenizing / args.workers, 2),
        "flow_cpu_seconds": dict(stages) | {"all": round(cpu, 2)},
        "flow_cpu_over_floor": round(cpu / sum(floor.values()), 2)}, indent=1))


if __name__ == "__main__":
    main()

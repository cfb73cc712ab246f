"""How fast documents are annotated: MB of UTF-8 text a second of CPU time on one core, by part.

    python tests/benchmarks/annotate_speed.py [TABLE.parquet | ROWS.jsonl.gz ...]

Each file needs a column `text`; without arguments, the human main texts of the shared web pages and the NLTK
documents are read from the folder that GRISTMILL_SHARED names.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROUNDS = 3


def read(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=["text"])["text"].to_pylist()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row.get("text") or row.get("gold_text") for row in rows if row.get("text") or row.get("gold_text")]


def best(function) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths:
        data = Path(os.environ["GRISTMILL_SHARED"]) / "data"
        paths = [data / "web/webpages_dev.jsonl.gz", data / "text/nltk_docs.jsonl.gz"]
    texts = pa.array([text for path in paths for text in read(path)], pa.large_string())
    size = sum(len(text.as_buffer()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB")

    began = time.process_time()
    from tasks.annotate import Annotate, measure_texts, signals
    imported = time.process_time()
    measure_texts(texts.slice(0, 1))
    print(f"start: import {imported - began:.2f} s, first document {time.process_time() - imported:.2f} s "
          f"(compiles when there is no cache, else loads)")

    seconds = best(lambda: measure_texts(texts))
    print(f"signals and MinHash: {size / seconds:.1f} MB/s, {len(texts) / seconds:.0f} documents/s")
    documents = pa.table({"doc_id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(
        [i.to_bytes(16, "big") for i in range(len(texts))], pa.binary(16))), "text": texts})
    signals(documents.slice(0, 1), Annotate())
    whole = best(lambda: signals(documents, Annotate()))
    print(f"the whole stage with py3langid: {size / whole:.1f} MB/s, {len(texts) / whole:.0f} documents/s; "
          f"language {1e3 * (whole - seconds) / len(texts):.3f} ms a document")
    long = pa.array([" ".join(texts[i].as_py() for i in range(len(texts)))[:10_000_000]], pa.large_string())
    print(f"one text of 10 MB: {len(long[0].as_buffer()) / 1e6 / best(lambda: measure_texts(long)):.1f} MB/s")
    noise = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FFF, 2_000_000)))
    wide = pa.array([noise], pa.large_string())
    print(f"one text of 2 million Han characters: {6 / best(lambda: measure_texts(wide)):.1f} MB/s")


if __name__ == "__main__":
    main()

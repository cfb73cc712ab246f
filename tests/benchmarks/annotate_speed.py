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
    from tasks.annotate import Annotate, signals
    from tasks.annotate.lexicon import lexicon
    from tasks.annotate.measure import measure_texts
    from tasks.lines import Lines, cut_lines
    imported = time.process_time()
    measure_texts(texts.slice(0, 1))
    print(f"start: import {imported - began:.2f} s, first document {time.process_time() - imported:.2f} s "
          f"(compiles when there is no cache, else loads)")

    numbers, words = np.zeros(len(texts), np.int32), lexicon()
    numbers[:] = words.languages["en"]
    seconds = best(lambda: measure_texts(texts, numbers, words))
    print(f"signals and MinHash: {size / seconds:.1f} MB/s, {len(texts) / seconds:.0f} documents/s")
    parts(texts, size, numbers, words)
    documents = pa.table({"doc_id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(
        [i.to_bytes(16, "big") for i in range(len(texts))], pa.binary(16))), "text": texts})
    lines = cut_lines(documents, Lines(presets=[]))
    signals(documents.slice(0, 1), lines.slice(0, 1), Annotate())
    whole = best(lambda: signals(documents, lines, Annotate()))
    print(f"the whole stage with the language: {size / whole:.1f} MB/s, {len(texts) / whole:.0f} documents/s; "
          f"language {1e3 * (whole - seconds) / len(texts):.3f} ms a document")
    long = pa.array([" ".join(texts[i].as_py() for i in range(len(texts)))[:10_000_000]], pa.large_string())
    print(f"one text of 10 MB: {len(long[0].as_buffer()) / 1e6 / best(lambda: measure_texts(long)):.1f} MB/s")
    noise = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FFF, 2_000_000)))
    wide = pa.array([noise], pa.large_string())
    print(f"one text of 2 million Han characters at random: {6 / best(lambda: measure_texts(wide)):.1f} MB/s")
    for language, sentences in unspaced().items():
        texts = pa.array(["\n".join(sentences[i:i + 40]) for i in range(0, len(sentences), 40)] * 20, pa.large_string())
        size = sum(len(text.as_buffer()) for text in texts) / 1e6
        numbers = np.full(len(texts), words.languages[language], np.int32)
        print(f"{language}, documents of 40 sentences, {size:.1f} MB: "
              f"{size / best(lambda: measure_texts(texts, numbers, words)):.1f} MB/s")  # noqa: B023


def parts(texts: pa.Array, size: float, numbers: np.ndarray, words) -> None:
    """What each kernel takes, alone, over all documents at once."""
    from tasks.annotate import compression, measure, ngrams, scan, scanned, segment, signature

    data, offsets = measure.utf8(texts)
    starts = np.empty(len(data) // 3 + 1, np.int64)
    found, hashes = scanned.scanned(data, offsets)
    counted, ratios = np.zeros((len(texts), ngrams.COLUMNS)), np.zeros(len(texts))
    signatures = np.zeros((len(texts), measure.PERMUTATIONS), np.uint32)
    tables = scanned.code_points(), scanned.capitals(), scanned.landmarks(), scanned.enders(), scanned.counters()
    numbers.setflags(write=False)
    for name, work in {
            "segment": lambda: segment.word_starts(data, offsets, tables[0], *segment.dictionary(), starts),
            "scan": lambda: scan.scan(data, offsets, *tables, starts[:0], *hashes, found),
            "ngrams": lambda: ngrams.repetition(*hashes, numbers, words.bounds, words.keys, words.flags,
                                                 words.longest, counted),
            "compression": lambda: compression.compress(data, offsets, ratios),
            "signature": lambda: signature.sign(hashes[0], hashes[-1], measure.permutations(), signatures)}.items():
        print(f"  {name:12} {1e3 * best(work) / size:6.2f} ms/MB")


def unspaced() -> dict[str, list[str]]:
    """Sentences in languages written without spaces."""
    found = {language: [] for language in ("zh", "ja", "th", "km")}
    for path in sorted((Path(os.environ["GRISTMILL_SHARED"]) / "data/langid").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if row["lang"] in found:
                    found[row["lang"]].append(row["text"])
    return found


if __name__ == "__main__":
    main()

"""Tokenizing real text on one core: `GRISTMILL_SHARED=... python tests/benchmarks/tokenize_speed.py`.

Trains on the shared texts, then times the tokenize stage's function with the trained tokenizer and with tiktoken's
named ones, whose files are unpacked into a temporary TIKTOKEN_CACHE_DIR; endless runs go through each of them.
"""

import gzip
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.sample import PLAN
from tasks.schema import SPANS, id_array
from tasks.tokenize import Tokenize, files_table, token_shard
from tasks.tokenizer import encode, named, to_files, train

URLS = {
    "gpt2_vocab.bpe.gz": "gpt-2/encodings/main/vocab.bpe",
    "gpt2_encoder.json.gz": "gpt-2/encodings/main/encoder.json",
    **{f"{name}.tiktoken.gz": f"encodings/{name}.tiktoken"
       for name in ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")},
}


def texts(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("*.gz")):
        content = gzip.open(path, "rt", encoding="utf-8").read()
        if ".jsonl" in path.name:
            found += [json.loads(line).get("text", "") for line in content.split("\n") if line]
        else:
            found += [content[i:i + 20_000] for i in range(0, len(content), 20_000)]
    return [t for t in found if t]


def main():
    shared = Path(os.environ["GRISTMILL_SHARED"]) / "data"
    corpus = texts(shared / "text")
    size = sum(len(t.encode()) for t in corpus)
    began = time.perf_counter()
    trained = train(corpus, 32_768)
    print(f"train: {size / 1e6:.1f} MB, {trained.n_vocab} tokens, {time.perf_counter() - began:.1f} s (all cores)")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TIKTOKEN_CACHE_DIR"] = cache
        for name, url in URLS.items():
            key = hashlib.sha1(f"https://openaipublic.blob.core.windows.net/{url}".encode()).hexdigest()
            (Path(cache) / key).write_bytes(gzip.open(shared / "tokenizers" / name).read())
        encodings = [trained, *map(named, ("gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"))]
    n = len(corpus)
    ids = id_array([hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in range(n)])
    documents = pa.table({"doc_id": ids, "domain": ["x"] * n, "text": corpus})
    spans = pa.table([ids, np.arange(n, dtype=np.int32), [[]] * n], schema=SPANS)
    plan = pa.table([ids, [0] * n, range(n), [0] * n, [0] * n, ["x"] * n, ["en"] * n, [1.0] * n, [1] * n], schema=PLAN)
    for encoding in encodings:
        files = files_table(to_files(encoding))
        token_shard([documents], [spans], plan.slice(0, 1), files, Tokenize(), shards=[0])
        began = time.process_time()
        table = token_shard([documents], [spans], plan, files, Tokenize(), shards=[0])
        seconds = time.process_time() - began
        tokens = sum(table["n_tokens"].to_pylist())
        sample = table["tokens"].to_pylist()
        assert all(encoding.decode(t[:-1]) == text for t, text in zip(sample, corpus, strict=True))
        began = time.process_time()
        for hostile in ("a" * 10_000_000, " " * 10_000_000 + "x", "\n" * 3_000_000, "中文" * 1_000_000,
                        "=-" * 1_000_000, "1" * 3_000_000, "\t \n" * 1_000_000 + "x", "é" * 3_000_000):
            assert encoding.decode(encode(encoding, hostile)) == hostile
        print(f"{encoding.name:12} {size / seconds / 1e6:6.2f} MB/s {tokens / seconds / 1e6:6.2f} M tokens/s "
              f"{size / tokens:.3f} bytes/token   39 MB of endless runs: {time.process_time() - began:.1f} s")


if __name__ == "__main__":
    main()

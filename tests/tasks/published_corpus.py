"""A small published corpus, written as the manifest format says, with a byte-level tokenizer made here."""

import base64
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.schema import doc_id, id_array

SPECIAL = {"<|endoftext|>": 256, "<|user|>": 257, "<|assistant|>": 258, "<|end|>": 259, "<|pad|>": 260}
EOT = 256
WORDS = "the mill grinds grain and the river turns the wheel while a miller counts every sack that leaves".split()


def write_tokenizer(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    ranks = b"".join(base64.b64encode(bytes([i])) + b" " + str(i).encode() + b"\n" for i in range(256))
    about = {"name": "bytes", "kind": "tiktoken", "encoding": None, "pattern": r"\s?\S+|\s+", "special_tokens": SPECIAL,
             "n_vocab": 261, "eot": EOT}
    contents = {"ranks.tiktoken": ranks, "tokenizer.json": json.dumps(about).encode()}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {f"tokenizer/{name}": sha256(data).hexdigest() for name, data in contents.items()}


def write_corpus(home: Path, name: str = "mill", documents: int = 120, shards: int = 2, seed: int = 0,
                 version: int = 1, group_rows: int | None = None) -> Path:
    """Publishes `documents` texts of 5 to 120 words, `group_rows` a row group; returns the version folder."""
    rng = np.random.default_rng(seed)
    folder = home / "corpora" / name / "versions" / f"{version:06d}"
    (folder / "tokens").mkdir(parents=True)
    files = write_tokenizer(folder / "tokenizer")
    entries, total = [], [0, 0]
    for shard in range(shards):
        texts = [" ".join(rng.choice(WORDS, rng.integers(5, 120))).encode() for _ in range(documents // shards)]
        tokens = [list(text) + [EOT] for text in texts]
        table = pa.table(
            {
                "doc_id": id_array([doc_id(f"{name}-{shard}", i) for i in range(len(texts))]),
                "source": ["web" if i % 3 else "books" for i in range(len(texts))],
                "domain": [f"site{i % 4}.example" for i in range(len(texts))],
                "language": ["en"] * len(texts),
                "repeat": pa.array([0] * len(texts), pa.int16()),
                "n_bytes": pa.array([len(t) for t in texts], pa.int32()),
                "n_tokens": pa.array([len(t) for t in tokens], pa.int32()),
                "tokens": pa.array(tokens, pa.list_(pa.uint16())),
            }
        )
        path = f"tokens/shard-{shard:05d}.parquet"
        pq.write_table(table, folder / path, compression="zstd", write_page_checksum=True,
                       row_group_size=group_rows)
        counts = sum(map(len, tokens)), sum(map(len, texts))
        total = [total[0] + counts[0], total[1] + counts[1]]
        entries.append({"path": path, "sha256": sha256((folder / path).read_bytes()).hexdigest(), "rows": len(texts),
                        "tokens": counts[0], "bytes": counts[1]})
    manifest = {"format": 1, "name": name, "version": version, "parent": None, "recipe": "test", "settings_key": "00",
                "settings": {}, "inputs": [], "dtype": "uint16", "documents": documents, "tokens": total[0],
                "bytes": total[1], "shards": entries, "parts": [], "plan": None, "fates": [],
                "funnel": [], "mixture": [],
                "tokenizer": {"name": "bytes", "n_vocab": 261, "eot": EOT, "files": files}}
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
    (home / "corpora" / name / "current").write_text(f"{version:06d}")
    return folder

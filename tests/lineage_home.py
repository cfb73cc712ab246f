"""A small data root with known answers: two corpora, three versions, a training and a finetuning, made by hand.

Corpus `web`: version 1 has part 0 (4 records), version 2 shares it and adds part 1 (3 records). Corpus `other` has
one version with its own part.

    part 0   a/1 kept   a/2 duplicate (near) of a/1, 0.9   b/1 dropped: words_min, 12 < 50   b/2 kept
    part 1   a/3 kept   a/4 duplicate of a/3, exact        b/3 dropped: words_min 40 < 50 and stop_words 1 < 2
    other    c/1 kept

b/2 holds most of an item of the benchmark quiz and is tagged.

The URL a/1 ends in one that needs quoting. Tokens: 100 a document in version 1, and 200 for a/3.
"""

import uuid
from datetime import UTC, datetime

import pyarrow as pa

from tasks import ledger
from tasks.schema import CLEAN, DOCUMENTS, FATES, TOKENS, UUID, doc_id
from tasks.storage import Root

SIGNALS = pa.schema([("doc_id", UUID), ("row", pa.int32()), ("language", pa.string()), ("language_score", pa.float32()),
                     ("n_words", pa.int32()), ("top_2gram_char_fraction", pa.float32()), ("lorem_ipsum", pa.bool_()),
                     ("minhash", pa.list_(pa.uint32(), 4))])
URLS = {"a/1": "https://a.example/1?q='x'"}
CONTAMINATION = {"b/2": [{"benchmark": "quiz", "item": "q:7", "matched": 18, "fraction": 0.9}]}
WORDS = {"a/1": 100, "a/2": 99, "b/1": 12, "b/2": 300, "a/3": 200, "a/4": 200, "b/3": 40, "c/1": 500}


def name_of(page: str) -> bytes:
    return doc_id("crawl.warc.gz", int.from_bytes(page.encode(), "big"))


def uuid_of(page: str) -> uuid.UUID:
    return uuid.UUID(bytes=name_of(page))


def url_of(page: str) -> str:
    return URLS.get(page, f"https://{page[0]}.example/{page[2:]}")


def _table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        columns.append(pa.ExtensionArray.from_storage(UUID, pa.array(values, pa.binary(16)))
                       if field.type == UUID else pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def _origin(page: str) -> dict:
    return {"doc_id": name_of(page), "url": url_of(page), "domain": f"{page[0]}.example", "snapshot": "CC-MAIN-2026-01",
            "source": "code" if page == "c/1" else "web", "warc_file": "crawl.warc.gz", "warc_offset": 10}


def _part(root: Root, key: str, pages: list[str]) -> dict:
    paths = {kind: f"work/{stage}/{key[:2]}/{key}/table.parquet"
             for kind, stage in (("documents", "extract"), ("signals", "annotate"), ("spans", "decontaminate"))}
    at = datetime(2026, 1, 2, tzinfo=UTC)
    root.write_table(paths["documents"], _table([_origin(page) | {
        "content_id": name_of(page), "fetched_at": at, "warc_length": 5, "charset": "utf-8", "rights": [],
        "html_bytes": 1000, "text": "the secret text " + page} for page in pages], DOCUMENTS))
    root.write_table(paths["signals"], _table([{
        "doc_id": name_of(page), "row": row, "language": "de" if page == "b/2" else "en", "language_score": 0.5,
        "n_words": WORDS[page], "top_2gram_char_fraction": 0.25, "lorem_ipsum": WORDS[page] > 90,
        "minhash": [1, 2, 3, 4]}
        for row, page in enumerate(pages)], SIGNALS))
    root.write_table(paths["spans"], _table([{
        "doc_id": name_of(page), "row": row,
        "spans": [{"type": "email", "offset": 3, "length": 9}, {"type": "ip", "offset": 20, "length": 7}]
        if page == "a/1" else [], "contamination": CONTAMINATION.get(page)} for row, page in enumerate(pages)], CLEAN))
    return paths


def _fate(page: str, stage: str | None = None, rule: str | None = None, of: str | None = None, **more) -> dict:
    return _origin(page) | {"outcome": "dropped" if stage else "kept", "stage": stage, "rule": rule,
                            "duplicate_of": name_of(of) if of else None} | more


def _words(n: int) -> dict:
    return {"rule": "words_min", "value": float(n), "threshold": 50.0}


FATES_OF = [
    [_fate("a/1"), _fate("a/2", "dedup", "near", "a/1", similarity=0.9),
     _fate("b/1", "filter", "words_min", value=12.0, threshold=50.0, failed=[_words(12)]), _fate("b/2")],
    [_fate("a/3"), _fate("a/4", "dedup", "exact", "a/3", similarity=1.0),
     _fate("b/3", "filter", "words_min", value=40.0, threshold=50.0,
           failed=[_words(40), {"rule": "stop_words", "value": 1.0, "threshold": 2.0}])],
]


def publish(root: Root, name: str, version: int, parts: list[dict], fates: list[list[dict]], shards: list[list[dict]],
            current: bool = True) -> None:
    folder = f"corpora/{name}/versions/{version:06d}"
    listed = []
    for i, rows in enumerate(shards):
        path = f"tokens/shard-{i:05d}.parquet"
        sha256 = root.write_table(f"{folder}/{path}", _table(rows, TOKENS), use_dictionary=["source"],
                                  column_encoding={"tokens.list.element": "BYTE_STREAM_SPLIT"})
        listed.append({"path": path, "sha256": sha256, "rows": len(rows), "bytes": 1000 * len(rows),
                       "tokens": sum(row["n_tokens"] for row in rows)})
    fate_files = []
    for i, rows in enumerate(fates):
        path = f"fates/part-{i:05d}.parquet"
        fate_files.append({"path": path, "sha256": root.write_table(f"{folder}/{path}", _table(rows, FATES)),
                           "rows": len(rows)})
    plan = [{"doc_id": row["doc_id"], "source": row["source"]} for rows in shards for row in rows]
    root.write_table(f"{folder}/plan.parquet", _table(plan, pa.schema([("doc_id", UUID), ("source", pa.string())])))
    dropped = [row for rows in fates for row in rows if row["outcome"] == "dropped"]
    funnel, left = [], sum(len(rows) for rows in fates)
    for stage in ("extract", "dedup", "filter", "sample"):
        rules = {}
        for row in dropped:
            if row["stage"] == stage:
                rules[row["rule"]] = rules.get(row["rule"], 0) + 1
        taken = sum(rules.values())
        funnel.append({"stage": stage, "in": left, "kept": left - taken, "dropped": taken, "rules": rules})
        left -= taken
    mixture: dict = {}
    for rows in shards:
        for row in rows:
            entry = mixture.setdefault((row["source"], row["language"]), {
                "source": row["source"], "language": row["language"], "documents": 0, "weight": 1.0,
                "planned_tokens": 150, "tokens": 0, "epochs": 1.0})
            entry["documents"] += 1
            entry["tokens"] += row["n_tokens"]
    sha256 = root.write_json(f"{folder}/manifest.json", {
        "format": 1, "name": name, "version": version, "parent": version - 1 or None, "recipe": "tiny",
        "settings_key": "ab" * 16, "settings": {"filter": {"words_min": 50}},
        "inputs": [{"uri": "crawl.warc.gz", "source": "web", "snapshot": "CC-MAIN-2026-01", "digest": "00",
                    "bytes": 99}],
        "tokenizer": {"name": "gpt2", "n_vocab": 50257, "eot": 50256, "files": {}}, "dtype": "uint16",
        "documents": sum(s["rows"] for s in listed), "tokens": sum(s["tokens"] for s in listed),
        "bytes": sum(s["bytes"] for s in listed), "shards": listed, "parts": parts,
        "plan": {"path": "plan.parquet", "sha256": "00", "rows": len(plan)}, "fates": fate_files, "funnel": funnel,
        "mixture": list(mixture.values())})
    ledger.record(root, "publication", name, {"version": version, "manifest": sha256}, "run-1")
    if current:
        root.write_bytes(f"corpora/{name}/current", f"{version:06d}".encode())


def _tokens(page: str, n: int) -> dict:
    return _origin(page) | {"language": "de" if page == "b/2" else "en", "repeat": 0, "n_bytes": 4 * n, "n_tokens": n,
                            "tokens": [7] * n}


def make_home(root: Root) -> None:
    parts = [_part(root, "aa" * 16, ["a/1", "a/2", "b/1", "b/2"]), _part(root, "bb" * 16, ["a/3", "a/4", "b/3"])]
    publish(root, "web", 1, parts[:1], FATES_OF[:1], [[_tokens("a/1", 100)], [_tokens("b/2", 100)]])
    publish(root, "web", 2, parts, FATES_OF, [[_tokens("a/1", 100), _tokens("b/2", 100)], [_tokens("a/3", 200)]])
    publish(root, "other", 1, [_part(root, "cc" * 16, ["c/1"])], [[_fate("c/1")]], [[_tokens("c/1", 50)]])
    ledger.record(root, "run", "build-corpus", {"state": "started", "parameters": {"name": "web"}}, "run-1")
    ledger.record(root, "shard", "extract", {"shards": [
        {"key": "aa", "rows_in": 4, "rows_out": 4, "dropped": 0, "seconds": 2.0, "cpu_seconds": 1.5},
        {"key": "bb", "rows_in": 3, "rows_out": 3, "dropped": 0, "seconds": 4.0, "cpu_seconds": 3.5}]}, "run-1")
    ledger.record(root, "shard", "filter", {"shards": [
        {"key": "dd", "rows_in": 6, "rows_out": 4, "dropped": 2, "seconds": 0.5, "cpu_seconds": 0.5}]}, "run-1")
    ledger.record(root, "run", "build-corpus", {"state": "ended", "outcome": "ok"}, "run-1")
    train(root)


def train(root: Root) -> None:
    """A run on version 2: samples of 100 tokens, two a step: step 1 sees a/1 and b/2, step 2 sees a/3 in two halves."""
    ledger.record(root, "training", "r1", {"state": "started", "task": "pretrain", "corpus": "web", "version": 2,
                                           "manifest": "00", "settings": {"batch": 2}})
    ledger.record(root, "step", "r1", {"steps": [{"step": 1, "loss": 9.0, "lr": 0.1, "tokens": 200},
                                                 {"step": 2, "loss": 8.0, "lr": 0.1, "tokens": 400}]})
    ledger.record(root, "step", "r1", {"steps": [{"step": 2, "loss": 7.5, "lr": 0.1, "tokens": 400}]})
    ledger.record(root, "checkpoint", "r1", {"step": 1, "path": "trainings/r1/checkpoints/step-00000001",
                                             "sha256": "c1", "tokens": 200, "samples": 2})
    ledger.record(root, "checkpoint", "r1", {"step": 2, "path": "trainings/r1/checkpoints/step-00000002",
                                             "sha256": "c2", "tokens": 400, "samples": 4})
    ledger.record(root, "evaluation", "r1", {"step": 2, "task": "held-out", "metric": "bits_per_byte",
                                             "domain": "a.example", "value": 1.5})
    measure = {"task": "clean", "metric": "bits_per_byte", "domain": "all", "seeds": 3}
    ledger.record(root, "ablation", "first", measure | {"variant": "raw", "recipe": "raw", "mean": 9.9})  # made again
    ledger.record(root, "ablation", "first", measure | {"variant": "raw", "recipe": "raw", "mean": 2.5, "corpus": "web",
                                                        "version": 1, "epochs": 0.5, "settings": {},
                                                        "verdict": "baseline"})
    ledger.record(root, "ablation", "first", measure | {
        "variant": "good", "recipe": "fineweb", "mean": 2.25, "difference": -0.25, "difference_low": -0.375,
        "difference_high": -0.125, "p": 0.01, "corpus": "web", "version": 2, "settings": {"dedup": {"near": False}},
        "verdict": "better"})
    for sha256, auc in (("old", 0.5), ("new", 0.875)):
        ledger.record(root, "classifier", "good", {
            "sha256": sha256, "auc": auc, "auc_low": 0.75, "auc_high": 0.9375, "ece": 0.0625, "held_out_positives": 30,
            "held_out_negatives": 40, "settings": {"text": "words"}, "thresholds": [
                {"keep": 0.1, "threshold": 0.75}, {"keep": 0.2, "threshold": 0.5}],
            "reliability": [{"low": 0.9, "high": 1.0, "texts": 20, "probability": 0.95, "positive": 0.9}]})
    ledger.record(root, "training", "r1", {"state": "ended", "outcome": "ok", "tokens": 400, "loss_first": 9.0,
                                           "loss_last": 7.5, "energy_joules": 1000.0})
    ledger.record(root, "training", "tuned", {"state": "started", "task": "finetune", "base": "c2", "corpus": "web",
                                              "version": 2, "settings": {"batch": 2}})
    root.write_table("trainings/tuned/packing.parquet", pa.table({      # of instruction rows: no shard, no document
        "sample_id": [0, 0, 1], "segment": [0, 1, 0], "row": [1, 0, 2], "offset": [0, 0, 0], "length": [40, 60, 99]}))
    segments = [(0, "a/1", 0, 0, 0), (1, "b/2", 0, 1, 0), (2, "a/3", 1, 0, 0), (3, "a/3", 1, 0, 100)]
    schema = pa.schema([("sample_id", pa.int64()), ("segment", pa.int32()), ("shard", pa.int32()), ("row", pa.int32()),
                        ("offset", pa.int32()), ("length", pa.int32()), ("doc_id", UUID)])
    root.write_table("trainings/r1/packing.parquet", _table([
        {"sample_id": sample, "segment": 0, "shard": shard, "row": row, "offset": offset,
         "length": 100, "doc_id": name_of(page)} for sample, page, shard, row, offset in segments], schema))

"""The engines of the extract stage side by side: how good, how fast, how much memory. By hand:

    GRISTMILL_SHARED=... python tests/benchmarks/extract_quality.py [gristmill] [resiliparse] [trafilatura]

Needs a folder with data/web and data/bulk (WARC files) and bench/score_extraction.py, whose functions score. Each
engine runs in a process of its own, one after the other, over whole files: reading, decoding, extraction, cleaning.
`gristmill` was trained on these pages: how it does on sites it has not seen, train_main_content.py cv says.
"""

import collections
import gzip
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.extract import Extract, documents
from tasks.ingest import Ingest, plan
from tasks.storage import Root

SHARED = Path(os.environ["GRISTMILL_SHARED"])
ENGINES = ("gristmill", "resiliparse", "trafilatura")


def run(engine: str, folder: str) -> dict:
    """Extracts all pages of data/`folder`. Seconds are of the processor; what is compiled or read once is not timed."""
    settings = Extract(engine=engine)
    with tempfile.TemporaryDirectory() as home:
        splits = plan([str(SHARED / "data" / folder / "*.warc.gz")], Ingest(), Root(home)).splits
        warm = splits[0]
        documents(type(warm)(**(vars(warm) | {"end": min(warm.end, 200_000)})), settings)
        began, results = time.process_time(), [documents(split, settings) for split in splits]
        seconds = time.process_time() - began
    pages = sum(result.rows_in for result in results)
    texts = {url: text for result in results
             for url, text in zip(result.table["url"].to_pylist(), result.table["text"].to_pylist(), strict=True)}
    row = {"folder": folder, "engine": engine, "pages": pages, "documents": sum(len(r.table) for r in results),
           "cpu_seconds": round(seconds, 2), "pages_per_cpu_second": round(pages / seconds),
           "html_mb_per_cpu_second": round(
               sum(sum(r.table["html_bytes"].to_pylist()) for r in results) / 1e6 / seconds, 1),
           "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
           "fates": collections.Counter(rule for r in results for rule in r.fates["rule"].to_pylist())}
    return row | (scores(texts) if folder == "web" else {})


def scores(texts: dict[str, str]) -> dict:
    """Word F1 (all and by page type) and the F1 of passages, as bench/score_extraction.py counts them."""
    spec = importlib.util.spec_from_file_location("score_extraction", SHARED / "bench" / "score_extraction.py")
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    full: dict[str, list] = collections.defaultdict(list)
    found = missed = leaked = 0
    with gzip.open(SHARED / "data/web/webpages_dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            text = texts.get(row["url"]) or ""
            if row.get("gold_kind") == "full" and row.get("gold_text"):
                score = scorer.bag_f1(row["gold_text"], text)
                full["all"].append(score)
                full[row["extra"]["page_type"]].append(score)
            elif row.get("gold_kind") == "snippets":
                hits = sum(s in text for s in row["with"])
                found, missed = found + hits, missed + len(row["with"]) - hits
                leaked += sum(s in text for s in row["without"])
    precision, recall = found / max(1, found + leaked), found / max(1, found + missed)
    means = {kind: [round(sum(column) / len(column), 4) for column in zip(*rows, strict=True)]
             for kind, rows in full.items()}
    return {"words": dict(zip(("precision", "recall", "f1"), means["all"], strict=True)),
            "words_f1_by_type": {kind: mean[2] for kind, mean in sorted(means.items()) if kind != "all"},
            "passages": {"precision": round(precision, 4), "recall": round(recall, 4),
                         "f1": round(2 * precision * recall / max(1e-9, precision + recall), 4)}}


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[2] in ("web", "bulk"):
        print(json.dumps(run(sys.argv[1], sys.argv[2])), flush=True)
        return
    for folder in ("web", "bulk"):
        for engine in sys.argv[1:] or ENGINES:
            subprocess.run([sys.executable, __file__, engine, folder], check=True)


if __name__ == "__main__":
    main()

"""How good and how fast extraction is, on real pages. By hand:

    GRISTMILL_SHARED=... python tests/benchmarks/extract_quality.py [resiliparse|trafilatura]

Needs a folder with data/web and data/bulk (WARC files) and bench/score_extraction.py. Prints one JSON object a
folder: pages, MB of HTML and seconds of one process, and for data/web the scores against the gold pages.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.extract import Extract, documents
from tasks.ingest import Ingest, plan
from tasks.storage import Root


def main() -> None:
    shared = Path(os.environ["GRISTMILL_SHARED"])
    settings = Extract(engine=sys.argv[1] if len(sys.argv) > 1 else "resiliparse")
    with tempfile.TemporaryDirectory() as home:
        for folder in ("web", "bulk"):
            splits = plan([str(shared / "data" / folder / "*.warc.gz")], Ingest(), Root(home)).splits
            began = time.process_time()
            results = [documents(split, settings) for split in splits]
            seconds = time.process_time() - began
            texts = pa.concat_tables(r.table.select(["url", "text", "html_bytes"]) for r in results)
            fates = pa.concat_tables(r.fates for r in results)
            row = {"folder": folder, "engine": settings.engine, "pages": len(texts) + len(fates),
                   "documents": len(texts), "html_mb": round(sum(texts["html_bytes"].to_pylist()) / 1e6, 1),
                   "seconds": round(seconds, 2), "pages_per_second": round(len(texts) / seconds),
                   "fates": collections.Counter(fates["rule"].to_pylist())}
            if folder == "web":
                pq.write_table(texts.select(["url", "text"]), f"{home}/web.parquet")
                scorer = shared / "bench" / "score_extraction.py"
                scored = subprocess.run([sys.executable, scorer, f"{home}/web.parquet"], capture_output=True,
                                        check=True)
                row["scores"] = json.loads(scored.stdout)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

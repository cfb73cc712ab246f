"""What reading makes of the WARC and ARC files that other projects test with, good and bad. By hand:

    GRISTMILL_SHARED=... python tests/benchmarks/warc_samples.py

Reads every file below data/warc_samples whole and in splits of 20 KB, and fails when the two differ, when something
raises, or when a file gives neither a record nor a fate. Prints one line a file.
"""

import collections
import os
import sys
import tempfile
from pathlib import Path

import pyarrow as pa

from tasks.extract import Extract, documents
from tasks.extract.records import Unreadable, read_records
from tasks.ingest import Ingest, plan
from tasks.schema import id_bytes
from tasks.storage import Root


def main() -> int:
    samples = Path(os.environ["GRISTMILL_SHARED"]) / "data" / "warc_samples"
    bad = 0
    with tempfile.TemporaryDirectory() as home:
        for path in sorted(p for p in samples.rglob("*") if p.is_file() and p.suffix != ".json"):
            seen = []
            for split_bytes in (1 << 40, 20_000):
                planned = plan([str(path)], Ingest(split_bytes=split_bytes), Root(home))
                results = [documents(split, Extract()) for split in planned.splits]
                tables = [t for r in results for t in (r.table.select(["doc_id"]), r.fates.select(["doc_id"]))]
                seen.append(sorted(str(i) for t in tables for i in id_bytes(t["doc_id"]).to_pylist()))
            records = collections.Counter(
                "unreadable" if isinstance(r, Unreadable) else r.type
                for r in read_records(str(path), 0, 1 << 60, 1 << 24))
            rules = collections.Counter()
            for r in results:
                rules.update(f"{a}/{b}" if b else a for a, b in zip(r.fates["rule"].to_pylist(),
                                                                   r.fates["detail"].to_pylist(), strict=True))
            kept = pa.concat_tables(r.table for r in results).num_rows if results else 0
            verdict = "" if seen[0] == seen[1] and len(set(seen[0])) == len(seen[0]) else "SPLITS DIFFER "
            if not records and not planned.failures and "empty" not in path.name:
                verdict += "NOTHING"
            bad += bool(verdict)
            print(verdict, path.relative_to(samples), dict(records), f"documents={kept}", dict(rules),
                  [f.reason for f in planned.failures] or "")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

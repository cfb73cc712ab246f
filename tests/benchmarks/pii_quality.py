"""How well personal data is found: run by hand with GRISTMILL_SHARED pointing at the shared folder.

    GRISTMILL_SHARED=... python tests/benchmarks/pii_quality.py

Prints precision and recall by type on Presidio's recognizer cases (data/pii/presidio_recognizer_cases; a find counts
when its offsets are exact), and finds a megabyte and megabytes a second on prose (data/text), where next to every find
of a type other than EMAIL and IP is false. Values are never printed.
"""

import gzip
import json
import os
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa

from tasks.scrub import Scrub, find

PRESIDIO = {"EMAIL_ADDRESS": "EMAIL", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
            "PHONE_NUMBER": "PHONE", "PH_MOBILE_NUMBER": "PHONE", "TR_PHONE_NUMBER": "PHONE"}
REGIONS = {"PH_MOBILE_NUMBER": ("PH",), "TR_PHONE_NUMBER": ("TR",), "PHONE_NUMBER": ("US", "GB")}


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def recognizer_cases(data: Path) -> None:
    right, found, wanted = Counter(), Counter(), Counter()
    for row in rows(data / "pii/presidio_recognizer_cases.jsonl.gz"):
        entity = row["entities"][0] if row["entities"] else None
        kind = PRESIDIO.get(entity)
        if kind is None or len(row["spans"]) != row["expected_count"]:
            continue
        options = Scrub(regions=REGIONS.get(entity, ("US", "GB")))
        gold = set(map(tuple, row["spans"]))
        got = {(offset, offset + length) for name, offset, length, _ in find([row["text"]], options)[0] if name == kind}
        right[entity] += len(gold & got)
        found[entity] += len(got)
        wanted[entity] += len(gold)
    for entity in sorted(wanted):
        print(f"{entity:18} precision {right[entity] / max(1, found[entity]):.3f}  recall "
              f"{right[entity] / max(1, wanted[entity]):.3f}  of {wanted[entity]}")


def prose(data: Path) -> None:
    find(["+1 212 555 0123"])
    for path in sorted((data / "text").glob("*.gz")):
        texts = ([row.get("text") or json.dumps(row) for row in rows(path)] if ".jsonl" in path.name
                 else [gzip.open(path, "rt", encoding="utf-8").read()])
        column = pa.array(texts)
        start = time.perf_counter()
        found = Counter(kind for spans in find(column) for kind, *_ in spans)
        seconds, megabytes = time.perf_counter() - start, column.nbytes / 1e6
        print(f"{path.name:28} {megabytes:5.1f} MB  {megabytes / seconds:5.1f} MB/s  "
              f"{ {kind: round(n / megabytes, 2) for kind, n in sorted(found.items())} } a MB")


if __name__ == "__main__":
    data = Path(os.environ["GRISTMILL_SHARED"]) / "data"
    recognizer_cases(data)
    prose(data)

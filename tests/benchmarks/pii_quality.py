"""How well personal data is found, beside presidio: run by hand.

    GRISTMILL_SHARED=... PRESIDIO_PYTHON=/path/to/python python tests/benchmarks/pii_quality.py [cases|sentences|prose]

`cases`: data/pii/presidio_recognizer_cases, a find counts when its offsets are exact (its number, where the set has no
offsets); each row asks for one type, and each side looks for that one alone: presidio's recognizer at any score, ours
with the default settings. `sentences`: data/pii/presidio_synth_v2, all structured types at once; presidio at the score
threshold that gives each of its types its best F1. `prose`: finds a megabyte by type on data/text, and megabytes a
second of CPU time. Without PRESIDIO_PYTHON (a Python with presidio-analyzer) only ours is measured. Values are never
printed.
"""

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa

from tasks.scrub import Scrub, find
from tasks.scrub.types import TYPES

PEER = Path(__file__).with_name("peer_presidio.py")
RENAMED = {"EMAIL_ADDRESS": "EMAIL", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
           "PHONE_NUMBER": "PHONE", "PH_MOBILE_NUMBER": "PHONE", "TR_PHONE_NUMBER": "PHONE", "DE_PLZ": None}
REGIONS = {"PH_MOBILE_NUMBER": ("PH",), "TR_PHONE_NUMBER": ("TR",), "PHONE_NUMBER": ("US", "GB", "JP")}
SENTENCES = {"EMAIL_ADDRESS": "EMAIL", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
             "PHONE_NUMBER": "PHONE", "US_SSN": "US_SSN", "US_DRIVER_LICENSE": "US_DRIVER_LICENSE"}


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def peer(mode: str, lines: list[dict]) -> list | None:
    python = os.environ.get("PRESIDIO_PYTHON")
    if not python:
        return None
    done = subprocess.run([python, PEER, mode], input="\n".join(map(json.dumps, lines)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


class Score:
    """Right, found and wanted; as precision, recall and F1."""

    def __init__(self):
        self.right = self.found = self.wanted = 0

    def add(self, gold: set, got: set, right: int | None = None) -> None:
        self.right += len(gold & got) if right is None else right
        self.found += len(got)
        self.wanted += len(gold)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, self.found + self.wanted)

    def __str__(self) -> str:
        return f"{self.right / max(1, self.found):.3f} {self.right / max(1, self.wanted):.3f} {self.f1:.3f}"


def our_type(entity: str) -> str | None:
    kind = RENAMED.get(entity, entity)
    return kind if kind in TYPES else None


def cases(data: Path) -> None:
    asked = [row for row in rows(data / "pii/presidio_recognizer_cases.jsonl.gz")
             if row["entities"] and row["entities"][0].isupper() and row["expected_count"] >= 0]
    theirs = peer("cases", asked) or [None] * len(asked)
    scores: dict[str, dict[str, Score]] = defaultdict(lambda: defaultdict(Score))
    for row, their in zip(asked, theirs, strict=True):
        entity = row["entities"][0]
        gold = set(map(tuple, row["spans"])) if row["expected_count"] else set()
        kind = our_type(entity)
        if not kind:
            continue
        both = {} if their is None else {"presidio": {tuple(span) for span in their}}
        options = dict(types=(kind,), regions=REGIONS.get(entity, ("US", "GB")))
        for name, more in (("ours", {}), ("anywhere", {"context": False, "addresses": "all"})):
            both[name] = {(span.offset, span.end) for span in find([row["text"]], Scrub(**options, **more))[0]}
        for name, got in both.items():
            if len(gold) != row["expected_count"]:      # only the number is known
                wanted = {("n", i) for i in range(row["expected_count"])}
                scores[entity][name].add(wanted, {("n", i) for i in range(len(got))})
            else:
                scores[entity][name].add(gold, got)
    print("| type | n | presidio P R F1 | ours, default P R F1 | ours, context off P R F1 |\n|---|---|---|---|---|")
    for entity, score in sorted(scores.items()):
        print(f"| {entity} | {score['ours'].wanted} | " + " | ".join(
            str(score[name]) if name in score else "-" for name in ("presidio", "ours", "anywhere")) + " |")


def sentences(data: Path) -> None:
    asked = rows(data / "pii/presidio_synth_v2.jsonl.gz")
    for regions in (("US", "GB"), ("US", "GB", "DE", "IL", "IN", "CA", "BR")):
        found = find([row["text"] for row in asked], Scrub(regions=regions))
        common = {"entities": list(SENTENCES), "regions": regions}
        theirs = peer("sentences", [{"text": row["text"]} | common for row in asked])
        print(f"\nphone regions {' '.join(regions)}")
        print("| type | n | presidio P R F1 (threshold) | ours P R F1 |\n|---|---|---|---|")
        for entity, kind in SENTENCES.items():
            ours, best = Score(), {cut / 20: Score() for cut in range(20)}
            for i, row in enumerate(asked):
                gold = {(s["start"], s["end"]) for s in row["spans"] if s["type"] == entity}
                ours.add(gold, {(s.offset, s.end) for s in found[i] if s.type == kind})
                for cut, score in best.items() if theirs else ():
                    score.add(gold, {(a, b) for name, a, b, sure in theirs[i] if name == entity and sure >= cut})
            cut = max(best, key=lambda cut: best[cut].f1)
            print(f"| {entity} | {ours.wanted} | {best[cut]} ({cut:.2f}) | {ours} |")


def prose(data: Path) -> None:
    find(["+1 212 555 0123"])
    for path in sorted((data / "text").glob("*.gz")):
        texts = ([row.get("text") or json.dumps(row) for row in rows(path)] if ".jsonl" in path.name
                 else [gzip.open(path, "rt", encoding="utf-8").read()])
        column = pa.array(texts)
        start = time.process_time()
        found = Counter(span.type for spans in find(column) for span in spans)
        seconds, megabytes = time.process_time() - start, column.nbytes / 1e6
        print(f"{path.name:28} {megabytes:5.1f} MB  ours {megabytes / seconds:6.2f} MB/s  "
              f"{ {kind: round(n / megabytes, 2) for kind, n in sorted(found.items())} } a MB")
        part, size = [], 0
        for text in texts:
            part.append(text[:400_000])
            size += len(part[-1].encode())
            if size > 400_000:
                break
        if their := peer("text", [{"text": text, "entities": None, "threshold": 0.4} for text in part]):
            counts = Counter(name for spans in their[:-1] for name, *_ in spans)
            print(f"{'':28} {size / 1e6:5.1f} MB  presidio {size / 1e6 / their[-1]['seconds']:.3f} MB/s  "
                  f"{ {kind: round(n / size * 1e6, 2) for kind, n in sorted(counts.items())} } a MB at 0.4")


if __name__ == "__main__":
    shared = Path(os.environ["GRISTMILL_SHARED"]) / "data"
    for part in sys.argv[1:] or ("cases", "sentences", "prose"):
        {"cases": cases, "sentences": sentences, "prose": prose}[part](shared)

"""Decontamination: recall of planted items, false positives on clean text, speed, the index's cost.

    GRISTMILL_SHARED=FOLDER python tests/benchmarks/decontamination.py [--set NAME=VALUE ...] [TABLE.parquet ...]

Every tenth row of every file of the shared benchmarks is planted into a real text (the human main texts of the shared
web pages, the NLTK documents, those at least 600 characters long in which nothing is found): verbatim, with case and
punctuation changed, and with one word in ten replaced (at least one) by words of the texts; once as question and
answer, once as the question alone. Recall is the share of these documents with a match; `item` is the share in which
the row itself is named. Tables with a column `text` are used beside these texts for false positives and speed.
"""

import argparse
import gzip
import json
import os
import random
import re
import resource
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

FIELDS = ("context", "query", "question", "prompt", "text", "good")
ANSWERS = ("answer", "continuation", "canonical_solution")


def rows_of(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def asked(row: dict) -> tuple[str, str]:
    """The question of a row as it is published, and its answer; made independently of the stage's own reading."""
    if "context_options" in row:
        return f"{row['context_options'][row['gold']]} {row['continuation']}", ""
    question = next(row[field] for field in FIELDS if field in row)
    answer = next((row[field] for field in ANSWERS if isinstance(row.get(field), str)), "")
    if "choices" in row and isinstance(row.get("gold"), int):
        answer = row["choices"][row["gold"]]
    return question.strip(), answer.strip()


def other_case_and_punctuation(text: str, rng: random.Random) -> str:
    text = rng.choice([str.upper, str.lower, str.title, str.swapcase])(text).replace("'S", "'s")
    text = re.sub(r"[,;:.!?]", lambda mark: rng.choice(["", ";", " -", "!", mark[0]]), text)
    return re.sub(r"\s+", lambda space: rng.choice([" ", "  ", "\n"]), text)


def replaced(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(len(words) / 10))):
        words[place] = rng.choice(vocabulary)
    return " ".join(words)


def planted(carrier: str, text: str, rng: random.Random) -> str:
    spaces = [space.start() for space in re.finditer(r"\s", carrier)]
    at = rng.choice(spaces)
    return f"{carrier[:at]}\n{text}\n{carrier[at:].lstrip()}"


def texts_of(shared: Path, tables: list[str]) -> tuple[list[str], list[str]]:
    pages = [row["gold_text"] for row in rows_of(shared / "data/web/webpages_dev.jsonl.gz") if row.get("gold_text")]
    books = [row["text"] for row in rows_of(shared / "data/text/nltk_docs.jsonl.gz")]
    more = [text for path in tables for text in pq.read_table(path, columns=["text"])["text"].to_pylist() if text]
    return pages + books, more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--show", type=int, default=0, help="print this many false positives")
    arguments = parser.parse_args()
    from tasks.decontaminate import Decontaminate, index_benchmarks, listed, matches
    from tasks.decontaminate.index import from_table
    from tasks.storage import parquet

    shared = Path(os.environ["GRISTMILL_SHARED"])
    given = {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in arguments.set)}
    settings = Decontaminate(benchmarks=(str(shared / "data/bench"),), **given)
    index_benchmarks(Decontaminate(benchmarks=("sample:",)))        # loads what is compiled
    began = time.process_time()
    table = index_benchmarks(settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"index: {time.process_time() - began:.1f} CPU s, peak {peak:.0f} MB")
    data = parquet(table)
    began = time.process_time()
    read = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    index = from_table(read)
    print(f"{table.nbytes / 1e6:.0f} MB in memory, {len(data) / 1e6:.0f} MB in the file, read in "
          f"{time.process_time() - began:.2f} CPU s; {len(index.grams)} passages, {len(index.words)} words, "
          f"{len(index.postings)} seeds")
    names = json.loads(index.names.tobytes())

    def search(texts):
        return matches(pa.array(texts, pa.large_string()), index, settings.min_ngrams, settings.min_fraction,
                       settings.similarity)

    carriers, more = texts_of(shared, arguments.tables)
    clean_texts = carriers + more
    hits = search(clean_texts)
    size = sum(len(text.encode()) for text in clean_texts) / 1e6
    print(f"clean text: {len(clean_texts)} documents, {size:.1f} MB; {len(hits)} with a match "
          f"({100 * len(hits) / len(clean_texts):.2f} %)")
    by_file: dict[tuple[str, str], int] = {}
    for place, held in hits.items():
        best = min(held, key=lambda match: (-match.matched, match.passage))
        name = listed([best], index, names)[0]["benchmark"]
        by_file[name, best.rule] = by_file.get((name, best.rule), 0) + 1
        if arguments.show and place % max(1, len(hits) // arguments.show) == 0:
            passage = clean_texts[place].encode()[best.begin:best.end].decode()
            item = listed([best], index, names)[0]["item"]
            print(f"    {best.rule} {best.matched}/{best.words} {item}: {passage!r}"[:400])
    print("   ", ", ".join(f"{name} {rule} {n}" for (name, rule), n in sorted(by_file.items(), key=lambda e: -e[1])))
    texts = pa.array(clean_texts, pa.large_string())
    seconds = []
    for _ in range(5):
        began = time.process_time()
        matches(texts, index, settings.min_ngrams, settings.min_fraction, settings.similarity)
        seconds.append(time.process_time() - began)
    print(f"speed: {size / min(seconds):.0f} MB/s (best of 5), {size / max(seconds):.0f} (worst)")

    rng = random.Random(0)
    free = [text for place, text in enumerate(carriers) if place not in hits and len(text) >= 600]
    free = [text[:6000] for text in free]
    vocabulary = [word for text in free[::20] for word in text.split()]
    print(f"{'file':32}{'items':>6}{'>=8w':>6} | question and answer: verbatim, other, 10 %, item | question alone")
    total: dict[tuple[str, str], list[int]] = {}
    for path in sorted((shared / "data/bench").glob("*.jsonl.gz")):
        rows = rows_of(path)[::10]
        texts = [asked(row) for row in rows]
        long = sum(len(re.findall(r"\w+", f"{question} {answer}")) >= 8 for question, answer in texts)
        line = f"{path.name.removesuffix('.jsonl.gz'):32}{len(rows):6}{100 * long / len(rows):5.0f}% |"
        for form in ("both", "question"):
            whole = [f"{question} {answer}".strip() if form == "both" else question for question, answer in texts]
            for variant in ("verbatim", "other", "replaced"):
                made = [text if variant == "verbatim" else other_case_and_punctuation(text, rng) if variant == "other"
                        else replaced(text, rng, vocabulary) for text in whole]
                documents = [planted(rng.choice(free), text, rng) for text in made]
                found = search(documents)
                wanted = [str(row.get("id", row.get("task_id", 10 * n))) for n, row in enumerate(rows)]
                named = sum(wanted[place] in {entry["item"] for entry in listed(held, index, names)}
                            for place, held in found.items())
                counts = total.setdefault((form, variant), [0, 0, 0])
                counts[0] += len(rows)
                counts[1] += len(found)
                counts[2] += named
                line += f"{100 * len(found) / len(rows):7.1f}"
                if variant == "replaced":
                    line += f"{100 * named / len(rows):7.1f} |"
        print(line)
    for (form, variant), (n, found, named) in total.items():
        print(f"{form:10} {variant:10} {100 * found / n:6.2f} % of {n}; the row itself {100 * named / n:.2f} %")


if __name__ == "__main__":
    main()

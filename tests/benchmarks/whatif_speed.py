"""How long `gristmill whatif` takes on a corpus of a million documents.

    python tests/benchmarks/whatif_speed.py HOME [--documents 1000000] [--parts 100] [--runs 5]

Makes a data root with a published corpus at HOME unless it is there: signals of random documents, the fates that the
filter stage itself gives them, a tenth dropped by deduplication before, and token shards (without their tokens). Then
asks some questions, each in processes of its own; wall and CPU seconds of the whole process, the best and the median.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks import schema
from tasks.annotate import SIGNALS
from tasks.filter import ORIGIN, Filter, decide
from tasks.publish import Account, all_fates
from tasks.storage import Root

QUESTIONS = {
    "one bound raised": ["--rule", "gopher_words.min=100"],
    "one bound lowered": ["--rule", "gopher_words.min=30"],
    "a rule off": ["--rule", "c4_curly_brackets.enabled=false"],
    "three bounds": ["--rule", "gopher_words.min=100", "--rule", "gopher_letters.min=0.7", "--rule",
                     "fineweb_short_lines.max=0.5"],
    "other presets": ["--preset", "dclm", "--rule", "dclm_quality.enabled=false"],
}


def signals_of(ids: pa.Array, rng: np.random.Generator) -> pa.Table:
    """Signals of random documents, of which the default rules drop about a half."""
    n = len(ids)
    columns = {"doc_id": ids, "row": np.arange(n, dtype=np.int32)}
    lengths = rng.lognormal(6, 1.2, n).astype(np.int32)
    special = {
        "n_words": lengths, "n_bytes": lengths * 6, "n_chars": lengths * 6, "mean_word_length": rng.normal(4.8, 0.5, n),
        "max_token_length": rng.integers(10, 60, n), "mean_words_per_line": rng.uniform(2, 40, n),
        "letter_token_fraction": rng.beta(20, 1.5, n), "letter_piece_fraction": rng.beta(20, 2, n),
        "n_stop_words": rng.integers(1, 9, n), "terminal_line_fraction": rng.beta(3, 1, n),
        "short_line_fraction": rng.beta(1, 3, n), "c4_sentences": rng.integers(0, 60, n),
        "c4_sentences_any_end": rng.integers(2, 80, n), "n_curly_brackets": (rng.random(n) < 0.05).astype(np.int32),
        "newline_word_ratio": rng.beta(1, 8, n), "language_score": rng.beta(20, 1, n), "n_pieces": lengths + 20,
        "language": pa.array(rng.choice(["en", "de", "fr"], n, p=[0.8, 0.1, 0.1]).tolist()),
        "n_language_stop_words": rng.integers(0, 12, n),
    }
    for field in SIGNALS:
        if field.name in columns:
            continue
        if field.name in special:
            values = special[field.name]
        elif pa.types.is_floating(field.type):
            values = rng.beta(1, 60, n)
        elif pa.types.is_fixed_size_list(field.type):
            values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * field.type.list_size, np.uint32)),
                                                       field.type.list_size)         # nobody reads the signatures
        else:
            values = np.zeros(n, np.int8)
        columns[field.name] = values if isinstance(values, pa.Array) else pa.array(values).cast(field.type)
    return pa.table(columns).select(SIGNALS.names).cast(SIGNALS)


def make_home(root: Root, documents: int, parts: int) -> None:
    folder, settings = "corpora/corpus/versions/000001", Filter(language={"keep": []})
    manifest_parts, fates, shards, tokens = [], [], [], 0
    funnel = {"extract": [0, 0], "dedup": [0, 0], "filter": [0, 0], "sample": [0, 0]}
    for part in range(parts):
        rng, n = np.random.default_rng(part), documents // parts
        ids = schema.id_array(pa.Array.from_buffers(pa.binary(16), n, [None, pa.py_buffer(rng.bytes(16 * n))]))
        domains = [f"site{i}.example" for i in rng.integers(0, 5000, n)]
        table = pa.table({
            "doc_id": ids, "url": [f"https://{d}/{part}/{i}/a-page-with-a-path.html" for i, d in enumerate(domains)],
            "domain": domains, "snapshot": ["CC-MAIN-2026-01"] * n,
            "source": pa.array(rng.choice(["web", "news", "forums"], n).tolist()),
            "warc_file": [f"crawl/part-{part:05d}.warc.gz"] * n, "warc_offset": np.arange(n, dtype=np.int64) * 1000,
            "rights": pa.array([[]] * n, pa.list_(pa.string()))})
        measured = signals_of(ids, rng)
        once = np.flatnonzero(rng.random(n) < 0.9)
        gone = np.setdiff1d(np.arange(n), once)
        unique = schema.all_rows(table).take(pa.array(once))
        result = decide(table, measured, unique, settings)
        dropped = [schema.fates(table.select(ORIGIN), gone, "dedup", "near"), result.fates]
        paths = {kind: f"work/{kind}/{part:05d}.parquet" for kind in ("documents", "signals")}
        root.write_table(paths["documents"], table)
        root.write_table(paths["signals"], measured)
        manifest_parts.append(paths)
        path = f"fates/part-{part:05d}.parquet"
        root.write_table(f"{folder}/{path}", all_fates(table, result.table, dropped, n, Account()).table)
        fates.append({"path": path, "rows": n})
        kept = measured.take(result.table["row"])
        sizes = kept["n_bytes"].to_numpy()
        path = f"tokens/shard-{part:05d}.parquet"
        root.write_table(f"{folder}/{path}", pa.table({
            "doc_id": kept["doc_id"], "source": table["source"].take(result.table["row"]),
            "domain": table["domain"].take(result.table["row"]), "language": kept["language"],
            "repeat": np.zeros(len(kept), np.int16), "n_bytes": sizes, "n_tokens": sizes // 4,
            "tokens": pa.nulls(len(kept), pa.list_(pa.uint16()))}))
        shards.append({"path": path, "rows": len(kept), "tokens": int((sizes // 4).sum())})
        tokens += shards[-1]["tokens"]
        for stage, came, took in (("extract", n, 0), ("dedup", n, len(gone)), ("filter", len(once), len(result.fates)),
                                  ("sample", len(kept), 0)):
            funnel[stage][0] += came
            funnel[stage][1] += took
    root.write_json(f"{folder}/manifest.json", {
        "format": 1, "name": "corpus", "version": 1, "parent": None, "recipe": "made", "parts": manifest_parts,
        "settings": {"filter": settings.model_dump(mode="json")}, "shards": shards, "fates": fates, "tokens": tokens,
        "documents": sum(s["rows"] for s in shards),
        "funnel": [{"stage": s, "in": a, "kept": a - b, "dropped": b, "rules": {}} for s, (a, b) in funnel.items()]})
    root.write_bytes("corpora/corpus/current", b"000001")


def measure(home: Path, arguments: list[str], runs: int) -> tuple[list[float], list[float], str]:
    command = [str(Path(sys.executable).with_name("gristmill")), "whatif", "corpus", *arguments]
    walls, cpus, said = [], [], ""
    for _ in range(runs):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, env=os.environ | {"GRISTMILL_HOME": str(home)}, capture_output=True, text=True)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        said = done.stdout.splitlines()[0] if done.stdout else done.stderr
    return walls, cpus, said


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("home", type=Path)
    options.add_argument("--documents", type=int, default=1_000_000)
    options.add_argument("--parts", type=int, default=100)
    options.add_argument("--runs", type=int, default=5)
    given = options.parse_args()
    place = Root(str(given.home.absolute()))
    if not place.exists("corpora/corpus/current"):
        make_home(place, given.documents, given.parts)
    measure(given.home, QUESTIONS["a rule off"], 1)             # fills the page cache
    nothing, started, _ = measure(given.home, ["--help"], given.runs)
    print(f"{'the command alone (--help)':<28} wall {min(nothing):.2f} s, CPU {statistics.median(started):.2f} s")
    for name, question in QUESTIONS.items():
        wall, cpu, answer = measure(given.home, question, given.runs)
        print(f"{name:<28} wall {min(wall):.2f} s, median {statistics.median(wall):.2f}; "
              f"CPU {statistics.median(cpu):.2f} s; {answer}")

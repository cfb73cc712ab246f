"""How well a classifier of quality ranks web texts as people do: AUC on 281 judgements, beside simple signals.

    GRISTMILL_SHARED=... python tests/benchmarks/quality_classifier.py DOCUMENTS [NAME ...]

DOCUMENTS is a folder of Parquet that `gristmill stage extract $GRISTMILL_SHARED/data/{web,bulk}/*.warc.gz -o DOCUMENTS`
wrote: the random crawl. Positives are the instruction rows of sft/ and the reference texts of text/. The judgements
(quality/dclm_agreement, 152 good and 129 bad) are looked at once, at the end; nothing is fitted to them. Intervals are
the middle 95 % of 2,000 bootstrap resamples of the judged texts. `matched` counts only pairs of a good and a bad text
whose lengths differ by less than half: most of what people call bad is short. NAMEs choose among the variants.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.annotate.language import Language, identify
from tasks.annotate.measure import text_signals
from tasks.classifier.examples import read_examples
from tasks.classifier.measures import auc
from tasks.classifier.model import from_bytes, logits
from tasks.classifier.training import Training, make
from tasks.storage import Root

SHARED = Path(os.environ.get("GRISTMILL_SHARED", "")) / "data"
INSTRUCTIONS = ["code_alpaca_2k", "dolly_hhrlhf_small", "gpteacher_roleplay", "new_codealpaca", "rasbt_instruction",
                "self_instruct_seed_tasks"]
RESAMPLES = 2000
VARIANTS = {                                            # what is changed of the default recipe
    "default": {},
    "whole texts, 5 epochs": {"window": 0, "epochs": 5},
    "whole texts": {"window": 0},
    "window 100": {"window": 100},
    "window 8": {"window": 8},
    "raw text": {"text": "raw"},
    "raw, whole, 5 epochs (DCLM)": {"text": "raw", "window": 0, "epochs": 5, "min_count": 1, "dim": 100},
    "unigrams": {"ngrams": 1},
    "5 epochs": {"epochs": 5},
    "100 epochs": {"epochs": 100},
    "dim 100": {"dim": 100},
    "dim 4": {"dim": 4},
    "min_count 1": {"min_count": 1},
    "seed 2": {"seed": 2},
    "instructions only": {},
    "reference only": {},
    "web only": {},
}


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def english(table: pa.Table) -> pa.Table:
    """The rows in English, as the language stage sees them with a score of at least 0.65."""
    texts = table["text"].combine_chunks().cast(pa.large_string())
    found = identify(texts, np.ones(len(texts), bool), Language())
    return table.filter(pc.and_(pc.equal(found["language"], "en"), pc.greater_equal(found["language_score"], 0.65)))


def interval(scores: np.ndarray, labels: np.ndarray, measure) -> tuple[float, float]:
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES)]
    found = [measure(scores[of], labels[of], of) for of in drawn if 0 < labels[of].sum() < len(of)]
    return tuple(np.quantile(found, [0.025, 0.975]))


def report(name: str, scores: np.ndarray, labels: np.ndarray, sizes: np.ndarray, more: str = "") -> None:
    def matched(scores, labels, of):
        good, bad = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        near = np.abs(sizes[of][good][:, None] - sizes[of][bad][None]) < np.log(1.5)
        wins = np.sign(scores[good][:, None] - scores[bad][None]) / 2 + 0.5
        return wins[near].mean()

    plain = auc(scores, labels)
    low, high = interval(scores, labels, lambda scores, labels, of: auc(scores, labels))
    equal = matched(scores, labels, np.arange(len(labels)))
    equal_low, equal_high = interval(scores, labels, matched)
    print(f"| {name} | {plain:.3f} ({low:.3f} to {high:.3f}) | {equal:.3f} ({equal_low:.3f} to {equal_high:.3f}) | "
          f"{more} |", flush=True)


def main() -> None:
    folder, chosen = sys.argv[1], sys.argv[2:] or list(VARIANTS)
    root = Root(folder)
    judged = rows(SHARED / "quality" / "dclm_agreement.jsonl.gz")
    texts = pa.array([row["text"] for row in judged], pa.large_string())
    labels = np.array([row["label"] for row in judged])
    sizes = np.log([max(len(row["text"]), 1) for row in judged])
    print("| ranking by | AUC | AUC, lengths matched | held-out AUC, trained on, CPU seconds |\n|---|---|---|---|")
    measured = text_signals(texts, pa.array(["en"] * len(texts)))[0]
    for name in ("n_chars", "unigram_entropy", "mean_word_length", "unique_word_fraction", "terminal_line_fraction"):
        report(name, np.asarray(measured[name], np.float64), labels, sizes)
    report("Gopher's rules, passed or not", gopher(measured), labels, sizes)

    instructions = [str(SHARED / "sft" / f"{name}.jsonl.gz") for name in INSTRUCTIONS]
    reference = [str(SHARED / "text" / name) for name in ("nltk_docs.jsonl.gz", "*.txt.gz")]
    crawl = english(read_examples([f"{folder}/*.parquet"], 0, root, what="negatives").table)
    for name in chosen:
        sources = {"instructions only": instructions, "reference only": reference}.get(name, instructions + reference)
        good = read_examples(sources, 1, root).table
        other = crawl
        if name == "web only":
            other = crawl.filter(pc.invert(pc.ends_with(crawl["group"], ".docs.example")))
        began = time.process_time()
        files = make(pa.concat_tables([good, other]), Training(**VARIANTS[name]))
        seconds = time.process_time() - began
        about = json.loads(files["data"][1].as_py())
        scores = np.nan_to_num(logits(from_bytes(files["data"][0].as_py(), name, text=about["text"]), texts), nan=-99.0)
        trained = sum(about["examples"][f"trained_{side}"] for side in ("positives", "negatives"))
        report(name, scores, labels, sizes, f"{about['metrics']['auc']:.4f}, {trained}, {seconds:.0f}")


def gopher(measured: dict) -> np.ndarray:
    """1 for what Gopher's rules on quality keep, 0 for the rest."""
    def column(name: str) -> np.ndarray:
        return np.asarray(measured[name], np.float64)

    return ((column("n_words") >= 50) & (column("n_words") <= 100_000) & (column("mean_word_length") >= 3)
            & (column("mean_word_length") <= 10) & (column("hash_word_ratio") <= 0.1)
            & (column("ellipsis_word_ratio") <= 0.1) & (column("bullet_line_fraction") <= 0.9)
            & (column("ellipsis_line_fraction") <= 0.3) & (column("letter_token_fraction") >= 0.8)
            & (column("n_stop_words") >= 2)).astype(np.float64)


if __name__ == "__main__":
    main()

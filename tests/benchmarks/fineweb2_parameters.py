"""Writes sql/rules/fineweb2.parameters.json from a checkout of https://github.com/huggingface/fineweb-2.

    python tests/benchmarks/fineweb2_parameters.py PATH/TO/fineweb-2 [--check]

FineWeb-2 has a configuration for each language and script; here a language has one code (tasks.annotate.language), so
of those that share a code the one with the most text in FineWeb-2 counts. --check only compares, and fails on a
difference.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import yaml

from tasks.annotate.language import code
from tasks.filter.rules import RULES

COMMIT = "d0defb2"
COLUMNS = ["language_score", "line_punct_thr", "new_line_ratio", "min_avg_word_length", "max_avg_word_length",
           "max_non_alpha_words_ratio", "dup_line_frac", *(f"top_{n}_gram" for n in (2, 3, 4)),
           *(f"dup_{n}_gram" for n in range(5, 11))]
# FineWeb-2 leaves English to FineWeb, so English and whatever has no configuration get FineWeb's own numbers
# (Penedo et al. 2024) where FineWeb has the rule, which are Gopher's (Rae et al. 2021) for words and repetition.
ENGLISH = [0.65, 0.12, 0.3, 3, 10, 0.8, 0.3, 0.2, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.1]


def row(config: dict) -> list[float]:
    grams = {f"{kind}_{n}_gram": bound for kind in ("top", "dup") for n, bound in config[f"{kind}_n_grams"]}
    return [(config | grams)[column] for column in COLUMNS]


def parameters(checkout: Path) -> dict:
    sizes = {}
    with open(checkout / "fineweb2-language-distribution.csv", encoding="utf-8") as file:
        for entry in csv.DictReader(file):
            if entry["split"] == "train":
                sizes[entry["subset"].removesuffix("_removed")] = int(entry["utf8_bytes"])
    rows, largest = {}, {}
    for path in sorted((checkout / "configs").glob("*.yml")):
        language, size = code(path.stem), sizes.get(path.stem, 0)
        if size > largest.get(language, -1):
            largest[language] = size
            rows[language] = row(yaml.safe_load(path.read_text(encoding="utf-8")))
    rows["en"] = ENGLISH
    return {"source": f"https://github.com/huggingface/fineweb-2, configs/*.yml at {COMMIT}; "
                      "Penedo et al. 2025, https://arxiv.org/abs/2506.20920. default and en: FineWeb's numbers.",
            "columns": COLUMNS, "default": ENGLISH, "languages": dict(sorted(rows.items()))}


def written(table: dict) -> str:
    """JSON with a language a line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in table["languages"].items())
    head = "".join(f" {json.dumps(key)}: {json.dumps(table[key])},\n" for key in ("source", "columns", "default"))
    return f'{{\n{head} "languages": {{\n{lines}\n }}\n}}\n'


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("checkout", type=Path)
    options.add_argument("--check", action="store_true")
    given = options.parse_args()
    place, text = RULES / "fineweb2.parameters.json", written(parameters(given.checkout))
    if given.check:
        sys.exit(0 if place.read_text(encoding="utf-8") == text else f"{place} differs")
    place.write_text(text, encoding="utf-8")
    print(f"{place}: {text.count(chr(10))} lines, {len(text):,} bytes")

"""Benchmark files, and the passages of an item that a document must not hold.

A benchmark file is JSON lines, plain or .gz. An item's prompt is, of the fields in `PROMPTS` that are strings, in that
order, those that it has, divided into sections at the labels of evaluation templates ("Question:", "Choices:", "B.").
Its answer is a field of `ANSWERS`, or the choice that a field of `GOLDS` counts. An item is named by `id`, `task_id` or
its line number. Passages, in words as `words` defines them:

- every section of `min_words` words or more;
- when no section is that long: the first section, and the whole prompt with its labels and without, if they have
  `exact_words` or more; when the whole has fewer words than `min_words` also the prompt with the answer and the prompt
  with all its choices, if these have `min_words` or more;
- every choice and answer of `ngram` words or more: shorter ones alone are phrases of the language.
"""

import glob
import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import fsspec

from tasks.errors import UserError

PROMPTS = ("passage", "context", "premise", "query", "question", "goal", "prompt", "instruction", "problem",
           "hypothesis", "sentence", "text", "good")
CHOICES = ("choices", "options", "endings")
STARTS = ("context_options",)      # WinoGrande: what comes before the continuation, in two versions
ANSWERS = ("answer", "continuation", "target", "canonical_solution")
GOLDS = ("gold", "label", "answer")
NAMES = ("id", "task_id")
# Labels of templates: at the head of a line, or of options within one.
_LABEL = re.compile(r"(?m)^[ \t]*(?:(?:Question|Answer|Passage|Context|Choices|Options|Goal|Problem|Input|Output|Text"
                    r"|Q|A)[ \t]*:|\(?[A-J][.)](?=\s))")
_FILE = re.compile(r"\.(?:jsonl|ndjson|json|txt)(?:\.gz)?$")


class Item(NamedTuple):
    """A benchmark item: its name, the sections of its prompt, its answer, texts that count alone when long, and the
    prompt as it is written."""

    benchmark: str
    name: str
    sections: tuple[str, ...]
    answer: str
    choices: tuple[str, ...]
    alone: tuple[str, ...]
    prompt: str = ""


def located(patterns: Sequence[str]) -> list[str]:
    """The benchmark files that paths, URIs, globs and folders name, sorted. Raises UserError for what leads to none."""
    files = []
    for pattern in patterns:
        if pattern == "sample:":
            from tasks.sample_crawl.planted import BENCHMARK

            found = [str(BENCHMARK)]
        elif "://" in pattern:
            found = [pattern]
            if re.search(r"[*?\[]", pattern):
                found = [f"{pattern.split('://')[0]}://{file.path}" for file in fsspec.open_files(pattern, "rb")]
        elif os.path.isdir(pattern):
            found = [path for path in glob.glob(f"{glob.escape(pattern)}/**", recursive=True)
                     if _FILE.search(path) and os.path.isfile(path)]
        else:
            found = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
            found = found or ([] if re.search(r"[*?\[]", pattern) else [pattern])   # reading it tells what is wrong
        if not found:
            raise UserError(f"no benchmark file matches {pattern}; mend decontaminate.benchmarks")
        files += found
    return sorted(set(files))


def read_items(uri: str, fields: Sequence[str] = ()) -> Iterator[Item]:
    """The items of a file; with `fields`, in rows that have one of them, only these are text.

    Raises UserError for a file that cannot be read or in which no row has a known field.
    """
    benchmark = _FILE.sub("", uri.rstrip("/").rpartition("/")[2])
    try:
        with fsspec.open(uri, "rb") as file:
            data = file.read()
        lines = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read the benchmark file {uri} ({type(error).__name__}); "
                        f"decontaminate.benchmarks takes JSON lines") from None
    items = [item(benchmark, number, row, fields) for number, row in enumerate(rows)]
    if rows and not any(found.sections or found.alone for found in items):
        raise UserError(f"the benchmark file {uri} has no text in {', '.join([*fields, *PROMPTS])}; name its fields in "
                        f"decontaminate.fields")
    yield from items


def item(benchmark: str, number: int, row: object, fields: Sequence[str] = ()) -> Item:
    """What a row asks and answers; empty when it has no known field."""
    if not isinstance(row, dict):
        return Item(benchmark, str(number), (), "", (), ())
    name = str(next((row[field] for field in NAMES if isinstance(row.get(field), (str, int))), number))
    named = [text for field in fields for text in _strings(row.get(field))]
    if named:
        return Item(benchmark, name, _sections(named), "", (), (), " ".join(named))
    prompts = [row[field] for field in PROMPTS if isinstance(row.get(field), str)]
    choices = next((found for field in CHOICES if (found := _strings(row.get(field)))), [])
    answer = next((row[field] for field in ANSWERS if isinstance(row.get(field), str)), "")
    gold = next((row[field] for field in GOLDS if isinstance(row.get(field), int)), None)
    starts = next((found for field in STARTS if (found := _strings(row.get(field)))), [])
    if starts:
        return Item(benchmark, name, tuple(f"{start} {answer}" for start in starts), "", (), ())
    if not answer and gold is not None and 0 <= gold < len(choices):
        answer = choices[gold]
    return Item(benchmark, name, _sections(prompts), answer, tuple(choices),
                tuple(dict.fromkeys(text for text in (*choices, answer) if text)), " ".join(prompts))


def _strings(value: object) -> list[str]:
    """A string, or the strings of a list of strings or of {"text": ...}, or of {"text": [...]} itself."""
    if isinstance(value, dict):
        value = value.get("text")
    values = value if isinstance(value, list) else [value]
    values = [entry.get("text") if isinstance(entry, dict) else entry for entry in values]
    return [entry for entry in values if isinstance(entry, str) and entry.strip()]


def _sections(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for text in texts for part in map(str.strip, _LABEL.split(text)) if part)

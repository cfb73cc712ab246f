"""Drops documents that hold benchmark items, so that an evaluation measures more than memory.

The rule is GPT-3's (https://arxiv.org/abs/2005.14165, appendix C): overlap of 13 words, ignoring case and punctuation,
items shorter than that matched whole if they have 8 words at least; n-grams that many items share are templates and do
not count. GPT-3 cut 200 characters around a match out of the text; here the whole document is dropped.

What a word is: `words`. What an item's text is: `index`.
"""

import glob
import re

import fsspec
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.decontaminate.index import Index, build_index, overlaps
from tasks.errors import UserError
from tasks.schema import CLEAN, FATES, SPANS, fates, take
from tasks.spans import applied, matching
from tasks.stage import Result, Stage, resource_digest


class Decontaminate(BaseModel):
    """Settings of the decontaminate stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmarks: tuple[str, ...] = Field(
        (), description="Benchmark files (JSON lines, .gz allowed): paths, URIs, globs; \"sample:\" is the one "
        "that comes with the sample crawl. When empty all documents stay.")
    ngram: int = Field(13, ge=2, le=64, description="Words of an n-gram (GPT-3: 13).")
    min_words: int = Field(8, ge=2, description="Shorter items count whole from this many words on (GPT-3: 8).")
    min_ngrams: int = Field(1, ge=1, description="Distinct n-grams of one item a document may not reach.")
    min_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of an item's n-grams that must be found too before a document is dropped.")
    max_items: int = Field(10, ge=1, description="An n-gram in more items than this is a template and does not count.")


def resources(settings: Decontaminate) -> list[str]:
    """The benchmark files, sorted. Raises UserError for a path or glob that leads to no file."""
    files = []
    for pattern in settings.benchmarks:
        if pattern == "sample:":
            from tasks.sample_crawl.planted import BENCHMARK

            found = [str(BENCHMARK)]
        elif not re.search(r"[*?\[]", pattern):
            found = [pattern]
        elif "://" in pattern:
            found = [str(file.path) for file in fsspec.open_files(pattern, "rb")]
            found = [f"{pattern.split('://')[0]}://{path}" for path in found]
        else:
            found = glob.glob(pattern, recursive=True)
        if not found:
            raise UserError(f"no benchmark file matches {pattern}; mend decontaminate.benchmarks")
        files += found
    return sorted(set(files))


decontaminate = Stage(
    "decontaminate", version=2, settings=Decontaminate, conserves="kept", makes=CLEAN, resources=resources,
    needs={"documents": ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset", "text"],
           "spans": SPANS.names, "kept": ["doc_id", "row"]})


@decontaminate.shard
def clean(documents: pa.Table, spans: pa.Table, kept: pa.Table, settings: Decontaminate) -> Result:
    """Keeps the documents without a benchmark item, each with its spans.

    The fate's value is the number of distinct n-grams of the item that the document holds most of, its similarity their
    share of the item's n-grams, its detail the benchmark file's name and the item's.
    """
    index = benchmark_index(settings)
    rows, edits = take(documents, kept), matching(kept, spans)
    found = {} if index is None else overlaps(applied(rows["text"], edits).cast(pa.string()), index)
    dropped = {place: hit for place, hit in found.items() if hit.matched >= min(settings.min_ngrams, hit.total)
               and hit.matched >= settings.min_fraction * hit.total}
    out = np.array(sorted(dropped), dtype=np.int64)
    hits = [dropped[place] for place in out.tolist()]
    table = fates(rows, out, "decontaminate", "ngram_overlap", value=[float(hit.matched) for hit in hits],
                  threshold=float(settings.min_ngrams), detail=[hit.item for hit in hits],
                  similarity=[hit.matched / hit.total for hit in hits]) if len(out) else FATES.empty_table()
    stay = pa.array(np.setdiff1d(np.arange(len(kept)), out))
    tags = pa.nulls(len(stay), CLEAN.field("contamination").type)
    return Result(pa.table([kept["doc_id"].take(stay), kept["row"].take(stay), edits.take(stay), tags], schema=CLEAN),
                  table)


def benchmark_index(settings: Decontaminate) -> Index | None:
    """The index of the settings' benchmark files, built once a process; None without files."""
    files = tuple((uri, resource_digest(uri)) for uri in resources(settings))
    return build_index(files, settings.ngram, settings.min_words, settings.max_items) if files else None

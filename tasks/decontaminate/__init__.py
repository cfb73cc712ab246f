"""Finds benchmark items in documents, so that an evaluation measures more than memory, and drops, cuts or tags.

A document is hit by GPT-3's rule, 13 words in a row that an item has too, or by likeness: four fifths of an item's
words in their order, which finds items that were lightly reworded. What a word is: `words`; which texts an item has
and which are too short to count: `items`; what a match is: `search`; what is cut: `cuts`.

Items of 5 to 7 words count where they stand whole: of 61 MB of web pages and books, two were dropped for one of 76,000.
Shorter ones are never found: that a page says "3 + 4 = 7" or "the cat sat" tells nothing of an evaluation.

Memory: 60 MB for the index of 138,000 items in each process, and 6 bytes for each byte of the longest text; building
that index takes 1 GB, once.
"""

import json
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.decontaminate.cuts import cut_out, pieces
from tasks.decontaminate.index import INDEX, Index, as_table, build, from_table
from tasks.decontaminate.items import located, read_items
from tasks.decontaminate.search import RULES, Match, matches
from tasks.schema import CLEAN, FATES, SPANS, fates, take
from tasks.spans import applied, lists, matching, unlisted
from tasks.stage import Result, Stage
from tasks.storage import Place

LISTED = 100      # items that are listed of a document


class Decontaminate(BaseModel):
    """Settings of the decontaminate stage. GPT-3's rule: `similarity: 1`, `exact_words: 8`, `action: cut`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmarks: tuple[Place, ...] = Field(
        (), description="Benchmark files (JSON lines, .gz allowed): paths, URIs, globs, folders; \"sample:\" is the "
        "one that comes with the sample crawl. When empty all documents stay.")
    fields: tuple[str, ...] = Field(
        (), description="Fields of the items' texts, where they have other names than the known ones.")
    action: Literal["drop", "cut", "tag"] = Field(
        "drop", description="What becomes of a document with a match: dropped, the match cut out, or kept as it is; "
        "the items are named in each case.")
    ngram: int = Field(13, ge=4, le=64, description="Words of an n-gram (GPT-3: 13).")
    min_ngrams: int = Field(1, ge=1, description="N-grams of one item that make a match.")
    min_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of an item's words that must stand there too for n-grams to make a match.")
    similarity: float = Field(
        0.8, ge=0.5, le=1, description="Share of an item's words, in their order, that makes a match without n-grams; "
        "1: only whole items of fewer words than an n-gram has, as in GPT-3.")
    min_words: int = Field(8, ge=4, description="Words that an item needs to be found by likeness (GPT-3: 8).")
    exact_words: int = Field(
        5, ge=4, description="Items with fewer words than min_words, but these, count where they stand whole.")
    max_items: int = Field(
        10, ge=1, description="What is in more items than this is a template and does not count.")
    margin: int = Field(200, ge=0, description="Characters cut before and after a match (GPT-3: 200).")
    min_piece: int = Field(200, ge=0, description="Shorter pieces that cutting leaves go too (GPT-3: 200).")
    max_pieces: int = Field(10, ge=1, description="A document cut into more pieces is dropped (GPT-3: 10).")


def resources(settings: Decontaminate) -> list[str]:
    """The benchmark files, sorted. Raises UserError for a path, glob or folder that leads to no file."""
    return located(settings.benchmarks)


benchmark_index = Stage("benchmark_index", version=1, settings=Decontaminate, needs={}, makes=INDEX,
                        resources=resources, libraries=("unicodedata",))


@benchmark_index.shard
def index_benchmarks(settings: Decontaminate) -> pa.Table:
    """The index of the settings' benchmarks; empty without any.

    Raises UserError for a file that cannot be read or has no known field.
    """
    items = [item for uri in resources(settings) for item in read_items(uri, settings.fields)]
    if not items:
        return INDEX.empty_table()
    return as_table(build(items, settings.ngram, settings.min_words, settings.exact_words, settings.max_items))


decontaminate = Stage(
    "decontaminate", version=3, settings=Decontaminate, conserves="kept", makes=CLEAN,
    needs={"documents": ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset", "text"],
           "spans": SPANS.names, "kept": ["doc_id", "row"], "benchmarks": INDEX.names})


@decontaminate.shard
def clean(
    documents: pa.Table, spans: pa.Table, kept: pa.Table, benchmarks: pa.Table, settings: Decontaminate
) -> Result:
    """Keeps the documents without a benchmark item; those with one are dropped, cut or tagged.

    A fate's detail is "BENCHMARK:ITEM" of the item of which the document holds most words, its similarity the share of
    the item's words, its value the number of n-grams (rule ngram_overlap), that share (item_similarity) or the number
    of pieces (too_many_pieces).
    """
    index, rows, edits = from_table(benchmarks), take(documents, kept), matching(kept, spans)

    def search(texts) -> dict[int, list[Match]]:
        return matches(texts, index, settings.min_ngrams, settings.min_fraction, settings.similarity)

    found = search(applied(rows["text"], edits)) if index is not None else {}
    out: dict[int, tuple] = {}
    if found and settings.action == "cut":
        hit = pa.array(sorted(found), pa.int64())
        texts = rows["text"].take(hit).to_pylist()
        mended = cut_out(texts, unlisted(edits.take(hit)), [found[place] for place in sorted(found)], settings.margin,
                         settings.min_piece, lambda texts: search(pa.array(texts, pa.large_string())))
        for place, text, cuts in zip(sorted(found), texts, mended, strict=True):
            left = pieces(text, cuts)
            if left == 0:
                out[place] = _verdict(found[place], settings)
            elif left > settings.max_pieces:
                out[place] = "too_many_pieces", float(left), float(settings.max_pieces)
        order = np.arange(len(kept))
        order[sorted(found)] = len(kept) + np.arange(len(found))
        edits = pa.concat_arrays([edits, lists(mended)]).take(pa.array(order))
    elif settings.action == "drop":
        out = {place: _verdict(held, settings) for place, held in found.items()}
    names = json.loads(index.names.tobytes()) if found else []
    dropped = sorted(out)
    best = [_best(found[place]) for place in dropped]
    rules, values, thresholds = zip(*(out[place] for place in dropped), strict=True) if out else ([], [], [])
    table = fates(rows, dropped, "decontaminate", list(rules), value=values, threshold=thresholds,
                  detail=[":".join(names[_owners(index, match)[0]]) for match in best],
                  similarity=[match.fraction for match in best]) if dropped else FATES.empty_table()
    stay = np.setdiff1d(np.arange(len(kept)), dropped).astype(np.int64)
    tags = pa.array([listed(found[place], index, names) if place in found else None for place in stay.tolist()],
                    CLEAN.field("contamination").type)
    stay = pa.array(stay)
    return Result(pa.table([kept["doc_id"].take(stay), kept["row"].take(stay), edits.take(stay), tags], schema=CLEAN),
                  table)


def _best(found: list[Match]) -> Match:
    return min(found, key=lambda match: (-match.matched, -match.fraction, match.passage, match.begin))


def _verdict(found: list[Match], settings: Decontaminate) -> tuple[str, float, float]:
    """(rule, value, threshold) of a document with matches."""
    best = _best(found)
    if best.rule == RULES[0]:
        return best.rule, float(best.ngrams), float(settings.min_ngrams)
    return best.rule, best.fraction, settings.similarity


def _owners(index: Index, match: Match) -> list[int]:
    return index.owners[index.owned[match.passage]:index.owned[match.passage + 1]].tolist()


def listed(found: list[Match], index: Index, names: list[list[str]]) -> list[dict]:
    """The items of a document's matches, those with most words first, `LISTED` at most; of each its best match."""
    best: dict[int, Match] = {}
    for match in sorted(found, key=lambda match: (-match.matched, -match.fraction, match.passage)):
        for item in _owners(index, match):
            best.setdefault(item, match)
    return [{"benchmark": names[item][0], "item": names[item][1], "matched": match.matched, "fraction": match.fraction}
            for item, match in list(best.items())[:LISTED]]

"""Personal data and credentials: where they stand in each kept document, never what they are.

The stage adds spans to those that cut lines (`tasks.spans`); the text stays as it is. The placeholder `<TYPE>`
(`<EMAIL>`, `<PHONE>` ...) stands for each span, as in StarCoder's corpus (https://arxiv.org/abs/2305.06161, section
4.2), when the text is tokenized. Of overlapping finds the longest stays, of equally long ones the one whose type comes
first in `TYPES`. Finding is repeated on the text with its placeholders until nothing is found, so an applied text holds
nothing more: scrubbing twice is scrubbing once.

Not looked for: names and postal addresses, numbers in other than ASCII digits, e-mails spelt out ("at", "dot").
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.schema import SPANS, take
from tasks.scrub.finders import FINDERS, TYPES, known_region
from tasks.spans import Span, applied, apply, lists, matching, merge, unlisted
from tasks.stage import Stage


class Scrub(BaseModel):
    """Settings of the scrub stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: tuple[str, ...] = Field(TYPES, description="Types of personal data to find; none when empty.")
    regions: tuple[str, ...] = Field(
        ("US", "GB"), description="Regions whose national phone numbers are recognised everywhere (ISO 3166 codes).")
    region_by_domain: bool = Field(
        True, description="Also recognise the national phone numbers of the country whose ending the domain has.")

    @field_validator("types")
    @classmethod
    def _known_types(cls, value):
        if unknown := sorted(set(value) - set(TYPES)):
            raise ValueError(f"unknown types {', '.join(unknown)}; known are {', '.join(TYPES)}")
        return value

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, value):
        if unknown := [region for region in value if not known_region(region)]:
            raise ValueError(f"no phone numbering plan for {', '.join(unknown)}; use two-letter codes such as US or DE")
        return value


scrub = Stage("scrub", version=2, settings=Scrub, conserves="kept", makes=SPANS, libraries=("phonenumbers",),
              needs={"documents": ["doc_id", "domain", "text"], "lines": SPANS.names, "kept": ["doc_id", "row"]})


@scrub.shard
def spans(documents: pa.Table, lines: pa.Table, kept: pa.Table, settings: Scrub) -> pa.Table:
    """One row a kept document with its spans: the lines that were cut, and the personal data in what is left."""
    rows, cut = take(documents, kept), matching(kept, lines)
    found = find(applied(rows["text"], cut), settings, rows["domain"].to_pylist())
    merged = [merge(*pair) for pair in zip(unlisted(cut), found, strict=True)]
    return pa.table({"doc_id": rows["doc_id"], "row": kept["row"], "spans": lists(merged)}, schema=SPANS)


def find(texts: pa.ChunkedArray | pa.Array | Sequence[str], settings: Scrub | None = None,
         domains: Sequence[str | None] | None = None) -> list[list[Span]]:
    """The spans of each text.

    Args:
        texts: n texts.
        settings: types and regions; the defaults when None.
        domains: the n host names whose endings name a country; none when None.
    """
    settings = settings or Scrub()
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    elif not isinstance(texts, pa.Array):
        texts = pa.array(texts, pa.string())
    regions = [_regions(domain, settings) for domain in domains or [None] * len(texts)]
    result: list[list[Span]] = [[] for _ in range(len(texts))]
    now, todo = texts, np.arange(len(texts))
    while len(todo):
        more = _find_once(now, [regions[i] for i in todo], frozenset(settings.types))
        for at, finds in more.items():
            document = int(todo[at])
            result[document] = merge(result[document], finds)
        todo = todo[np.array(sorted(more), dtype=np.int64)]
        now = pa.array([apply(texts[i].as_py(), result[i]) for i in todo.tolist()], pa.string())
    return result


def _regions(domain: str | None, settings: Scrub) -> tuple[str, ...]:
    country = (domain or "").rpartition(".")[2].upper().replace("UK", "GB")
    if settings.region_by_domain and known_region(country) and country not in settings.regions:
        return (*settings.regions, country)
    return settings.regions


def _find_once(texts: pa.Array, regions: Sequence[tuple[str, ...]], types: frozenset[str]) -> dict[int, list[Span]]:
    """Spans of the texts that have any, by index, from one pass."""
    found: dict[int, list[tuple[str, int, int]]] = {}
    strings: dict[int, str] = {}
    for finder in FINDERS:
        if not finder.types & types:
            continue
        gate = pc.match_substring if finder.gate == "@" else pc.match_substring_regex
        for index in np.flatnonzero(gate(texts, finder.gate).to_numpy(zero_copy_only=False)).tolist():
            if index not in strings:
                strings[index] = texts[index].as_py()
            finds = [find for find in finder.find(strings[index], types, regions[index]) if find[0] in types]
            if finds:
                found.setdefault(index, []).extend(finds)
    return {index: _longest(finds) for index, finds in found.items()}


def _longest(finds: list[tuple[str, int, int]]) -> list[Span]:
    """Of overlapping finds (type, start, end) the longest, then the first of TYPES, then the leftmost; sorted spans."""
    chosen: list[tuple[int, int, str]] = []     # start, end, type: sorted, disjoint
    for kind, start, end in sorted(set(finds), key=lambda find: (find[1] - find[2], TYPES.index(find[0]), find[1])):
        at = bisect_right(chosen, (start, end, ""))
        if (at == 0 or chosen[at - 1][1] <= start) and (at == len(chosen) or chosen[at][0] >= end):
            chosen.insert(at, (start, end, kind))
    return [Span(kind, start, end - start) for start, end, kind in chosen]

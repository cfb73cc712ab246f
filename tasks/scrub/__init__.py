"""Personal data and credentials: where they stand in each kept document, never what they are.

The stage adds spans to those that cut lines (`tasks.spans`); the text stays as it is. What stands in a value's place
when the text is read is the placeholder `<TYPE>` (`<EMAIL>`, `<PHONE>` ...), as in StarCoder's corpus
(https://arxiv.org/abs/2305.06161, section 4.2), or a pseudonym (`tasks.scrub.pseudonyms`). Of overlapping finds the
longest stays, of equally long ones the one whose type comes first in `tasks.scrub.types.TYPES`. Finding is repeated on
the text as it will be read until nothing is found, so scrubbing twice is scrubbing once.

Not looked for: numbers in other than ASCII digits, e-mails spelt out ("at", "dot"); names and postal addresses only
where they are asked for.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.schema import SPANS, take
from tasks.scrub import ner
from tasks.scrub.finders import FINDERS, Options
from tasks.scrub.identifiers import NUMBERED
from tasks.scrub.numbered import numbered
from tasks.scrub.phones import known_region
from tasks.scrub.pseudonyms import Pseudonyms, read_key
from tasks.scrub.types import DEFAULT, TYPES
from tasks.spans import Span, applied, apply, lists, matching, merge, unlisted
from tasks.stage import Stage
from tasks.storage import Place


class Scrub(BaseModel):
    """Settings of the scrub stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: tuple[str, ...] = Field(DEFAULT, description="Types of personal data to find; none when empty.")
    regions: tuple[str, ...] = Field(
        ("US", "GB"), description="Regions whose national phone numbers are recognised everywhere (ISO 3166 codes).")
    region_by_domain: bool = Field(
        True, description="Also recognise the national phone numbers of the country whose ending the domain has.")
    context: bool = Field(
        True, description="A number with little evidence of its own (nine digits and a check digit) counts only near a "
                          "word that names it, or where the text is nothing but numbers; false: wherever it is valid.")
    addresses: Literal["public", "all"] = Field(
        "public", description="Which IP addresses: those that route on the internet, or also private ones and others.")
    replacement: Literal["placeholder", "pseudonym"] = Field(
        "placeholder", description="What stands in a value's place: <TYPE>, or a fake of the same form, always the "
                                   "same for the same value and key.")
    key_file: Place | None = Field(None, description="File (path or URI) with the pseudonyms' key, 16 bytes or more.")
    ner: str | None = Field(
        None, description="A spaCy model that finds names, as NAME==VERSION of an installed one or a folder's path; it "
                          "costs hundreds of times what all the rest does.")
    ner_labels: dict[str, str] = Field(
        {"PERSON": "NAME", "PER": "NAME"}, description="Which of the model's labels are found, and as which type: "
                                                       "NAME, PLACE or ORGANISATION.")

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

    @field_validator("ner_labels")
    @classmethod
    def _known_labels(cls, value):
        if unknown := sorted(set(value.values()) - set(ner.TYPES)):
            raise ValueError(f"labels become {', '.join(ner.TYPES)}, not {', '.join(unknown)}")
        return value

    @model_validator(mode="after")
    def _has_key(self):
        if (self.replacement == "pseudonym") != (self.key_file is not None):
            raise ValueError("replacement pseudonym and key_file go together: name a file with a key of 16 random "
                             "bytes or more as key_file")
        return self


def resources(settings: Scrub) -> list[str]:
    """The files whose content decides what is found and put there: the key, and the model of names."""
    return [settings.key_file] * bool(settings.key_file) + (ner.files(settings.ner) if settings.ner else [])


scrub = Stage("scrub", version=3, settings=Scrub, conserves="kept", makes=SPANS, resources=resources,
              libraries=("phonenumbers", "python-stdnum"),
              needs={"documents": ["doc_id", "domain", "text"], "lines": SPANS.names, "kept": ["doc_id", "row"]})


@scrub.shard
def spans(documents: pa.Table, lines: pa.Table, kept: pa.Table, settings: Scrub) -> pa.Table:
    """One row a kept document with its spans: the lines that were cut, and the personal data in what is left.

    Raises UserError when the key or the model that the settings name cannot be used.
    """
    rows, cut = take(documents, kept), matching(kept, lines)
    found = find(applied(rows["text"], cut), settings, rows["domain"].to_pylist())
    merged = [merge(*pair) for pair in zip(unlisted(cut), found, strict=True)]
    return pa.table({"doc_id": rows["doc_id"], "row": kept["row"], "spans": lists(merged)}, schema=SPANS)


def find(texts: pa.ChunkedArray | pa.Array | Sequence[str], settings: Scrub | None = None,
         domains: Sequence[str | None] | None = None) -> list[list[Span]]:
    """The spans of each text.

    Args:
        texts: n texts.
        settings: types, regions and what is put in place; the defaults when None.
        domains: the n host names whose endings name a country; none when None.
    """
    settings = settings or Scrub()
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    elif not isinstance(texts, pa.Array):
        texts = pa.array(texts, pa.string())
    options = _options(domains or [None] * len(texts), settings)
    fakes = Pseudonyms(read_key(settings.key_file)) if settings.replacement == "pseudonym" else None
    result: list[list[Span]] = [[] for _ in range(len(texts))]
    now, todo = texts, np.arange(len(texts))
    names = ner.entities(texts, settings.ner, settings.ner_labels) if settings.ner else {}
    while len(todo):
        more = _find_once(now, [options[i] for i in todo], names)
        changed = []
        for at, finds in sorted(more.items()):
            document = int(todo[at])
            if fakes:
                finds = _with_fakes(fakes, now[at].as_py(), finds, result[document], options[document])
            if finds:
                result[document] = merge(result[document], finds)
                changed.append(document)
        todo, names = np.array(changed, dtype=np.int64), {}
        now = pa.array([apply(texts[i].as_py(), result[i]) for i in changed], pa.string())
    return result


def _options(domains: Sequence[str | None], settings: Scrub) -> list[Options]:
    """What is looked for in the text of each domain."""
    common = Options(frozenset(settings.types), settings.regions, settings.addresses == "all", settings.context)
    by_country, options = {}, []
    for domain in domains:
        country = (domain or "").rpartition(".")[2].upper().replace("UK", "GB")
        if country not in by_country:
            more = settings.region_by_domain and known_region(country) and country not in settings.regions
            by_country[country] = common._replace(regions=(*settings.regions, country)) if more else common
        options.append(by_country[country])
    return options


def _find_once(texts: pa.Array, options: Sequence[Options], names: dict[int, list]) -> dict[int, list[Span]]:
    """Spans of the texts that have any, by index, from one pass; `names` are finds that a model made."""
    found: dict[int, list[tuple[str, int, int]]] = {index: list(finds) for index, finds in names.items()}
    strings: dict[int, str] = {}
    if not options:
        return {}
    types, context = options[0].types, options[0].context
    finders = [finder for finder in FINDERS if finder.types & types]
    # One pass for the rare types together; few texts pass it, and only those go through the gates of each.
    rare = [finder.gate for finder in finders if finder.rare]
    some = _matching(texts, "|".join(f"(?:{gate})" for gate in rare)) if rare else np.empty(0, np.int64)
    for finder in finders:
        passed = some[_matching(texts.take(some), finder.gate)] if finder.rare else _matching(texts, finder.gate)
        for index in passed.tolist():
            if index not in strings:
                strings[index] = texts[index].as_py()
            finds = [find for find in finder.find(strings[index], options[index]) if find[0] in types]
            if finds:
                found.setdefault(index, []).extend(finds)
    if types.intersection(NUMBERED):
        certain, fields = numbered(texts, types, context)
        for index, finds in certain.items():
            found.setdefault(index, []).extend(finds)
        for index, finds in fields.items():
            if index not in found:
                found[index] = finds
    return {index: _longest(finds) for index, finds in found.items()}


def _matching(texts: pa.Array, gate: str) -> np.ndarray:
    """The indices of the texts that match a pattern of RE2."""
    match = pc.match_substring if gate == "@" else pc.match_substring_regex
    return np.flatnonzero(match(texts, gate).fill_null(False).to_numpy(zero_copy_only=False))


_ORDER = {kind: place for place, kind in enumerate(TYPES)}


def _longest(finds: list[tuple[str, int, int]]) -> list[Span]:
    """Of overlapping finds (type, start, end) the longest, then the first of TYPES, then the leftmost; sorted spans."""
    chosen: list[tuple[int, int, str]] = []     # start, end, type: sorted, disjoint
    for kind, start, end in sorted(set(finds), key=lambda find: (find[1] - find[2], _ORDER[find[0]], find[1])):
        at = bisect_right(chosen, (start, end, ""))
        if (at == 0 or chosen[at - 1][1] <= start) and (at == len(chosen) or chosen[at][0] >= end):
            chosen.insert(at, (start, end, kind))
    return [Span(kind, start, end - start) for start, end, kind in chosen]


def _with_fakes(fakes: Pseudonyms, text: str, finds: Sequence[Span], before: Sequence[Span],
                options: Options) -> list[Span]:
    """The finds with pseudonyms as their replacements; those that are pseudonyms already are left out.

    Where a find runs over what was put in place before (a fake that makes a longer number with its neighbours), it
    keeps its placeholder, which nothing can be part of: so the search comes to an end.
    """
    places, shift = [], 0       # of what was put there, in `text`
    for span in before:
        places.append((span.offset + shift, span.offset + shift + len(span.shown)))
        shift += len(span.shown) - span.length
    starts = [start for start, _ in places]
    made = []
    for span in finds:
        value = text[span.offset:span.end]
        if fakes.is_fake(span.type, value, options.regions):
            continue
        at = bisect_right(starts, span.offset)
        touched = (at and places[at - 1][1] > span.offset) or (at < len(places) and starts[at] < span.end)
        made.append(span if touched else span._replace(replacement=fakes.fake(span.type, value, options.regions)))
    return made

"""Finds the identifiers of `tasks.scrub.identifiers` in many texts at once."""

import re
from functools import cache, lru_cache

import pyarrow as pa

from tasks.scrub.candidates import candidates
from tasks.scrub.context import names_of
from tasks.scrub.identifiers import IDENTIFIERS, shapes
from tasks.spans import utf8

BEFORE, AFTER = 60, 30      # bytes beside a number in which a word may name it
FIELD = 100                 # code points: a longer text is no field's value
_NAMED, _ALONE, _NEVER = range(3)
_GOES_ON, _CAME_FROM = re.compile(rb" [0-9]"), re.compile(rb"[0-9] ")
_NOISE = re.compile(r"[ ./:\-\u00a0\u2010-\u2013]")


@lru_cache(maxsize=1 << 14)
def _valid(row: int, value: str) -> bool:
    identifier = IDENTIFIERS[row]
    if identifier.pattern and not _pattern(row).fullmatch(value):
        return False
    return identifier.check is None or identifier.check(value)


@cache
def _pattern(row: int) -> re.Pattern:
    return re.compile(IDENTIFIERS[row].pattern, re.ASCII)


Finds = dict[int, list[tuple[str, int, int]]]    # index of a text -> (type, start, end) in code points


def numbered(texts: pa.Array, types: frozenset[str], context: bool) -> tuple[Finds, Finds]:
    """The identifiers in each text: those that evidence speaks for, and those in texts that are nothing but numbers,
    where any other find comes first.

    Args:
        texts: n texts.
        types: what to find.
        context: whether a number of little evidence needs a word that names it (False: a valid one is enough).
    """
    data, offsets = utf8(texts)
    trie, rows = shapes()
    names = names_of(tuple(row.words for row in IDENTIFIERS))
    wanted = [[(row, strong) for row, strong in known if IDENTIFIERS[row].type in types] for known in rows]
    found: dict[int, dict[tuple[int, int], tuple]] = {}     # text -> span -> (how it is known, unchecked, row)
    alone: dict[int, list[tuple[int, int, int]]] = {}               # in short texts, without a word that names it
    for text, start, length, first, last, shape, glued in candidates(data, offsets, trie).tolist():
        if not wanted[shape]:
            continue
        low, high = offsets[text], offsets[text + 1]
        is_field = high - low <= 4 * FIELD
        written = data[first:last].tobytes().decode()
        value = _NOISE.sub("", written).upper()
        small = written != written.upper()
        # Small letters with blanks between are words more often than they are a number.
        if small and len(value) < len(written) and not is_field and context:
            continue
        named = names.within(_beside(data, low, high, first, last))
        if not (named or is_field or not context or any(strong for _, strong in wanted[shape])):
            continue
        # Four digits more make another number of it.
        goes_on = is_field and " " in written and (
            written[-1].isdigit() and _GOES_ON.match(data[last:last + 2].tobytes())
            or written[0].isdigit() and _CAME_FROM.match(data[max(low, first - 2):first].tobytes()))
        for row, strong in wanted[shape]:
            if glued and not IDENTIFIERS[row].glued:
                continue
            told = bool(IDENTIFIERS[row].check or IDENTIFIERS[row].pattern or not value.isdigit())
            if IDENTIFIERS[row].words in named and not (small and len(value) < len(written)):
                how = _NAMED
            elif strong and not small or told and not context:
                how = _ALONE
            elif is_field and told and not goes_on:
                how = _NEVER
            else:
                continue
            if _valid(row, value):
                if how == _NEVER:
                    alone.setdefault(text, []).append((start, start + length, row))
                else:
                    spans, span = found.setdefault(text, {}), (start, start + length)
                    spans[span] = min(spans.get(span, (_NEVER, 0, 0)), (how, IDENTIFIERS[row].check is None, row))
    certain = {text: [(IDENTIFIERS[row].type, *span) for span, (*_, row) in sorted(spans.items())]
               for text, spans in found.items()}
    return certain, _fields(texts, alone, found)


def _fields(texts: pa.Array, alone: dict, found: dict) -> Finds:
    """The finds in texts that hold no word beside their numbers, one a span."""
    fields = {}
    for text, finds in alone.items():
        rest = list(texts[text].as_py())
        for start, end in [*(find[:2] for find in finds), *found.get(text, ())]:
            rest[start:end] = [" "] * (end - start)
        if len(rest) <= FIELD and not any(map(str.isalpha, rest)):
            spans = {}
            for start, end, row in finds:
                rank = (IDENTIFIERS[row].check is None, row)
                spans[start, end] = min(rank, spans.get((start, end), rank))
            fields[text] = [(IDENTIFIERS[row].type, *span) for span, (_, row) in sorted(spans.items())]
    return fields


def _beside(data, low: int, high: int, first: int, last: int) -> str:
    """What stands around a number, with a line between that belongs to neither."""
    before = data[max(low, first - BEFORE):first].tobytes().decode(errors="ignore")
    return before + "\n|\n" + data[last:min(high, last + AFTER)].tobytes().decode(errors="ignore")

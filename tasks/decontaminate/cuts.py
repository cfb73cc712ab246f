"""Cutting matched passages out of texts, as GPT-3 did (https://arxiv.org/abs/2005.14165, appendix C)."""

from collections.abc import Callable, Sequence

from tasks.decontaminate.search import Match
from tasks.spans import Span, apply, merge

TYPE = "benchmark"
WORD = 40     # characters at most by which a cut is widened so that it ends between words


def cut_out(texts: Sequence[str], edits: Sequence[Sequence[Span]], found: Sequence[Sequence[Match]], margin: int,
            min_piece: int, search: Callable[[list[str]], dict[int, list[Match]]]) -> list[list[Span]]:
    """The edits of each text with the matches cut out, until nothing is found any more: where a cut joins what was
    apart, a passage may appear.

    Args:
        texts: as they are stored.
        edits: of each text, before.
        found: the matches in each text with its edits applied.
        margin: characters that are cut before and after a match.
        min_piece: what is left between cuts, and at the ends, goes too when it has fewer characters.
        search: the matches of texts, by place.
    """
    result, shown = list(map(list, edits)), {}
    waiting = dict(enumerate(found))
    while waiting:
        for place, matches in waiting.items():
            text = shown[place] if place in shown else apply(texts[place], result[place])
            spans = [Span(TYPE, begin, end - begin, "") for begin, end in ranges(text, matches, margin, min_piece)]
            result[place] = merge(result[place], spans)
            shown[place] = apply(texts[place], result[place])
        places = list(waiting)
        again = search([shown[place] for place in places])
        waiting = {places[nth]: matches for nth, matches in again.items()}
    return result


def ranges(text: str, matches: Sequence[Match], margin: int, min_piece: int) -> list[tuple[int, int]]:
    """What to cut: (begin, end) in code points, sorted, apart."""
    data, points, at = text.encode(), {}, 0
    count = 0
    for byte in sorted({place for match in matches for place in (match.begin, match.end)}):
        count += len(data[at:byte].decode())
        points[byte], at = count, byte
    cuts: list[tuple[int, int]] = []
    for match in sorted(matches, key=lambda match: match.begin):
        begin, end = max(0, points[match.begin] - margin), min(len(text), points[match.end] + margin)
        begin, end = _between_words(text, begin, end)
        if begin < min_piece:
            begin = 0
        if len(text) - end < min_piece:
            end = len(text)
        if cuts and begin - cuts[-1][1] < max(min_piece, 1):
            cuts[-1] = (cuts[-1][0], max(end, cuts[-1][1]))
        else:
            cuts.append((begin, end))
    return cuts


def _between_words(text: str, begin: int, end: int) -> tuple[int, int]:
    least, most = max(0, begin - WORD), min(len(text), end + WORD)
    wider = begin
    while wider > least and not text[wider - 1].isspace():
        wider -= 1
    begin = wider if wider == 0 or text[wider - 1].isspace() else begin
    wider = end
    while wider < most and not text[wider].isspace():
        wider += 1
    end = wider if wider == len(text) or text[wider].isspace() else end
    while end < len(text) and text[end] == " ":
        end += 1
    return begin, end


def pieces(text: str, spans: Sequence[Span]) -> int:
    """How many passages with anything in them the cuts leave of a text, once its other spans are applied."""
    count, left, at = 0, "", 0
    for span in [*spans, Span(TYPE, len(text), 0)]:
        left += text[at:span.offset]
        if span.type == TYPE:
            count += bool(left.strip())
            left = ""
        else:
            left += span.shown
        at = span.end
    return count

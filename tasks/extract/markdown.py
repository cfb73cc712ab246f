"""Blocks as text: paragraphs apart, list items and table rows on lines of their own, code as it stands.

As Markdown (https://spec.commonmark.org/0.31.2/; tables as in https://github.github.com/gfm/#tables-extension-) also
headings, quotations, tables and fences around code.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tasks.extract import tags
from tasks.extract.blocks import N_BITS, N_ORDINAL, N_PARENT, N_TAG, Parsed
from tasks.extract.hashes import source_key
from tasks.extract.text import END, PARENT, START

_LI, _TR, _TD, _TH, _TABLE, _UL, _OL, _MENU, _DL, _PRE, _QUOTE = (
    tags.TAG[n] for n in "li tr td th table ul ol menu dl pre blockquote".split())
_HEADINGS = {tags.TAG[f"h{n}"]: n for n in range(1, 7)}
_ITEM, _ROW, _CELL, _IN_TABLE, _LISTS, _NUMBERED, _LIST, _HEADING = range(8)
_H1, _H6 = tags.TAG["h1"], tags.TAG["h6"]
_LONG_CELL = 300             # characters from which on a cell is no entry of a table but a part of the page's layout


@njit
def _lay_out(nodes):
    """The item, row, cell, table and list that each element lies in (0: none), how many lists, and its heading."""
    places = np.zeros((len(nodes), 8), np.int32)
    for k in range(1, len(nodes)):
        place, tag = places[k], nodes[k, N_TAG]
        place[:] = places[nodes[k, N_PARENT]]
        if tag == _LI:
            place[_ITEM] = k
        elif tag == _TR:
            place[_ROW], place[_CELL] = k, 0
        elif tag == _TD or tag == _TH:
            place[_CELL], place[_ITEM], place[_LISTS], place[_LIST] = k, 0, 0, 0
        elif tag == _TABLE:
            place[_IN_TABLE], place[_ROW], place[_CELL] = k, 0, 0
        elif tag == _UL or tag == _OL or tag == _MENU or tag == _DL:
            if tag != _DL:
                place[_LISTS] += 1
            place[_NUMBERED], place[_LIST] = tag == _OL, k if place[_LIST] == 0 else place[_LIST]
        elif _H1 <= tag <= _H6:
            place[_HEADING] = tag
    return places


def _entry(key):
    @njit(cache=True)
    def places(nodes):
        assert key
        return _lay_out(nodes)

    return places


_places = _entry(source_key("tags", "blocks"))


class _Piece(NamedTuple):
    """What stands on lines of its own: a block, or the cells of a row."""

    text: str
    place: list[int]
    row: bool


def render(page: Parsed, chosen: np.ndarray, markdown: bool) -> str:
    """The text of the blocks whose numbers are `chosen`, in their order.

    Paragraphs are two line feeds apart, the items of a list and the rows of a table one; items begin with a hyphen or
    their number, cells are a tabulator apart.
    """
    data, places = page.text.tobytes(), _places(page.nodes)
    blocks = page.blocks[chosen]
    parents = blocks[:, PARENT]
    bits, at = page.nodes[parents, N_BITS].tolist(), places[parents].tolist()
    texts = [data[start:end].decode("utf-8", "replace") for start, end in blocks[:, [START, END]].tolist()]
    written: list[str] = []
    before: _Piece | None = None
    ordinals = page.nodes[:, N_ORDINAL]
    b, item = 0, 0
    while b < len(texts):
        place = at[b]
        end = b + 1
        while place[_ROW] and end < len(texts) and at[end][_ROW] == place[_ROW]:
            end += 1
        if end > b + 1 and (cells := _cells(texts[b:end], at[b:end], bits[b:end])):
            if markdown:
                cells = [cell.replace("|", "\\|") for cell in cells]
            piece = _Piece(f"| {' | '.join(cells)} |" if markdown else "\t".join(cells), place, True)
            if markdown and not (before and before.row and before.place[_IN_TABLE] == place[_IN_TABLE]):
                piece = piece._replace(text=f"{piece.text}\n|{' --- |' * len(cells)}")
            b = end
        else:
            text = _marked(texts[b], place, bits[b]) if markdown else texts[b]
            if place[_ITEM] and not bits[b] & tags.IN_PRE:
                indent = "  " * (place[_LISTS] - 1)
                mark = f"{ordinals[place[_ITEM]]}. " if place[_NUMBERED] else "- "
                text = indent + (mark if place[_ITEM] != item else " " * len(mark) if markdown else "") + text
            piece = _Piece(text, place, False)
            b += 1
        item = place[_ITEM] or item
        if before:
            written.append(_between(before, piece))
        written.append(piece.text)
        before = piece
    return "".join(written)


def _cells(texts: list[str], places: list[list[int]], bits: list[int]) -> list[str]:
    """The texts of a row by cells; nothing when it is rather a part of the page's layout than of a table."""
    if any(len(text) > _LONG_CELL or bit & tags.IN_PRE for text, bit in zip(texts, bits, strict=True)):
        return []
    cells: dict[int, str] = {}
    for text, place in zip(texts, places, strict=True):
        cells[place[_CELL]] = " ".join([*cells.get(place[_CELL], "").split("\n"), *text.split("\n")]).strip()
    return list(cells.values()) if len(cells) > 1 else []


def _between(before: _Piece, piece: _Piece) -> str:
    old, new = before.place, piece.place
    if new[_LIST] and new[_LIST] == old[_LIST]:
        return "\n"
    if new[_IN_TABLE] and new[_IN_TABLE] == old[_IN_TABLE] and new[_ROW] != old[_ROW] and (
            before.row and piece.row or len(before.text) + len(piece.text) < _LONG_CELL):
        return "\n"
    return "\n\n"


def _marked(text: str, place: list[int], bits: int) -> str:
    if bits & tags.IN_PRE:
        fence = "```" if "```" not in text else "~~~~"
        return f"{fence}\n{text}\n{fence}"
    if place[_HEADING]:
        return f"{'#' * _HEADINGS[place[_HEADING]]} {' '.join(text.split())}"
    if bits & tags.IN_QUOTE:
        return "> " + text.replace("\n", "\n> ")
    return text

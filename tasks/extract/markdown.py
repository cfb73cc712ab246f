"""Blocks as text: paragraphs apart, list items and table rows on lines of their own, code as it stands.

As Markdown (https://spec.commonmark.org/0.31.2/; tables as in https://github.github.com/gfm/#tables-extension-) also
headings, quotations, tables and fences around code.
"""

import numpy as np
from numba import njit

from tasks.extract import tags
from tasks.extract.blocks import N_BITS, N_ORDINAL, N_PARENT, N_TAG, Parsed
from tasks.extract.text import END, PARENT, START

_LI, _TR, _TD, _TH, _TABLE, _UL, _OL, _MENU, _DL, _PRE, _QUOTE = (
    tags.TAG[n] for n in "li tr td th table ul ol menu dl pre blockquote".split())
_HEADINGS = {tags.TAG[f"h{n}"]: n for n in range(1, 7)}
_ITEM, _ROW, _CELL, _IN_TABLE, _LISTS, _NUMBERED, _LIST, _HEADING = range(8)
_H1, _H6 = tags.TAG["h1"], tags.TAG["h6"]
_LONG_CELL = 300             # characters from which on a cell is no entry of a table but a part of the page's layout


@njit(cache=True)
def _places(nodes):
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


def render(page: Parsed, chosen: np.ndarray, markdown: bool) -> str:
    """The text of the blocks whose numbers are `chosen`, in their order."""
    data, places = page.text.tobytes(), _places(page.nodes)
    pieces: list[str] = []
    before, item, row_length = None, 0, 0
    for b in chosen.tolist():
        block = page.blocks[b]
        node = block[PARENT]
        place, bits = places[node].tolist(), int(page.nodes[node, N_BITS])
        text = data[block[START]:block[END]].decode("utf-8", "replace")
        code = bits & tags.IN_PRE
        separator = "\n\n"
        if before is not None:
            if place[_ROW] and place[_ROW] == before[_ROW] and place[_CELL] != before[_CELL]:
                short = len(text) < _LONG_CELL and row_length < 4 * _LONG_CELL and "\n" not in text and not code
                separator = (" | " if markdown else "\t") if short else "\n"
            elif place[_IN_TABLE] and place[_IN_TABLE] == before[_IN_TABLE] or (
                    place[_LIST] and place[_LIST] == before[_LIST]):
                separator = "\n"
        if separator[0] == "\n":
            row_length = 0
        row_length += len(text)
        if markdown:
            text = _marked(text, place, bits, code)
        if place[_ITEM] and place[_ITEM] != item and not code:
            numbered = place[_NUMBERED] and page.nodes[place[_ITEM], N_ORDINAL]
            mark = f"{page.nodes[place[_ITEM], N_ORDINAL]}. " if numbered else "- "
            text = "  " * (place[_LISTS] - 1) + mark + text
        item = place[_ITEM] or item
        if before is not None:
            pieces.append(separator)
        pieces.append(text)
        before = place
    return "".join(pieces)


def _marked(text: str, place: list[int], bits: int, code: int) -> str:
    if code:
        fence = "```" if "```" not in text else "~~~~"
        return f"{fence}\n{text}\n{fence}"
    if place[_HEADING]:
        return "#" * _HEADINGS[place[_HEADING]] + " " + " ".join(text.split())
    if bits & tags.IN_QUOTE:
        return "> " + text.replace("\n", "\n> ")
    return text

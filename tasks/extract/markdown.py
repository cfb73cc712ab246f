"""Blocks as text: paragraphs apart, list items and table rows on lines of their own, code as it stands.

As Markdown (https://spec.commonmark.org/0.31.2/; tables as in https://github.github.com/gfm/#tables-extension-) also
headings, quotations, tables and fences around code.
"""

from functools import cached_property

import numpy as np
from numba import njit

from tasks.extract import tags
from tasks.extract.attributes import attributes, mentions, number
from tasks.extract.blocks import N_AT, N_CHARS, N_CHILDREN, N_ORDINAL, N_PARENT, N_TAG, Parsed
from tasks.extract.code_blocks import edges, fenced, is_gutter, language, without_numbers
from tasks.extract.hashes import source_key
from tasks.extract.tables import LONG_CELL, Row, Tables, lay_out
from tasks.extract.text import BOLD, CHARS, END, PARENT, START

_LI, _TR, _TD, _TH, _TABLE, _UL, _OL, _MENU, _DL, _PRE, _LISTING, _BLOCKQUOTE = (
    tags.TAG[n] for n in "li tr td th table ul ol menu dl pre listing blockquote".split())
_H1, _H6 = tags.TAG["h1"], tags.TAG["h6"]
_MARKS = {tags.TAG[f"h{n}"]: "#" * n + " " for n in range(1, 7)}
_DEEPEST = 32                # columns of indentation, signs of quotation: beyond, depth is not shown
# What an element lies in, by number (0: none): item, row, cell, table, outermost list, code; heading (its tag),
# outermost quotation; of a table, whether it holds another or code; how deep in lists and quotations; of an item, its
# list when that is an ordered one.
(_ITEM, _ROW, _CELL, _IN_TABLE, _LIST, _CODE, _HEADING, _QUOTE, _HOLDS, _LISTS, _QUOTES, _NUMBERED,
 _N_PLACES) = range(13)
_PLAIN = [0] * _N_PLACES     # of a block that needs no care


@njit
def _lay_out(nodes):
    """int32 (elements, _N_PLACES): what each element lies in."""
    places = np.zeros((len(nodes), _N_PLACES), np.int32)
    for k in range(1, len(nodes)):
        place, tag = places[k], nodes[k, N_TAG]
        place[:] = places[nodes[k, N_PARENT]]
        if tag == _LI:
            place[_ITEM] = k
            place[_NUMBERED] = nodes[k, N_PARENT] if nodes[nodes[k, N_PARENT], N_TAG] == _OL else 0
        elif tag == _TR:
            place[_ROW], place[_CELL] = k, 0
        elif tag == _TD or tag == _TH:
            place[_CELL], place[_ITEM], place[_LISTS], place[_LIST] = k, 0, 0, 0
        elif tag == _TABLE:
            if nodes[k, N_CHARS]:
                places[place[_IN_TABLE], _HOLDS] = 1
            place[_IN_TABLE], place[_ROW], place[_CELL], place[_HOLDS] = k, 0, 0, 0
        elif tag == _UL or tag == _OL or tag == _MENU or tag == _DL:
            if tag != _DL:
                place[_LISTS] += 1
            place[_LIST] = k if place[_LIST] == 0 else place[_LIST]
        elif tag == _PRE or tag == _LISTING:
            place[_CODE] = k
            places[place[_IN_TABLE], _HOLDS] = 1
        elif tag == _BLOCKQUOTE:
            place[_QUOTE] = k if place[_QUOTE] == 0 else place[_QUOTE]
            place[_QUOTES] += 1
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


def render(page: Parsed, chosen: np.ndarray, markdown: bool) -> str:
    """The text of the blocks whose numbers are `chosen`, in their order.

    Paragraphs are two line feeds apart, the items of a list and the rows of a table one; items begin with a hyphen or
    their number and are indented by what they lie in; cells are a tabulator apart, with none left out where the table
    is one of data.
    """
    return _Writer(page, chosen, markdown).text()


class _Writer:
    """One page on its way to text."""

    def __init__(self, page: Parsed, chosen: np.ndarray, markdown: bool):
        self._page, self._markdown = page, markdown
        self._places = _places(page.nodes)
        data, self._blocks = page.text.tobytes(), page.blocks[chosen]
        self._texts = [data[start:end].decode("utf-8", "replace")
                       for start, end in self._blocks[:, [START, END]].tolist()]
        at = self._places[self._blocks[:, PARENT]]
        special = np.flatnonzero((at[:, :_HOLDS] if markdown else at[:, :_HEADING]).any(axis=1))
        self._at: list[list[int]] = [_PLAIN] * len(at)
        for b, place in zip(special.tolist(), at[special].tolist(), strict=True):
            self._at[b] = place
        self._known: dict[int, list[Row]] = {}             # tables
        self._starts: dict[int, tuple[int, int]] = {}      # of ordered lists: the number before the first, the step
        # Items that are being written: depth, element, indentation of what is in it, and of its mark.
        self._open: list[tuple[int, int, str, str]] = []
        self._of_list, self._goes_on = 0, False            # whether the last block of a list was no item's first

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self._page, self._places[:, _ROW], self._places[:, _IN_TABLE])

    @cached_property
    def _edges(self) -> list[int]:
        return edges(self._page.html)

    def text(self) -> str:
        written: list[str] = []
        b, at, texts = 0, self._at, self._texts
        length, old, old_row = 0, _PLAIN, False            # of the piece before: its length, place, whether it is a row
        while b < len(at):
            place, row = at[b], False
            if place is _PLAIN:
                text, gap = texts[b], "\n\n"
                b += 1
            else:
                if place[_ROW]:
                    b, text, place, row = self._row(b)
                else:
                    text = self._block(b, place)
                    b += 1
                gap = self._between(old, place, old_row, row, length + len(text) < LONG_CELL)
            written += gap, text
            length, old, old_row = len(text), place, row
        return "".join(written[1:])

    def _block(self, b: int, place: list[int]) -> str:
        text = self._texts[b]
        if place[_CODE]:
            text = without_numbers(self._page, place[_CODE], text, self._edges)
            if not self._markdown:
                return text
            text = fenced(text, language(self._page, place[_CODE]))
        elif self._markdown and place[_HEADING]:
            text = _MARKS[place[_HEADING]] + " ".join(text.split())
        return self._marked(text, place) if place[_ITEM] or place[_QUOTE] else text

    def _marked(self, text: str, place: list[int]) -> str:
        """`text` with the mark of its item, its indentation, the signs of its quotation."""
        first, rest = self._indent(place) if place[_ITEM] else ("", "")
        if self._markdown and place[_QUOTE]:
            quote = "> " * min(place[_QUOTES], _DEEPEST)
            if place[_ITEM] < place[_QUOTE]:
                first, rest = first + quote, rest + quote
            else:
                first, rest = quote + first, quote + rest
        return first + text.replace("\n", "\n" + rest) if rest and "\n" in text else first + text

    def _indent(self, place: list[int]) -> tuple[str, str]:
        """What stands before the first line of a block in an item, and before its others."""
        if place[_LIST] != self._of_list:
            self._open, self._of_list = [], place[_LIST]
        items, depth = self._open, place[_LISTS]
        while items and (items[-1][0] > depth or items[-1][0] == depth and items[-1][1] != place[_ITEM]):
            items.pop()
        indent = items[-1][2] if items else ""
        self._goes_on = bool(items) and items[-1][1] == place[_ITEM]
        if self._goes_on:
            outer = indent if self._markdown else items[-1][3]
            return outer, outer
        mark = self._mark(place[_ITEM], place[_NUMBERED]) if place[_NUMBERED] else "- "
        inner = indent + " " * len(mark) if len(indent) < _DEEPEST else indent
        items.append((depth, place[_ITEM], inner, indent))
        return indent + mark, inner if self._markdown else indent

    def _mark(self, item: int, parent: int) -> str:
        """The number of an item of an ordered list."""
        nodes, html = self._page.nodes, self._page.html
        if parent not in self._starts:
            first, step, at = 1, 1, int(nodes[parent, N_AT])
            if mentions(html, at, b"start", b"reversed"):
                found = attributes(html, at)
                step = -1 if "reversed" in found else 1
                start = number(found.get("start"))
                first = start if start is not None else int(nodes[parent, N_CHILDREN]) if step < 0 else 1
            self._starts[parent] = first - step, step
        before, step = self._starts[parent]
        ordinal, at = int(nodes[item, N_ORDINAL]), int(nodes[item, N_AT])
        value = number(attributes(html, at).get("value")) if html[at + 3:at + 4] != b">" and mentions(
            html, at, b"value") else None
        if value is not None:
            before = value - step * ordinal
            self._starts[parent] = before, step
        return f"{before + step * ordinal}. "

    def _row(self, b: int) -> tuple[int, str, list[int], bool]:
        """The table, the row, or the block alone that begins with `b`: (number of the next block, text, place, whether
        it is a table or row)."""
        at, place = self._at, self._at[b]
        table = place[_IN_TABLE]
        if table not in self._known:
            self._known[table] = [] if self._places[table, _HOLDS] else self._tables.rows(table)
        end = b + 1
        if rows := self._known[table]:
            while end < len(at) and at[end][_IN_TABLE] == table and at[end][_ROW]:
                end += 1
            if all(place[_CELL] for place in at[b:end]):
                return end, *self._table(rows, b, end), True
            end, self._known[table] = b + 1, []
        while end < len(at) and at[end][_ROW] == place[_ROW]:
            end += 1
        if end > b + 1 and (cells := self._cells(b, end)):
            return end, "\t".join(cells), place, True
        while place[_CODE] and b + 1 < end and is_gutter(self._texts[b]) and any(p[_CODE] for p in at[b + 1:end]):
            b += 1                                         # numbers of lines in a cell beside the code
            place = at[b]
        return b + 1, self._block(b, place), place, False

    def _cells(self, b: int, end: int) -> list[str]:
        """The texts of a row by cells; nothing when it is rather a part of the page's layout than of a table."""
        if any(len(self._texts[k]) > LONG_CELL or self._at[k][_CODE] for k in range(b, end)):
            return []
        cells = self._by_cell(b, end)
        return list(cells.values()) if len(cells) > 1 else []

    def _by_cell(self, b: int, end: int) -> dict[int, str]:
        cells: dict[int, str] = {}
        for place, text in zip(self._at[b:end], self._texts[b:end], strict=True):
            text = text.replace("\n", " ")
            cells[place[_CELL]] = f"{cells[place[_CELL]]} {text}" if place[_CELL] in cells else text
        return cells

    def _table(self, rows: list[Row], b: int, end: int) -> tuple[str, list[int]]:
        place = self._places[self._at[b][_IN_TABLE]].tolist()
        blocks = self._blocks[b:end]
        printed = (2 * blocks[:, BOLD] > blocks[:, CHARS]).tolist()
        plain = {place[_CELL] for place, is_bold in zip(self._at[b:end], printed, strict=True) if not is_bold}
        cells = self._by_cell(b, end)
        if self._markdown:
            cells = {cell: text.replace("|", "\\|") for cell, text in cells.items()}
        grid = lay_out(rows, cells, cells.keys() - plain, named=self._markdown)
        if not self._markdown:
            return "\n".join(grid.above + ["\t".join(row).rstrip("\t") for row in grid.rows]), place
        parts = list(grid.above)
        if grid.rows:
            lines = [f"| {' | '.join(row)} |" for row in [grid.names, *grid.rows[grid.heads:]]]
            parts.append("\n".join([lines[0], "|" + " --- |" * len(grid.names), *lines[1:]]))
        return self._marked("\n\n".join(parts), place), place

    def _between(self, old: list[int], new: list[int], old_row: bool, new_row: bool, short: bool) -> str:
        """What stands between two pieces; `short`: both together are no longer than a cell."""
        gap = "\n\n"
        if new[_LIST] and new[_LIST] == old[_LIST]:
            loose = self._markdown and new[_ITEM] and self._goes_on and not (
                new[_CODE] or old[_CODE] or new[_HEADING] or old[_HEADING])
            gap = "\n\n" if loose or self._markdown and new_row else "\n"
        elif new[_IN_TABLE] and new[_IN_TABLE] == old[_IN_TABLE] and new[_ROW] != old[_ROW] and (
                old_row and new_row or short) or (
                new_row and not new[_ROW] and old[_IN_TABLE] == new[_IN_TABLE] and not self._markdown):
            gap = "\n"
        if self._markdown and gap == "\n\n" and new[_QUOTE] and new[_QUOTE] == old[_QUOTE]:
            indent = self._open[-1][2] if new[_ITEM] and new[_ITEM] < new[_QUOTE] and self._open else ""
            return f"\n{indent}{('> ' * min(old[_QUOTES], new[_QUOTES], _DEEPEST)).rstrip()}\n"
        return gap

"""Tables of data as rows of cells, told from tables that lay out a page.

Spans are counted as in the HTML Standard, https://html.spec.whatwg.org/multipage/tables.html (4.9.12). What lays out a
page: the signs are those that browsers show to assistive technology by (nested tables, a role, few and long cells),
https://www.w3.org/TR/html-aam-1.0/ leaves them to each; the bounds are ours.
"""

from itertools import takewhile
from typing import NamedTuple

import numpy as np

from tasks.extract import tags
from tasks.extract.attributes import attributes, mentions, number
from tasks.extract.blocks import N_AT, N_CHARS, N_PARENT, N_TAG, Parsed

LONG_CELL = 300              # characters from which on a cell is no entry of a table but a part of the page's layout
_LONG_IN_DATA = 1000         # the same for a table with headers
_LONGEST = 2000
_SPARSE = 8                  # places of a table for each cell that holds text, from which on it is none
_COPIED, _COPIES = 1000, 4   # characters, and those for each of the table, that headers across columns may add up to
_TH, _TD, _THEAD = (tags.TAG[n] for n in "th td thead".split())


class Cell(NamedTuple):
    node: int
    column: int
    columns: int             # how many it spans


class Row(NamedTuple):
    head: bool               # in thead, or of headers only
    cells: list[Cell]


class Tables:
    """The tables of a page. `rows_of`, `tables_of`: of each element, the row and the table that it lies in."""

    def __init__(self, page: Parsed, rows_of: np.ndarray, tables_of: np.ndarray):
        self._page, tag = page, page.nodes[:, N_TAG]
        cells = np.flatnonzero((tag == _TD) | (tag == _TH))
        order = np.argsort(tables_of[cells], kind="stable")
        self._cells, self._tables = cells[order], tables_of[cells][order]
        self._rows_of = rows_of

    def rows(self, table: int) -> list[Row]:
        """The rows of a table of data; none when the element `table` lays out the page."""
        nodes, html = self._page.nodes, self._page.html
        first, last = np.searchsorted(self._tables, [table, table + 1])
        cells = self._cells[first:last]
        if first == last:
            return []
        lengths, tag, at = (nodes[cells, column].tolist() for column in (N_CHARS, N_TAG, N_AT))
        ids = cells.tolist()
        rows: dict[int, list[int]] = {}
        for row, cell in zip(self._rows_of[cells].tolist(), range(len(cells)), strict=True):
            rows.setdefault(row, []).append(cell)
        full = [sum(lengths[cell] > 0 for cell in row) for row in rows.values()]
        filled, several, wide = len(full) - full.count(0), sum(n > 1 for n in full), max(map(len, rows.values()))
        has_headers = _TH in tag
        bound = _LONG_IN_DATA if has_headers else LONG_CELL
        long = sum(length > bound for length in lengths)
        if (0 in rows or filled < 2 or several < (1 if has_headers else filled / 2) or 4 * long > filled
                or max(lengths) > _LONGEST or wide * filled > _SPARSE * (sum(full) + _SPARSE)
                or wide * len(rows) > _SPARSE * (len(cells) + _SPARSE)
                or attributes(html, nodes[table, N_AT]).get("role") in ("presentation", "none")):
            return []
        made, busy = [], {}      # columns that cells of rows above reach into, and for how many more rows
        parents = nodes[list(rows), N_PARENT]
        in_head = (nodes[parents, N_TAG] == _THEAD).tolist()
        for members, head in zip(rows.values(), in_head, strict=True):
            column, placed, above = 0, [], busy
            busy = {c: left - 1 for c, left in above.items() if left > 1}
            for cell in members:
                while column in above:
                    column += 1
                columns = height = 1
                if html[at[cell] + 3:at[cell] + 4] != b">" and mentions(html, at[cell], b"span"):
                    found = attributes(html, at[cell])
                    columns = min(max(1, number(found.get("colspan")) or 1), wide)
                    height = number(found.get("rowspan"))
                    height = len(rows) if height == 0 else height or 1
                if column + columns > 2 * wide + _SPARSE:  # spans upon spans: no table that anybody reads
                    return []
                if height > 1:
                    busy.update(dict.fromkeys(range(column, column + columns), height - 1))
                placed.append(Cell(ids[cell], column, columns))
                column += columns
            head = head or all(tag[cell] == _TH or not lengths[cell] for cell in members) and any(
                tag[cell] == _TH for cell in members)
            made.append(Row(head, placed))
        return made


class Grid(NamedTuple):
    """What a table says, without the rows and columns that are empty."""

    above: list[str]         # titles: cells across the whole table before its header
    heads: int               # how many of the rows are its header
    rows: list[list[str]]    # a cell that spans several has its text in the first
    names: list[str]         # the header as one row, where a text across several columns counts in each, up to a bound


def lay_out(rows: list[Row], texts: dict[int, str], bold: set[int], named: bool) -> Grid:
    """The table of `rows` with the texts of its cells.

    Args:
        texts: by the element of the cell.
        bold: cells that are printed in bold; a first row of them is a header where none is marked as such.
        named: whether `names` are wanted; they are empty otherwise.
    """
    rows = [row for row in rows if any(cell.node in texts for cell in row.cells)]
    used = sorted({cell.column for row in rows for cell in row.cells if cell.node in texts})
    places = {column: place for place, column in enumerate(used)}
    above: list[str] = []
    for row in rows:
        shown = [cell for cell in row.cells if cell.node in texts]
        if len(shown) > 1 or shown[0].columns < max(2, len(used)) or not row.head and shown[0].node not in bold:
            break
        above.append(texts[shown[0].node])
    rows = rows[len(above):]
    heads = len(list(takewhile(lambda row: row.head, rows)))
    if heads == len(rows):
        heads = min(heads, 1)
    if bold and len(rows) > 1 and not any(row.head for row in rows):
        first = [cell.node for cell in rows[0].cells if cell.node in texts]
        heads = int(len(first) > 1 and bold.issuperset(first) and len(bold) < len(texts))
    lines = [["" for _ in used] for _ in rows]
    names: list[list[str]] = [[] for _ in used]
    left = _COPIED + _COPIES * sum(map(len, texts.values()))
    for nth, row in enumerate(rows):
        for cell in row.cells:
            if text := texts.get(cell.node):
                lines[nth][places[cell.column]] = text
                if named and nth < heads:
                    reach = range(cell.column, cell.column + (cell.columns if heads > 1 else 1))
                    across = [places[column] for column in reach if column in places]
                    across = across if len(across) * len(text) <= left else across[:1]
                    left -= len(across) * len(text)
                    for place in across:
                        names[place].append(text)
    return Grid(above, heads, lines, [" ".join(parts) for parts in names])

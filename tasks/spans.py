"""Edits of texts that are never changed: spans, put over a text when it is read.

A span names a passage (offset and length in code points of the stored text), its type, and what stands in its place:
`<TYPE>` when the replacement is None, nothing when it is empty, else the replacement. A document's spans are
sorted and do not overlap. Line cleaning cuts with them, personal data is hidden with them, and passages of
benchmarks can be cut with them; who measures or searches a text sees it with the spans that were there before.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.schema import SPANS, id_bytes

LISTS = SPANS.field("spans").type


class Span(NamedTuple):
    """A passage of a text and what to put there."""

    type: str
    offset: int                      # code points
    length: int
    replacement: str | None = None   # None: <TYPE>

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def shown(self) -> str:
        """What stands in its place."""
        return f"<{self.type}>" if self.replacement is None else self.replacement


def apply(text: str, spans: Iterable[Span | tuple]) -> str:
    """The text with each span's replacement in its place.

    Raises ValueError when a span lies outside the text, or spans overlap or are out of order.
    """
    pieces, at = [], 0
    for span in spans:
        span = Span(*span)
        if span.offset < at or span.length <= 0 or span.end > len(text):
            raise ValueError(f"span {span.type} at {span.offset}+{span.length} does not fit the text")
        pieces += [text[at:span.offset], span.shown]
        at = span.end
    return "".join([*pieces, text[at:]])


def applied(texts: pa.ChunkedArray | pa.Array, spans: pa.ChunkedArray | pa.Array) -> pa.Array:
    """`apply` for n texts and their spans (the column of SPANS), as large_string; a missing text is an empty one.

    Raises ValueError as `apply` does.
    """
    texts = _whole(texts).cast(pa.large_string()).fill_null("")
    entries = pc.list_flatten(_whole(spans))
    if not len(entries):
        return texts
    from tasks.span_kernel import replaced  # numba takes a second to import: only where texts are changed

    counts = pc.list_value_length(_whole(spans)).fill_null(0).to_numpy().astype(np.int64)
    marks = pc.binary_join_element_wise("<", entries.field("type"), ">", "")
    shown = pc.coalesce(entries.field("replacement"), marks).cast(pa.large_string())
    data, starts, wrong = replaced(*utf8(texts), np.append(0, np.cumsum(counts)), entries.field("offset").to_numpy(),
                                   entries.field("length").to_numpy(), *utf8(shown))
    if wrong >= 0:
        raise ValueError(f"a span of text {wrong} does not fit it, or the spans overlap")
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(starts), pa.py_buffer(data))


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def utf8(texts: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of n texts (uint8), and the n + 1 places (int64) where they begin and end; a missing text is empty."""
    texts = _whole(texts).cast(pa.large_string()).fill_null("")
    data = texts.buffers()[2]
    offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset) if len(texts) else [0]
    return np.frombuffer(data if data is not None else b"", np.uint8), np.asarray(offsets, np.int64)


def matching(rows: pa.Table, table: pa.Table) -> pa.Array:
    """The spans of `rows` (doc_id, row) from a SPANS table sorted by row.

    Raises ValueError when a row has none of its own: what was not looked through never goes on.
    """
    have, want = table["row"].to_numpy(), rows["row"].to_numpy()
    at = np.minimum(np.searchsorted(have, want), max(len(have) - 1, 0))
    if len(want) and (not len(have) or (have[at] != want).any()):
        raise ValueError("documents without a row of spans: the tables are of two builds")
    mine = table.take(pa.array(at))
    if not id_bytes(mine["doc_id"]).equals(id_bytes(rows["doc_id"])):
        raise ValueError("spans and documents disagree: row and doc_id do not belong together")
    return _whole(mine["spans"])


def lists(documents: Sequence[Sequence[Span | tuple]]) -> pa.ListArray:
    """The column of SPANS from the spans of each document."""
    flat = [Span(*span) for spans in documents for span in spans]
    offsets = np.append(0, np.cumsum(np.fromiter(map(len, documents), np.int64, len(documents))))
    columns = [pa.array(column, kind.type) for column, kind in
               zip(zip(*flat, strict=True) if flat else [[]] * 4, LISTS.value_type, strict=True)]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()),
                                    pa.StructArray.from_arrays(columns, fields=list(LISTS.value_type)), type=LISTS)


def unlisted(column: pa.ChunkedArray | pa.Array) -> list[list[Span]]:
    """The spans of each document from the column of SPANS."""
    column = _whole(column)
    entries = pc.list_flatten(column)
    flat = [Span(*entry) for entry in zip(*(entries.field(f.name).to_pylist() for f in LISTS.value_type), strict=True)]
    ends = np.cumsum(pc.list_value_length(column).fill_null(0).to_numpy()).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def merge(earlier: Sequence[Span], later: Sequence[Span]) -> list[Span]:
    """`later` spans, found in the text with the `earlier` ones applied, laid back onto the text before; both sorted.

    A later span that touches what an earlier one put there, or that runs over it, takes the earlier one in.
    """
    if not earlier or not later:
        return list(later or earlier)
    starts, ends, shift = [], [], 0  # in the applied text
    for span in earlier:
        starts.append(span.offset + shift)
        ends.append(starts[-1] + len(span.shown))
        shift += len(span.shown) - span.length

    def back(place: int, is_end: bool) -> int:
        # The first replacement that ends beyond the place (for an end: that ends at it or beyond).
        at = (bisect_left if is_end else bisect_right)(ends, place)
        if at < len(starts) and starts[at] < place:
            return earlier[at].end if is_end else earlier[at].offset
        return place + (earlier[at - 1].end - ends[at - 1] if at else 0)

    added: list[Span] = []
    for span in later:
        start, end = back(span.offset, False), back(span.end, True)
        if added and start < added[-1].end:  # both touch the same replacement
            added[-1] = added[-1]._replace(length=max(added[-1].end, end) - added[-1].offset)
        else:
            added.append(span._replace(offset=start, length=end - start))
    begins, finishes = [span.offset for span in added], [span.end for span in added]
    kept = [span for span in earlier
            if not ((at := bisect_right(begins, span.offset)) and finishes[at - 1] >= span.end)]
    return sorted([*kept, *added], key=lambda span: span.offset)

"""Spans over texts: what they make of them, one by one and many at once."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.schema import SPANS, doc_id, id_array
from tasks.spans import Span, applied, apply, lists, matching, merge, unlisted

TEXTS = st.text(alphabet="ab é\n水😀", max_size=40)


@st.composite
def spans_of(draw, text: str, types=("EMAIL", "line_words")) -> list[Span]:
    """Sorted, disjoint spans of a text."""
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    shown = st.sampled_from([None, "", "x@example.org", "é"])
    return [Span(draw(st.sampled_from(types)), start, end - start, draw(shown))
            for start, end in zip(places[::2], places[1::2], strict=False)]


@st.composite
def edited(draw) -> tuple[str, list[Span]]:
    text = draw(TEXTS)
    return text, draw(spans_of(text))


@settings(deadline=None)
@given(st.lists(edited(), max_size=6))
def test_many_at_once_are_as_one_by_one(documents):
    texts = pa.array([text for text, _ in documents], pa.string())
    column = lists([spans for _, spans in documents])
    assert unlisted(column) == [spans for _, spans in documents]
    expected = [apply(text, spans) for text, spans in documents]
    assert applied(texts, column).to_pylist() == expected
    halves = pa.chunked_array([texts[:2], texts[2:]]), pa.chunked_array([column[:2], column[2:]])
    assert applied(*halves).to_pylist() == expected
    assert applied(texts[1:], column[1:]).to_pylist() == expected[1:]


def test_what_stands_in_their_place():
    assert apply("mail me@a.org now", [Span("EMAIL", 5, 8)]) == "mail <EMAIL> now"
    assert apply("one\ntwo", [Span("line_words", 3, 4, "")]) == "one"
    assert applied(pa.array([None, "ab"]), lists([[], [Span("X", 0, 1, "é")]])).to_pylist() == ["", "éb"]


@pytest.mark.parametrize("spans", [[Span("X", 2, 5)], [Span("X", 0, 2), Span("X", 1, 1)], [Span("X", 1, 0)],
                                   [Span("X", 2, 1), Span("X", 0, 1)], [Span("X", -1, 1)]])
def test_spans_that_do_not_fit_are_refused(spans):
    with pytest.raises(ValueError, match="fit"):
        apply("abcd", spans)
    with pytest.raises(ValueError, match="text 1"):
        applied(pa.array(["abcd", "abcd"]), lists([[], spans]))


@settings(deadline=None)
@given(st.data())
def test_merged_spans_do_what_both_did_one_after_the_other(data):
    text = data.draw(TEXTS)
    earlier = data.draw(spans_of(text))
    now = apply(text, earlier)
    later = data.draw(spans_of(now, types=("PHONE",)))
    # A later span that begins or ends inside a replacement takes all of it: there the two differ by that rest.
    starts, shift = [], 0
    for span in earlier:
        starts.append((span.offset + shift, span.offset + shift + len(span.shown)))
        shift += len(span.shown) - span.length
    merged = merge(earlier, later)
    apply(text, merged)                                                  # sorted, disjoint, inside
    if not any(start < place < end for start, end in starts for span in later for place in (span.offset, span.end)):
        assert apply(text, merged) == apply(now, later)
    assert merge(earlier, []) == earlier and merge([], later) == later


def test_two_finds_in_one_replacement_are_one_span():
    earlier = [Span("EMAIL", 2, 3, "a b c d")]
    assert merge(earlier, [Span("X", 2, 1), Span("Y", 6, 1)]) == [Span("X", 2, 3)]


def test_rows_without_spans_of_their_own_are_refused():
    ids = id_array([doc_id("made", i) for i in range(3)])
    table = pa.table([ids, pa.array(range(3), pa.int32()), lists([[Span("X", 0, 1)], [], []])], schema=SPANS)
    rows = pa.table({"doc_id": ids.take(pa.array([0, 2])), "row": pa.array([0, 2], pa.int32())})
    assert unlisted(matching(rows, table)) == [[Span("X", 0, 1)], []]
    assert len(matching(rows.slice(0, 0), table.slice(0, 0))) == 0
    with pytest.raises(ValueError, match="without a row of spans"):
        matching(rows, table.slice(0, 2))
    with pytest.raises(ValueError, match="disagree"):
        matching(rows.set_column(0, "doc_id", ids.take(pa.array([1, 2]))), table)

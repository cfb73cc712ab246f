"""Spans put over many texts at once, in UTF-8."""

import numpy as np

from tasks.compiled import njit


@njit(cache=True)
def _copy(source, start, end, target, at):
    for i in range(start, end):
        target[at] = source[i]
        at += 1
    return at


@njit(cache=True, nogil=True)
def replaced(data, texts, rows, offsets, lengths, shown, places):
    """The texts with what is shown in place of their spans.

    Args:
        data, texts: uint8 and int64 (n + 1): text t is data[texts[t]:texts[t + 1]], UTF-8.
        rows: int64 (n + 1): the spans of text t are those from rows[t] to rows[t + 1].
        offsets, lengths: int32 (s): in code points, sorted and disjoint in a text.
        shown, places: uint8 and int64 (s + 1): what stands in the place of span i, UTF-8.

    Returns (uint8 bytes, int64 (n + 1) places, the first text that a span does not fit or -1).
    """
    out = np.empty(texts[-1] - texts[0] + places[-1] - places[0], np.uint8)
    ends = np.zeros(len(texts), np.int64)
    at = 0
    for t in range(len(texts) - 1):
        i, point = texts[t], 0
        for s in range(rows[t], rows[t + 1]):
            if offsets[s] < point or lengths[s] <= 0:
                return out[:0], ends, t
            begin = i
            while i < texts[t + 1] and point < offsets[s]:
                i += 1
                while i < texts[t + 1] and data[i] & 0xC0 == 0x80:
                    i += 1
                point += 1
            at = _copy(data, begin, i, out, at)
            at = _copy(shown, places[s], places[s + 1], out, at)
            while i < texts[t + 1] and point < offsets[s] + lengths[s]:
                i += 1
                while i < texts[t + 1] and data[i] & 0xC0 == 0x80:
                    i += 1
                point += 1
            if point < offsets[s] + lengths[s]:
                return out[:0], ends, t
        at = _copy(data, i, texts[t + 1], out, at)
        ends[t + 1] = at
    return out[:at], ends, -1

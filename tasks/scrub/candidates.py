"""One pass over the bytes of many texts that finds what is written like an identifier.

A shape is how a number is written, with 9 for a digit, A for an ASCII letter, X for either and the separators as they
stand: `999-99-9999`. All shapes of all types make one trie, which is walked from the start of every word, so the pass
costs the same however many types there are; what it finds is then checked by Python, and there is little of it.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from tasks.compiled import njit

SEPARATORS = " -./:"
_CLASSES = "9A" + SEPARATORS
REACH = 9           # bytes from the start of a shape to its first digit, at most
_OPTIONAL = {"~": ("", " ", "-"), "^": (" ", "-")}  # the same separator throughout
_FREE = {"*": ("", " ", "-", ".")}                  # any separator, each time


class Trie(NamedTuple):
    """All shapes: steps int16 (nodes, classes), -1 where none leads on; ends int16 (nodes,), the shape or -1."""

    steps: np.ndarray
    ends: np.ndarray
    shapes: tuple[str, ...]


def expand(shape: str) -> list[str]:
    """The plain shapes that a written one stands for.

    `X` is a digit or a letter; `~` no separator, a blank or a hyphen, `^` a blank or a hyphen, each the same
    throughout; `*` no separator or any, each for itself; `9{8,10}` from 8 to 10 digits.
    """
    if "{" in shape:
        head, _, rest = shape.partition("{")
        counts, _, tail = rest.partition("}")
        low, _, high = counts.partition(",")
        return [full for n in range(int(low), int(high or low) + 1)
                for full in expand(head[:-1] + head[-1] * n + tail)]
    for mark, separators in _OPTIONAL.items():
        if mark in shape:
            return [full for separator in separators for full in expand(shape.replace(mark, separator))]
    choices = [_FREE.get(c, "9A" if c == "X" else c) for c in shape]
    return ["".join(full) for full in product(*choices)]


def trie(shapes: Iterable[str]) -> Trie:
    """The trie of plain shapes, in their order."""
    shapes = tuple(dict.fromkeys(shapes))
    steps, ends = [[-1] * len(_CLASSES)], [-1]
    for index, shape in enumerate(shapes):
        node = 0
        for character in shape:
            kind = _CLASSES.index(character)
            if steps[node][kind] < 0:
                steps[node][kind] = len(steps)
                steps.append([-1] * len(_CLASSES))
                ends.append(-1)
            node = steps[node][kind]
        ends[node] = index
    return Trie(np.array(steps, np.int16), np.array(ends, np.int16), shapes)


@lru_cache(maxsize=1)
def _ascii_classes() -> np.ndarray:
    """int8 (128,): the class of each ASCII character, -1 for others."""
    classes = np.full(128, -1, np.int8)
    for point in range(128):
        character = chr(point)
        if character.isdigit():
            classes[point] = 0
        elif character.isalpha():
            classes[point] = 1
        elif character in SEPARATORS:
            classes[point] = 2 + SEPARATORS.index(character)
    return classes


def candidates(data: np.ndarray, offsets: np.ndarray, shapes: Trie) -> np.ndarray:
    """Where texts hold what has one of the shapes.

    Args:
        data, offsets: uint8 and int64 (n + 1): text t is data[offsets[t]:offsets[t + 1]], UTF-8.
        shapes: from `trie`.

    Returns int64 (m, 7): text, first code point, code points, first byte, end byte, index of the shape, and 1 where
    a small letter stands right before it. A blank may be a no-break space, a hyphen also U+2010 to U+2013.
    """
    return _scan(data, offsets, shapes.steps, shapes.ends, _ascii_classes())


@njit
def _step(data, i, end, classes):
    """The class of the character at byte i (-1: none of ours), its bytes, and whether it belongs to a word."""
    b = data[i]
    if b < 128:
        kind = classes[b]
        return kind, 1, kind == 0 or kind == 1 or b == 95
    if b == 0xC2:       # U+0080 to U+00BF: punctuation
        return (2 if i + 1 < end and data[i + 1] == 0xA0 else -1), 2, False
    if b < 0xE0:        # letters of Europe, Caucasus and the Near East
        return -1, 2, True
    if b == 0xE2:
        hyphen = i + 2 < end and data[i + 1] == 0x80 and 0x90 <= data[i + 2] <= 0x93
        return (3 if hyphen else -1), 3, False
    # Scripts that put no space, or a particle, beside a number.
    return -1, (3 if b < 0xF0 else 4), False


@njit
def _stands_alone(data, j, end, classes):
    """Whether what ends before byte j ends there: no word goes on, and no further group of the same number."""
    if j >= end:
        return True
    kind, width, word = _step(data, j, end, classes)
    if word or data[j] == 64:
        return False
    if kind < 3 and data[j] != 44 or j + width >= end:
        return True
    after, _, word = _step(data, j + width, end, classes)
    if kind == 4 or kind == 5:      # . or /: 12345678Z.html
        return not word
    return not (after == 0)


@njit
def _begins(data, i, start, classes, digit):
    """2 where a word begins at byte i, 1 where digits begin right behind a small letter, else 0."""
    if i == start:
        return 2
    b = data[i - 1]
    if b >= 128:
        k = i - 1
        while k > start and data[k] & 0xC0 == 0x80:
            k -= 1
        return 0 if 0xC3 <= data[k] < 0xE0 else 2
    if classes[b] == 1:
        return 1 if digit and b >= 97 else 0
    if classes[b] == 0 or b == 95:
        return 0
    if b == 36 or b == 35:          # $ and #
        return 0 if digit else 2
    before = data[i - 2] if i - 2 >= start else 0
    kind = classes[before] if before < 128 else -1
    if b == 46:                     # a decimal or the tail of a longer number; `No.123` begins one
        return 2 if kind == 1 or not digit and kind != 0 else 0
    if b == 44 or b == 45 or b == 58:
        return 0 if kind == 0 and digit else 2
    if b == 47:                     # a path
        return 0 if kind >= 0 and kind < 2 else 2
    return 2


@njit
def _walk(data, i, end, steps, ends, classes, text, point, glued, found, n):
    """Adds what has a shape from byte i on to `found`, of which n rows are filled; returns it and the new n."""
    node, points = 0, 0
    j = i
    while j < end:
        kind, width, _ = _step(data, j, end, classes)
        node = steps[node, kind] if kind >= 0 else -1
        if node < 0:
            break
        j += width
        points += 1
        if ends[node] >= 0 and _stands_alone(data, j, end, classes):
            if n == len(found):
                larger = np.empty((2 * n, 7), np.int64)
                larger[:n] = found
                found = larger
            found[n, 0], found[n, 1], found[n, 2] = text, point, points
            found[n, 3], found[n, 4], found[n, 5], found[n, 6] = i, j, ends[node], glued
            n += 1
    return found, n


@njit(cache=True, nogil=True)
def _scan(data, offsets, steps, ends, classes):
    found = np.empty((256, 7), np.int64)
    n = 0
    starts, points = np.zeros(3, np.int64), np.zeros(3, np.int64)   # of the last words: byte and code point
    for t in range(len(offsets) - 1):
        start, end = offsets[t], offsets[t + 1]
        i, point = start, 0
        walked = start - 1      # the last byte that a walk began at
        inside = digits = False
        starts[:] = start - REACH - 1
        while i < end:
            b = data[i]
            if b >= 128:
                inside = 0xC3 <= b < 0xE0
                digits = False
                i += 2 if b < 0xE0 else 3 if b < 0xF0 else 4
                point += 1
                continue
            kind = classes[b]
            if kind == 0:
                if not digits:
                    if not inside:
                        starts[0], starts[1], starts[2] = starts[1], starts[2], i
                        points[0], points[1], points[2] = points[1], points[2], point
                    # Every shape has a digit near its start, so walks begin at the words around a digit only.
                    for s in range(3):
                        if starts[s] > walked and i - starts[s] <= REACH:
                            walked = starts[s]
                            if _begins(data, walked, start, classes, walked == i) == 2:
                                found, n = _walk(data, walked, end, steps, ends, classes, t, points[s], 0,
                                                 found, n)
                    if i > walked and inside and _begins(data, i, start, classes, True) == 1:
                        found, n = _walk(data, i, end, steps, ends, classes, t, point, 1, found, n)
                inside = digits = True
            else:
                if (kind == 1 or b == 95) and not inside:
                    starts[0], starts[1], starts[2] = starts[1], starts[2], i
                    points[0], points[1], points[2] = points[1], points[2], point
                inside = kind == 1 or b == 95
                digits = False
            i += 1
            point += 1
    return found[:n]

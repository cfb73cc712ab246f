"""Mathematics as text: TeX, as a page carries it or as its MathML says; between dollar signs, and once.

Pages carry TeX in annotations, alternative texts and MathJax scripts; MathML without it is written in TeX (see
`tasks.extract.mathml`). A page often has the same formula several times: what comes right after one that is alike but
for braces and spaces is left out.
"""

import numpy as np
from numba import njit

from tasks.extract.hashes import begins
from tasks.extract.html import MATHML
from tasks.extract.text import T_MATH_AT, T_MATH_FROM, T_MATH_OF_MATHML, T_MATH_TO, T_OUT

SIGN = np.frombuffer(b"$", np.uint8)    # what the TeX of a page's MathML follows
SEGMENTS = 3                            # pieces of a formula: sign, TeX, sign
DISPLAYSTYLE = np.frombuffer(b"{\\displaystyle", np.uint8)


@njit
def _counts(c):
    """Whether a byte tells formulas apart: braces, spaces and dollar signs do not."""
    return c > 32 and c != 36 and c != 123 and c != 125


@njit
def _alike(one, i, end, other, j, last):
    while True:
        while i < end and not _counts(one[i]):
            i += 1
        while j < last and not _counts(other[j]):
            j += 1
        if i == end or j == last:
            return i == end and j == last
        if one[i] != other[j]:
            return False
        i, j = i + 1, j + 1


@njit
def formula(html, i, end, flags, signs, displaystyle, segments, state):
    """Lists the pieces of a formula (1 for `signs` and 0 for `html`, from, to), dollar signs around; returns how many.

    `i` and `end` bound its TeX in `html`, or that of MathML in `signs`. None when it repeats the one just before.
    """
    of_mathml = 1 if flags & MATHML else 0
    source = signs if of_mathml else html
    while i < end and source[i] <= 32:
        i += 1
    while end > i and source[end - 1] <= 32:
        end -= 1
    if begins(source, i, end, displaystyle) and source[end - 1] == 125:  # around each of Wikipedia's
        i, end = i + len(displaystyle), end - 1
        while i < end and source[i] <= 32:
            i += 1
    if end <= i:
        return 0
    if state[T_MATH_AT] == state[T_OUT] and _alike(
            source, i, end, signs if state[T_MATH_OF_MATHML] else html, state[T_MATH_FROM], state[T_MATH_TO]):
        return 0
    state[T_MATH_FROM], state[T_MATH_TO], state[T_MATH_OF_MATHML] = i, end, of_mathml
    c = source[i + 1] if i + 1 < end else 0
    if source[i] == 36 or source[i] == 92 and (c == 40 or c == 91):  # has its signs
        segments[0, 0], segments[0, 1], segments[0, 2] = of_mathml, i, end
        return 1
    segments[:, 0], segments[:, 1], segments[:, 2] = 1, 0, 1
    segments[1, 0], segments[1, 1], segments[1, 2] = of_mathml, i, end
    return 3

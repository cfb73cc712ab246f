"""Mathematics as text: TeX, as a page carries it or as its MathML says; between dollar signs, and once.

Pages carry TeX in annotations, alternative texts and MathJax scripts; MathML without it is written in TeX (see
`tasks.extract.mathml`). A page often has the same formula several times: what comes right after one in the same block
that is alike, but for spaces and for braces around a single token, is left out.
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
def _token_end(source, i, end):
    """The place after the token at `i`: a command, an escaped sign, a character."""
    c, i = source[i], i + 1
    if c == 92 and i < end:
        i += 1
        while 97 <= source[i - 1] | 32 <= 122 and i < end and 97 <= source[i] | 32 <= 122:
            i += 1
    while c >= 0xC0 and i < end and source[i] & 0xC0 == 0x80:
        i += 1
    return i


@njit
def _closing(source, i, end):
    """The place of the brace that closes the one at `i` when a single token is between; else -1."""
    i += 1
    while i < end and source[i] <= 32:
        i += 1
    if i == end or source[i] == 123 or source[i] == 125:
        return -1
    i = _token_end(source, i, end)
    while i < end and source[i] <= 32:
        i += 1
    return i if i < end and source[i] == 125 else -1


@njit
def _next(source, i, end, closing):
    """(place of the next token that tells formulas apart, `closing`): spaces, dollar signs and braces around a single
    token do not; `closing` is the place of the last such brace."""
    while i < end:
        if source[i] == 123:
            found = _closing(source, i, end)
            if found < 0:
                break
            closing = found
        elif source[i] > 32 and source[i] != 36 and i != closing:
            break
        i += 1
    return i, closing


@njit
def _alike(one, i, end, other, j, last):
    closing, other_closing = -1, -1
    while True:
        i, closing = _next(one, i, end, closing)
        j, other_closing = _next(other, j, last, other_closing)
        if i == end or j == last:
            return i == end and j == last
        to = _token_end(one, i, end)
        if _token_end(other, j, last) - j != to - i:
            return False
        while i < to:
            if one[i] != other[j]:
                return False
            i, j = i + 1, j + 1


@njit
def formula(html, i, end, flags, signs, displaystyle, segments, state):
    """Lists the pieces of a formula (1 for `signs` and 0 for `html`, from, to), dollar signs around; returns how many.

    `i` and `end` bound its TeX in `html`, or that of MathML in `signs`. None when it repeats
    the one just before in its block.
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

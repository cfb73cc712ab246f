"""Mathematics as text: TeX where a page carries it, or MathML as one would type it; between dollar signs, and once.

MathML Core, https://www.w3.org/TR/mathml-core/; pages carry TeX in annotations, alternative texts and MathJax scripts.
"""

import numpy as np
from numba import njit

from tasks.extract.hashes import begins
from tasks.extract.html import MATHML
from tasks.extract.text import T_MATH_AT, T_MATH_FROM, T_MATH_TO, T_OUT

SEGMENTS = 1024             # pieces that one formula may have
SIGNS = np.frombuffer(b"$/^_()", np.uint8)
MATHML_NAMES = tuple(np.frombuffer(name, np.uint8) for name in (
    b"{\\displaystyle", b"mfrac", b"msup", b"msub", b"mrow", b"msubsup", b"munderover"))
_FRACTION, _POWER, _INDEX, _ROW, _BOTH, _UNDER_OVER, _BRACKETED = range(1, 8)



@njit
def _mathml(html, i, end, names, segments):
    """Lists MathML as one would type it, in pieces (1 for signs and 0 for html, from, to); returns how many.

    Fractions, powers and indices get their sign, a row among their parts brackets.
    """
    frames, children, n_frames, n = np.zeros(64, np.int64), np.zeros(64, np.int64), 0, 0
    while i < end and n + 3 < len(segments):
        j = i
        if html[i] != 60:
            while j < end and html[j] != 60:
                j += 1
            segments[n, 0], segments[n, 1], segments[n, 2] = 0, i, j
            n += 1
            i = j
            continue
        while j < end and html[j] != 62:
            j += 1
        closing = i + 1 < end and html[i + 1] == 47
        kind = 0
        for k in range(1, 7):
            if begins(html, i + (2 if closing else 1), j, names[k]):
                kind = k
        sign = -1
        if closing:
            if n_frames:
                n_frames -= 1
                sign = 5 if frames[n_frames] == _BRACKETED else -1
        else:
            within = 0
            if n_frames:
                children[n_frames - 1] += 1
                nth, within = children[n_frames - 1], frames[n_frames - 1]
                both = within == _BOTH or within == _UNDER_OVER
                if nth == 2:
                    sign = 1 if within == _FRACTION else 2 if within == _POWER else -1
                    if within == _INDEX or both:
                        sign = 3
                elif nth == 3 and both:
                    sign = 2
                if sign >= 0:
                    segments[n, 0], segments[n, 1], segments[n, 2] = 1, sign, sign + 1
                    n += 1
                    sign = -1
            if kind == _ROW and within and within != _ROW and within != _BRACKETED:
                sign, kind = 4, _BRACKETED
            if n_frames < 64 and html[j - 1] != 47:
                frames[n_frames], children[n_frames] = kind, 0
                n_frames += 1
        if sign >= 0:
            segments[n, 0], segments[n, 1], segments[n, 2] = 1, sign, sign + 1
            n += 1
        i = j + 1
    return n


@njit
def formula(html, i, end, flags, names, segments, state):
    """Lists a formula's pieces as `_mathml` does, between dollar signs; none when it repeats the one just before."""
    while i < end and html[i] <= 32:
        i += 1
    while end > i and html[end - 1] <= 32:
        end -= 1
    if begins(html, i, end, names[0]) and html[end - 1] == 125:  # {\displaystyle ...}, around each of Wikipedia's
        i, end = i + len(names[0]), end - 1
        while i < end and html[i] <= 32:
            i += 1
    size = end - i
    if size == 0:
        return 0
    same = state[T_MATH_AT] == state[T_OUT] and state[T_MATH_TO] - state[T_MATH_FROM] == size
    for k in range(size if same else 0):
        same = same and html[i + k] == html[state[T_MATH_FROM] + k]
    if same:
        return 0
    state[T_MATH_FROM], state[T_MATH_TO] = i, end
    if flags & MATHML:
        n = 1 + _mathml(html, i, end, names, segments[1:])
    elif html[i] == 36 or html[i] == 92 and i + 1 < end and (html[i + 1] == 40 or html[i + 1] == 91):
        segments[0, 0], segments[0, 1], segments[0, 2] = 0, i, end  # has its signs
        return 1
    else:
        segments[1, 0], segments[1, 1], segments[1, 2] = 0, i, end
        n = 2
    segments[0, 0], segments[0, 1], segments[0, 2] = 1, 0, 1
    segments[n, 0], segments[n, 1], segments[n, 2] = 1, 0, 1
    return n + 1

"""Text that needs no care, as most does: known for what it is, and named, at a nanosecond a byte.

Python's own functions for the rest take ten times as long, and give the same.
"""

from hashlib import blake2b

import numpy as np

from tasks.compiled import njit
from tasks.schema import content_id

# Characters of two bytes in lower case, where that is one character of two bytes, too, and no white space; else 0.
_FOLDED = np.array([0 if chr(c).isspace() or len(folded) > 1 or not 0x80 <= ord(folded) < 0x800 else ord(folded)
                    for c in range(0x800) for folded in [chr(c).casefold()]], np.uint16)
_OTHER, _OPENS, _CLOSES, _LETTER = range(4)


@njit
def _kind(point):
    """What a character beyond ASCII may be of text that was decoded twice (see `tasks.extract.mojibake`), if NFC leaves
    it and its neighbours alone: what begins it, what goes on with it, neither; _OTHER when this tells nothing of it."""
    if point < 0x180:
        if point <= 0xA0 or point == 0xAC or point == 0xAD:
            return _OTHER
        closes = point < 0xC0 or 0x152 <= point <= 0x153 or 0x160 <= point <= 0x161 or point == 0x178 or point >= 0x17D
        return _CLOSES if closes else _OPENS if point < 0x100 else _LETTER
    if 0x410 <= point <= 0x44F:
        return _OPENS
    # Dashes, quotation marks, bullets, the euro and the trade mark.
    if 0x2010 <= point <= 0x2026 and point != 0x201A or point == 0x20AC or point == 0x2122:
        return _CLOSES
    # Greek but capital gamma, joiners, arrows, symbols, kana, ideographs and their signs, Hangul, emoji.
    if 0x388 <= point <= 0x3CE and point != 0x393 or 0x200C <= point <= 0x200D or 0x2190 <= point <= 0x21FF or (
            0x2600 <= point <= 0x27BF or 0x3001 <= point <= 0x3002 or 0x3008 <= point <= 0x3011 or (
            0x3041 <= point <= 0x3096 or 0x30A1 <= point <= 0x30FC or 0x4E00 <= point <= 0x9FFF or (
            0xAC00 <= point <= 0xD7A3 or point == 0xFE0F or 0xFF01 <= point <= 0xFF5E or 0x1F300 <= point <= 0x1FAFF))):
        return _LETTER
    return _OTHER


@njit(cache=True)
def _is_plain(data):
    n = len(data)
    if n and (data[0] <= 32 or data[n - 1] <= 32):
        return False
    i, before = 0, _LETTER
    while i < n:
        c = np.int64(data[i])
        if c < 0x80:
            if c < 32 and c != 10 and c != 9 or c == 127:
                return False
            if c == 10 and (data[i - 1] == 32 or data[i - 1] == 9 or data[i - 1] == 10 and data[i - 2] == 10):
                return False
            i, before = i + 1, _LETTER
            continue
        width = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
        point = c & 0x7F >> width
        for k in range(i + 1, i + width):
            point = point << 6 | data[k] & 63
        kind = _kind(point)
        if kind == _OTHER or kind == _CLOSES and before == _OPENS:
            return False
        i, before = i + width, kind
    return True


@njit(cache=True)
def _fold(data, out):
    """Fills `out` with UTF-8 text in lower case (as str.casefold has it), white space collapsed; returns its length, -1
    when there are characters that need Unicode's tables."""
    i, n, size, space = 0, len(data), 0, False
    while i < n:
        c = data[i]
        if c <= 32 and (c == 32 or 9 <= c <= 13 or 28 <= c <= 31):
            space = size > 0
            i += 1
            continue
        if space:
            out[size] = 32
            size, space = size + 1, False
        if c < 0x80:
            out[size] = c + 32 if 65 <= c <= 90 else c
            i, size = i + 1, size + 1
        elif c < 0xE0:
            point = (np.int64(c) & 31) << 6 | np.int64(data[i + 1]) & 63
            folded = np.int64(_FOLDED[point])
            if point == 0xDF:                              # the German sharp s
                out[size] = out[size + 1] = 115
            elif folded:
                out[size], out[size + 1] = 0xC0 | folded >> 6, 0x80 | folded & 63
            else:
                return -1
            i, size = i + 2, size + 2
        else:
            # Scripts without cases: India's to Burma's, dashes, joiners, arrows, symbols, kana, ideographs, Hangul.
            d, e = data[i + 1], data[i + 2]
            if not (c == 0xE0 or c == 0xE2 and (d == 0x80 and 0x8C <= e <= 0xA6 or 0x82 <= d <= 0x83 or (
                    0x86 <= d <= 0x91 and not (d == 0x86 and e == 0x83) or 0x94 <= d <= 0x9E)) or (
                    c == 0xE3 and not (d == 0x80 and e == 0x80) or 0xE4 <= c <= 0xE9 or c == 0xEA and d >= 0xB0 or (
                    0xEB <= c <= 0xEC or c == 0xED and d < 0xA0 or c == 0xEF and d == 0xBC and e <= 0xA0))):
                return -1
            out[size], out[size + 1], out[size + 2] = c, d, e
            i, size = i + 3, size + 3
    return size


def is_plain(text: str) -> bool:
    """Whether `tasks.extract.content.clean` leaves a text as it is, as far as can be told fast.

    So are ASCII but controls, trailing spaces and three line feeds in a row, and characters beyond it that NFC does not
    compose and that are nothing decoded twice.
    """
    return _is_plain(np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8))


def identity(text: str) -> bytes:
    """The same as `tasks.schema.content_id`."""
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    folded = np.empty(len(data), np.uint8)
    size = _fold(data, folded)
    return blake2b(folded[:size], digest_size=16).digest() if size >= 0 else content_id(text)

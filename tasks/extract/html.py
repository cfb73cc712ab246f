"""From the bytes of a page to its markup: tags with what of their attributes matters to text, comments passed over.

The tokenizer of the HTML Standard (13.2.5) as far as text needs it: tags, quoted attributes, comments, CDATA, raw text.
Linear in the bytes, whatever they are; never raises. What lies between two pieces of markup is text.
"""

import numpy as np
from numba import types

from tasks.compiled import lean, njit
from tasks.extract import tags
from tasks.extract.hashes import begins, find, hash_bytes, hash_name, source_key

# Columns of a piece of markup: html[AT:AFTER] is it, with its content where that is no text of the page (scripts).
# FROM and TO bound a value that is text: mathematics, CDATA. SLOT is of the name's hash, LOOK of name and classes.
(AT, AFTER, KIND, TAG, SLOT, BITS, NEGATIVE, POSITIVE, LOOK, FROM, TO, FLAGS) = range(12)
START_TAG, END_TAG, NOTHING, DATA = range(4)     # values of KIND
SELF_CLOSING, MATHJAX, TEX, MATHML = 1, 2, 4, 8  # bits of FLAGS: TEX and MATHML say what html[FROM:TO] is
TITLE_FROM, TITLE_TO, PAIRS, FORMULAS, N_MARKUP = range(5)
WEIGHT_BITS, NO_WEIGHT = 13, 4096                # a value of the table of classes: marks, then a weight plus 4,096

_VOID, _RAW, _FOREIGN = tags.VOID, tags.RAW, tags.FOREIGN
_IMG, _SCRIPT, _TITLE, _MATH, _SVG = (tags.TAG[n] for n in "img script title math svg".split())
_CLASS, _ID, _ROLE, _STYLE, _HIDDEN, _ARIA, _ALT, _ALTTEXT, _TYPE = (
    tags.ATTRIBUTES[n] for n in "class id role style hidden aria-hidden alt alttext type".split())
_memchr = types.ExternalFunction("memchr", types.uintp(types.uintp, types.intc, types.uintp))
_ENDS_TAG_NAME = np.array([c <= 32 or c in b"/>" for c in range(256)])
_ENDS_NAME = np.array([c <= 32 or c in b"/>=" for c in range(256)])
_SEEN = 512                  # values of class and id that are kept
_IN_HIDDEN, _IN_ARIA_HIDDEN, _IS_MATH = tags.IN_HIDDEN, tags.IN_ARIA_HIDDEN, tags.MATH
(_COMMENT_OPENS, _CDATA_OPENS, _MATHJAX, _DISPLAY, _NONE, _VISIBILITY, _IS_HIDDEN, _TRUE, _MATH_TEX, _ANNOTATION, _TEX,
 _TEXT) = (np.frombuffer(text, np.uint8) for text in (
    b"<!--", b"<![cdata[", b"mathjax", b"display", b"none", b"visibility", b"hidden", b"true", b"math/tex",
    b"<annotation", b"tex", b"text"))
# Compiled code holds such arrays as constants: what is no argument need not be unpacked for each page.
_ELEMENT_KEYS, _ELEMENTS, _KINDS, _CONTEXTS = tags.TAG_KEYS, tags.TAG_VALUES, tags.TAG_KINDS, tags.TAG_CONTEXT
_ATTRIBUTE_KEYS, _ATTRIBUTES = tags.ATTRIBUTE_KEYS, tags.ATTRIBUTE_VALUES
_ROLE_KEYS, _ROLES = tags.ROLE_KEYS, tags.ROLE_VALUES


@njit
def _next(html, i, byte):
    """The place of the next `byte` from `i` on, len(html) without one; C's library looks at 32 bytes at a time."""
    n = len(html)
    if i >= n:
        return n
    first = html.ctypes.data
    found = _memchr(np.uintp(first + i), np.int32(byte), np.uintp(n - i))
    return np.int64(found) - np.int64(first) if found else n


@njit
def words_of(html, start, end, hashes):
    """Hashes of the names in a class or id: each whole, and its parts (at signs, digits and capitals) when several.

    Fills `hashes` as far as it goes and returns how many.
    """
    n, i = 0, start
    while i < end and n < len(hashes):
        while i < end and html[i] <= 32:
            i += 1
        first = i
        while i < end and html[i] > 32:
            i += 1
        if i == first or i - first > 64:
            continue
        whole, j = True, first
        while j < i:
            if not (97 <= html[j] <= 122 or 65 <= html[j] <= 90 or html[j] >= 128):
                whole = False
                j += 1
                continue
            k = j + 1
            while k < i and (97 <= html[k] <= 122 or html[k] >= 128 or 65 <= html[k] <= 90 and 65 <= html[k - 1] <= 90):
                k += 1
            if k < i or j > first:
                whole = False
            if k - j > 1 and n < len(hashes) and not whole:
                hashes[n] = hash_name(html, j, k)
                n += 1
            j = k
        if n < len(hashes):
            hashes[n] = hash_name(html, first, i)
            n += 1
    return n


@njit
def _names(html, start, end, classes, hashes, kept):
    """What a class or id says, into `kept` from 1 on: marks, the least and the greatest weight, and its looks."""
    kept[1:] = 0
    for k in range(words_of(html, start, end, hashes)):
        value = find(classes[0], classes[1], hashes[k])
        if value >= 0:
            kept[1] |= value >> WEIGHT_BITS
            weight = (value & 8191) - NO_WEIGHT
            kept[2], kept[3] = min(kept[2], weight), max(kept[3], weight)
        kept[4] = kept[4] * 31 + np.int64(hashes[k] >> np.uint64(32)) & 0x3FFFFFFF


@njit
def _declares(html, start, end, first, second):
    """Whether the declaration `first: second` is in the style html[start:end]."""
    i = start
    while i + len(first) < end:
        if begins(html, i, end, first):
            j = i + len(first)
            while j < end and (html[j] <= 32 or html[j] == 58):
                j += 1
            if begins(html, j, end, second):
                return True
        i += 1
    return False


@njit
def _end_of(html, i, name_start, name_end):
    """The place of the next end tag with the name html[name_start:name_end], -1 without one."""
    n, length = len(html), name_end - name_start
    while i < n - 1 - length:
        if html[i] != 60:
            i = _next(html, i, 60)
            continue
        if html[i + 1] != 47:
            i += 1
            continue
        k = 0
        while k < length and html[i + 2 + k] | 32 == html[name_start + k] | 32:
            k += 1
        if k == length:
            c = html[i + 2 + length] if i + 2 + length < n else 62
            if not 97 <= c | 32 <= 122:
                return i
        i += 1
    return -1


@njit
def _may_matter(html, start, end):
    """Whether html[start:end] may be the name of an attribute that is looked at: a cheap sieve."""
    length, c = end - start, html[start] | 32
    if length == 5:
        return c == 99 or c == 115                      # class style
    if length == 4:
        return c == 114 or c == 116                     # role type
    if length == 2:
        return c == 105                                 # id
    return (length == 3 or length == 11 or length == 7) and c == 97 or length == 6 and c == 104


@njit
def _mathematics(html, i, end, row):
    """Notes where in the MathML html[i:end] its TeX stands, or its presentation."""
    row[FROM], row[TO] = i, end
    if not row[FLAGS] & TEX:
        row[FLAGS] |= MATHML
    k, first = i, True
    while True:
        while k < end and not (html[k] == 60 and begins(html, k, end, _ANNOTATION)):
            k += 1
        if k == end:
            return
        if first and not row[FLAGS] & TEX:
            row[TO] = k
        first = False
        m = k
        while m < end and html[m] != 62:
            m += 1
        for x in range(k, m):
            if begins(html, x, m, _TEX) and not begins(html, x, m, _TEXT):
                last = m + 1
                while last < end and html[last] != 60:
                    last += 1
                row[FROM], row[TO] = m + 1, last
                row[FLAGS] = row[FLAGS] & ~MATHML | TEX
                return
        k = m


@njit
def _markup(html, classes):
    """The markup of a page in UTF-8, and totals.

    Returns int32 (pieces, 12), and int64 (4,): the title's place (-1: none), the elements' numbers of attributes
    squared and summed, how many formulas are in MathML alone.
    """
    most = 0
    for start in range(0, len(html), 128):
        piece, few = html[start:start + 128], np.uint8(0)  # a byte counts to 255, and 32 of them at once
        for k in range(len(piece)):
            few = np.uint8(few + np.uint8(piece[k] == 60))
        most += few
    rows, totals = np.empty((most, FLAGS + 1), np.int32), np.zeros(N_MARKUP, np.int64)
    hashes, seen = np.empty(64, np.uint64), np.zeros((_SEEN, 5), np.int64)
    n_rows = _pieces(html, classes, rows, totals, hashes, seen)
    return rows[:n_rows], totals


@lean
def _pieces(html, classes, rows, totals, hashes, seen):
    n, n_rows = len(html), 0
    totals[TITLE_FROM] = totals[TITLE_TO] = -1
    svg, math_ends, data_ends = False, True, True
    i = 0
    while i < n - 1:
        if html[i] != 60:
            i = _next(html, i, 60)
            continue
        c = html[i + 1]
        closing = c == 47
        start = i + 2 if closing else i + 1
        if not closing and not 97 <= c | 32 <= 122 and c != 33 and c != 63:
            i += 1
            continue
        row = rows[n_rows]
        n_rows += 1
        row[:] = 0
        row[AT], row[KIND] = i, NOTHING
        if start >= n or not 97 <= html[start] | 32 <= 122:
            if begins(html, i, n, _COMMENT_OPENS):
                i += 4
                i = _next(html, i, 62)
                while i < n and not (html[i - 1] == 45 and html[i - 2] == 45 or i - row[AT] > 6 and html[i - 1] == 33
                                     and html[i - 2] == 45 and html[i - 3] == 45):  # --> and --!>
                    i = _next(html, i + 1, 62)
            elif data_ends and begins(html, i, n, _CDATA_OPENS):
                j = i + 9
                j = _next(html, j, 62)
                while j < n and not (html[j - 1] == 93 and html[j - 2] == 93):
                    j = _next(html, j + 1, 62)
                data_ends = j < n
                if data_ends:
                    row[KIND], row[FROM], row[TO] = DATA, i + 9, max(i + 9, j - 2)
                    i = j
            if row[KIND] == NOTHING:
                i = _next(html, i, 62)
            i += 1
            row[AFTER] = min(i, n)
            continue
        end = start
        while end < n and not _ENDS_TAG_NAME[html[end]]:
            end += 1
        h = hash_name(html, start, end)
        tag = max(0, find(_ELEMENT_KEYS, _ELEMENTS, h))
        kind = _KINDS[tag]
        row[KIND], row[TAG] = END_TAG if closing else START_TAG, tag
        row[SLOT] = np.int64(h >> np.uint64(16)) & 0x7FFFFFFF
        bits, negative, positive, look, flags = _CONTEXTS[tag], 0, 0, row[SLOT] & 0xFFFF, 0
        alt_from = alt_to = -1
        is_math, n_attributes = False, 0
        i = end
        while i < n and html[i] != 62:
            if html[i] <= 32 or html[i] == 47:
                i += 1
                continue
            a = i
            i += 1
            while i < n and not _ENDS_NAME[html[i]]:
                i += 1
            b = j = v = w = i
            while j < n and html[j] <= 32:
                j += 1
            if j < n and html[j] == 61:
                j += 1
                while j < n and html[j] <= 32:
                    j += 1
                if j < n and (html[j] == 34 or html[j] == 39):
                    quote = html[j]
                    v = w = j + 1
                    w = _next(html, v, quote)
                    i = min(n, w + 1)
                else:
                    v = w = j
                    while w < n and html[w] > 32 and html[w] != 62:
                        w += 1
                    i = w
            n_attributes += 1
            if closing or not _may_matter(html, a, b):
                continue
            attribute = find(_ATTRIBUTE_KEYS, _ATTRIBUTES, hash_name(html, a, b))
            if attribute == _CLASS or attribute == _ID:
                # Elements repeat each other's classes, so what a value says is kept for the page.
                key = hash_bytes(html, v, w) + np.uint64(attribute)
                kept = seen[np.int64(key >> np.uint64(20)) & _SEEN - 1]
                if kept[0] != np.int64(key >> np.uint64(1)) + 1:
                    kept[0] = np.int64(key >> np.uint64(1)) + 1
                    _names(html, v, w, classes, hashes, kept)
                bits |= kept[1]
                negative, positive = min(negative, kept[2]), max(positive, kept[3])
                if attribute == _CLASS:
                    look = look * 31 + kept[4] & 0x3FFFFFFF
                    if v < w and html[v] == 77 and begins(html, v, w, _MATHJAX):
                        flags |= MATHJAX
            elif attribute == _ROLE:
                bits |= max(0, find(_ROLE_KEYS, _ROLES, hash_name(html, v, w)))
            elif attribute == _STYLE:
                if _declares(html, v, w, _DISPLAY, _NONE) or _declares(html, v, w, _VISIBILITY, _IS_HIDDEN):
                    bits |= _IN_HIDDEN
            elif attribute == _HIDDEN:
                bits |= _IN_HIDDEN
            elif attribute == _ARIA:
                if begins(html, v, w, _TRUE):
                    bits |= _IN_ARIA_HIDDEN
            elif attribute == _ALT or attribute == _ALTTEXT:
                alt_from, alt_to = v, w
            elif attribute == _TYPE:
                is_math = begins(html, v, w, _MATH_TEX)
        if i < n and html[i - 1] == 47:
            flags |= SELF_CLOSING
        i = min(n, i + 1)
        totals[PAIRS] += n_attributes * n_attributes
        row[NEGATIVE], row[POSITIVE], row[LOOK], row[FLAGS] = negative, positive, look, flags
        row[BITS] = bits & ~_IS_MATH
        if tag == _SVG:
            svg = not closing
        elif not closing:
            if kind & _RAW and not (svg and flags & SELF_CLOSING):
                j = _end_of(html, i, start, end)
                if j < 0:
                    j = n
                if tag == _TITLE and totals[TITLE_FROM] < 0 and not svg:
                    totals[TITLE_FROM], totals[TITLE_TO] = i, j
                if tag == _SCRIPT and is_math:
                    row[FROM], row[TO] = i, j
                    row[FLAGS] |= TEX
                i = j
            elif tag == _IMG and bits & _IS_MATH and alt_from >= 0:
                row[FROM], row[TO] = alt_from, alt_to
                row[FLAGS] |= TEX
            elif tag == _MATH and math_ends and not svg:
                j = _end_of(html, i, start, end)
                math_ends = j >= 0
                if math_ends:
                    if alt_to > alt_from:
                        row[FLAGS] |= TEX
                    _mathematics(html, i, j, row)
                    if row[FLAGS] & TEX and row[FROM] == i:
                        row[FROM], row[TO] = alt_from, alt_to
                    totals[FORMULAS] += row[FLAGS] & MATHML != 0
                    i = j
        row[AFTER] = i
    return n_rows


def _entry(key):
    @njit(cache=True)
    def markup(html, classes):
        assert key
        return _markup(html, classes)

    return markup


markup = _entry(source_key("tags", "hashes"))

"""The main text of a page, and what keeps a hostile page from costing more than an honest one.

resiliparse's search for main content costs about (number of nodes) x (their depth): 40,000 nested
elements took 89 s, 2 MB of text at depth 512 took 19 s. So a compiled scan of the bytes finds the
depth and the sum of depths first (about 0.2 ms a page): a page nested deeper than a browser shows is refused,
one whose sum is too large is read whole, without the search, which is linear. The parser compares the attributes
of an element with each other: 100,000 of them took 77 s.
"""

import re
import unicodedata
from typing import NamedTuple

import numpy as np
from numba import njit
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from tasks.extract.mojibake import repair

_VOID = "area base br col embed hr img input link meta param source track wbr".split()
# Closed by the next of their kind, so that leaving them open does not nest.
_IMPLIED = "p li dt dd option optgroup tr td th thead tbody tfoot colgroup caption rb rt rp html head body".split()
_RAW = "script style textarea title xmp iframe noembed noframes".split()
# These end SVG and MathML, in which alone <x/> closes itself (HTML Standard, 13.2.6.5).
_BREAKOUT = ("b big blockquote br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing menu "
             "meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul var").split()
_FOREIGN = ["svg", "math"]
_NAMES = 4096
_VOID_KIND, _IMPLIED_KIND, _RAW_KIND, _FOREIGN_KIND, _BREAKOUT_KIND = 1, 2, 4, 8, 16


@njit(cache=True)
def _name_slot(html, start, end):  # FNV-1a of the name in lower case
    h = np.uint32(2166136261)
    for i in range(start, end):
        c = html[i]
        if 65 <= c <= 90:
            c += 32
        h = (h ^ np.uint32(c)) * np.uint32(16777619)
    return np.int64((h ^ (h >> np.uint32(15))) & np.uint32(4095))


def _kinds() -> np.ndarray:
    kinds = np.zeros(_NAMES, np.uint8)
    for names, kind in ((_VOID, _VOID_KIND), (_IMPLIED, _IMPLIED_KIND), (_RAW, _RAW_KIND), (_FOREIGN, _FOREIGN_KIND),
                        (_BREAKOUT, _BREAKOUT_KIND)):
        for name in names:
            data = np.frombuffer(name.encode(), np.uint8)
            kinds[_name_slot(data, 0, len(data))] |= kind
    return kinds


@njit(cache=True)
def _scan(html, kinds):
    """(greatest depth, sum of the depths of all tags, sum of squared numbers of attributes); see `measure`."""
    n = len(html)
    opened = np.zeros(4096, np.int32)
    depth, deepest, work, foreign, pairs = 0, 0, 0, 0, 0
    i = 0
    while i < n - 1:
        if html[i] != 60:  # <
            i += 1
            continue
        c = html[i + 1]
        closing = c == 47  # /
        start = i + 2 if closing else i + 1
        if start >= n:
            break
        c = html[start] | 32
        if not 97 <= c <= 122:
            if html[start] == 33 and start + 2 < n and html[start + 1] == 45 and html[start + 2] == 45:  # <!--
                i = start + 1
                while i < n - 2 and not (html[i] == 45 and html[i + 1] == 45 and html[i + 2] == 62):
                    i += 1
            elif closing or html[start] == 33 or html[start] == 63:
                while i < n and html[i] != 62:
                    i += 1
            i += 1
            continue
        end = start
        while end < n and html[end] > 32 and html[end] != 62 and html[end] != 47:
            end += 1
        i = end
        quote, after_equals, attributes, between = 0, False, 0, False
        while i < n:
            c = html[i]
            if quote:
                if c == quote:
                    quote = 0
            elif c == 62:
                break
            elif after_equals and (c == 34 or c == 39):
                quote = c
            if c == 61:
                after_equals = True
            elif c > 32:
                after_equals = False
            if quote == 0 and (c <= 32 or c == 47):
                between = True
            elif between:
                attributes += 1
                between = False
            i += 1
        pairs += attributes * attributes
        slot = _name_slot(html, start, min(end, start + 24))  # longer names need not be told apart
        kind = kinds[slot]
        work += depth + 1
        if closing:
            if opened[slot] > 0:
                opened[slot] -= 1
                depth -= 1
                if kind & 8:
                    foreign -= 1
        elif not kind & 3:
            if kind & 16 and foreign:
                foreign = 0
            if foreign and i > 0 and i < n and html[i - 1] == 47:
                continue
            if kind & 4 and not foreign:  # raw text: nothing is a tag up to its own end
                length = min(end - start, 24)
                while i < n - 2 - length:
                    if html[i] == 60 and html[i + 1] == 47:
                        if _name_slot(html, i + 2, i + 2 + length) == slot:
                            break
                    i += 1
                else:
                    i = n
                continue
            opened[slot] += 1
            depth += 1
            if kind & 8:
                foreign += 1
            if depth > deepest:
                deepest = depth
        elif kind & 16 and foreign:
            foreign = 0
    return deepest, work, pairs


_KINDS = _kinds()


class Cost(NamedTuple):
    """What decides how long a page takes to parse and search."""

    depth: int          # of the elements, at the deepest
    work: int           # the sum of the depths of the tags: the search for main text takes about 0.25 us for each
    pairs: int          # the sum over the tags of their attributes squared: parsing takes about 8 ns for each


def measure(html: bytes) -> Cost:
    """The cost of a page (UTF-8), by one look at its bytes.

    Counts start tags against end tags of the same name; void elements and those whose end tag is implied (p, li,
    td ...) are left out, comments and raw text passed over. An estimate: the parser moves elements about.
    """
    return Cost(*_scan(np.frombuffer(html, np.uint8), _KINDS))


# When the search finds less than _SHORT characters, and more than _MISSED times as many are visible, it has missed the
# text: all that is visible is taken. Raises word F1 from 0.783 to 0.830 on 1,053 pages with human main texts (other
# bounds from 8 to 30 times and from 300 to 2,000 characters: 0.822 to 0.830).
_SHORT, _MISSED = 1000, 15


class Page(NamedTuple):
    title: str
    text: str


def main_text(html: str, *, engine: str, search: bool, comments: bool) -> Page:
    """Title and text of a page; the main content only, or with `search` off all that is visible."""
    tree = HTMLTree.parse(html)
    title = " ".join((tree.title or "").split())[:1000]
    if engine == "trafilatura" and search:
        from trafilatura import extract

        # deduplicate keeps a store of what the process has seen: a page's text would depend on the pages before.
        text = extract(html, include_comments=comments, include_tables=True, deduplicate=False) or ""
    else:
        # Descriptions of pictures are not the page's prose: leaving them out raises word F1 from 0.779 to 0.789.
        text = _plain(tree, search, comments)
        if search and len(text) < _SHORT and len(visible := _plain(tree, False, comments)) > _MISSED * len(text):
            text = visible
    return Page(clean(title), clean(text))


def _plain(tree: HTMLTree, search: bool, comments: bool) -> str:
    return extract_plain_text(tree, main_content=search, preserve_formatting=True, alt_texts=False, comments=comments)


# Whatever the two below could match: most texts have nothing of it, and one look is enough.
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]")
_NEWLINE = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
# Controls, soft hyphens, zero-width spaces, bidirectional embeddings and isolates, byte order marks, non-characters
# and lone surrogates. The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
_JUNK = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
                   "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")
_BLANK = re.compile(r"\n{3,}")


def clean(text: str) -> str:
    """`text` in NFC, lines ended by a line feed, without control and invisible characters, trimmed; what was decoded
    twice is mended (see `mojibake`)."""
    cleaned = _tidy(repair(text))  # before control characters go: they are the half of many a sequence
    mended = repair(cleaned)       # and again, because what stood between the halves of one may be gone
    return cleaned if mended == cleaned else clean(mended)


def _tidy(text: str) -> str:
    if _ODD.search(text):
        text = _JUNK.sub("", _NEWLINE.sub("\n", text))
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\xa0\n" in text or "\t\n" in text:
        text = "\n".join(map(str.rstrip, text.split("\n")))
    if "\n\n\n" in text:
        text = _BLANK.sub("\n\n", text)
    return text.strip()

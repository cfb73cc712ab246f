"""The main text of a page by one of three engines, its title, and what every text has to be like.

resiliparse's search for main content costs about (number of nodes) x (their depth): 40,000 nested
elements took 89 s, 2 MB of text at depth 512 took 19 s. So the sum of depths is known first: a page nested deeper than
a browser shows is refused, one whose sum is too large is read whole, without the search, which is linear. That parser
compares the attributes of an element with each other: 100,000 of them took 77 s. Our own engine takes linear time.
"""

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from tasks.extract.blocks import Cost, Parsed, tokenize
from tasks.extract.main_content import parse, read
from tasks.extract.mojibake import repair
from tasks.extract.plain import is_plain

if TYPE_CHECKING:
    from resiliparse.parse.html import HTMLTree


def measure(html: bytes) -> Cost:
    """The cost of a page (UTF-8): an estimate, for the parsers of other engines move elements about."""
    return tokenize(html).cost


# When the search finds less than _SHORT characters, and more than _MISSED times as many are visible, it has missed the
# text: all that is visible is taken. Raises word F1 from 0.783 to 0.830 on 1,053 pages with human main texts (other
# bounds from 8 to 30 times and from 300 to 2,000 characters: 0.822 to 0.830).
_SHORT, _MISSED = 1000, 15


class Page(NamedTuple):
    title: str
    text: str


def main_text(html: str | bytes, *, engine: str, search: bool, comments: bool, markdown: bool = False,
              blocks: Parsed | None = None) -> Page:
    """Title and text of a page; the main content only, or with `search` off all that is visible.

    Args:
        html: the page; in UTF-8 when bytes.
        markdown: headings, quotations, tables and code as Markdown; engine `resiliparse` does not know it.
        blocks: the page as `tasks.extract.main_content.parse` returns it, when it has been parsed.
    """
    if engine == "gristmill":
        page = blocks or parse(html if isinstance(html, bytes) else html.encode("utf-8", "replace"))
        title, text = read(page, comments=comments, markdown=markdown)
        return Page(clean(title[:1000]), clean(text))
    from resiliparse.parse.html import HTMLTree

    html = html.decode("utf-8", "replace") if isinstance(html, bytes) else html
    tree = HTMLTree.parse(html)
    title = " ".join((tree.title or "").split())[:1000]
    if engine == "trafilatura" and search:
        from trafilatura import extract

        # deduplicate keeps a store of what the process has seen: a page's text would depend on the pages before.
        text = extract(html, include_comments=comments, include_tables=True, deduplicate=False,
                       output_format="markdown" if markdown else "txt") or ""
    else:
        # Descriptions of pictures are not the page's prose: leaving them out raises word F1 from 0.779 to 0.789.
        text = _plain(tree, search, comments)
        if search and len(text) < _SHORT and len(visible := _plain(tree, False, comments)) > _MISSED * len(text):
            text = visible
    return Page(clean(title), clean(text))


def _plain(tree: "HTMLTree", search: bool, comments: bool) -> str:
    from resiliparse.extract.html2text import extract_plain_text

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
    if is_plain(text):
        return text
    repaired = repair(text)        # before control characters go: they are the half of many a sequence
    cleaned = _tidy(repaired)
    if cleaned == repaired:
        return cleaned
    mended = repair(cleaned)       # again, because what stood between the halves of one may be gone
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

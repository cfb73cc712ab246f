"""From the bytes of a page to text: its charset.

In this order: byte order mark; UTF-16 and UTF-32 that NUL bytes betray; UTF-8 when the bytes are valid UTF-8 (text in
another encoding almost never is, and servers often declare a wrong default); the HTTP header; the page's meta element;
detection (chardet 7, by bigrams of bytes). A Latin label over bytes that are no Latin text (servers send ISO-8859-1
by default) comes after detection. Labels mean what the WHATWG Encoding Standard says
(https://encoding.spec.whatwg.org/#names-and-labels: ISO-8859-1 is windows-1252), those that it does not know what
Python says; others count as absent.
"""

import codecs
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from resiliparse.parse.encoding import map_encoding_to_html5

from tasks.extract.codings import Undecodable

MAX_REPLACED = 0.01          # share of characters that may be undecodable before an encoding is not believed
_SURE_SEQUENCES = 8          # multi-byte sequences from which on valid UTF-8 outweighs a declaration
_PREFIX = 1024               # bytes in which a meta element may declare (HTML Standard, prescan); we look at twice that
_SAMPLE = 128 << 10          # bytes from which an encoding is detected

# Python's decoders that cover what WHATWG means by a name where Python's own by that name is narrower.
_WIDER = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "euc-kr": "cp949", "big5": "big5hkscs",
          "iso8859-11": "cp874"}
# Relatives with more characters (NEC's row 13, half-width katakana, ETEN's), for text that the first leaves gaps in.
_RELATIVES = {"euc_jp": "euc_jis_2004", "big5hkscs": "cp950", "cp932": "shift_jis_2004",
              "iso2022_jp": "iso2022_jp_ext"}
# Text encodings beyond the WHATWG's that are met under their names: of DOS, Macintosh, Korea, UTF-32.
_LEGACY = re.compile(r"cp(?:437|7\d\d|8[56]\d|874|9\d\d|1125)|mac-\w+|iso2022_\w+|hz|johab|utf-32(?:-[bl]e)?|kz1048"
                     r"|ptcp154|koi8-[rut]|iso8859-\d+|tis-620|euc_\w+|gb2312|gbk|gb18030|shift_jis\w*|big5\w*")
_ALIASES = {"x-mac-cyrillic": "mac-cyrillic", "x-mac-ukrainian": "mac-cyrillic", "maccyrillic": "mac-cyrillic"}
_STATEFUL = re.compile(r"iso2022_\w+|hz")
_LATIN = re.compile(r"cp125[0247]|iso8859-(?:[1-4]|9|1[03456])|mac-roman|utf-8")

_BOMS = [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]
_META = re.compile(rb"""<meta[^>]{1,256}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.+-]{2,40})"""
                   rb"""|<\?xml[^>]{1,256}?encoding\s*=\s*["']([A-Za-z0-9_:.+-]{2,40})""", re.IGNORECASE)
_ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_HIGH = re.compile(rb"[\x80-\xff]")
_RUNS = re.compile(rb"[\x80-\x9f\xa1-\xff]{4,}")         # spaces that do not break come in rows
_PRINTABLE = re.compile(rb"[\t\n\r -~]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LEAD = re.compile(rb"[\xc2-\xf4]")
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\ufffd]")


def codec(label: str | None) -> str | None:
    """Python's name of the decoder for a label, None for an unknown one."""
    if not label:
        return None
    label = label.strip(" \t\r\n\"'").lower()
    name = map_encoding_to_html5(label, fallback_utf8=False)
    if name is None:
        try:
            name = codecs.lookup(_ALIASES.get(label, label)).name
        except (LookupError, ValueError):
            return None
        name = name if _LEGACY.fullmatch(name) else None
    return _WIDER.get(name, name)


def in_utf8(body: bytes, declared: str | None = None) -> tuple[bytes, str]:
    """(`body` in UTF-8, its encoding) as `decode_text` has it, without a detour over a string for most pages.

    Raises Undecodable.
    """
    marked = body.startswith(tuple(mark for mark, _ in _BOMS)) or b"\0" in body[:4096]
    if not marked and codec(declared) in (None, "utf-8") and not body.isascii() and _is_utf8(body):
        return body, "utf-8"
    text, name = decode_text(body, declared)
    return body if name == "utf-8" else text.encode("utf-8", "replace"), name


def _is_utf8(body: bytes) -> bool:
    places = pa.py_buffer(np.array([0, len(body)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_utf8(), 1, [None, places, pa.py_buffer(body)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def decode_text(body: bytes, declared: str | None = None) -> tuple[str, str]:
    """(text, encoding) of `body`; `declared` is the charset of its HTTP header.

    Raises Undecodable with the share of replaced characters when no encoding fits.
    """
    marked = body
    for mark, name in _BOMS:
        if marked.startswith(mark):
            body = marked[len(mark):]
            text = body.decode(name, "replace")
            if _is_plausible(body, text, name):
                return text, name  # else the mark is wrong: a template's before a body in another encoding
    if b"\0" in body[:4096] and (name := detect(body)) and name.startswith(("utf-16", "utf-32")):
        text = body.decode(name, "replace")
        if len(_NO_TEXT.findall(text)) <= MAX_REPLACED * len(text):
            return text, name
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if len(text) == len(body):  # ASCII; escape sequences may still make it ISO-2022-JP and its like, or HZ
            if b"\x1b$" in body or b"~{" in body:
                return _stateful(body, declared) or (text, "utf-8")
            return text, "utf-8"
        if codec(declared) in (None, "utf-8") or len(_LEAD.findall(body, 0, 1 << 16)) >= _SURE_SEQUENCES:
            return text, "utf-8"
    tried, least = {None}, 1.0
    for label, detected in _candidates(body, declared):
        if label in tried:
            continue
        tried.add(label)
        text, label = _fullest(body, label)
        replaced = text.count("\ufffd")
        share = (len(_NO_TEXT.findall(text)) if detected else replaced) / max(1, len(text))
        least = min(least, share)
        # More high bytes alone than whole sequences: a Latin-1 page with a few accents that claims to be UTF-8.
        if label == "utf-8" and len(_ALONE.findall(body)) > len(_NOT_ASCII.findall(text)) - replaced:
            continue
        if share <= MAX_REPLACED:
            return text, label
    raise Undecodable(least)


def _is_plausible(body: bytes, text: str, name: str) -> bool:
    """Whether `text` may be what the bytes behind the mark of encoding `name` say.

    Pairs of single-byte characters are UTF-16 too: of private use when Cyrillic ones end them, ideographs when ASCII
    ones do. But UTF-16 that holds a space, a line feed or a tag holds NUL bytes, and in what holds none half the bytes
    are beyond ASCII.
    """
    if text.count("\ufffd") > MAX_REPLACED * len(text):
        return False
    if not name.startswith("utf-16") or b"\0" in body or not body:
        return True
    return (len(_NO_TEXT.findall(text)) <= MAX_REPLACED * len(text)
            and 10 * len(_PRINTABLE.findall(body)) < 9 * len(body)
            and ("\ufffd" in body.decode("utf-8", "replace") or len(_LEAD.findall(body)) < _SURE_SEQUENCES))


def detect(body: bytes) -> str | None:
    """Python's name of the encoding that the statistics of the bytes speak for; None when they are no text."""
    import chardet  # late: most pages do without
    from chardet.enums import EncodingEra

    eras = EncodingEra.ALL & ~EncodingEra.MAINFRAME  # EBCDIC never comes over the web: it would be an answer to noise
    start = 0
    if (first := _HIGH.search(body)) and first.start() > _SAMPLE // 2:
        start = first.start() - 1024  # what comes before is ASCII
    found = chardet.detect(body[start:start + _SAMPLE], encoding_era=eras, max_bytes=_SAMPLE)["encoding"]
    return codec(found)


def _candidates(body: bytes, declared: str | None) -> Iterator[tuple[str | None, bool]]:
    """(name, whether it was detected) of the encodings to try."""
    labels = [codec(declared)]
    if match := _META.search(body, 0, 2 * _PREFIX):
        meta = codec((match.group(1) or match.group(2)).decode("ascii"))
        labels.append("utf-8" if meta and meta.startswith(("utf-16", "utf-32")) else meta)  # ASCII reads it: it is not
    doubtful = not _may_be_latin(body)
    for label in labels:
        if label and not (doubtful and _LATIN.fullmatch(label)):
            yield label, False
    yield detect(body), True
    for label in labels:
        yield label, False


def _may_be_latin(body: bytes) -> bool:
    """Whether letters beyond ASCII mostly stand among ASCII ones, as in languages of the Latin script."""
    sample = body[:1 << 20]
    return 2 * sum(map(len, _RUNS.findall(sample))) <= len(_HIGH.findall(sample))


def _fullest(body: bytes, name: str) -> tuple[str, str]:
    """`body` decoded, by the relative of the encoding when that knows more of the characters."""
    text = body.decode(name, "replace")
    if name in _RELATIVES and (gaps := text.count("\ufffd")):
        other = body.decode(_RELATIVES[name], "replace")
        if other.count("\ufffd") < gaps:
            return other, _RELATIVES[name]
    return text, name


def _stateful(body: bytes, declared: str | None) -> tuple[str, str] | None:
    """Text of seven bits that escape sequences switch to another character set; None when it is none."""
    for label, _ in _candidates(body, declared):
        if label and _STATEFUL.fullmatch(label):
            text, label = _fullest(body, label)
            # HZ's signs occur in programs too; then what stands between them is no Chinese.
            if text.count("\ufffd") <= (0 if label == "hz" else MAX_REPLACED * len(text)):
                return text, label
    return None

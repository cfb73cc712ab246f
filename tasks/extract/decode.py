"""From the bytes that a server sent to text: transfer codings, content codings and the charset.

Charset, in this order: byte order mark; UTF-8 when the bytes are valid UTF-8 (text in another encoding
almost never is, and servers often declare a wrong default); the HTTP header; the page's meta element;
detection (uchardet, in resiliparse). Labels mean what the WHATWG Encoding Standard says
(https://encoding.spec.whatwg.org/#names-and-labels: ISO-8859-1 is windows-1252); unknown ones count as absent.
"""

import codecs
import re
import zlib
from collections.abc import Iterator

import brotli
import pyarrow as pa
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

MAX_REPLACED = 0.01          # share of characters that may be undecodable before an encoding is not believed
_SURE_SEQUENCES = 8          # multi-byte sequences from which on valid UTF-8 outweighs a declaration
_PREFIX = 1024               # bytes in which a meta element may declare (HTML Standard, prescan); we look at twice that

# Python's decoders that cover what WHATWG means by a name where Python's own by that name is narrower.
_WIDER = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "euc-kr": "cp949", "big5": "big5hkscs",
          "iso8859-11": "cp874"}
_BOMS = [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]
_META = re.compile(rb"""<meta[^>]{1,256}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.+-]{2,40})"""
                   rb"""|<\?xml[^>]{1,256}?encoding\s*=\s*["']([A-Za-z0-9_:.+-]{2,40})""", re.IGNORECASE)
_ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LEAD = re.compile(rb"[\xc2-\xf4]")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]{0,4096})?\r?\n")


class Expansion(Exception):
    """A body inflates to more than the bound. `size` is what it had reached, in bytes."""

    def __init__(self, size: int):
        super().__init__("expansion")
        self.size = size


class Undecodable(Exception):
    """A body is not in the coding it claims, or text in no encoding. The argument is a reason code or a share."""


def dechunk(body: bytes) -> bytes:
    """`body` without the framing of the chunked transfer coding (RFC 9112, section 7.1).

    A body that is not chunked comes back as it is: many crawlers remove the framing and keep the header.
    What a broken or cut framing leaves is what had arrived.
    """
    pieces, position = [], 0
    while match := _CHUNK_SIZE.match(body, position):
        size = int(match.group(1), 16)
        if size == 0:
            break
        pieces.append(body[match.end():match.end() + size])
        position = match.end() + size
        position += 2 if body.startswith(b"\r\n", position) else body.startswith(b"\n", position)
    return b"".join(pieces) if pieces or body.strip() == b"0" else body


def decompress(body: bytes, codings: str, limit: int) -> bytes:
    """`body` without its content codings (the value of Content-Encoding), at most `limit` bytes of it.

    What a cut or damaged body gave before the damage is returned; codings that the first bytes belie are passed
    over. Raises Expansion over `limit`, Undecodable when nothing could be inflated.
    """
    for coding in reversed(codings.lower().split(",")):
        coding = coding.strip()
        if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
            body = _inflate(body, 31, limit)
        elif coding == "deflate" and body:
            zlib_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
            body = _inflate(body, 15 if zlib_header else -15, limit)
        elif coding == "br" and body:
            body = _unbrotli(body, limit)
        elif coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
            body = _unzstd(body, limit)
    return body


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits)
    pieces, size = [], 0
    try:
        for start in range(0, len(body), 65536):
            piece = body[start:start + 65536]
            while piece:
                data = inflater.decompress(piece, limit + 1 - size)
                pieces.append(data)
                size += len(data)
                if size > limit:
                    raise Expansion(size)
                piece = inflater.unconsumed_tail
            if inflater.eof:
                break
    except zlib.error:
        if not size:
            if wbits < 0:  # declared deflate, and not compressed at all
                return body
            raise Undecodable("content_encoding") from None
    return b"".join(pieces)


def _unbrotli(body: bytes, limit: int) -> bytes:
    decoder, data = brotli.Decompressor(), b""
    try:
        data = decoder.process(body, output_buffer_limit=limit + 1)
        while len(data) <= limit and not decoder.is_finished():
            more = decoder.process(b"", output_buffer_limit=limit + 1 - len(data))
            if not more:
                break
            data += more
    except brotli.error:
        if not data:
            if b"<" in body[:64]:  # declared br, and not compressed at all
                return body
            raise Undecodable("content_encoding") from None
    if len(data) > limit:
        raise Expansion(len(data))
    return data


def _unzstd(body: bytes, limit: int) -> bytes:
    pieces, size = [], 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while size <= limit and (data := stream.read(min(1 << 20, limit + 1 - size))):
                pieces.append(data)
                size += len(data)
    except OSError:
        if not size:
            raise Undecodable("content_encoding") from None
    if size > limit:
        raise Expansion(size)
    return b"".join(pieces)


def codec(label: str | None) -> str | None:
    """Python's name of the decoder for a WHATWG label, None for an unknown one."""
    if not label:
        return None
    name = map_encoding_to_html5(label.strip(" \t\r\n\"'").lower(), fallback_utf8=False)
    return _WIDER.get(name, name)


def decode_text(body: bytes, declared: str | None = None) -> tuple[str, str]:
    """(text, encoding) of `body`; `declared` is the charset of its HTTP header.

    Raises Undecodable with the share of replaced characters when no encoding fits.
    """
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body[len(mark):].decode(name, "replace"), name
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if len(text) == len(body):  # ASCII; escape sequences may still make it ISO-2022-JP
            if b"\x1b$" not in body:
                return text, "utf-8"
        elif codec(declared) in (None, "utf-8") or len(_LEAD.findall(body, 0, 1 << 16)) >= _SURE_SEQUENCES:
            return text, "utf-8"
    tried, least = {None}, 1.0
    for label in _candidates(body, declared):
        if label not in tried:
            tried.add(label)
            text = body.decode(label, "replace")
            replaced = text.count("\ufffd")
            share = replaced / max(1, len(text))
            # More high bytes alone than whole sequences: a Latin-1 page with a few accents that claims to be UTF-8.
            if label == "utf-8" and len(_ALONE.findall(body)) > len(_NOT_ASCII.findall(text)) - replaced:
                least = min(least, share)
            elif share <= MAX_REPLACED:
                return text, label
            least = min(least, share)
    raise Undecodable(least)


def _candidates(body: bytes, declared: str | None) -> Iterator[str | None]:
    yield codec(declared)
    if match := _META.search(body, 0, 2 * _PREFIX):
        meta = codec((match.group(1) or match.group(2)).decode("ascii"))
        yield "utf-8" if meta and meta.startswith("utf-16") else meta  # a meta that ASCII reads is not UTF-16
    head = body[:64].lstrip()
    if head[1:4:2] == b"\0\0":
        yield "utf-16-le"
    elif head[:3:2] == b"\0\0":
        yield "utf-16-be"
    yield codec(detect_encoding(body))

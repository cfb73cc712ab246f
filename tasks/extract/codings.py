"""From the bytes that a server sent to those of the page: the transfer coding and the content codings."""

import re
from itertools import islice

import brotli
from backports import zstd
from isal import isal_zlib

_MAGIC = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")  # gzip, zstd
_MAX_CODINGS = 8             # of one body
_PIECE = 16 << 10            # bytes inflated at a time, and to: what an error loses of a damaged body
_MAX_TRIED = 1000            # lines of a body that are tried as the size of a chunk
_CHUNK_WITHIN = re.compile(rb"(?<=\n)([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]{0,4096})?\r?\n")
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

    A body that is not chunked comes back as it is: many crawlers remove the framing and keep the header. Where a size
    is wrong, what lies before the next chunk that can be one, or else the end, is taken for data; what a cut framing
    leaves is what had arrived.
    """
    pieces, position = [], 0
    while position < len(body):
        match = _CHUNK_SIZE.match(body, position)
        if match is None:
            if not pieces:
                return body
            match = _next_chunk(body, position)
            pieces.append(body[position:match.start() if match else len(body)])
            if match is None:
                break
        size = int(match.group(1), 16)
        if size == 0:
            break
        pieces.append(body[match.end():match.end() + size])
        position = match.end() + size
        position += 2 if body.startswith(b"\r\n", position) else body.startswith(b"\n", position)
    return b"".join(pieces) if pieces or body.strip() == b"0" else body


def _next_chunk(body: bytes, position: int) -> re.Match | None:
    """The size of the next chunk that ends where it says, or of the last one."""
    for match in islice(_CHUNK_WITHIN.finditer(body, position), _MAX_TRIED):
        end = match.end() + int(match.group(1), 16)
        if end == match.end() or body.startswith((b"\r\n", b"\n"), end):
            return match
    return None


def decompress(body: bytes, codings: str, limit: int) -> bytes:
    """`body` without its content codings (the value of Content-Encoding), at most `limit` bytes of it.

    What a cut or damaged body gave before the damage is returned; codings that the first bytes belie are passed
    over, and gzip and zstd that they betray are removed though no header says so. Raises Expansion over `limit`,
    Undecodable when nothing could be inflated.
    """
    for coding in reversed(codings.lower().split(",")[:_MAX_CODINGS]):
        coding = coding.strip()
        if body.startswith(_MAGIC):
            body = _by_magic(body, limit)  # whatever the header calls it
        elif coding == "deflate" and body:
            zlib_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
            body = _inflate(body, 15 if zlib_header else -15, limit)
        elif coding == "br" and body:
            body = _unbrotli(body, limit)
    return _by_magic(body, limit) if body.startswith(_MAGIC) else body


def _by_magic(body: bytes, limit: int) -> bytes:
    return _inflate(body, 31, limit) if body.startswith(_MAGIC[0]) else _unzstd(body, limit)


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    inflater = isal_zlib.decompressobj(wbits)
    pieces, size, position = [], 0, 0
    try:
        while position < len(body):
            piece = body[position:position + _PIECE]
            position += len(piece)
            while True:
                wanted = min(_PIECE, limit + 1 - size)
                data = inflater.decompress(piece, wanted)
                pieces.append(data)
                size += len(data)
                if size > limit:
                    raise Expansion(size)
                piece = inflater.unconsumed_tail
                if inflater.eof or not piece and len(data) < wanted:
                    break
            if inflater.eof:
                position -= len(inflater.unused_data)
                if wbits != 31 or not body.startswith(_MAGIC[0], position):
                    break
                inflater = isal_zlib.decompressobj(wbits)  # gzip may have several members
    except isal_zlib.error:
        pass
    if not size and not inflater.eof:
        if wbits < 0:  # declared deflate, and not compressed at all
            return body
        raise Undecodable("content_encoding")
    return b"".join(pieces)


def _unbrotli(body: bytes, limit: int) -> bytes:
    decoder, pieces, size, piece = brotli.Decompressor(), [], 0, body
    try:
        while not decoder.is_finished():
            data, piece = decoder.process(piece, output_buffer_limit=min(_PIECE, limit + 1 - size)), b""
            if not data:
                break  # cut
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise Expansion(limit + 1)  # the buffer may grow beyond its limit
    except brotli.error:
        if not size:
            if b"<" in body[:64]:  # declared br, and not compressed at all
                return body
            raise Undecodable("content_encoding") from None
    return b"".join(pieces)


def _unzstd(body: bytes, limit: int) -> bytes:
    pieces, size, frame = [], 0, zstd.ZstdDecompressor()
    try:
        while True:
            data = frame.decompress(body, min(_PIECE, limit + 1 - size))
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise Expansion(size)
            if frame.eof:
                body = frame.unused_data
                if not body.startswith(_MAGIC[1]):
                    break
                frame = zstd.ZstdDecompressor()  # there may be several frames
            elif frame.needs_input:
                break  # cut
            else:
                body = b""
    except zstd.ZstdError:
        pass
    if not size and not frame.eof:
        raise Undecodable("content_encoding")
    return b"".join(pieces)

"""From the bytes that a server sent to those of the page: the transfer coding and the content codings."""

import re
import zlib

import brotli
import pyarrow as pa

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

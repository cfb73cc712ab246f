"""Exchanges with a web server as WARC/1.1: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/

The same exchanges give the same bytes: record ids are hashes of what they name, and nothing knows the time.
"""

import gzip
import io
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from fastwarc.warc import WarcRecord, WarcRecordType

SOFTWARE = "gristmill sample crawl"


@dataclass(frozen=True)
class Exchange:
    """A request for `url` and what came back. `fetched` is a time in UTC as WARC-Date has it: 2024-05-01T00:00:00Z."""

    url: str
    fetched: str
    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()


def archives(exchanges: Iterable[Exchange], name: str, limit: int = 1_500_000) -> Iterator[tuple[str, bytes]]:
    """(file name, bytes) of NAME-00000.warc.gz and so on, one gzip member a record, each closed after `limit` bytes."""
    members: list[bytes] = []
    number = size = 0
    for exchange in exchanges:
        if not members:
            members, size = [_info(_file(name, number), exchange.fetched)], 0
        request, response = _records(exchange)
        members += (request, response)
        size += len(request) + len(response)
        if size >= limit:
            yield _file(name, number), b"".join(members)
            members, number = [], number + 1
    if members:
        yield _file(name, number), b"".join(members)


def _file(name: str, number: int) -> str:
    return f"{name}-{number:05d}.warc.gz"


def _info(file: str, date: str) -> bytes:
    fields = f"software: {SOFTWARE}\r\nformat: WARC File Format 1.1\r\n".encode()
    return _member(WarcRecordType.warcinfo, f"{file} {date}", fields,
                   {"WARC-Date": date, "WARC-Filename": file, "Content-Type": "application/warc-fields"})


def _records(exchange: Exchange) -> tuple[bytes, bytes]:
    """The request and the response."""
    parts = urlsplit(exchange.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = (f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: {SOFTWARE}\r\n"
               "Accept: text/html,*/*;q=0.5\r\n\r\n").encode()
    headers = [("Content-Type", exchange.content_type), *exchange.headers, ("Content-Length", str(len(exchange.body)))]
    head = f"HTTP/1.1 {exchange.status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers if value)
    response = head.encode("latin-1") + b"\r\n" + exchange.body
    seed = f"{exchange.url} {exchange.fetched}"
    common = {"WARC-Date": exchange.fetched, "WARC-Target-URI": exchange.url}
    answered = {"WARC-Concurrent-To": _urn(WarcRecordType.response, seed, response)}
    return (_member(WarcRecordType.request, seed, request,
                    common | answered | {"Content-Type": "application/http; msgtype=request"}),
            _member(WarcRecordType.response, seed, response,
                    common | {"Content-Type": "application/http; msgtype=response"}))


def _urn(kind: WarcRecordType, seed: str, block: bytes) -> str:
    return f"<{uuid.uuid5(uuid.NAMESPACE_URL, f'{int(kind)} {seed} {sha256(block).hexdigest()}').urn}>"


def _member(kind: WarcRecordType, seed: str, block: bytes, headers: dict[str, str]) -> bytes:
    record = WarcRecord()
    record.init_headers(record_type=kind, content_length=len(block))
    record.headers["WARC-Record-ID"] = _urn(kind, seed, block)
    for name, value in headers.items():
        record.headers[name] = value
    record.set_bytes_content(block)
    written = io.BytesIO()
    record.write(written, checksum_data=True)
    return gzip.compress(written.getvalue(), 6, mtime=0)

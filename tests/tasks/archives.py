"""Archive files for the tests of reading, made by hand so that they can be made wrong."""

import gzip
from pathlib import Path

from tasks.ingest import Split

DATE = "2025-05-01T12:00:00Z"


def warc_record(kind: str, url: str, block: bytes, *, length: int | None = None, end: bytes = b"\r\n\r\n",
                line: str = "\r\n", more: dict[str, str] | None = None) -> bytes:
    """A WARC/1.1 record; `length` lies about the block's."""
    headers = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": DATE,
               "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-000000000000>",
               "Content-Length": str(len(block) if length is None else length)} | (more or {})
    head = line.join(["WARC/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    return head.encode() + block + end


def http(body: bytes, *, status: str = "200 OK", content_type: str = "text/html; charset=utf-8",
         **headers: str) -> bytes:
    """An HTTP response; keyword arguments are headers, their underscores hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def page(n: int = 0, extra: str = "") -> bytes:
    """An honest page with a title and two paragraphs."""
    return (f"<html><head><title>Page {n}</title></head><body><article><h1>Mills of county {n}</h1><p>The mill "
            f"by the river number {n} has ground grist for farmers since long before the railway came to the valley."
            f"</p><p>In a dry summer its wheel stood still, and the miller told stories instead of grinding.</p>{extra}"
            f"</article></body></html>").encode()


def response(n: int = 0, body: bytes | None = None, **keywords) -> bytes:
    """A WARC response record with page `n`, or with `body`."""
    block = http(page(n) if body is None else body, **keywords)
    return warc_record("response", f"https://mill{n}.example.org/page", block)


def members(*records: bytes) -> bytes:
    """One gzip member a record, without times."""
    return b"".join(gzip.compress(record, 6, mtime=0) for record in records)


def write(folder: Path, data: bytes, name: str = "x.warc.gz") -> Split:
    """`data` as a file, and the split that reads all of it."""
    path = folder / name
    path.write_bytes(data)
    kind = "jsonl" if ".jsonl" in name else "parquet" if name.endswith(".parquet") else "warc"
    return Split(f"home:/{name}", str(path), 0, len(data), "web", "S", "0" * 64, kind)

"""The planted pages: written for this project, each to meet one stage, and what must become of each.

`planted/expectations.yaml` lists them, in the order in which they were fetched; its head explains the fields.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tasks.sample_crawl.archive import Exchange, archives

FOLDER = Path(__file__).with_name("planted")
BENCHMARK = Path(__file__).with_name("benchmark.jsonl")
_HTML = "text/html; charset=utf-8"


@lru_cache(maxsize=1)
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load((FOLDER / "expectations.yaml").read_text(encoding="utf-8")))


def expectations() -> list[dict[str, Any]]:
    """The planted records, each with `url`, `what`, `outcome` and the other fields of expectations.yaml."""
    return [dict(entry) for entry in _entries()]


def planted_values() -> list[str]:
    """Every invented personal value, as it stands in a page's text. None of them belongs to anybody."""
    return sorted({value for entry in _entries() for value in entry.get("values", ())})


def files(batch: int) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the WARC files of the planted records of a batch; one ends in the middle of a member."""
    entries = [entry for entry in _entries() if entry.get("batch", 1) == batch]
    for part in sorted({entry.get("archive", "") for entry in entries}):
        chosen = [entry for entry in entries if entry.get("archive", "") == part]
        for name, data in archives(map(_exchange, chosen), f"planted-{batch}{part and '-'}{part}"):
            yield name, data[:-200] if chosen[-1].get("cut") else data


def _exchange(entry: dict[str, Any]) -> Exchange:
    if made := entry.get("made"):
        body, content_type, headers = _MADE[made]()
    else:
        text = (FOLDER / entry["file"]).read_text(encoding="utf-8")
        for old, new in entry.get("changes", ()):
            if old not in text:
                raise ValueError(f"planted/{entry['file']} does not hold what expectations.yaml changes: {old!r}")
            text = text.replace(old, new)
        body, content_type, headers = text.encode(entry.get("encoding", "utf-8")), _HTML, ()
    return Exchange(entry["url"], f"{entry.get('fetched', '2024-05-01')}T00:00:00Z", body,
                    entry.get("content_type", content_type), entry.get("status", "200 OK"),
                    (*headers, *entry.get("headers", {}).items()))


Made = tuple[bytes, str, tuple[tuple[str, str], ...]]


def _nested() -> Made:
    """40,000 elements, each in the one before: finding the main text took 89 s on such a page."""
    return b"<!DOCTYPE html><title>Nested</title>" + b"<div>" * 40_000 + b"deep" + b"</div>" * 40_000, _HTML, ()


def _bomb() -> Made:
    """4 MB of one letter, in a gzip body of 4 kB."""
    page = b"<!DOCTYPE html><title>Bomb</title><p>" + b"a" * 4_000_000
    return gzip.compress(page, 9, mtime=0), _HTML, (("Content-Encoding", "gzip"),)


def _image() -> Made:
    """A PNG of one grey pixel."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pixel, "image/png", ()


def _empty() -> Made:
    return b"<!DOCTYPE html><html><head><title>Nothing yet</title></head><body></body></html>", _HTML, ()


def _numbers() -> Made:
    """A table of readings: text, but hardly a word in it."""
    rows = "".join(f"<tr><td>{n}</td><td>{n * n % 977}.{n % 10}</td><td>{n * 37 % 1009}</td></tr>" for n in range(400))
    return f"<!DOCTYPE html><title>Readings</title><table>{rows}</table>".encode(), _HTML, ()


_MADE: dict[str, Callable[[], Made]] = {"nested": _nested, "bomb": _bomb, "image": _image, "empty": _empty,
                                        "numbers": _numbers}

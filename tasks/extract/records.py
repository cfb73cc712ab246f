"""Reading WARC and ARC files so that damage costs what is damaged and nothing else.

FastWARC ends or raises at the first damaged member, knows no ARC, and cannot start in the middle of a
file, so every member (of gzip; a frame of zstd or lz4) is decompressed here: gzip by ISA-L, no slower than
FastWARC.

A file may be read in byte ranges: a range owns the members (or, in plain files, the records) whose
first byte lies in it. To find the first one without an index, reading starts `LOOKBACK` bytes early
at the first member that begins like a record, and follows the chain of members from there: a
`.warc.gz` that was itself crawled lies byte for byte in its record, and its members are not ours.

Formats: WARC 1.0 and 1.1 (https://iipc.github.io/warc-specifications/), ARC 1 and 2
(https://archive.org/web/researcher/ArcFileFormat.php).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.extract.window import CHUNK, Coding, Damaged, Member, Stream, Window, beginning, coding, skippable
from tasks.ingest import compression

LOOKBACK = 4 << 20           # bytes; few records of a crawl take more (Common Crawl cuts bodies at 1 to 5 MiB)
MAX_HEAD = 1 << 20           # bytes of WARC header; real ones stay below 4 KB

_BLANK_LINE = re.compile(rb"\n\r?\n")                # what begins with a letter is found ten times as fast
_LENGTH = re.compile(r"[0-9]{1,18}")   # what no file system holds is no length, and Python refuses to read 4,300 digits
_HTTP = re.compile(rb"HTTP/\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")
_HTTP_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE)
# URL (which may hold spaces), address, date, media type, in version 2 more, length.
_ARC_HEAD = (rb"([a-z][a-z0-9+.-]{0,20}:[^\r\n]{1,3000}?) [0-9a-fA-F.:]+ (\d{8,14}) (\S{1,200})(?: [^\r\n]{1,800})?"
             rb" (\d+)\r?\n")
_ARC = re.compile(_ARC_HEAD)
_NEXT_WARC = re.compile(rb"\n(?=WARC/\d\.\d+\r?\n)")
_NEXT_ARC = re.compile(rb"\n(?=" + _ARC_HEAD + rb")")


@dataclass(frozen=True, slots=True)
class Record:
    """A record. `block` is empty when it is larger than the limit; `size` says how large it is.

    `offset` is where its member (in a plain file: the record) begins in the file. `inner` is its place in a member
    that holds several, else 0.
    `length` is the bytes it takes in the file, None when it shares a member.
    """

    offset: int
    inner: int
    length: int | None
    type: str
    headers: dict[str, str]
    block: bytes
    size: int
    expansion: float = 1.0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes [offset, offset + length) of the file that hold no readable record, and why (a reason code)."""

    offset: int
    inner: int
    length: int
    reason: str


def read_records(path: str, start: int, end: int, max_bytes: int,
                 passed: frozenset[str] = frozenset()) -> Iterator[Record | Unreadable]:
    """The records and unreadable spans of the file at `path` (local or any fsspec URI) that begin in [start, end).

    Blocks larger than `max_bytes` are passed over, not held; records of the types `passed` may be left out. Raises
    OSError when the file cannot be read.
    """
    with Window(path) as window:
        kind = compression(window.at(0, 4))
        if kind == "none" and not _starts_record(window.at(0, 8192)):
            gzip = coding(window, "gzip")
            if _next_member(window, 0, gzip) < window.size:
                kind = "gzip"  # its beginning is damaged
        if kind == "none":
            yield from _read_plain(window, start, end, max_bytes)
        else:
            yield from _read_members(window, start, end, max_bytes, coding(window, kind), passed)


def _starts_record(data: bytes) -> bool:
    data = data.lstrip(b"\r\n")
    return data.startswith(b"WARC/") or _ARC.match(data) is not None


def _next_member(window: Window, position: int, packed: Coding) -> int:
    """Where the next member that begins like a record lies, at or after `position`; else the file's size."""
    while (position := window.find(packed.magic, position)) < window.size:
        if _starts_record(beginning(window, position, packed)):
            return position
        position += 1
    return window.size


def _read_members(window: Window, start: int, end: int, max_bytes: int, packed: Coding,
                  passed: frozenset[str]) -> Iterator[Record | Unreadable]:
    position = 0 if start <= LOOKBACK else _next_member(window, start - LOOKBACK, packed)
    end = min(end, window.size)
    while position < end:
        if skip := skippable(window, position):
            position += skip
            continue
        owned = position >= start
        if one := _one_record(window, position, packed, max_bytes, passed):
            record, position = one
            if record is not None and owned:
                yield record
            continue
        member = Member(window, position, packed, _starts_record)
        stream = Stream(member.read, member=member)
        try:
            if window.at(position, len(packed.magic)) != packed.magic:
                raise Damaged("not_a_member")
            for record in _member_records(member, stream, max_bytes):
                if owned:
                    yield record
            position = member.end
        except Damaged as damage:
            resume = _next_member(window, position + 1, packed)
            if owned and not _is_padding(window, position, resume):
                yield Unreadable(position, stream.position, resume - position, str(damage))
            position = resume


def _one_record(window: Window, position: int, packed: Coding, max_bytes: int,
                passed: frozenset[str]) -> tuple[Record | None, int] | None:
    """(record, or None for one of the types `passed`; end) of a member that holds one WARC record, whole and as long as
    it says; None for any other. Nearly all are such, and with them there is nothing to be careful about."""
    member, pieces = Member(window, position, packed, _starts_record), []
    try:
        while member.inflated <= max_bytes and (piece := member.read(max_bytes)):
            pieces.append(piece)
    except Damaged:
        return None
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    blank = _BLANK_LINE.search(data, 0, MAX_HEAD) if data.startswith(b"WARC/") and len(data) <= max_bytes else None
    if blank is None:
        return None
    head = data[:blank.end()]
    parsed = _warc_head(head)
    if parsed is None or parsed[2] is None or data[len(head) + parsed[2]:] not in (b"", b"\r\n", b"\r\n\r\n"):
        return None
    kind, headers, length, size = parsed
    if size + length > len(data):
        return None
    if kind in passed:
        return None, member.end
    packed_length = member.end - position
    return Record(position, 0, packed_length, kind, headers, data[size:size + length], length,
                  len(data) / packed_length), member.end


def _is_padding(window: Window, start: int, end: int) -> bool:
    return end - start <= CHUNK and not window.at(start, end - start).strip(b"\0\r\n ")


def _member_records(member: Member, stream: Stream, max_bytes: int) -> Iterator[Record | Unreadable]:
    """The records of one member: usually one, and then the member's end counts and not its Content-Length."""
    stream.drop_blank()
    if not stream.look(1):
        stream.check()
        return
    if not _starts_record(stream.look(4096)):
        stream.check()
        member.skip()
        yield Unreadable(member.start, 0, member.end - member.start, "not_a_record")
        return
    head = _head(stream)
    if head is not None:
        kind, headers, length, size = head
        wanted = max_bytes + 1 if length is None or length > max_bytes else length
        if length is not None:
            stream.require(size + wanted)
        with stream.peek(size + wanted + 4096) as view:
            rest, there = bytes(view[size + wanted:]), len(view) - size
        rest = rest.lstrip(b"\r\n")
        alone = length is None or not rest or not (b"WARC/".startswith(rest[:5]) or _starts_record(rest))
        if alone and there <= max_bytes:
            stream.check()
            with stream.peek(size + max_bytes + 1) as view:
                block = bytes(view[size:])
            stream.check()
            if len(block) <= max_bytes:
                if length is None or len(block) < length:
                    length = len(block)
                if len(block) - length <= 4 or not block[length:].strip(b"\r\n"):
                    block = block[:length]
                yield Record(member.start, 0, member.end - member.start, kind, headers, block, len(block),
                             member.inflated / (member.end - member.start))
                return
    yield from _stream_records(stream, max_bytes, member)


def _read_plain(window: Window, start: int, end: int, max_bytes: int) -> Iterator[Record | Unreadable]:
    position = max(0, start - LOOKBACK)

    def read(n: int) -> bytes:
        nonlocal position
        data = window.at(position, n)
        position += len(data)
        return data

    stream = Stream(read, position)
    if position > 0:
        arc = _ARC.match(window.at(0, 4096)) is not None
        stream.drop_until(_NEXT_ARC if arc else _NEXT_WARC)
    for record in _stream_records(stream, max_bytes, window=window):
        if record.offset >= end:
            return
        if record.offset >= start:
            yield record


def _stream_records(stream: Stream, max_bytes: int, member: Member | None = None,
                    window: Window | None = None) -> Iterator[Record | Unreadable]:
    """Records one after the other. One whose length is wrong is lost, unless its HTTP header tells the right one, and
    reading goes on at the next header."""

    def place(at: int) -> tuple[int, int]:
        return (at, 0) if member is None else (member.start, at)

    def lost(at: int, reason: str) -> Unreadable:
        stream.drop(1)
        stream.drop_until(pattern)
        return Unreadable(*place(at), stream.position - at, reason)

    pattern = _NEXT_ARC if _ARC.match(stream.look(4096)) else _NEXT_WARC
    while True:
        stream.drop_blank()
        at = stream.position
        if not stream.look(1):
            stream.check()
            return
        head = _head(stream)
        if head is None:
            stream.check()
            yield lost(at, "bad_header")
            continue
        kind, headers, length, size = head
        if misfit := _misfit(stream, at, size, length, max_bytes, pattern, window):
            block = _http_block(stream.look(size + max_bytes), size, pattern)
            span = lost(at, misfit)
            yield span if block is None else Record(*place(at), None if member else span.length, kind, headers, block,
                                                    len(block))
            continue
        stream.drop(size)
        block = stream.look(length) if length <= max_bytes else b""
        if stream.drop(length) < length:
            stream.check()
            yield Unreadable(*place(at), stream.position - at, "truncated")
            return
        yield Record(*place(at), None if member else size + length, kind, headers, block, length)


def _misfit(stream: Stream, at: int, size: int, length: int | None, max_bytes: int, pattern: re.Pattern,
            window: Window | None) -> str | None:
    """Why the length of the record at `at`, whose header takes `size` bytes, cannot be right; None when it can."""
    if length is None:
        return "content_length"
    whole = size + length
    if window is not None:
        follows, there = window.at(at + whole, 64), window.size - at
    elif length <= max_bytes:
        stream.require(whole)
        with stream.peek(whole + 64) as view:
            follows, there = bytes(view[whole:]), len(view)
    else:
        follows, there = b"", whole
    rest = follows.lstrip(b"\r\n")
    if there < whole or not rest:
        stream.check()
    if there < whole:
        return "truncated"
    return None if b"WARC/".startswith(rest[:5]) or pattern is _NEXT_ARC else "content_length"


def _http_block(data: bytes, size: int, pattern: re.Pattern) -> bytes | None:
    """The block of the record whose header takes `size` bytes of `data`, when what lies before the next record is as
    long as its HTTP header says; else None."""
    following = pattern.search(data, size)
    block = data[size:following.start() if following else len(data)]
    head = _HTTP.match(block)
    length = _HTTP_LENGTH.search(block, 0, head.end()) if head else None
    if length is None:
        return None
    end = head.end() + int(length.group(1))
    return block[:end] if end <= len(block) and not block[end:].strip(b"\r\n") else None


def _head(stream: Stream) -> tuple[str, dict[str, str], int | None, int] | None:
    """(type, headers, length of the block, bytes of the header) of the record that begins here; None if none does."""
    data = stream.look(4096)
    if b"WARC/".startswith(data[:5]):
        match = _BLANK_LINE.search(data)
        if match is None:
            stream.require(MAX_HEAD, _BLANK_LINE)
            data = stream.look(MAX_HEAD)
            match = _BLANK_LINE.search(data) if data.startswith(b"WARC/") else None
        return None if match is None else _warc_head(data[:match.end()])
    match = _ARC.match(data)
    return None if match is None else _arc_head(match)


def _warc_head(data: bytes) -> tuple[str, dict[str, str], int | None, int] | None:
    headers: dict[str, str] = {}
    name = ""
    for line in data.decode("utf-8", "replace").split("\n")[1:]:
        if line[:1] in (" ", "\t") and name:  # folded
            headers[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        if name and name not in headers:
            headers[name] = value.strip()
    if "warc-type" not in headers:
        return None
    length = headers.get("content-length", "")
    return headers["warc-type"].lower(), headers, int(length) if _LENGTH.fullmatch(length) else None, len(data)


def _arc_head(line: re.Match) -> tuple[str, dict[str, str], int | None, int]:
    """An ARC header line as the headers of a WARC record."""
    url, date, media_type, length = (group.decode("utf-8", "replace") for group in line.groups())
    date = date.ljust(14, "0")
    headers = {"warc-target-uri": url, "content-type": media_type,
               "warc-date": f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z"}
    return "warcinfo" if url.startswith("filedesc:") else "response", headers, int(length), len(line.group())

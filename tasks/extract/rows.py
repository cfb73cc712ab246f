"""Reading JSONL and Parquet dumps whose rows hold text already.

Columns: `text` (needed), `url`, `title` and `date` (ISO 8601), each optional. A row's offset is the byte of its line
in the (decompressed) JSONL file, or its row number in the Parquet file.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import UserError
from tasks.extract.records import Unreadable
from tasks.extract.window import Damaged, Member, Window, coding
from tasks.ingest import Split, compression

COLUMNS = ("text", "url", "title", "date")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a dump; it has what a WARC record has, so that both are treated alike."""

    offset: int
    length: int | None
    text: str
    size: int
    title: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "row"
    inner: int = 0
    expansion: float = 1.0


def read_rows(split: Split, max_bytes: int) -> Iterator[Row | Unreadable]:
    """The rows that begin in `split`; a line that is not a JSON object with a text is an unreadable span, and so are
    the rows of a Parquet row group from the first page on that is damaged (their length counts rows)."""
    if split.kind == "parquet":
        with fsspec.open(split.path, "rb") as file:
            yield from _parquet(file, split, max_bytes)
        return
    with Window(split.path) as window:
        kind = compression(window.at(0, 4))
        if kind == "none":
            with fsspec.open(split.path, "rb") as file:
                yield from _jsonl(file, split, max_bytes, False)
        else:
            yield from _jsonl(io.BufferedReader(_Unpacked(window, kind), 1 << 20), split, max_bytes, True)


class _Unpacked(io.RawIOBase):
    """The decompressed bytes of a whole file, from one member after the other. Reading raises Damaged."""

    def __init__(self, window: Window, kind: str):
        self._window, self._member = window, Member(window, 0, coding(window, kind), lambda beginning: False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not (data := self._member.read(len(buffer))):
            if not self._member.extend():
                if self._window.at(self._member.end, 1 << 20).strip(b"\0"):
                    raise Damaged("corrupt")
                return 0
        buffer[:len(data)] = data
        return len(data)


def _row(values: dict, offset: int, length: int | None) -> Row:
    text = values["text"] or ""
    if not isinstance(text, str):
        raise TypeError("text")
    url = str(values.get("url") or "").encode("utf-8", "replace").decode()  # JSON can spell lone surrogates
    headers = {"warc-target-uri": url, "warc-date": str(values.get("date") or "")}
    return Row(offset, length, text, len(text.encode("utf-8", "replace")), str(values.get("title") or ""), headers)


def _jsonl(file, split: Split, max_bytes: int, packed: bool) -> Iterator[Row | Unreadable]:
    limit = 2 * max_bytes  # JSON may write a character in six bytes; a longer line is passed over unread
    offset = max(0, split.start - 1)
    if split.start:  # the line that holds the byte before is the other range's
        file.seek(offset)
        offset += _line(file, 0)[1]
    while offset < split.end or packed:
        try:
            line, length = _line(file, limit)
        except Damaged as damage:
            yield Unreadable(offset, 0, max(0, split.end - offset), str(damage))
            return
        if not length:
            return
        if line is None or line.strip():
            try:
                if line is None:
                    raise ValueError("too_long")
                yield _row(json.loads(line), offset, length)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                yield Unreadable(offset, 0, length, "too_long" if line is None else "not_a_row")
        offset += length


def _line(file, limit: int) -> tuple[bytes | None, int]:
    """(the next line, its bytes); None for a line of more than `limit` bytes, which is passed over."""
    line = file.readline(limit + 1)
    if len(line) <= limit:
        return line, len(line)
    length, piece = len(line), line
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(1 << 20)
        length += len(piece)
    return None, length


def _parquet(file, split: Split, max_bytes: int) -> Iterator[Row | Unreadable]:
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    present = [name for name in COLUMNS if name in parquet.schema_arrow.names]
    if "text" not in present:
        raise UserError(f"{split.uri} has no column `text`; rename the column that holds the text")
    first = 0
    for group in range(parquet.num_row_groups):
        n = parquet.metadata.row_group(group).num_rows
        if split.start <= first < split.end:
            row = first
            try:
                for batch in parquet.iter_batches(1024, row_groups=[group], columns=present):
                    for values in batch.to_pylist():
                        try:
                            yield _row(values, row, None)
                        except TypeError:
                            yield Unreadable(row, 0, 1, "not_a_row")
                        row += 1
            except (OSError, pa.ArrowException):
                yield Unreadable(row, 0, first + n - row, "corrupt")
        first += n

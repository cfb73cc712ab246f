"""Bytes of a file that may be damaged: at random, of one compressed member, and forwards with sight of what comes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fsspec
from backports import zstd
from isal import isal_zlib
from lz4.frame import LZ4FrameDecompressor

MAX_DICTIONARY = 16 << 20    # bytes of a zstd dictionary; real ones have some 100 KB
BOMB_BYTES = 1 << 30         # a member that inflates to more than this ...
BOMB_RATIO = 200             # ... and this many times its size is given up
CHUNK = 1 << 20              # bytes read from the file at a time
_PIECE = 64 << 10            # compressed bytes inflated at a time, at most; at first less, ...
_FIRST = 8 << 10             # ... because what a member leaves of its last piece is copied


class Damaged(Exception):
    """The bytes do not inflate, or not within bounds. The argument is a reason code."""


class Window:
    """Random reads of a file, in large pieces."""

    def __init__(self, path: str):
        self._file = fsspec.open(path, "rb").open() if "://" in path else open(path, "rb", buffering=0)
        self.size = self._file.seek(0, 2)
        self._start, self._data = 0, b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def at(self, position: int, n: int) -> bytes:
        """The `n` bytes at `position`; fewer at the end of the file."""
        first = position - self._start
        if not 0 <= first <= first + n <= len(self._data):
            if position >= self.size:
                return b""
            self._file.seek(position)
            pieces, wanted = [], max(n, CHUNK)
            while wanted > 0 and (piece := self._file.read(wanted)):
                pieces.append(piece)
                wanted -= len(piece)
            self._start, self._data, first = position, b"".join(pieces), 0
        return self._data[first:first + n]

    def find(self, needle: bytes, position: int) -> int:
        """Where `needle` is next found at or after `position`; the size of the file when it is not."""
        while position < self.size:
            data = self.at(position, CHUNK)
            if (found := data.find(needle)) >= 0:
                return position + found
            position += max(1, len(data) - len(needle) + 1)
        return self.size


class _Gzip:
    """isal's inflater with the interface of the other decompressors."""

    def __init__(self):
        self._inflater = isal_zlib.decompressobj(31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail or data, max_length)

    eof = property(lambda self: self._inflater.eof)
    unused_data = property(lambda self: self._inflater.unused_data)
    needs_input = property(lambda self: not self._inflater.unconsumed_tail)


@dataclass(frozen=True)
class Coding:
    """A compression that cuts a file into members (zstd and lz4 call them frames): how each begins and is opened."""

    magic: bytes
    open: Callable[[], Any]


_OPEN = {"gzip": (b"\x1f\x8b\x08", _Gzip), "zstd": (b"\x28\xb5\x2f\xfd", zstd.ZstdDecompressor),
         "lz4": (b"\x04\x22\x4d\x18", LZ4FrameDecompressor)}
_ERRORS = (isal_zlib.error, zstd.ZstdError, RuntimeError)  # the last is lz4's


def coding(window: Window, name: str) -> Coding:
    """gzip, zstd or lz4. A zstd file may begin with the dictionary of all its frames, in a skippable frame
    (https://iipc.github.io/warc-specifications/specifications/warc-zstd/)."""
    magic, opener = _OPEN[name]
    head = window.at(0, 8)
    if name == "zstd" and head.startswith(b"\x5d\x2a\x4d\x18"):
        content = window.at(8, min(int.from_bytes(head[4:], "little"), MAX_DICTIONARY))
        try:
            if content.startswith(magic):
                content = zstd.ZstdDecompressor().decompress(content, MAX_DICTIONARY)
            dictionary = zstd.ZstdDict(content)
        except (zstd.ZstdError, ValueError):
            return Coding(magic, opener)  # without it the frames are damaged, and each is told
        return Coding(magic, lambda: zstd.ZstdDecompressor(dictionary))
    return Coding(magic, opener)


def skippable(window: Window, position: int) -> int:
    """The bytes of the skippable frame (zstd, lz4) at `position`, 0 when there is none that leads to another frame."""
    head = window.at(position, 8)
    if not (len(head) == 8 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xf0 == 0x50):
        return 0
    size = 8 + int.from_bytes(head[4:], "little")
    frame = window.at(position + size, 4).endswith((b"\x2a\x4d\x18", b"\xb5\x2f\xfd", b"\x22\x4d\x18"))
    return size if frame or position + size == window.size else 0


class Member:
    """The decompressed bytes of the member at `start`, its checksum verified at the end; and of those that follow when
    the file was cut into members without regard to records, as bgzip cuts it."""

    def __init__(self, window: Window, start: int, coding: Coding, starts_record: Callable[[bytes], bool]):
        self._window, self._coding, self._frame = window, coding, coding.open()
        self._starts_record = starts_record
        self.start, self.fed, self.inflated = start, start, 0

    @property
    def end(self) -> int:
        """Where the next byte to decompress lies; once the member is read, where the next member begins."""
        return self.fed - len(self._frame.unused_data or b"")

    def read(self, n: int) -> bytes:
        """The next bytes, at most `n`; none at the end of the member. Raises Damaged."""
        frame = self._frame
        while not frame.eof:
            hungry, piece = frame.needs_input, b""
            if hungry:
                piece = self._window.at(self.fed, min(_PIECE, _FIRST + 4 * (self.fed - self.start)))
                self.fed += len(piece)
            try:
                data = frame.decompress(piece, n)
            except _ERRORS:
                raise Damaged("corrupt") from None
            if data:
                self.inflated += len(data)
                if self.inflated > max(BOMB_BYTES, BOMB_RATIO * (self.fed - self.start)):
                    raise Damaged("expansion")
                return data
            if hungry and not piece and not frame.eof:
                raise Damaged("truncated")
        return b""

    def skip(self) -> None:
        """Decompresses the rest: only its end tells whether it was whole. Raises Damaged."""
        while self.read(CHUNK):
            pass

    def extend(self) -> bool:
        """Goes on with the member that follows, if one does and it does not begin like a record."""
        window, position = self._window, self.end
        if not self._frame.eof or window.at(position, len(self._coding.magic)) != self._coding.magic:
            return False
        if self._starts_record(beginning(window, position, self._coding)):
            return False
        self._frame, self.fed = self._coding.open(), position
        return True

    @property
    def state(self) -> tuple:
        return self._frame, self.fed, self.inflated

    @state.setter
    def state(self, state: tuple) -> None:
        """Back to the end of a member from which `extend` went on."""
        self._frame, self.fed, self.inflated = state


def beginning(window: Window, position: int, coding: Coding) -> bytes:
    """The first bytes of the member at `position`, at most 4 KiB; none when it is no member."""
    try:
        return coding.open().decompress(window.at(position, 8192), 4096)
    except _ERRORS:
        return b""


class Stream:
    """Bytes read forwards, with sight of what comes next."""

    def __init__(self, read: Callable[[int], bytes], position: int = 0, member: Member | None = None):
        self._read, self._member, self._data, self.position = read, member, bytearray(), position
        self.damage: Damaged | None = None

    def peek(self, n: int) -> memoryview:
        """The next `n` bytes, fewer at the end or before damage, kept in `damage`. Release it before moving on."""
        try:
            while len(self._data) < n and self.damage is None:
                piece = self._read(max(CHUNK, n - len(self._data)))
                if not piece:
                    break
                self._data += piece
        except Damaged as damage:
            self.damage = damage
        return memoryview(self._data)[:n]

    def require(self, n: int, pattern: re.Pattern | None = None) -> None:
        """Brings the next `n` bytes (or less, up to a match of `pattern`) into sight, from the members that follow too
        when they have what is missing; else these are left as members of their own."""
        def enough():
            return len(self._data) >= n or bool(pattern and pattern.search(self._data))

        self.peek(n).release()
        if self._member is None or self.damage is not None or enough():
            return
        state, length = self._member.state, len(self._data)
        while not enough() and self.damage is None and self._member.extend():
            self.peek(n).release()
        if not enough():
            self._member.state, self.damage = state, None
            del self._data[length:]

    def check(self) -> None:
        """Raises the damage that ended the stream, if any did."""
        if self.damage is not None:
            raise self.damage

    def look(self, n: int) -> bytes:
        with self.peek(n) as view:
            return bytes(view)

    def drop(self, n: int) -> int:
        """Passes over `n` bytes; returns how many there were."""
        dropped = 0
        while dropped < n:
            piece = min(n - dropped, len(self._data))
            del self._data[:piece]
            dropped += piece
            if dropped < n:
                self.require(1)
                if not self.look(1):
                    break
        self.position += dropped
        return dropped

    def drop_blank(self) -> None:
        """Passes over line ends."""
        while data := self.look(64):
            blank = len(data) - len(data.lstrip(b"\r\n"))
            self.drop(blank)
            if blank < len(data):
                break

    def drop_until(self, pattern: re.Pattern) -> None:
        """Passes over everything before the end of the next match of `pattern`, which spans at most 4 KiB."""
        while data := self.look(CHUNK):
            if match := pattern.search(data):
                self.drop(match.end())
                return
            self.drop(len(data) if len(data) < CHUNK else CHUNK - 4096)

"""Bytes of a file that may be damaged: at random, of one gzip member, and forwards with sight of what comes next."""

import re
from collections.abc import Callable

import fsspec
from isal import isal_zlib

BOMB_BYTES = 1 << 30         # a member that inflates to more than this ...
BOMB_RATIO = 200             # ... and this many times its size is given up
CHUNK = 1 << 20              # bytes read from the file at a time
_PIECE = 64 << 10            # compressed bytes inflated at a time: what is left of one is copied


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


class Member:
    """The inflated bytes of the gzip member at `start`, its checksum verified at the end."""

    def __init__(self, window: Window, start: int):
        self._window, self._inflater = window, isal_zlib.decompressobj(31)
        self.start, self.fed, self.inflated = start, start, 0

    @property
    def end(self) -> int:
        """Where the next byte to inflate lies; once the member is read, where the next member begins."""
        return self.fed - len(self._inflater.unused_data or self._inflater.unconsumed_tail)

    def read(self, n: int) -> bytes:
        """The next bytes, at most `n`; none at the end of the member. Raises Damaged."""
        inflater = self._inflater
        while not inflater.eof:
            piece = inflater.unconsumed_tail
            if not piece:
                piece = self._window.at(self.fed, _PIECE)
                self.fed += len(piece)
            try:
                data = inflater.decompress(piece, n)
            except isal_zlib.error:
                raise Damaged("corrupt") from None
            if data:
                self.inflated += len(data)
                if self.inflated > max(BOMB_BYTES, BOMB_RATIO * (self.end - self.start)):
                    raise Damaged("expansion")
                return data
            if not piece and not inflater.eof:
                raise Damaged("truncated")
        return b""

    def skip(self) -> None:
        """Inflates the rest: only its end tells whether it was whole. Raises Damaged."""
        while self.read(CHUNK):
            pass


class Stream:
    """Bytes read forwards, with sight of what comes next."""

    def __init__(self, read: Callable[[int], bytes], position: int = 0):
        self._read, self._data, self.position = read, bytearray(), position
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
            if dropped < n and not self.look(1):
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

"""The one pass over the bytes of texts, with its tables: `tasks.annotate.scan` for those who have Arrow."""

from functools import lru_cache

import numpy as np
import pyarrow as pa

from tasks.lines.rules import PHRASES
from tasks.spans import utf8
from tasks.words import capitals, code_points, enders, landmarks, word_hash


def scanned(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, tuple]:
    """The signals that need no memory, float64 (n, tasks.annotate.scan.COLUMNS), and the hashes: words, their lengths,
    lines, paragraphs, likewise, and their ends."""
    from tasks.annotate import scan, segment  # numba takes a second to load: only where it is used

    size, n = int(offsets[-1] - offsets[0]), len(offsets) - 1
    starts = np.empty(size // 3 + 1, np.int64)
    starts = starts[:segment.word_starts(data, offsets, code_points(), *segment.dictionary(), starts)]
    room = size // 2 + n + 1
    hashes = (np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.uint64), np.empty(room, np.int32),
              np.empty(room, np.uint64), np.empty(room, np.int32), np.zeros((n + 1, 3), np.int64))
    found = np.zeros((n, scan.COLUMNS))
    scan.scan(data, offsets, code_points(), capitals(), landmarks(), enders(), counters(), starts, *hashes, found)
    return found, hashes


def word_hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the words of all texts (uint64), and the n + 1 places (int64) between which each text's lie."""
    _, (words, *_, ends) = scanned(*utf8(texts))
    return words[:ends[-1, 0]], ends[:, 0]


@lru_cache(maxsize=1)
def counters() -> np.ndarray:
    """uint64: the hashes of the words that follow the number in a line that only counts something."""
    words = [word for group in PHRASES if group.rule == "line_counter" for word in group.phrases.split()]
    hashes = np.array([word_hash(word) for word in words], np.uint64)
    hashes.setflags(write=False)
    return hashes

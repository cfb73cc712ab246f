"""Hashes of names in bytes, and tables of them, for the compiled passes over a page.

numba's cache on disk is renewed when the file of the function that Python calls changes, and sees no change in
functions and constants of other files. So such functions close over the `source_key` of those files, which makes it
part of the cache's key.
"""

import hashlib
from pathlib import Path

import numpy as np

from tasks.compiled import njit
from tasks.extract import tags

_FNV_OFFSET, _FNV_PRIME = np.uint64(tags.FNV_OFFSET), np.uint64(tags.FNV_PRIME)
_S16, _ZERO = np.uint64(16), np.uint64(0)


def source_key(*modules: str) -> int:
    """A number that changes with the sources of modules of this package."""
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return int.from_bytes(digest.digest()[:7], "big") + 1


@njit
def find(keys, values, h):
    """The value of hash `h` in an open-addressed table (tasks.extract.tags.slots), -1 without one."""
    mask = len(keys) - 1
    at = np.int64(h >> _S16) & mask
    for _ in range(len(keys)):
        if keys[at] == h:
            return values[at]
        if keys[at] == _ZERO:
            return -1
        at = (at + 1) & mask
    return -1


@njit
def hash_name(html, start, end):
    h = _FNV_OFFSET
    for i in range(start, end):
        c = html[i]
        if 65 <= c <= 90:
            c += 32
        h = (h ^ np.uint64(c)) * _FNV_PRIME
    return h


@njit
def hash_bytes(html, start, end):
    h = _FNV_OFFSET
    for i in range(start, end):
        h = (h ^ np.uint64(html[i])) * _FNV_PRIME
    return h


@njit
def hash_cased(html, start, end):
    h = _FNV_OFFSET
    for i in range(start, end):
        c = html[i]
        if 65 <= c <= 90:
            c += 128
        h = (h ^ np.uint64(c)) * _FNV_PRIME
    return h


@njit
def begins(html, start, end, word):
    """Whether html[start:end] begins with the lower-case bytes `word`."""
    if end - start < len(word):
        return False
    for k in range(len(word)):
        c = html[start + k]
        if 65 <= c <= 90:
            c += 32
        if c != word[k]:
            return False
    return True

"""Hashes of names in bytes, and tables of them, for the compiled passes over a page.

numba's cache on disk is renewed when the file of the function that Python calls changes, and does not see changes here:
whoever changes this file touches html.py, blocks.py and features.py beside it too.
"""

import numpy as np
from numba import njit

from tasks.extract import tags

_FNV_OFFSET, _FNV_PRIME = np.uint64(tags.FNV_OFFSET), np.uint64(tags.FNV_PRIME)
_S16, _ZERO = np.uint64(16), np.uint64(0)


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

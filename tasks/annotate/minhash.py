"""MinHash signatures in datasketch's own scheme, over word 5-grams.

A shingle is five consecutive words (`tasks.words`) of a document; a document of one to four
words has one shingle, of all its words; a document without words has none, and datasketch's empty
signature (every value 2**32 - 1), which says nothing and must not be taken for a likeness.

The scheme is datasketch 2.0's "affine32" with seed 1 and PERMUTATIONS permutations (Broder 1997; the
permutations h -> a h + b modulo 2**32 with odd a, after MurmurHash3's finaliser; see
https://github.com/ekzhu/datasketch/issues/212), so a signature opens as
`datasketch.MinHash(hashvalues=signature, scheme="affine32", seed=1)` and compares with any MinHash made
with `hashfunc=shingle_hash`. 112 = 14 bands of 8 rows, as FineWeb has it (Penedo et al. 2024,
https://arxiv.org/abs/2406.17557, section 3.4).
"""

from functools import lru_cache

import numpy as np

from tasks.words import fmix64, gram_hash

PERMUTATIONS = 112
SHINGLE_WORDS = 5
SEED = 1


def shingles(words: list[str]) -> list[bytes]:
    """The shingles of a document's folded words, UTF-8, the words joined by single spaces."""
    n = min(len(words), SHINGLE_WORDS)
    return [" ".join(words[i:i + n]).encode() for i in range(len(words) - n + 1)] if n else []


def shingle_hash(shingle: bytes) -> int:
    """The 32-bit hash of a shingle: for datasketch's `hashfunc`."""
    return fmix64(gram_hash(shingle.decode().split(" "))) >> 32


@lru_cache(maxsize=1)
def permutations() -> np.ndarray:
    """uint32 array of shape (2, PERMUTATIONS): a and b, drawn as datasketch 2.0 draws them (MT19937 from SEED)."""
    random = np.random.RandomState(SEED)
    a = random.randint(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return np.array([a, random.randint(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)])

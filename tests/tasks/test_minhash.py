"""Signatures are datasketch's own."""

import random

import numpy as np
import pyarrow as pa
import pytest
from datasketch import LeanMinHash, MinHash

from tasks.annotate.measure import measure_texts
from tasks.annotate.minhash import PERMUTATIONS, SEED, permutations, shingle_hash, shingles
from tasks.words import words


def signature(text: str) -> np.ndarray:
    return measure_texts(pa.array([text], pa.large_string()))[1][0]


def by_datasketch(text: str) -> MinHash:
    sketch = MinHash(num_perm=PERMUTATIONS, seed=SEED, scheme="affine32", hashfunc=shingle_hash)
    for shingle in shingles(words(text)):
        sketch.update(shingle)
    return sketch


def some_text(seed: int, n: int, vocabulary: int = 5000) -> str:
    chance = random.Random(seed)
    return " ".join(f"word{chance.randrange(vocabulary)}" for _ in range(n))


def test_permutations_are_datasketchs():
    assert np.array_equal(MinHash(num_perm=PERMUTATIONS, seed=SEED, scheme="affine32").permutations, permutations())


@pytest.mark.parametrize("text", [
    "", "!!! ...", "one", "one two", "one two three four", "one two three four five",
    "The cat's 3.14 日本語 naïve é — end.",
    some_text(1, 100), some_text(2, 5000, 30), "same " * 3000], ids=lambda text: text[:12])
def test_equal_to_datasketch_fed_the_same_shingles(text):
    assert np.array_equal(signature(text), by_datasketch(text).hashvalues)


def test_opens_as_minhash_and_leanminhash():
    text = some_text(3, 400)
    opened = MinHash(hashvalues=signature(text), seed=SEED, scheme="affine32", hashfunc=shingle_hash)
    assert opened.jaccard(by_datasketch(text)) == 1.0
    lean = LeanMinHash(opened)
    buffer = bytearray(lean.bytesize())
    lean.serialize(buffer)
    assert np.array_equal(LeanMinHash.deserialize(buffer).hashvalues, signature(text))


def test_estimates_jaccard():
    base = some_text(4, 2000).split()
    changed = base[:1500] + some_text(5, 500).split()
    a, b = (set(shingles(text)) for text in (base, changed))
    estimate = np.mean(signature(" ".join(base)) == signature(" ".join(changed)))
    assert abs(estimate - len(a & b) / len(a | b)) < 0.15      # three standard deviations of 112 permutations


def test_numbers_count_and_letter_case_does_not():
    """Documents that differ in numbers alone must not look the same."""
    prose = "the price of lot {} was set at {} pounds on day {} of the sale"
    first, second = prose.format(1, 200, 3), prose.format(7, 450, 9)
    assert np.mean(signature(first) == signature(second)) < 0.3
    assert np.array_equal(signature(first), signature(first.upper()))

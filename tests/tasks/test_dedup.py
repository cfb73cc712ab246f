"""Deduplication against a naive reference, and the ways in which corpora were lost elsewhere."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.dedup import BANDS, DECISIONS, PAIRS, Dedup
from tasks.dedup.lsh import band_hashes, candidates, hash_range, index, verified
from tasks.dedup.survivors import decisions, exact_decisions, survivors
from tasks.schema import id_array, id_bytes

N = 112


def shard(rows: list[dict]) -> pa.Table:
    """A documents table with the signals beside it, from url, text, at, signature, words of each document."""
    def ids(key):
        return id_array([hashlib.blake2b(str(r[key]).encode(), digest_size=16).digest() for r in rows])

    n = len(rows)
    return pa.table({
        "doc_id": ids("id"), "content_id": ids("text"), "url": pa.array([r["url"] for r in rows], pa.string()),
        "fetched_at": pa.array([r.get("at", 0) for r in rows], pa.timestamp("us", tz="UTC")),
        "n_words": pa.array([r.get("words", 100) for r in rows], pa.int32()),
        "minhash": pa.FixedSizeListArray.from_arrays(
            pa.array(np.array([r["signature"] for r in rows], np.uint32).reshape(-1)), N),
        **{c: pa.array(["x"] * n, pa.string()) for c in ("domain", "snapshot", "source", "warc_file")},
        "warc_offset": pa.array(range(n), pa.int64())})


def decide_all(shards: list[pa.Table], options: Dedup, partitions: int = 1) -> pa.Table:
    bands = [index(table, options) for table in shards]
    exact = exact_decisions(shards, options)
    pairs = [verified(bands, shards, exact, options, partition=i, partitions=partitions) for i in range(partitions)]
    assert all(t.schema == BANDS for t in bands) and all(t.schema == PAIRS for t in pairs)
    return decisions(shards, exact, pairs, options)


def naive(shards: list[list[dict]], options: Dedup) -> list[tuple]:
    """(shard, row, rule, winner's id, similarity) of the dropped, in O(n^2)."""
    documents = [(s, r, d) for s, rows in enumerate(shards) for r, d in enumerate(rows)]
    dropped, out = set(), []

    def drop(document, rule, winner, similarity):
        dropped.add(document[:2])
        out.append((*document[:2], rule, winner[2]["id"], similarity))

    for d in documents:
        same = [x for x in documents if x[2]["url"] == d[2]["url"] and d[2]["url"] is not None] or [d]
        best = min(same, key=lambda x: (-x[2].get("at", 0), x[:2]))
        if best is not d:
            drop(d, "url", best, None)
    alive = [d for d in documents if d[:2] not in dropped]
    for d in alive:
        first = next(x for x in alive if x[2]["text"] == d[2]["text"])
        if first is not d:
            drop(d, "exact", first, 1.0)
    alive = [d for d in alive if d[:2] not in dropped and d[2].get("words", 100) >= options.min_words]
    survived = []
    for d in alive:
        mine = np.array(d[2]["signature"])
        likes = []
        for x in survived:
            same = mine == np.array(x[2]["signature"])
            meet = same[:options.bands * options.rows].reshape(options.bands, options.rows).all(axis=1).any()
            if meet and same.sum() / N >= options.threshold:
                likes.append((-same.sum(), x[:2], x))
        if likes:
            equal, _, winner = min(likes, key=lambda e: e[:2])
            drop(d, "near", winner, -equal / N)
        else:
            survived.append(d)
    return sorted(out, key=lambda e: e[:2])


def rows_of(table: pa.Table, shards: list[list[dict]]) -> list[tuple]:
    names = {hashlib.blake2b(str(d["id"]).encode(), digest_size=16).digest(): d["id"] for rows in shards for d in rows}
    return [(r["shard"], r["row"], r["rule"], names[r["duplicate_of"].bytes], r["similarity"])
            for r in table.to_pylist()]


@st.composite
def builds(draw):
    """Up to three shards of documents whose signatures are base signatures with some positions changed."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    bases = random.integers(0, 2**32, (draw(st.integers(1, 3)), N), dtype=np.uint32)
    shards, number = [], 0
    for size in draw(st.lists(st.integers(0, 7), min_size=1, max_size=3)):
        rows = []
        for _ in range(size):
            signature = bases[random.integers(len(bases))].copy()
            changed = random.random(N) < random.choice([0, 0.05, 0.2, 0.3])
            signature[changed] = random.integers(0, 2**32, changed.sum(), dtype=np.uint32)
            rows.append({"id": number, "text": random.choice([number, random.integers(0, 40)]),
                         "url": random.choice([f"http://a/{random.integers(0, 9)}", f"http://b/{number}", None]),
                         "at": int(random.integers(0, 3)), "words": int(random.choice([5, 100])),
                         "signature": signature})
            number += 1
        shards.append(rows)
    return shards


@settings(max_examples=150, deadline=None)
@given(builds(), st.integers(1, 5), st.sampled_from([0.5, 0.75, 0.9]))
def test_same_as_naive(build, partitions, threshold):
    options = Dedup(threshold=threshold)
    tables = [shard(rows) for rows in build]
    found = decide_all(tables, options, partitions)
    assert found.schema == DECISIONS
    assert rows_of(found, build) == naive(build, options)
    for i, table in enumerate(tables):  # every document survives or has one fate
        result = survivors(table, found, options, shard=i)
        kept, gone = id_bytes(result.table["doc_id"]).to_pylist(), id_bytes(result.fates["doc_id"]).to_pylist()
        assert sorted(kept + gone) == sorted(id_bytes(table["doc_id"]).to_pylist())
        assert all(f["outcome"] == "dropped" and f["stage"] == "dedup" and f["duplicate_of"]
                   for f in result.fates.to_pylist())


def signature(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, N, dtype=np.uint32)


def pages(signatures) -> list[dict]:
    return [{"id": i, "text": i, "url": f"http://a/{i}", "signature": s} for i, s in enumerate(signatures)]


def test_a_chain_of_templates_does_not_swallow_a_corpus():
    """Each page is like its neighbour (0.86) but not like those further on: transitive closure would keep one of 60."""
    chain = [signature(0)]
    for step in range(1, 60):
        following = chain[-1].copy()
        following[(step * 16 + np.arange(16)) % N] = signature(step)[:16]
        chain.append(following)
    build = [pages(chain)]
    found = decide_all([shard(build[0])], Dedup())
    assert rows_of(found, build) == naive(build, Dedup())
    assert 20 <= len(found) <= 30           # every other one, and none that is unlike what it is a duplicate of
    dropped = set(found["row"].to_pylist())
    for r in rows_of(found, build):
        assert r[3] not in dropped and (chain[r[1]] == chain[r[3]]).mean() == pytest.approx(r[4]) and r[4] >= 0.75


def test_a_crowded_bucket_of_different_documents_loses_none():
    """Gutenberg: thousands of books share a licence, here a whole band, and are otherwise different."""
    books = [signature(i) for i in range(300)]
    for book in books:
        book[:8] = 7
    assert len(decide_all([shard(pages(books))], Dedup())) == 0


def test_copies_beyond_the_first_ones_of_a_crowded_bucket_are_found():
    copies = [signature(i % 40) for i in range(400)]
    for copy in copies:
        copy[:8] = 7                       # one bucket for all, forty texts in it: the first 16 are not enough there
    found = decide_all([shard(pages(copies))], Dedup(first=16))
    assert found["row"].to_pylist() == list(range(40, 400))


def test_copies_that_are_gone_do_not_crowd_out_survivors():
    """Thirty fetches of one URL; only the last survives, and a near-copy elsewhere must still meet it."""
    same = signature(1)
    rows = [{"id": i, "text": i, "url": "http://a/", "at": i, "signature": same} for i in range(30)]
    rows.append({"id": 30, "text": 30, "url": "http://b/", "signature": same})
    found = decide_all([shard(rows)], Dedup(first=4)).to_pylist()
    assert [r["rule"] for r in found] == ["url"] * 29 + ["near"] and found[-1]["row"] == 30


def test_decisions_never_reach_another_shard():
    build = [pages([signature(1), signature(1), signature(2)]), pages([signature(3), signature(4), signature(5)])]
    for i, row in enumerate(build[1]):
        row |= {"id": 10 + i, "text": 10 + i, "url": f"http://b/{i}"}
    tables = [shard(rows) for rows in build]
    found = decide_all(tables, Dedup())
    assert len(found) == 1
    with pytest.raises(ValueError, match="row and doc_id disagree"):
        survivors(tables[1], found, Dedup())
    with pytest.raises(ValueError, match="which has 1 rows"):
        survivors(tables[0].slice(0, 1).combine_chunks(), found, Dedup())


def test_partitions_do_not_matter_and_cover_all_hashes():
    assert hash_range(0, 1) == (0, 2**64 - 1)
    for n in (2, 3, 7, 64):
        ranges = [hash_range(i, n) for i in range(n)]
        assert ranges[0][0] == 0 and ranges[-1][1] == 2**64 - 1
        assert all(x[1] + 1 == y[0] for x, y in zip(ranges, ranges[1:], strict=False))
    random = np.random.default_rng(3)
    bases = random.integers(0, 2**32, (30, N), dtype=np.uint32)
    found = []
    for i in range(200):
        s = bases[i % 30].copy()
        s[random.random(N) < 0.1] = i
        found.append(s)
    table = shard(pages(found))
    one, seven = decide_all([table], Dedup()), decide_all([table], Dedup(), 7)
    assert one.equals(seven) and len(one) > 100


def test_bands_are_sorted_and_equal_only_for_equal_bands():
    s = np.array([signature(1), signature(2), signature(1)])
    s[1, 8:16] = s[0, 8:16]
    s[2, :8] = s[0, 8:16]                      # the same values in another band are another bucket
    h = band_hashes(s, 14, 8)
    assert h[0, 1] == h[1, 1] and h[2, 0] != h[0, 1] and (h[0, 2:] == h[2, 2:]).all() and len(np.unique(h)) == 28
    table = index(shard(pages(s)), Dedup())
    assert (np.diff(table["hash"].to_numpy().astype(object)) >= 0).all() and len(table) == 3 * 14


def test_a_bucket_costs_linear_work():
    hashes, rows = np.zeros(5000, np.uint64), np.arange(5000, dtype=np.int32)
    a, b = candidates([(hashes, rows)], first=16)
    assert len(a) == 16 * 5000 - 16 * 17 // 2 and (a < b).all() and a.max() == 15


def test_short_and_empty_documents_are_not_near_duplicates():
    rows = [row | {"words": words} for row, words in zip(pages([signature(1)] * 4), [0, 0, 19, 19], strict=True)]
    assert len(decide_all([shard(rows)], Dedup())) == 0
    assert len(decide_all([shard(rows)], Dedup(min_words=0))) == 1      # no words: nothing to be like


@pytest.mark.parametrize("url", ["", None])
def test_documents_without_a_url_are_no_copies_of_each_other(url):
    rows = [{"id": i, "text": i, "url": url, "signature": signature(i)} for i in range(5)]
    assert len(exact_decisions([shard(rows[:3]), shard(rows[3:])], Dedup())) == 0


def test_rules_can_be_turned_off():
    rows = [{"id": i, "text": 0, "url": "http://a/", "signature": signature(1)} for i in range(3)]
    table = shard(rows)
    assert [decide_all([table], Dedup(url=u, exact=e, near=n))["rule"].to_pylist() for u, e, n in
            [(True, True, True), (False, True, True), (False, False, True), (False, False, False)]] == \
        [["url"] * 2, ["exact"] * 2, ["near"] * 2, []]


def test_impossible_settings_say_what_to_mend():
    with pytest.raises(ValidationError, match="dedup.bands x dedup.rows is 120, but a signature has 112 positions"):
        Dedup(bands=20, rows=6)
    with pytest.raises(ValidationError):
        Dedup(treshold=0.8)
    assert Dedup().min_equal == 84 and Dedup().partitions(0) == 1 and Dedup().partitions(10**8) == 175


def test_no_documents():
    assert len(decide_all([], Dedup())) == 0 and len(decide_all([shard([]), shard([])], Dedup())) == 0


def test_numbers_stay_numbers():
    """Pages that differ in their figures are different pages; with every figure read as 0 they would be copies."""
    from tasks.annotate.minhash import shingle_hash, shingles
    from tasks.words import words

    def page(year):
        return " ".join(f"in {year} the station of place {i} measured {year * i % 977} millimetres of rain"
                        for i in range(1, 12))

    hashes = [{shingle_hash(s) for s in shingles(words(page(y)))} for y in (1987, 2003)]
    assert len(hashes[0] & hashes[1]) / len(hashes[0] | hashes[1]) < 0.5


def test_the_hash_seed_does_not_matter():
    code = ("import numpy as np, hashlib; from tests_of_dedup import *; "
            "random = np.random.default_rng(5); base = random.integers(0, 2**32, (5, N), dtype=np.uint32); "
            "t = [shard(pages(base[random.integers(0, 5, 20)])) for _ in range(2)]; "
            "print(hashlib.sha256(str(decide_all(t, Dedup(), 3).to_pylist()).encode()).hexdigest())")
    code = code.replace("from tests_of_dedup import *",
                        f"import runpy; globals().update(runpy.run_path({__file__!r}))")
    outputs = {subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True,
                              capture_output=True, text=True).stdout for seed in ("0", "7")}
    assert len(outputs) == 1

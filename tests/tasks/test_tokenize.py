"""From documents to token shards."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import spans as edits
from tasks.errors import UserError
from tasks.sample import MEASURES, PLAN
from tasks.schema import SPANS, TOKENS, id_array, id_bytes
from tasks.tokenize import (
    FILES,
    TEXTS,
    Tokenize,
    encoding_of,
    excerpts,
    files_table,
    measures,
    quotas,
    token_shard,
    tokenizer_files,
    tokens_schema,
)
from tasks.tokenizer import save, to_files, train

WORDS = ["mill ", "grain ", "flour, ", "Zürich ", "stones. ", "\n", "<|endoftext|>", "水車", "12 345 "]
TINY = train(["".join(WORDS[i % 9] * (i % 4) for i in range(200))], 300)
FILES_TABLE = files_table(to_files(TINY))


def ids(names):
    return id_array([hashlib.blake2b(str(n).encode(), digest_size=16).digest() for n in names])


def shard(texts, start=0, spans=()):
    """Documents and SPANS tables; `spans` maps an index to its (type, offset, length) triples."""
    n, spans = len(texts), dict(spans)
    names = ids(range(start, start + n))
    documents = pa.table({"doc_id": names, "text": pa.array(texts, pa.string()),
                          "source": pa.array([f"s{i % 2}" for i in range(n)], pa.string()),
                          "domain": pa.array([f"d{start + i}" for i in range(n)], pa.string())})
    found = edits.lists([spans.get(i, ()) for i in range(n)])
    return documents, pa.table([names, pa.array(range(n), pa.int32()), found], schema=SPANS)


def plan_for(shards, rows):
    """PLAN rows for (shard ordinal, row, repeat) triples; `shards` maps ordinals to documents."""
    return pa.table([
        id_array([id_bytes(shards[s]["doc_id"])[r].as_py() for s, r, _ in rows]), [s for s, _, _ in rows],
        [r for _, r, _ in rows], [k for _, _, k in rows], [0] * len(rows), ["src"] * len(rows), ["en"] * len(rows),
        [1.0] * len(rows), [1] * len(rows)], schema=PLAN)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=20) | st.sampled_from(WORDS), max_size=6).map("".join), min_size=1,
                max_size=6), st.randoms(use_true_random=False))
def test_decoding_gives_the_edited_text(texts, random):
    spans = {i: [("EMAIL", 1, 2)] for i, text in enumerate(texts) if len(text) > 4 and random.random() < 0.5}
    documents, found = shard(texts, spans=spans)
    rows = [(3, r, k) for k in range(2) for r in range(len(texts))]
    table = token_shard([documents], [found], plan_for({3: documents}, rows), FILES_TABLE, Tokenize(), shards=[3])
    assert table.schema == TOKENS and len(table) == 2 * len(texts)
    for row, (_, r, repeat) in zip(table.to_pylist(), rows, strict=True):
        text = edits.apply(texts[r], spans.get(r, []))
        assert TINY.decode_bytes(row["tokens"][:-1]) == text.encode() and row["tokens"][-1] == TINY.eot_token
        assert TINY.eot_token not in row["tokens"][:-1]
        assert (row["n_bytes"], row["n_tokens"]) == (len(text.encode()), len(row["tokens"]))
        assert (row["doc_id"], row["repeat"]) == (documents["doc_id"][r].as_py(), repeat)
        assert (row["domain"], row["source"], row["language"]) == (f"d{r}", "src", "en")


def test_the_plan_sets_the_order_across_shards():
    a, b = shard(["a0", "a1", "a2"]), shard(["b0", "b1"], start=10)
    plan = plan_for({4: a[0], 9: b[0]}, [(4, 2, 0), (9, 0, 0), (9, 1, 0), (4, 0, 1), (4, 2, 1)])
    table = token_shard([b[0], a[0]], [b[1], a[1]], plan, FILES_TABLE, Tokenize(), shards=[9, 4])
    assert [TINY.decode(t[:-1]) for t in table["tokens"].to_pylist()] == ["a2", "b0", "b1", "a0", "a2"]
    assert table["domain"].to_pylist() == ["d2", "d10", "d11", "d0", "d2"]
    empty = token_shard([], [], plan.slice(0, 0), FILES_TABLE, Tokenize(), shards=[])
    assert empty.schema == TOKENS and len(empty) == 0


def test_tables_of_different_builds_are_refused():
    a, b = shard(["a0", "a1"]), shard(["b0", "b1"], start=10)
    plan = plan_for({0: a[0]}, [(0, 0, 0), (0, 1, 0)])
    with pytest.raises(ValueError, match="the plan does not belong to document shard 0"):
        token_shard([b[0]], [b[1]], plan, FILES_TABLE, Tokenize(), shards=[0])
    with pytest.raises(ValueError, match="spans and documents disagree"):
        token_shard([a[0]], [b[1]], plan, FILES_TABLE, Tokenize(), shards=[0])
    with pytest.raises(ValueError, match="without a row of spans"):
        token_shard([a[0]], [a[1].slice(0, 1)], plan, FILES_TABLE, Tokenize(), shards=[0])


def test_large_vocabularies_take_uint32():
    assert tokens_schema(1 << 16) == TOKENS
    assert tokens_schema((1 << 16) + 1).field("tokens").type == pa.list_(pa.uint32())


def test_the_tokenizer_stage_trains_copies_or_refuses(tmp_path):
    texts = pa.table({"text": ["mill and flour " * 20, "the mill grinds " * 20]})
    table = tokenizer_files([texts, texts], Tokenize(vocab_size=290))
    assert table.schema == FILES and table["name"].to_pylist() == ["ranks.tiktoken", "tokenizer.json"]
    assert 261 < encoding_of(table).n_vocab <= 290
    save(TINY, tmp_path)
    assert tokenizer_files([], Tokenize(tokenizer=f"{tmp_path}/")).equals(FILES_TABLE)
    with pytest.raises(UserError, match="cannot be read"):
        tokenizer_files([], Tokenize(tokenizer=f"{tmp_path}/none"))
    with pytest.raises(UserError, match="is no tokenizer"):
        tokenizer_files([], Tokenize(tokenizer="trainde"))


def test_excerpts_are_edited_bounded_and_stable():
    texts = [f"{i:03} me@example.org says {'x' * 80}" for i in range(200)]
    documents, spans = shard(texts, spans={i: [("EMAIL", 4, 14)] for i in range(200)})
    few = excerpts(documents, spans, Tokenize(), quota=2000)
    assert few.schema == TEXTS and 18 <= len(few) <= 21
    assert all(t[3:].startswith(" <EMAIL> says") for t in few["text"].to_pylist())
    more = excerpts(documents, spans, Tokenize(), quota=4000)
    assert set(few["text"].to_pylist()) < set(more["text"].to_pylist())
    third = excerpts(documents, spans.take(pa.array(range(0, 200, 3))), Tokenize(), quota=10**9)
    assert [t[:3] for t in third["text"].to_pylist()] == [f"{i:03}" for i in range(0, 200, 3)]
    assert len(excerpts(documents, spans.slice(0, 0), Tokenize(), quota=10)) == 0


def test_quotas_share_the_training_bytes():
    assert quotas([10, 30, 0], Tokenize(train_bytes=1000)) == [250, 750, 0]
    assert quotas([], Tokenize()) == [] and quotas([0], Tokenize()) == [0]


def test_measures_count_bytes_and_sample_tokens():
    texts = ["mill " * 50, "Zürich " * 40] * 20
    documents, spans = shard(texts, spans={1: [("cut", 5, 3, "")]})
    signals = pa.table({"doc_id": documents["doc_id"], "language": pa.array(["en"] * 40, pa.string())})
    table = measures(documents, signals, spans, FILES_TABLE, Tokenize(measure_bytes=600))
    assert table.schema == MEASURES
    rows = table.to_pylist()
    assert [(r["source"], r["documents"], r["bytes"]) for r in rows] == [("s0", 20, 5000), ("s1", 20, 20 * 40 * 8 - 3)]
    for row, text in zip(rows, texts, strict=False):
        assert 600 <= row["sampled_bytes"] <= 1000
        true = len(TINY.encode_ordinary(text)) / len(text.encode())
        assert row["sampled_tokens"] / row["sampled_bytes"] == pytest.approx(true, rel=0.15)
    none = measures(documents, signals, spans.slice(0, 0), FILES_TABLE, Tokenize())
    assert none.schema == MEASURES and len(none) == 0


def test_one_huge_document_goes_through():
    texts = ["x" * 2_000_000, " " * 2_000_000 + "y"]
    documents, spans = shard(texts)
    plan = plan_for({0: documents}, [(0, 0, 0), (0, 1, 0)])
    table = token_shard([documents], [spans], plan, FILES_TABLE, Tokenize(), shards=[0])
    assert [TINY.decode(t[:-1]) for t in table["tokens"].to_pylist()] == texts
    assert np.array_equal(table["n_bytes"].to_numpy(), [2_000_000, 2_000_001])

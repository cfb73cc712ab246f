import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_corpus import EOT, write_corpus

from model.corpus import corpus_folder, held_out, open_corpus, tokens, verify
from model.data import Samples, corpus_samples, pack, packing_table
from tasks.errors import UserError


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(1, 90), max_size=80), st.integers(2, 40), st.integers(0, 2**64 - 1))
def test_every_token_is_packed_once_and_rows_are_never_overfull(lengths, capacity, key):
    plan = pack(np.array(lengths, dtype=np.int64), capacity, key)
    seen = np.zeros((len(lengths), 90), int)
    for document, offset, length in zip(plan.document, plan.offset, plan.length, strict=True):
        seen[document, offset:offset + length] += 1
    assert all((seen[i, :n] == 1).all() and not seen[i, n:].any() for i, n in enumerate(lengths))
    totals = plan.totals()
    assert (totals <= capacity).all() and (totals > 0).all()
    whole = np.bincount(plan.document, minlength=len(lengths))
    assert all(whole[i] == -(-n // capacity) for i, n in enumerate(lengths))          # split only where it must be
    assert plan.rows <= 1.25 * -(-sum(lengths) // capacity) + 1                       # 11/9 OPT + 6/9 for BFD
    for row in range(plan.rows):
        piece = plan.document[plan.starts[row]:plan.starts[row + 1]]
        assert len(set(piece)) == len(piece)


def test_padding_is_small_on_real_lengths():
    lengths = np.maximum(1, np.random.default_rng(0).lognormal(5, 1.2, 4000).astype(int))
    plan = pack(lengths, 512, 1)
    assert 1 - lengths.sum() / (plan.rows * 512) < 0.001


def test_the_plan_follows_its_key_alone(mill):
    corpus = open_corpus(corpus_folder(str(mill), "mill"))
    chosen = np.flatnonzero(~held_out(corpus))
    one, two, other = (corpus_samples(corpus, chosen, 64, seed) for seed in (0, 0, 1))
    two.plan(1)                                                                        # asked for in another order
    for epoch in (0, 1):
        assert one.plan(epoch).document.tolist() == two.plan(epoch).document.tolist()
    assert one.plan(0).document.tolist() != one.plan(1).document.tolist()
    assert one.plan(0).document.tolist() != other.plan(0).document.tolist()
    assert one.plan(0).rows == one.plan(1).rows
    # golden: another machine, NumPy or Python must give the same order
    assert pack(np.array([5, 3, 9, 2, 7]), 8, 42).document.tolist() == GOLDEN


GOLDEN = [0, 1, 2, 3, 4, 2]


def test_a_batch_predicts_each_token_of_each_document_once(mill, tmp_path):
    corpus = open_corpus(corpus_folder(str(mill), "mill"), tmp_path / "cache")
    everything = np.arange(len(corpus.documents))
    samples = corpus_samples(corpus, everything, 100, 3)
    found = {}
    for row in range(samples.rows, 2 * samples.rows):                                 # the second epoch
        batch = samples.batch([row])
        assert samples.n_targets([row]) == (batch.targets != -100).sum()
        for document in set(batch.segments[0].tolist()) - {-1}:
            here = batch.segments[0] == document
            inputs, targets = batch.inputs[0][here], batch.targets[0][here]
            assert (batch.positions[0][here] == np.arange(here.sum())).all()
            assert (inputs[1:] == targets[:-1]).all()                                 # what is predicted is read next
            found.setdefault(document, []).append((inputs[0], targets.tolist()))
    for document in everything:
        flat, starts = tokens(corpus, int(corpus.documents["shard"][document].as_py()))
        row = corpus.documents["row"][document].as_py()
        whole = flat[starts[row]:starts[row + 1]].tolist()
        pieces = sorted(found[document], key=lambda piece: -len(piece[1]))
        assert sorted(token for _, piece in pieces for token in piece) == sorted(whole)
        if len(pieces) == 1:
            assert pieces[0] == (EOT, whole)
    table = packing_table(corpus, everything, samples, 1, 10**9)
    assert sum(table["length"].to_pylist()) == corpus.manifest["tokens"]
    assert table["sample_id"].to_pylist() == sorted(table["sample_id"].to_pylist())
    assert set(table["doc_id"].to_pylist()) == set(corpus.documents["doc_id"].to_pylist())


def test_samples_do_not_depend_on_the_number_of_ranks(mill):
    samples = corpus_samples(open_corpus(corpus_folder(str(mill), "mill")), np.arange(120), 64, 0)
    whole = samples.batch(range(16, 24)).targets
    for world in (1, 2, 4):
        micro = 8 // world // 1
        parts = [samples.batch(range(16 + rank * micro, 16 + (rank + 1) * micro)).targets for rank in range(world)]
        assert (np.concatenate(parts) == whole).all()


def test_masked_targets_are_counted_without_reading():
    texts = [np.arange(1, n + 1) for n in (5, 9, 4)]
    samples = Samples(np.array([5, 9, 4]), lambda i: (texts[i], np.arange(len(texts[i])) >= 2), 0, 12, "x", 0,
                      np.array([3, 7, 2]))
    batch = samples.batch(range(samples.rows))
    assert samples.n_targets(range(samples.rows)) == (batch.targets != -100).sum() == 12


def test_held_out_documents_are_stable_and_few(mill, tmp_path):
    corpus = open_corpus(corpus_folder(str(mill), "mill"))
    held = held_out(corpus, 0.01, 8)
    assert held.sum() == 8
    assert held_out(corpus, 0.0).sum() == 0
    larger = held_out(corpus, 0.25, 8)
    assert (larger[held]).all() and 15 <= larger.sum() <= 45                          # a larger fraction holds the same
    few = open_corpus(str(write_corpus(tmp_path, documents=6)))
    assert held_out(few, 0.01, 8).sum() == 3


def test_the_cache_gives_the_same_tokens(mill, tmp_path):
    folder = corpus_folder(str(mill), "mill")
    plain, cached = open_corpus(folder), open_corpus(folder, tmp_path)
    for _ in range(2):
        for a, b in zip(tokens(plain, 1), tokens(cached, 1), strict=True):
            assert (a == b).all()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npy", ".npy"]


def test_a_missing_or_changed_version_is_named(tmp_path):
    folder = write_corpus(tmp_path, documents=10)
    with pytest.raises(UserError, match="no version 7: it has 1"):
        corpus_folder(str(tmp_path), "mill", 7)
    with pytest.raises(UserError, match="there are mill"):
        corpus_folder(str(tmp_path), "mil")
    verify(open_corpus(str(folder)))
    path = folder / "tokens" / "shard-00001.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
    with pytest.raises(UserError, match="shard-00001.parquet: sha256"):
        verify(open_corpus(str(folder)))
    path.unlink()
    with pytest.raises(UserError, match="not there"):
        verify(open_corpus(str(folder)))
    path.write_bytes(good)
    (folder / "tokenizer" / "ranks.tiktoken").write_bytes(b"")
    with pytest.raises(UserError, match="ranks.tiktoken: sha256"):
        verify(open_corpus(str(folder)))


def test_tokens_outside_the_tokenizer_are_refused(tmp_path):
    folder = write_corpus(tmp_path, documents=10)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"]["n_vocab"] = 200
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="does not match the corpus"):
        tokens(open_corpus(str(folder)), 0)


def test_a_broken_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_corpus(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="not a corpus manifest"):
        open_corpus(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="update Gristmill"):
        open_corpus(str(tmp_path))


def test_shards_are_read_with_their_checksums(tmp_path):
    folder = write_corpus(tmp_path, documents=10)
    assert pq.read_schema(folder / "tokens" / "shard-00000.parquet").names[0] == "doc_id"
    (folder / "tokens" / "shard-00000.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(UserError, match="not a readable token shard"):
        open_corpus(str(folder)).documents  # noqa: B018

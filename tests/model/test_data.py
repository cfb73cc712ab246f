import json
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_corpus import EOT, write_corpus

from model.config import model_config
from model.corpus import corpus_folder, held_out, open_corpus, tokens, verify
from model.data import Samples, blocks_of, corpus_samples, packing
from model.material import pretraining
from model.mixture import PERIOD, Mixture, mixed_samples
from model.packing import n_rows, pack
from model.settings import Optimisation, Pretrain
from model.train import share
from model.transformer import Transformer
from tasks.errors import UserError


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(1, 90), max_size=80), st.integers(2, 40), st.integers(0, 2**64 - 1))
def test_every_token_is_packed_once_and_rows_are_never_overfull(lengths, capacity, key):
    plan = pack(np.array(lengths, dtype=np.int64), capacity, key)
    seen = np.zeros((len(lengths), 90), int)
    for document, offset, length in zip(plan.document, plan.offset, plan.length, strict=True):
        seen[document, offset:offset + length] += 1
    assert all((seen[i, :n] == 1).all() and not seen[i, n:].any() for i, n in enumerate(lengths))
    totals = plan.totals
    assert plan.rows == n_rows(np.array(lengths, dtype=np.int64), capacity)
    assert (totals <= capacity).all() and (totals > 0).all()
    assert plan.rows == 0 or capacity * (plan.rows - 1) < 1.0102 * sum(lengths)       # 1 % of the slots, and a row
    whole = pack(np.array(lengths, dtype=np.int64), capacity, key, whole=True)
    assert whole.rows == n_rows(np.array(lengths, dtype=np.int64), capacity, whole=True) >= plan.rows
    pieces = np.bincount(whole.document, minlength=len(lengths))
    assert all(pieces[i] == -(-n // capacity) for i, n in enumerate(lengths))         # split only where it must be
    assert whole.rows <= 1.25 * -(-sum(lengths) // capacity) + 1                      # 11/9 OPT + 6/9 for BFD
    assert len(plan.document) <= len(whole.document) + plan.rows                      # a cut a row at the most
    if plan.rows == whole.rows:
        assert plan.document.tolist() == whole.document.tolist()                      # what packs well stays whole
    for row in range(plan.rows):
        piece = plan.document[plan.starts[row]:plan.starts[row + 1]]
        assert len(set(piece)) == len(piece)


def test_padding_is_small_on_real_lengths():
    lengths = np.maximum(1, np.random.default_rng(0).lognormal(5, 1.2, 4000).astype(int))
    plan = pack(lengths, 512, 1)
    assert 1 - lengths.sum() / (plan.rows * 512) < 0.001
    assert len(plan.document) == (-(-lengths // 512)).sum()                           # and none was cut for it


def test_documents_of_which_two_do_not_fit_a_row_are_cut():
    """600 tokens in rows of 1024: 41 % of the slots would be empty."""
    plan = pack(np.full(1000, 600), 1024, 3)
    assert 1 - 600_000 / (plan.rows * 1024) < 0.01
    pieces = np.bincount(plan.document)
    assert (pieces == 1).sum() > 550 and pieces.max() <= 3                            # most stay whole


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
WEIGHTS = {"web": 1.0, "books": 3.0}


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """The corpus `mill` in 3 shards of 4 or 5 row groups each."""
    return open_corpus(str(write_corpus(tmp_path_factory.mktemp("grouped"), documents=210, shards=3, group_rows=16)))


def documents_of(batch):
    """(document, first input, targets) of the segments of a batch; inputs and positions are checked."""
    for inputs, targets, positions, segments in zip(batch.inputs, batch.targets, batch.positions, batch.segments,
                                                    strict=True):
        for document in set(segments.tolist()) - {-1}:
            here = segments == document
            assert (np.diff(np.flatnonzero(here)) == 1).all() and (positions[here] == np.arange(here.sum())).all()
            assert (inputs[here][1:] == targets[here][:-1]).all()                     # what is predicted is read next
            yield document, int(inputs[here][0]), targets[here].tolist()
        padding = segments == -1
        assert (inputs[padding] == EOT).all() and (targets[padding] == -100).all()


def inside(piece: list[int], text: list[int]) -> bool:
    return any(text[at:at + len(piece)] == piece for at in range(len(text)))


def whole_documents(corpus) -> list[list[int]]:
    flats = [each for group in range(len(corpus.groups)) for each in tokens(corpus, group, 5)]
    return [flat[begin:end].tolist() for flat, starts in flats
            for begin, end in zip(starts[:-1], starts[1:], strict=True)]


def check_packing(corpus, samples, table, numbers):
    """What packing says of these samples is what was read."""
    whole = whole_documents(corpus)
    names, groups = corpus.documents["doc_id"].to_pylist(), corpus.groups
    for sample in numbers:
        lines, said = table.filter(pc.field("sample_id") == sample).to_pylist(), []
        for line in lines:
            place = groups[groups[:, 0] == line["shard"]][0, 2] + line["row"]
            said += whole[place][line["offset"]:line["offset"] + line["length"]]
            assert names[place] == line["doc_id"]
        targets = samples.batch([sample]).targets[0]
        assert targets[targets != -100].tolist() == said and [line["segment"] for line in lines] == [*range(len(lines))]


def test_documents_begin_with_the_token_that_the_corpus_s_tokenizer_has_for_that(tmp_path):
    """As a corpus of Llama 3's tokenizer, whose manifest says nothing of it."""
    folder = write_corpus(tmp_path, documents=30)
    path = folder / "tokenizer" / "tokenizer.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"n_vocab": 262, "special_tokens": about["special_tokens"] | {
        "<|begin_of_text|>": 261}}))
    corpus, chosen = open_corpus(str(folder)), np.arange(30)
    for samples in (corpus_samples(corpus, chosen, 100, 0), mixed_samples(corpus, chosen, 100, 0, WEIGHTS)):
        begins = {(offset, first) for row in range(samples.rows) for (_, offset, _), (_, first, _) in zip(
            sorted(samples.segments(row)), sorted(documents_of(samples.batch([row]))), strict=True)}
        assert {first for offset, first in begins if not offset} == {261}
        assert {offset for offset, _ in begins} > {0, 100} and 261 not in {first for offset, first in begins if offset}


@pytest.mark.parametrize(("block_tokens", "blocks"), [(1, 15), (9000, 8), (1 << 26, 1)])      # from a row group a block
def test_an_epoch_predicts_each_token_of_each_document_once(grouped, block_tokens, blocks):
    everything = np.arange(len(grouped.documents))
    samples = corpus_samples(grouped, everything, 100, 3, block_tokens)
    assert len(samples.blocks) == blocks
    whole = whole_documents(grouped)
    for epoch in (0, 1, 2):
        found, places = {}, {}
        numbers = range(epoch * samples.rows, (epoch + 1) * samples.rows)
        for piece in zip(*(column.tolist() for column in samples.pieces(numbers.start, numbers.stop)[1:]), strict=True):
            places.setdefault(piece[0], []).append(piece)
        for row in numbers:
            batch = samples.batch([row])
            assert samples.n_targets(range(row, row + 1)) == (batch.targets != -100).sum()
            for document, first, targets in documents_of(batch):
                found.setdefault(document, []).append((first, targets))
        for document, text in enumerate(whole):
            at, cuts = 0, {(tuple(targets), first) for first, targets in found[document]}
            for _, offset, length in sorted(places[document]):                        # they are a chain
                assert offset == at and (tuple(text[at:at + length]), text[at - 1] if at else EOT) in cuts
                at += length
            assert at == len(text) and len(places[document]) == len(found[document])
    table = pa.concat_tables(packing(grouped, samples, 2 * samples.rows, chunk=50))
    assert sum(table["length"].to_pylist()) == 2 * grouped.manifest["tokens"]
    assert table["sample_id"].to_pylist() == sorted(table["sample_id"].to_pylist())
    assert set(table["doc_id"].to_pylist()) == set(grouped.documents["doc_id"].to_pylist())
    check_packing(grouped, samples, table, range(samples.rows - 2, samples.rows + 3))


def test_documents_left_out_are_left_out_of_large_row_groups(tmp_path):
    """Row groups are decoded some hundred documents at a time: those chosen may be anywhere, or nowhere, in a piece."""
    corpus = open_corpus(str(write_corpus(tmp_path, documents=1300, shards=1)))
    whole = whole_documents(corpus)
    for chosen in (np.arange(1, 1300, 7), np.array([3, 511, 512, 1299]), np.arange(600, 700), np.arange(1300)):
        samples = corpus_samples(corpus, chosen, 50, 0)
        seen = {chosen[document] for at in range(0, samples.rows, 50)
                for document, _, targets in documents_of(samples.batch(range(at, min(samples.rows, at + 50))))
                if inside(targets, whole[chosen[document]]) or pytest.fail("not its tokens")}
        assert seen == set(chosen)
    assert corpus_samples(corpus, np.array([], int), 50, 0).rows == 0


def test_the_order_of_samples_is_known_from_any_point(grouped):
    """Exact resume: whoever starts at a sample, in any epoch, gets what a run from the beginning gets there."""
    chosen = np.flatnonzero(~held_out(grouped))
    through = corpus_samples(grouped, chosen, 64, 0, 9000)
    assert len(through.blocks) > 3
    n = 2 * through.rows + 40
    order = [through.batch([sample]).targets.tobytes() for sample in range(n)]
    assert order[:through.rows] != order[through.rows:2 * through.rows]               # an epoch has an order of its own
    for start in range(0, n, 29):
        late = corpus_samples(grouped, chosen, 64, 0, 9000)
        assert late.batch([start]).targets.tobytes() == order[start]
        assert late.batch([max(0, start - 1)]).targets.tobytes() == order[max(0, start - 1)]       # back is allowed
    one, other = corpus_samples(grouped, chosen, 64, 1, 9000), corpus_samples(grouped, chosen, 48, 0, 9000)
    assert one.batch([0]).targets.tobytes() != order[0] and other.batch([0]).targets.shape == (1, 48)


def test_blocks_are_bounded_and_like_the_whole(grouped):
    sizes = np.random.default_rng(0).integers(50, 150, 1000)
    blocks = blocks_of(sizes, 5000, 1)
    totals = np.bincount(blocks, sizes)
    assert len(totals) == -(-sizes.sum() // 5000) and totals.max() < 5000 + 10 * 150
    half = np.bincount(blocks, sizes * (np.arange(1000) < 500))                       # a source that came first
    assert abs(half / totals - half.sum() / totals.sum()).max() < 0.12
    assert (blocks_of(sizes, 5000, 2) != blocks).any()
    # no more than two blocks are held, whatever is read
    samples = corpus_samples(grouped, np.arange(len(grouped.documents)), 64, 0, 1)
    for sample in range(samples.rows):
        samples.batch([sample])
        assert len(samples._reading) <= 2


def test_a_corpus_in_an_object_store_gives_the_same_batches_read_ahead(grouped, monkeypatch):
    monkeypatch.setattr("model.data.READERS", 1)     # a file in fsspec's memory has one position for all who read it
    remote = "memory://bucket/mill/1"
    fs = fsspec.filesystem("memory")
    fs.put(grouped.folder, "/bucket/mill/1", recursive=True)
    try:
        stored = open_corpus(remote)
        verify(stored)
        here, there, gone = (corpus_samples(corpus, np.arange(210), 64, 0, 9000)
                             for corpus in (open_corpus(grouped.folder), stored, stored))
        assert all(samples.load is not None for samples in (here, there))
        batches = [here.batch(range(sample, sample + 8)) for sample in range(0, here.rows, 8)]
        there.batch([0])
        read, wanted = there._reading, [there._block(turn)[1] for turn in (0, 1)]
        assert set(read) == set(wanted) and read[wanted[1]].result() is not None      # the next block is on its way
        for at, batch in enumerate(batches):
            assert (batch.targets == there.batch(range(8 * at, 8 * at + 8)).targets).all()
        for path in fs.ls("/bucket/mill/1/tokens", detail=False):
            fs.rm(path)
        with pytest.raises(UserError, match="memory://bucket/mill/1/tokens/shard-.*not there"):
            gone.batch([0])                                                           # said by the thread that reads
    finally:
        fs.rm("/bucket", recursive=True)


def test_packed_documents_do_not_see_each_other(grouped):
    """Logits in a packed row are those of its documents alone."""
    samples = corpus_samples(grouped, np.arange(210), 128, 0, 9000)
    net = Transformer(model_config("tiny", vocab_size=261, context=128, n_layers=2, width=32, hidden=64)).initialise(0)
    batch = samples.batch(range(6))
    arrays = [torch.from_numpy(a) for a in (batch.inputs, batch.positions, batch.segments)]
    with torch.no_grad():
        packed = net(*arrays)
        n = 0
        for row in range(6):
            for document in set(batch.segments[row].tolist()) - {-1}:
                here = arrays[2][row] == document
                alone = net(arrays[0][row][here][None])
                torch.testing.assert_close(packed[row][here], alone[0], atol=1e-6, rtol=0)
                n += 1
    assert n > 8


def test_a_mixture_has_the_shares_that_were_asked_for(grouped):
    everything = np.arange(210)
    mixture = mixed_samples(grouped, everything, 64, 0, WEIGHTS, 9000)
    books = np.array(grouped.documents["source"].to_pylist()) == "books"
    last = 12_000
    sample, document, _, length = mixture.pieces(0, last)
    assert sample.tolist() == sorted(sample.tolist()) and set(sample.tolist()) == set(range(last))
    of_books = books[mixture.index[document]]
    assert abs(length[of_books].sum() / length.sum() - 0.75) < 0.001
    assert abs(len(np.unique(sample[of_books])) / last - 0.75) < 0.0005
    for at in range(0, last, 400):                      # each stretch, too
        part = np.unique(sample[of_books & (sample >= at) & (sample < at + 400)])
        assert abs(len(part) - 300) <= 2
    # each source by itself: every token once before any comes again
    rows = mixture.parts[1].rows
    seen = np.flatnonzero(of_books)[np.unique(sample[of_books], return_inverse=True)[1] < rows]
    assert length[seen].sum() == grouped.documents["n_tokens"].to_numpy()[books].sum()
    assert mixture.source_epochs(last)["books"] == pytest.approx(len(np.unique(sample[of_books])) / rows, abs=0.01)


def test_shares_are_of_tokens_whatever_the_padding():
    """Documents of 600 tokens that are not cut leave 41 % of rows of 1024 empty, long ones nothing."""
    parts = [Samples(lengths, lambda i: (np.zeros(600, int), None), 0, 1024, "x", 0, whole=True, index=np.arange(300))
             for lengths in (np.full(300, 600), np.full(300, 2048))]
    mixture = Mixture(["short", "long"], parts, [0.5, 0.5])
    _, document, _, length = mixture.pieces(0, PERIOD)
    assert abs(length[document < 300].sum() / length.sum() - 0.5) < 0.001
    assert mixture.filled(range(PERIOD - 9, PERIOD + 9)).sum() == mixture.pieces(PERIOD - 9, PERIOD + 9)[3].sum()
    assert 1 - length.sum() / (PERIOD * 1024) == pytest.approx(mixture.padding, abs=1e-4)
    assert mixture.source_epochs(PERIOD)["short"] == pytest.approx(0.6305 * PERIOD / 300, rel=1e-3)


def test_no_thread_waits_for_the_plan_of_another(monkeypatch):
    """packing.parquet of the whole run is planned in a thread while the training reads."""
    samples = Samples(np.full(9, 5), None, 0, 12, "x", 0)
    samples.plan(0)
    begun, go_on = Event(), Event()

    def slow(*of):
        begun.set()
        assert go_on.wait(60)
        return pack(*of)

    monkeypatch.setattr("model.data.pack", slow)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(samples.plan, 1)
        assert begun.wait(60) and samples.filled(range(samples.rows)).sum() == 45 and not other.done()
        go_on.set()
        assert other.result() is samples.plan(1)


def test_a_mixture_gives_the_samples_it_says(grouped):
    chosen = np.flatnonzero(~held_out(grouped, 0.3))
    mixture = mixed_samples(grouped, chosen, 64, 0, WEIGHTS, 9000)
    whole, index = whole_documents(grouped), mixture.index
    batch = mixture.batch([*range(65_530, 65_546), -1])                               # over the end of a period
    for document, _, targets in documents_of(batch):
        assert inside(targets, whole[index[document]])
    assert mixture.n_targets(range(65_530, 65_546)) == (batch.targets != -100).sum()
    assert mixture.segments(65_540) == list(zip(*(c.tolist() for c in mixture.pieces(65_540, 65_541)[1:]), strict=True))
    again = mixed_samples(grouped, chosen, 64, 0, WEIGHTS, 9000).batch([65_540])
    assert (again.targets[0] == batch.targets[10]).all()
    assert isinstance(mixed_samples(grouped, np.arange(210), 64, 0, {}), Samples)
    table = pa.concat_tables(packing(grouped, mixture, 50))
    assert set(table["sample_id"].to_pylist()) == set(range(50)) and any(table["offset"].to_pylist())
    check_packing(grouped, mixture, table, range(50))
    plain = mixed_samples(grouped, chosen, 64, 0, {})
    check_packing(grouped, plain, pa.concat_tables(packing(grouped, plain, 20)), range(20))


@pytest.mark.parametrize(("weights", "says"), [
    ({"web": 1, "boks": 1}, "setting mixture.boks: .* 0 tokens of that source .* its sources are books, web"),
    ({"web": 1, "books": 0}, "setting mixture.books: 0 of 1 is too small a share"),
    ({"web": 1, "books": 1e-6}, "setting mixture.books: .* too small"),
])
def test_mixtures_that_cannot_be_are_refused(grouped, weights, says):
    with pytest.raises(UserError, match=says):
        mixed_samples(grouped, np.arange(210), 64, 0, weights)


def test_samples_do_not_depend_on_the_number_of_ranks(mill):
    samples = corpus_samples(open_corpus(corpus_folder(str(mill), "mill")), np.arange(120), 64, 0)
    whole = samples.batch(range(16, 24)).targets
    for world in (1, 2, 4):
        for micro_batch in (1, 2):
            told = Optimisation(batch=8, micro_batch=micro_batch)
            parts = [samples.batch(share(told, rank, world, 3, micro)).targets
                     for micro in range(8 // micro_batch // world) for rank in range(world)]
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


def test_the_held_out_documents_of_the_loop_are_of_every_source(tmp_path):
    """A corpus lies by source and crawl: what an evaluation reads must not be what arrived first."""
    folder = write_corpus(tmp_path, documents=300)
    for shard, source in enumerate(("books", "web")):
        path = folder / f"tokens/shard-{shard:05d}.parquet"
        table = pq.read_table(path)
        table = table.set_column(1, "source", pa.array([source] * len(table)))
        table = table.set_column(3, "language", pa.array([None if shard else "en"] * len(table), pa.string()))
        pq.write_table(table, path, write_page_checksum=True)
    corpus = open_corpus(str(folder))
    config = {"corpus": {"folder": str(folder), "manifest_sha256": corpus.digest}}
    given, shape = {"held_out": 0.5, "evaluate_rows": 99, "mixture": {"web": 1}}, model_config("tiny", vocab_size=261)
    material = pretraining(config, Pretrain(**given), shape, 64)
    assert {name: which.sum() > 1 for name, which in material.groups.items()} == {"books": True, "web": True}
    assert material.held_out.lengths.sum() <= 99 * 64 < material.held_out.lengths.sum() + 700
    assert material.held_out.segments(0) and material.held_out.whole
    by_language = pretraining(config, Pretrain(**given, evaluate_by="language"), shape, 64)
    assert sorted(by_language.groups) == ["en", "unknown"]
    assert (by_language.held_out.index == material.held_out.index).all()


def test_a_missing_or_changed_version_is_named(tmp_path):
    folder = write_corpus(tmp_path, documents=10)
    with pytest.raises(UserError, match="no version 7: it has 1"):
        corpus_folder(str(tmp_path), "mill", 7)
    with pytest.raises(UserError, match="there are mill"):
        corpus_folder(str(tmp_path), "mil")
    known = tmp_path / "cache" / "verified.json"
    for _ in range(2):
        verify(open_corpus(str(folder)), known)
    path = folder / "tokens" / "shard-00001.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
    with pytest.raises(UserError, match="shard-00001.parquet: sha256"):
        verify(open_corpus(str(folder)))
    remembered = json.loads(known.read_text())[str(path)]
    os.utime(path, ns=(0, 0))
    with pytest.raises(UserError, match="shard-00001.parquet: sha256"):     # found by its time, or by its size
        verify(open_corpus(str(folder)), known)
    os.utime(path, ns=(remembered[2], remembered[2]))
    verify(open_corpus(str(folder)), known)             # not read again: else it would be found out
    path.write_bytes(good + b" ")
    os.utime(path, ns=(remembered[2], remembered[2]))
    with pytest.raises(UserError, match="shard-00001.parquet: sha256"):
        verify(open_corpus(str(folder)), known)
    path.unlink()
    with pytest.raises(UserError, match="not there"):
        verify(open_corpus(str(folder)), known)
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
        list(tokens(open_corpus(str(folder)), 0))


def test_a_document_of_another_length_than_it_says_is_refused(tmp_path):
    folder = write_corpus(tmp_path, documents=10)
    table = pq.read_table(folder / "tokens" / "shard-00001.parquet")
    wrong = pc.add(table["n_tokens"], pa.scalar(1, pa.int32()))
    table = table.set_column(table.column_names.index("n_tokens"), "n_tokens", wrong)
    pq.write_table(table, folder / "tokens" / "shard-00001.parquet", write_page_checksum=True)
    with pytest.raises(UserError, match="shard-00001.parquet: n_tokens is not the length"):
        corpus_samples(open_corpus(str(folder)), np.arange(10), 64, 0).batch([0])


def test_a_broken_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_corpus(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="not a corpus manifest"):
        open_corpus(str(tmp_path))
    about = {"format": 1, "name": "m", "version": 1, "shards": [], "tokenizer": {"n_vocab": 1}, "dtype": "uint16"}
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="has no token shards: build it with input that survives"):
        open_corpus(str(tmp_path)).documents  # noqa: B018
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="update Gristmill"):
        open_corpus(str(tmp_path))


def test_shards_are_read_with_their_checksums(tmp_path):
    folder = write_corpus(tmp_path, documents=10)
    assert pq.read_schema(folder / "tokens" / "shard-00000.parquet").names[0] == "doc_id"
    (folder / "tokens" / "shard-00000.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(UserError, match="not a readable token shard"):
        open_corpus(str(folder)).documents  # noqa: B018

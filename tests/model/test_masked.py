"""Masked-language modelling: what is hidden, how much of it, and that an encoder learns from it."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_corpus import EOT

from model.config import model_config
from model.corpus import corpus_folder, held_out, open_corpus
from model.data import Samples, corpus_samples
from model.generate import load_run
from model.masked import Masked, word_joins
from model.settings import Pretrain, parse
from model.tokenizer import Tokenizer, load_tokenizer
from model.train import train
from tasks import tokenizer as tokenizers
from tasks.errors import UserError

VOCAB, MASK = 261, 261


def plain(lengths: list[int], length: int = 32, seed: int = 0, low: int = 0) -> Samples:
    """Documents of random bytes, each ended by end-of-text."""
    texts = [np.append(np.random.default_rng(i).integers(low, 256, n - 1), EOT) for i, n in enumerate(lengths)]
    return Samples(np.array(lengths), lambda i: (texts[i], None), EOT, length, "x", seed)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=30), st.sampled_from([0.05, 0.15, 0.6]), st.booleans(),
       st.integers(0, 9))
def test_targets_are_as_many_as_was_said_and_are_what_was_there(lengths, fraction, words, seed):
    samples = plain(lengths, seed=seed)
    joins = np.random.default_rng(seed).random((VOCAB, 2)) < 0.8 if words else None
    masked = Masked(samples, MASK, VOCAB, fraction, joins)
    numbers = range(samples.rows, 2 * samples.rows)
    before, after = samples.batch(numbers), masked.batch(numbers)
    chosen = after.targets != -100
    assert chosen.sum() == masked.n_targets(numbers)
    real = before.segments >= 0
    assert (after.targets[chosen] == before.targets[chosen]).all() and not chosen[~real].any()
    assert (after.inputs[real & ~chosen] == before.targets[real & ~chosen]).all()
    assert (after.positions == before.positions).all() and (after.segments == before.segments).all()
    for row in range(len(chosen)):
        n = real[row].sum()
        assert chosen[row].sum() == max(1, round(fraction * n))
        if (before.targets[row, :n] != EOT).sum() >= chosen[row].sum() and not words:
            assert not (after.targets[row] == EOT).any()


def test_eight_of_ten_are_hidden_one_is_another_and_one_stays():
    samples = plain([400] * 200, 400)
    masked = Masked(samples, MASK, VOCAB)
    batch = masked.batch(range(samples.rows))
    chosen = batch.targets != -100
    assert chosen.mean() == pytest.approx(0.15, abs=1e-9)
    hidden, same = (batch.inputs == MASK)[chosen].mean(), (batch.inputs == batch.targets)[chosen].mean()
    assert hidden == pytest.approx(0.8, abs=0.015) and same == pytest.approx(0.1, abs=0.015)
    assert np.bincount(np.flatnonzero(chosen) % 400, minlength=400)[:399].min() > 0         # every place has its turn


def test_the_same_sample_is_masked_alike_and_the_next_epoch_otherwise():
    one, two, other = (Masked(plain([40] * 20, seed=seed), MASK, VOCAB) for seed in (0, 0, 1))
    rows = one.rows
    whole = one.batch(range(rows))
    parts = [two.batch([sample]) for sample in reversed(range(rows))][::-1]
    assert (whole.inputs == np.concatenate([part.inputs for part in parts])).all()
    assert (whole.targets != one.batch(range(rows, 2 * rows)).targets).any()
    assert (whole.targets != other.batch(range(rows)).targets).any()
    # golden: another machine, NumPy or Python must mask the same
    assert np.flatnonzero(whole.targets[0] != -100).tolist() == GOLDEN
    assert (one.batch([-1]).targets == -100).all()


GOLDEN = [0, 1, 13, 17, 25]


def test_words_are_masked_whole():
    encoding = tokenizers.train(["the miller's sacks, grown heavier; 中文字 ü"], 261)
    tokenizer = Tokenizer("bytes", encoding, encoding.eot_token, {}, encoding.n_vocab, "")
    joins = word_joins(tokenizer)
    text = np.append(tokenizer.encode("the miller's sacks, grown heavier; 中文字 üb ...") * 6, encoding.eot_token)
    samples = Samples(np.array([len(text)] * 40), lambda i: (text, None), encoding.eot_token, len(text), "x", 0)
    masked = Masked(samples, MASK, VOCAB, 0.3, joins)
    batch = masked.batch(range(40))
    words = [word for piece in "the| |miller|'|s| |sacks|,| |grown| |heavier|;| |中|文|字| |üb| |.|.|.".split("|")
             for word in [piece.encode()]] * 6
    broken = 0
    for row in range(40):
        at = 0
        for word in words:
            share = (batch.targets[row, at:at + len(word)] != -100).mean()
            broken += 0 < share < 1
            at += len(word)
    assert broken <= 40                                 # in a row one at most, to make the number
    assert (batch.targets != -100).sum() == masked.n_targets(range(40))


def train_encoder(home: Path, folder: Path, shape: dict | None = None, **given) -> list[float]:
    """The losses of 30 steps in this process."""
    corpus = open_corpus(corpus_folder(str(home), "mill"))
    shape = {"context": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "width": 16, "hidden": 32, "vocab_size": 320,
             **(shape or {})}
    chosen = {"steps": 30, "learning_rate": 1e-2, "whole_words": True, "checkpoint_every": 15, "batch": 4,
              "micro_batch": 2, "engine": "torch", **given}
    folder.mkdir(exist_ok=True)
    config = {"kind": "pretrain", "run": folder.name, "folder": str(folder), "settings": chosen,
              "corpus": {"folder": corpus.folder, "manifest_sha256": corpus.digest},
              "model": dataclasses.asdict(model_config("bert-tiny", **shape))}
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        train(config, parse(Pretrain, chosen))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_encoder_learns_and_goes_on_to_the_digit(mill, tmp_path):
    folder, whole = tmp_path / "bert", tmp_path / "whole"
    losses = train_encoder(mill, whole)
    summary = json.loads((whole / "summary.json").read_text())
    assert losses[-1] < losses[0] - 1 and summary["held_out_loss"] < 5 and summary["bits_per_byte"] is None
    train_encoder(mill, folder)
    for path in (folder / "summary.json", folder / "checkpoints" / "step-00000030"):
        path.rename(path.with_name("." + path.name))
    assert train_encoder(mill, folder) == losses        # from step 15 on
    corpus = open_corpus(corpus_folder(str(mill), "mill"))
    samples = corpus_samples(corpus, np.flatnonzero(~held_out(corpus, 0.01, 8)), 32, 0)
    assert summary["tokens"] == samples.n_targets(range(30 * 4))        # all that it read, predicted or not
    with pytest.raises(UserError, match="is an encoder, which fills in masked tokens"):
        load_run(folder)
    model, tokenizer, _ = load_run(folder, encoders=True)
    assert not model.config.causal and tokenizer.digest == load_tokenizer(f"{corpus.folder}/tokenizer").digest


def test_an_embedding_without_room_for_the_mask_token_is_refused(mill, tmp_path):
    with pytest.raises(UserError, match="set model.vocab_size to 262 or more"):
        train_encoder(mill, tmp_path / "run", {"vocab_size": 261})


def test_flex_attention_without_a_gpu_is_refused(mill, tmp_path):
    with pytest.raises(UserError, match="FlexAttention has no gradients on CPUs"):
        train_encoder(mill, tmp_path / "run", attention="flex", device="cpu")

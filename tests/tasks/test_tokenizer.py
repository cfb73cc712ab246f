"""The tokenizer's files, its training, and text that breaks tokenizers."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks import tokenizer
from tasks.errors import UserError
from tasks.tokenizer import (
    DESCRIPTION,
    EOT,
    MAX_RUN,
    RANKS,
    SPECIALS,
    encode,
    load,
    named,
    pieces,
    save,
    to_files,
    train,
)

TEXTS = [f"The mill number {i} grinds the grain of {i * 7 % 13} farmers; they're paid in flour, bran & Grüße.\n"
         for i in range(60)]
TINY = train(TEXTS, 340)


def test_specials_come_last_and_eot_ends_text():
    assert TINY.n_vocab == 340 and [TINY._special_tokens[s] for s in SPECIALS] == [335, 336, 337, 338, 339]
    assert TINY.eot_token == 335 and TINY.decode([335]) == EOT
    assert sum(len(encode(TINY, t)) for t in TEXTS) < 0.5 * sum(len(t.encode()) for t in TEXTS)


def test_files_read_back_as_the_same_tokenizer(tmp_path):
    digests = save(TINY, tmp_path / "tok")
    again = load(tmp_path / "tok")
    assert again.name == "trained" and again._mergeable_ranks == TINY._mergeable_ranks
    assert again._special_tokens == TINY._special_tokens and again._pat_str == TINY._pat_str
    assert to_files(again) == to_files(TINY)
    assert digests == {n: hashlib.sha256(d).hexdigest() for n, d in to_files(TINY).items()}
    about = json.loads((tmp_path / "tok" / DESCRIPTION).read_text())
    assert about["n_vocab"] == 340 and about["eot"] == 335 and about["encoding"] is None and about["kind"] == "tiktoken"


def test_the_model_reads_the_same_files(tmp_path):
    from model.tokenizer import load_tokenizer

    save(TINY, tmp_path)
    theirs = load_tokenizer(str(tmp_path))
    assert theirs.n_vocab == 340 and theirs.eot == 335 and theirs.encode(TEXTS[3]) == encode(TINY, TEXTS[3])


@settings(max_examples=200, deadline=None)
@given(st.text() | st.lists(st.sampled_from(["the ", " ", "\n", "mill", "<|endoftext|>", "é", "𝕏", "中文", "1234567",
                                             "'s", "\r\n\t", "\x00", "\u2028", "\x1c"])).map("".join))
@example("<|endoftext|><|user|>")
def test_decoding_gives_the_text_and_specials_in_text_are_text(text):
    tokens = encode(TINY, text)
    assert TINY.decode_bytes(tokens) == text.encode() and all(t < 335 for t in tokens)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab \n\x1c中"), st.integers(1, 30)), max_size=12))
def test_no_long_run_is_left_in_a_piece(runs):
    import re

    text = "".join(c * n for c, n in runs)
    old = tokenizer.MAX_RUN, tokenizer._LONG_RUN
    tokenizer.MAX_RUN, tokenizer._LONG_RUN = 10, re.compile(r"(?<!\S)\S{11}|(?<!\s)\s{11}")
    try:
        parts = list(pieces(text))
    finally:
        tokenizer.MAX_RUN, tokenizer._LONG_RUN = old
    assert "".join(parts) == text
    assert all(len(run) <= 10 for part in parts for run in re.findall(r"\S+|\s+", part))
    if all(len(run) <= 10 for run in re.findall(r"\S+|\s+", text)):
        assert parts == [text]


@pytest.mark.parametrize("text", ["a" * 300_000, " " * 1_200_000 + "x", "\n" * 300_000, "中" * 200_000, "." * 300_000,
                                  "7" * 300_000, "ab" * MAX_RUN + " " + "\t " * MAX_RUN + "end"])
def test_endless_runs_neither_panic_nor_lose_a_byte(text):
    """tiktoken alone panics at 1,200,000 blanks: the regular expression's stack overflows."""
    assert TINY.decode(encode(TINY, text)) == text


def test_training_survives_endless_runs():
    assert train([" " * 1_200_000 + "x", *TEXTS], 300).n_vocab == 300


def test_training_depends_on_the_texts_alone():
    """rustbpe counts in parallel and in hash tables: neither must show, nor the order of the texts."""
    code = (f"import hashlib; from tasks.tokenizer import train, to_files; texts = {TEXTS!r}; "
            "import os; texts = texts[::-1] if os.environ['REVERSE'] else texts; "
            "print(hashlib.sha256(b''.join(to_files(train(texts, 320)).values())).hexdigest())")
    digests = set()
    for seed, threads, reverse in (("0", "1", ""), ("1", "4", "1")):
        env = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "REVERSE": reverse}
        digests.add(subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True,
                                   text=True).stdout)
    assert len(digests) == 1
    assert digests == {hashlib.sha256(b"".join(to_files(train(TEXTS, 320)).values())).hexdigest() + "\n"}


def test_a_small_text_gives_a_small_vocabulary():
    encoding = train(["ab ab"], 5000)
    assert 256 + 5 < encoding.n_vocab < 270 and encoding.eot_token == encoding.n_vocab - 5
    assert train([], 300).n_vocab == 261
    with pytest.raises(UserError, match="tokenize.vocab_size is 260"):
        train(TEXTS, 260)


def test_unknown_and_unreachable_encodings(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="the nearest is 'cl100k_base'"):
        named("cl100k")
    import tiktoken.load

    def offline(path):
        raise OSError("no network")

    monkeypatch.setattr(tiktoken.load, "read_file", offline)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    with pytest.raises(UserError, match="TIKTOKEN_CACHE_DIR"):
        named("p50k_base")


def test_named_encodings_get_the_chat_tokens_they_lack(monkeypatch):
    plain = tokenizer.tiktoken.Encoding("gpt2", pat_str=TINY._pat_str, mergeable_ranks=TINY._mergeable_ranks,
                                        special_tokens={EOT: 335})
    monkeypatch.setattr(tokenizer.tiktoken, "get_encoding", lambda name: plain)
    encoding = named("gpt2")
    assert encoding._special_tokens == {s: 335 + i for i, s in enumerate(SPECIALS)}
    assert json.loads(to_files(encoding)[DESCRIPTION])["encoding"] == "gpt2"


def test_broken_folders_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="cannot be read: a tokenizer is a folder with"):
        load(tmp_path)
    save(TINY, tmp_path)
    whole = (tmp_path / RANKS).read_bytes()
    for broken in (whole[:-5], whole.replace(b" 7\n", b" x\n"), b"".join(whole.splitlines(True)[1:]), b"\xff"):
        (tmp_path / RANKS).write_bytes(broken)
        with pytest.raises(UserError, match="does not hold a tokenizer"):
            load(tmp_path)
    (tmp_path / RANKS).write_bytes(whole)
    (tmp_path / DESCRIPTION).write_text("{}")
    with pytest.raises(UserError, match="does not hold a tokenizer"):
        load(tmp_path)

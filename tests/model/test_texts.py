"""Bits per byte of plain text and minimal pairs, on models whose answers are known."""

import gzip
import json
import math

import numpy as np
import pytest
import torch
from published_corpus import write_tokenizer

from model.config import ModelConfig, model_config
from model.settings import Evaluate
from model.texts import bits_per_byte, minimal_pairs, read_texts, text_nats
from model.tokenizer import load_tokenizer
from model.transformer import Transformer
from tasks.errors import UserError

SHAPE = {"vocab_size": 320, "context": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(str(folder))


class Uniform(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config, self.weight = model_config("tiny", **SHAPE), torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, positions=None, segments=None, wanted=None):
        logits = torch.full((*tokens.shape, 320), -1e9)
        logits[..., :256] = 0
        return logits if wanted is None else logits[wanted]


def rows_file(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(path)


def test_uniform_bytes_have_eight_bits(tokenizer, tmp_path):
    path = rows_file(tmp_path / "clean.jsonl.gz", [{"text": "a river runs " * 9, "source": "one"},
                                                   {"text": "über the mill", "source": "two"}])
    rows = bits_per_byte(Uniform(), tokenizer, path, Evaluate())
    assert [row["domain"] for row in rows[::2]] == ["all", "source=one", "source=two"]
    assert [row["metric"] for row in rows] == ["bits_per_byte", "perplexity"] * 3
    assert all(row["task"] == "clean" for row in rows)
    assert all(row["value"] == pytest.approx(256) for row in rows if row["metric"] == "perplexity")
    tokens = [len(tokenizer.encode(text)) for text in ("a river runs " * 9, "über the mill")]
    assert rows[0]["value"] == pytest.approx(8 * sum(tokens) / rows[0]["bytes"])
    assert rows[0]["bytes"] == 117 + 14 and rows[0]["documents"] == 2


def test_a_text_is_read_in_windows_of_the_context(tokenizer):
    """As lm-evaluation-harness cuts them: side by side, and the last one as far to the left as it goes."""
    model = Transformer(ModelConfig(**SHAPE)).initialise(0).eval()
    text = "the wheel of the mill turns in the river all day long"
    tokens = [tokenizer.eot, *tokenizer.encode(text)]
    n = len(tokens) - 1
    assert n == 53
    by_hand = 0.0
    for begin, first, end in ((0, 0, 16), (16, 16, 32), (32, 32, 48), (n - 16, 48, n)):
        with torch.no_grad():
            logs = model(torch.tensor([tokens[begin:end]])).log_softmax(-1)[0]
        by_hand -= sum(float(logs[i - begin, tokens[i + 1]]) for i in range(first, end))
    together = text_nats(model, tokenizer, ["x", text, ""], 2)
    assert together[1] == pytest.approx(by_hand, rel=1e-5) and together[2] == 0


def test_texts_are_told_apart_by_any_field(tokenizer, tmp_path):
    path = rows_file(tmp_path / "clean.jsonl", [{"text": "abc", "topic": "law"}, {"text": "defg", "topic": "art"},
                                                {"text": "h", "topic": 7}, {"text": "ij"}])
    rows = bits_per_byte(Uniform(), tokenizer, path, Evaluate(by=["topic"]))
    assert {row["domain"]: row["bytes"] for row in rows} == {"all": 10, "topic=7": 1, "topic=art": 4, "topic=law": 3}
    largest = bits_per_byte(Uniform(), tokenizer, path, Evaluate(by=["topic"], largest=1))
    assert {row["domain"] for row in largest} == {"all", "topic=art"}
    with pytest.raises(UserError, match="setting by: no row of .* has a field 'subject'; they have source, topic"):
        bits_per_byte(Uniform(), tokenizer, path, Evaluate(by=["subject"]))


def test_pairs_count_by_paradigm(tokenizer, tmp_path):
    """Every byte costs a uniform model the same, so the shorter sentence is the likelier one."""
    short, long = "a b", "a b c d"
    rows = [{"good": short, "bad": long, "uid": "x", "field": "f"}] * 6 \
        + [{"good": long, "bad": short, "uid": "y", "field": "g"}] * 2
    path = rows_file(tmp_path / "blimp.jsonl.gz", rows)
    found = {row["domain"]: row for row in minimal_pairs(Uniform(), tokenizer, path, Evaluate())}
    assert found["all"]["value"] == 0.5 and found["all"]["questions"] == 8
    assert found["field=f"]["value"] == 1 and found["field=g"]["value"] == 0
    assert minimal_pairs(Uniform(), tokenizer, path, Evaluate(limit=1))[0]["questions"] == 2
    tie = rows_file(tmp_path / "tie.jsonl.gz", [{"good": "ab", "bad": "ba"}])
    assert minimal_pairs(Uniform(), tokenizer, tie, Evaluate())[0]["value"] == 0        # a tie is not right


def test_files_of_text(tmp_path):
    (tmp_path / "book.txt").write_text("once upon a time")
    assert read_texts(str(tmp_path / "book.txt")) == [{"text": "once upon a time", "source": "book"}]
    zipped = tmp_path / "book.txt.gz"
    zipped.write_bytes(gzip.compress(b"once"))
    assert read_texts(str(zipped)) == [{"text": "once", "source": "book"}]
    with pytest.raises(UserError, match="absent.txt: no such file"):
        read_texts(str(tmp_path / "absent.txt"))
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="UTF-8"):
        read_texts(str(tmp_path / "bad.txt"))
    with pytest.raises(UserError, match="line 2: text is not a text"):
        read_texts(rows_file(tmp_path / "odd.jsonl", [{"text": "a"}, {"text": 5}]))
    with pytest.raises(UserError, match="line 1: good is not a text"):
        minimal_pairs(Uniform(), None, rows_file(tmp_path / "pairs.jsonl", [{"good": 1, "bad": "b"}]), Evaluate())
    with pytest.raises(UserError, match="no text in it"):
        bits_per_byte(Uniform(), None, rows_file(tmp_path / "none.jsonl.gz", [{"text": ""}]), Evaluate())


def test_scores_do_not_depend_on_the_batch(tokenizer):
    model = Transformer(ModelConfig(**SHAPE)).initialise(1).eval()
    texts = ["the river", "a mill by the river", "grain " * 20, "wheel"]
    one, many = text_nats(model, tokenizer, texts, 1), text_nats(model, tokenizer, texts, 64)
    assert one == pytest.approx(many, rel=1e-5) and (one > 0).all() and math.isfinite(np.sum(one))

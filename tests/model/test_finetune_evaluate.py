import dataclasses
import gzip
import json
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from published_corpus import EOT, SPECIAL, write_corpus, write_tokenizer

from model import checkpoint, in_loop
from model.choices import benchmark, multiple_choice, shown
from model.choices import choices as read_choices
from model.config import ModelConfig, model_config
from model.corpus import corpus_folder, open_corpus
from model.evaluate import evaluate, held_out_rows
from model.finetune import conversation, instructions
from model.likelihood import continuation_rows, continuation_scores, target_nats
from model.rows import instruction_rows
from model.settings import Evaluate, Finetune
from model.tokenizer import Tokenizer, load_tokenizer
from model.transformer import Transformer
from tasks import launch
from tasks.errors import UserError

SHAPE = {"vocab_size": 320, "context": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
ROWS = [{"instruction": "say " + word, "input": "", "output": word} for word in ("mill", "river", "grain", "wheel")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(str(folder))


class Uniform(torch.nn.Module):
    """Gives each of `n` tokens the same probability."""

    def __init__(self, n: int):
        super().__init__()
        self.n, self.config = n, model_config("tiny", **SHAPE)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, positions=None, segments=None, wanted=None):
        logits = torch.full((*tokens.shape, 320), -1e9)
        logits[..., :self.n] = 0
        return logits if wanted is None else logits[wanted]


def test_bits_per_byte_of_uniform_bytes_is_eight(mill):
    corpus = open_corpus(corpus_folder(str(mill), "mill"))
    rows = held_out_rows(Uniform(256), corpus, {"held_out": 0.2}, Evaluate())
    assert {row["domain"] for row in rows} >= {"all", "source=web", "source=books", "language=en"}
    for row in rows:
        assert row["value"] == pytest.approx({"bits_per_byte": 8.0, "perplexity": 256.0}[row["metric"]], rel=1e-6)
    parts = [row for row in rows if row["domain"].startswith("source=") and row["metric"] == "perplexity"]
    assert sum(row["documents"] for row in parts) == rows[0]["documents"]


@pytest.mark.parametrize(("logits", "shape"), [(1 << 28, (16, 64)), (320 * 64 * 3 + 5, (3, 64)), (320 * 40, (1, 40))])
def test_held_out_rows_are_read_with_as_many_logits_at_once_as_there_is_room_for(mill, monkeypatch, logits, shape):
    corpus, model, seen = open_corpus(corpus_folder(str(mill), "mill")), Uniform(256), set()
    monkeypatch.setattr("model.likelihood.LOGITS", logits)
    model.register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape)))
    rows = held_out_rows(model, corpus, {"held_out": 0.2}, Evaluate())
    assert seen == {shape} and rows[0]["value"] == pytest.approx(8.0, rel=1e-6)


def test_a_continuation_is_scored_by_its_own_tokens(tokenizer):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SHAPE)).initialise(0).eval()
    scores = continuation_scores(model, tokenizer, [("ab", " cd"), ("a" * 100, " xyz"), ("", "q")], 2)
    assert np.isfinite(scores).all() and (scores < 0).all()
    ids = torch.tensor([[EOT, *tokenizer.encode("ab cd")]])
    with torch.no_grad():
        logs = model(ids[:, :-1]).log_softmax(-1)[0]
    assert scores[0] == pytest.approx(float(sum(logs[i, ids[0, i + 1]] for i in range(2, 5))), abs=1e-4)
    assert continuation_scores(Uniform(256), tokenizer, [("x", " yz")], 1)[0] == pytest.approx(-3 * math.log(256))


def test_blanks_between_belong_to_the_continuation(tokenizer):
    assert continuation_rows(tokenizer, [("ab ", "cd"), ("ab", " cd")], 64) == [([EOT, *b"ab cd"], 3)] * 2
    assert continuation_rows(tokenizer, [("abcdef", "gh")], 4) == [([*b"defgh"], 2)]


def test_what_is_likeliest_is_told(tokenizer):
    model = Transformer(ModelConfig(**SHAPE)).initialise(0).eval()
    text = [EOT, *tokenizer.encode("ab")]
    with torch.no_grad():
        for _ in range(3):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    rows = [(text, 3), ([*text[:-1], (text[-1] + 1) % 320], 3), ([EOT], 0)]
    nats, greedy = target_nats(model, rows, 2)
    assert greedy.tolist() == [True, False, True] and nats[1] > nats[0] > nats[2] == 0


def test_ranks_share_what_is_scored_and_take_as_many_passes(tokenizer, monkeypatch):
    model, passes = Transformer(ModelConfig(**SHAPE)).initialise(0).eval(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    rows = continuation_rows(tokenizer, [("the mill", " turns" * n) for n in range(1, 10)], 64) + [([EOT], 0)]
    alone = target_nats(model, rows, 2)
    assert len(passes) == 5
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    shares, calls = [], []
    monkeypatch.setattr(dist, "all_reduce", lambda sums: shares.append(sums))
    for rank in (0, 1):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        calls.append(len(passes))
        target_nats(model, rows, 2)
    assert np.diff([*calls, len(passes)]).tolist() == [3, 3]
    assert (shares[0] + shares[1])[0].tolist() == pytest.approx(alone[0].tolist(), abs=1e-12)
    assert (shares[0] * shares[1]).sum() == 0 and alone[1][-1]


def test_choices_are_scored_in_all_and_by_their_length(tokenizer):
    """Uniform over bytes: the shortest choice is the likeliest; by character the one with the fewest bytes each."""
    rows = [{"query": "q", "choices": ["éé", "abc"], "gold": 1}, {"query": "q", "choices": ["longer", "é"], "gold": 1}]
    scores = {metric: value for metric, value, _ in multiple_choice(Uniform(256), tokenizer, rows, 0, Evaluate())}
    # acc: 5 against 4 bytes with the blank, 7 against 3; by character 5/2 against 4/3, 7/6 against 3/1; by byte 5/4
    # against 4/3, 7/6 against 3/2
    assert scores == {"acc": 1.0, "acc_norm": 0.5, "acc_bytes": 0.0}
    assert [count for _, _, count in multiple_choice(Uniform(256), tokenizer, rows, 1, Evaluate(limit=1))] == [1] * 3


def test_worked_examples_come_from_the_training_part(tokenizer, monkeypatch):
    rows = [{"query": f"q{i}", "choices": ["a", "b"], "gold": i % 2} for i in range(9)]
    train = [{"query": f"t{i}", "choices": ["a", "b"], "gold": 1} for i in range(5)]
    for number in range(9):
        own, other = (shown(rows, number, 4, Evaluate(seed=2), examples) for examples in (None, train))
        assert len({row["query"] for row in own}) == 4 and rows[number] not in own
        assert own == shown(rows, number, 4, Evaluate(seed=2)) and all(row in train for row in other)
    assert len({tuple(row["query"] for row in shown(rows, 0, 4, Evaluate(seed=seed))) for seed in range(9)}) > 5
    assert shown(rows, 1, 2, Evaluate(examples_by="first")) == [rows[0], rows[2]]
    assert shown(rows, 1, 2, Evaluate(examples_by="first"), train) == train[:2]
    with pytest.raises(UserError, match="few_shot: 6 worked examples, and there are 5"):
        shown(rows, 0, 6, Evaluate(), train)
    with pytest.raises(UserError, match="there are 8"):
        shown(rows, 0, 9, Evaluate())
    asked = []
    monkeypatch.setattr("model.choices.continuation_scores", lambda model, tokenizer, pairs, batch: asked.extend(
        pairs) or np.zeros(len(pairs)))
    list(multiple_choice(None, tokenizer, rows[:1], 2, Evaluate(examples_by="first"), train))
    assert asked[1] == ("t0 b\n\nt1 b\n\nq0", " b")


def test_a_benchmark_of_a_file_with_its_training_part(tokenizer, tmp_path):
    row = {"query": "q", "choices": ["long answer", "no"], "gold": 1}
    for name, rows in (("bench.jsonl", [row, {**row, "gold": 0}]), ("train.jsonl", [row] * 3)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Evaluate(few_shot=[0, 2], examples={"bench": str(tmp_path / "train.jsonl")})
    found = benchmark(Uniform(256), tokenizer, str(tmp_path / "bench.jsonl"), settings)
    assert {(row["domain"], row["metric"]): row["value"] for row in found}["2-shot", "acc"] == 0.5
    assert len(found) == 6 and found[0]["stderr"] == pytest.approx(0.5) and found[0]["chance"] == 0.5
    with pytest.raises(UserError, match="examples.other: no benchmark is called so; there are bench"):
        evaluate({"run_folder": str(tmp_path), "settings": {"benchmarks": [str(tmp_path / "bench.jsonl")],
                                                            "examples": {"other": "x"}}})
    (tmp_path / "other.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}))
    with pytest.raises(UserError, match="line 1: the row lacks 'query'; rows have query, choices, gold .this one has"):
        benchmark(Uniform(256), tokenizer, str(tmp_path / "other.jsonl"), settings)


@pytest.mark.parametrize(("choices", "gold", "says"), [
    (["a"], 0, "choices is"), (["a", "b"], 2, "gold is the index"), ("ab", 0, "choices is not a list"),
    (["a", ""], 0, "choices is"), (["a", 1], 0, "choices is"), (["a", "b"], True, "gold is the index"),
    (["a", "b"], "a", "gold is not a number")])
def test_questions_that_cannot_be_scored_are_named(tmp_path, choices, gold, says):
    path = tmp_path / "bench.jsonl"
    path.write_text("\n" + json.dumps({"query": "q", "choices": choices, "gold": gold}))
    with pytest.raises(UserError, match=f"bench.jsonl, line 2: {says}"):
        read_choices(str(path))


def test_files_whose_results_would_go_by_one_name_are_named(tmp_path):
    paths = [tmp_path / name for name in ("arc/test.jsonl", "hellaswag/test.jsonl.gz")]
    for setting in ("benchmarks", "texts", "pairs"):
        with pytest.raises(UserError, match=f"{setting}: the results of .*arc/test.jsonl and .*hellaswag.* 'test'"):
            evaluate({"run_folder": str(tmp_path), "settings": {setting: [str(path) for path in paths]}})
    with pytest.raises(UserError, match="benchmarks: the results of .*arc.* and .*hellaswag"):
        in_loop.check(Finetune(benchmarks=[str(path) for path in paths]), model_config("tiny", **SHAPE))


def test_only_the_answer_counts_in_the_loss(tokenizer):
    tokens, counted = conversation({"instruction": "ask", "input": "this", "output": "yes"}, tokenizer)
    assert tokenizer.encoding.decode(tokens.tolist()) == "<|user|>ask\n\nthis<|end|><|assistant|>yes<|end|>"
    assert tokenizer.encoding.decode(tokens[counted].tolist()) == "yes<|end|>"
    plain, _ = conversation({"instruction": "<|end|>", "output": ""}, tokenizer)
    assert plain.tolist().count(SPECIAL["<|end|>"]) == 2                    # a special token's spelling is only text


def test_rows_become_packed_samples(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    path = tmp_path / "rows.jsonl.gz"
    rows = [*ROWS, {**ROWS[0], "output": "x" * 99}]
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    config = {"rows": str(path), "tokenizer": str(tmp_path / "tokenizer")}
    material = instructions(config, Finetune(held_out=0), model_config("tiny", **SHAPE), 64)
    assert material.about["rows"]["rows"] == 4 and material.about["rows"]["too_long"] == 1
    batch = material.samples.batch(range(material.samples.rows))
    assert (batch.targets != -100).sum() == 4 + 5 + 5 + 5 + 4
    assert material.samples.n_targets(range(material.samples.rows)) == 23
    with pytest.raises(UserError, match="every row is longer"):
        instructions(config, Finetune(), model_config("tiny", **SHAPE), 4)
    with pytest.raises(UserError, match="tokenizer that the model was pretrained with"):
        instructions(config, Finetune(), model_config("tiny", **SHAPE | {"vocab_size": 200}), 64)


@pytest.mark.parametrize(("content", "says"), [
    (b"", "holds no rows"), (b'{"instruction": "a"}\n', "line 1: the row lacks 'output'"), (b"[1]\n", "lacks"),
    (b'{"instruction": "a", "output": "b"}\n{oops', "line 2: not JSON"), (b"[" * 10**5, "line 1: not JSON"),
    (b'{"instruction": null, "output": "b"}', "line 1: instruction is not a text"),
    (b'\n{"instruction": "a", "output": 5}', "line 2: output is not a text"),
    (b'{"instruction": "a", "input": 5, "output": "b"}', "line 1: input is not a text"),
    (rb'{"instruction": "a", "output": "\ud83d", "n": 1}', "line 1: 'output' holds half of a surrogate pair"),
    (rb'{"instruction": "a", "output": "b", "tags": ["\udc00"]}', "line 1: 'tags' holds half"),
    (b'{"instruction": "a", "output": "\xed\xa0\xbd"}', "line 1: not UTF-8"),
    (gzip.compress(b"x" * 99, mtime=0)[:-9], "not a whole gzip"),
    (bytes(byte ^ (at == 12) for at, byte in enumerate(gzip.compress(b"xyzzy" * 99, mtime=0))), "not a whole gzip")])
def test_rows_that_do_not_read_are_named(tmp_path, content, says):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        instruction_rows(str(path))
    with pytest.raises(UserError, match="no such file"):
        instruction_rows(str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="cannot be read .IsADirectoryError"):
        instruction_rows(str(tmp_path))


def test_rows_may_lack_an_input_and_spell_characters_as_they_like(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"instruction": "a", "input": null, "output": "\\ud83d\\ude00"}\n')
    assert instruction_rows(str(path))[0] == [{"instruction": "a", "input": None, "output": "\U0001f600"}]


def test_an_encoder_is_not_finetuned_to_answer(tmp_path):
    shape = dataclasses.asdict(model_config("bert-tiny", vocab_size=320))
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]))
    temporary = checkpoint.begin(tmp_path / "trainings" / "bert" / "checkpoints", 1)
    (temporary / checkpoint.WEIGHTS).write_bytes(b"weights")
    checkpoint.commit(temporary, {"step": 1, "model": shape, "run": "bert", "settings": {}, "corpus": {}})
    with pytest.raises(UserError, match="'bert' is an encoder, which sees the answer"):
        launch.finetune(str(tmp_path), "bert", str(tmp_path / "rows.jsonl"))
    assert not (tmp_path / "trainings" / "bert-sft").exists()


def test_text_is_encoded_as_the_corpus_is_whatever_its_length():
    """tiktoken alone panics at 1,200,000 blanks: its regular expression overflows the stack."""
    import tiktoken

    from tasks.tokenizer import PATTERN, encode

    ranks = {bytes([i]): i for i in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 256})
    ours = Tokenizer("bytes", encoding, 256, {"<|endoftext|>": 256}, 257, "")
    for text in (" " * 1_200_000 + "x", "a b"):
        tokens = ours.encode(text)
        assert tokens == encode(encoding, text) and ours.decode(tokens) == text


def test_tokenizers_are_told_apart_and_broken_ones_named(tokenizer, tmp_path):
    assert tokenizer.decode([EOT, *tokenizer.encode("a ä <|end|>")]) == "a ä <|end|>"
    with pytest.raises(UserError, match="no special token <.sep.>"):
        tokenizer.token("<|sep|>")
    with pytest.raises(UserError, match="a tokenizer is a folder with"):
        load_tokenizer(str(tmp_path))
    write_tokenizer(tmp_path)
    assert load_tokenizer(str(tmp_path)).digest == tokenizer.digest
    (tmp_path / "ranks.tiktoken").write_text("!!")
    with pytest.raises(UserError, match="does not hold a tokenizer"):
        load_tokenizer(str(tmp_path))


def test_a_corpus_without_held_out_documents_is_said(tmp_path):
    corpus = open_corpus(str(write_corpus(tmp_path, documents=6)))
    with pytest.raises(UserError, match="no held-out documents"):
        held_out_rows(Uniform(256), corpus, {"held_out": 0.0}, Evaluate())

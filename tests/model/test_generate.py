"""Generation: what is written depends on the prompt, the settings and the seed alone; text comes whole."""

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_corpus import EOT, SPECIAL, write_tokenizer
from typer.testing import CliRunner

from flows.evaluate import progress
from model import checkpoint
from model.config import ModelConfig, model_config
from model.convert import save_weights
from model.evaluate import evaluate
from model.finetune import conversation
from model.generate import Writer, choose, complete, generate, generate_rows, load_run, several, stream_text
from model.likelihood import text_nats
from model.settings import Evaluate
from model.tokenizer import load_tokenizer
from model.transformer import Transformer
from tasks import launch, stage
from tasks.errors import UserError

SMALL = {"vocab_size": 97, "context": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "width": 32, "hidden": 56,
         "init_std": 0.2}
FORMS = {"llama": ModelConfig(**SMALL, tied=False),
         "gpt2": ModelConfig(**SMALL | {"n_kv_heads": 4}, norm="layer", mlp="gelu", position="learned", bias=True),
         "window": ModelConfig(**SMALL, qk_norm=True, head_width=12, window=6)}
PROMPTS = [[3, 1, 4, 1, 5], [9], list(range(30)), [2, 7] * 10]


@pytest.fixture(params=FORMS)
def model(request):
    return Transformer(FORMS[request.param]).initialise(1).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def writing():
    """A model over the tokenizer's tokens."""
    return Transformer(ModelConfig(**SMALL | {"vocab_size": 320, "n_layers": 1})).initialise(0).eval()


def written(model, prompts, count, **given):
    texts = [[] for _ in prompts]
    for found in generate_rows(model, prompts, count, n_vocab=97, **given):
        for row, token in found.items():
            texts[row].append(token)
    return texts


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_nothing_even_past_the_context(model, temperature):
    prompt = [3, 1, 4, 1, 5] * 6
    cached, plain = (list(generate(model, prompt, 45, n_vocab=97, temperature=temperature, top_k=20, top_p=0.9, seed=3,
                                   cached=cached)) for cached in (True, False))
    assert cached == plain and len(cached) == 45


@pytest.mark.parametrize("given", [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.9, "top_p": 0.8},
                                   {"temperature": 1.3, "top_k": 7}])
def test_a_prompt_gets_in_a_batch_what_it_gets_alone(model, given):
    """Also when others come to the end of the context (the third does, twice) or stop before it."""
    given |= {"stop": frozenset({11, 50, 60})}
    together = written(model, PROMPTS, 50, seed=5, **given)
    alone = [written(model, [prompt], 50, seed=5 + number, **given)[0] for number, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert together == written(model, PROMPTS, 50, seed=5, cached=False, **given)
    backwards = written(model, PROMPTS[::-1], 50, seed=[8, 7, 6, 5], **given)
    assert backwards[::-1] == together


def test_the_seed_decides(model):
    first, again, other = (written(model, PROMPTS[:2], 20, seed=seed) for seed in (1, 1, 3))
    assert first == again != other
    same = written(model, [[5], [5]], 20, temperature=2.0)
    assert same[0] != same[1]                           # each its own draws


def test_generation_stops_before_the_stop_token_or_when_told(model):
    tokens = list(generate(model, [5], 30, n_vocab=97, seed=1))
    cut = list(generate(model, [5], 30, n_vocab=97, seed=1, stop=frozenset({tokens[4]})))
    assert cut == tokens[:tokens.index(tokens[4])]
    ended, steps = set(), []
    for found in generate_rows(model, [[5], [6], [7]], 30, n_vocab=97, ended=ended):
        steps.append(set(found))
        ended |= {1} if len(steps) == 3 else set() if len(steps) < 5 else {0, 2}
    assert steps == [{0, 1, 2}] * 3 + [{0, 2}] * 2


def test_sampling_is_cut_as_told():
    logits, draws = torch.tensor([[0.0, 3.0, 2.0, 1.0]]).expand(200, 4), torch.rand(200)

    def found(*cuts):
        return set(choose(logits, draws, *cuts).tolist())

    assert found(5.0, 2) == {1, 2} and found(1.0, 0, 0.1) == {1} and found(100.0) == {0, 1, 2, 3}
    assert found(0.0) == found(1e-30) == {1}
    assert found(5.0, 3, 0.3) == {1} and found(5.0, 99) == {0, 1, 2, 3}


def test_tokens_are_drawn_as_often_as_they_are_likely():
    torch.manual_seed(0)
    logits = torch.randn(1, 12) * 2
    draws = (torch.arange(20_000) + 0.5) / 20_000
    for cut in ((0.7, 0, 1.0), (0.7, 0, 0.9), (0.7, 5, 1.0)):
        counts = choose(logits.expand(20_000, 12), draws, *cut).bincount(minlength=12) / 20_000
        expected = (logits[0] / 0.7).softmax(-1)
        if cut[1]:
            expected[expected < expected.topk(5).values[-1]] = 0
        if cut[2] < 1:
            order = expected.argsort(descending=True)
            expected[order[1:][expected[order].cumsum(-1)[:-1] >= 0.9]] = 0
        torch.testing.assert_close(counts, expected / expected.sum(), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("prompt", "given", "says"), [
    ([], {}, "a prompt needs a token"), ([1] * 49, {}, "49 tokens and the model's context 48"),
    ([1], {"top_p": 0.0}, "top_p"), ([1], {"temperature": -1.0}, "temperature"), ([1], {"top_k": -1}, "top_k")])
def test_what_cannot_be_written_is_said(prompt, given, says):
    model = Transformer(FORMS["llama"]).initialise(1).eval()
    with pytest.raises(UserError, match=says):
        list(generate(model, prompt, 5, n_vocab=97, **given))
    assert len(list(generate(model, [1] * 48, 5, n_vocab=97))) == 5         # a full context is no mistake


# --- text

def tokens_of(text: str) -> list[int]:
    return list(text.encode())                          # the tokenizer of these tests has a token a byte


def shown(tokenizer, tokens, stop):
    writer, pieces = Writer(tokenizer, stop), []
    for token in tokens:
        pieces.append(writer.add(token))
    return "".join([*pieces, writer.finish()]), writer.ended, pieces


@given(text=st.text("abé漢", max_size=20), stop=st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
@settings(max_examples=150, deadline=None)
def test_text_ends_before_the_stop_string_that_is_complete_first(tokenizer, text, stop):
    ends = [(n, -len(one)) for n in range(len(text) + 1) for one in stop if text[:n].endswith(one)]
    expected = text if not ends else text[:min(ends)[0] + min(ends)[1]]
    found, ended, pieces = shown(tokenizer, tokens_of(text), stop)
    assert found == expected and ended == bool(ends)
    assert all("\ufffd" not in piece for piece in pieces)


def test_nothing_is_held_back_that_is_no_beginning_of_a_stop_string(tokenizer):
    assert shown(tokenizer, tokens_of("ab\nUse"), ["\nUser:"])[2] == ["a", "b", "", "", "", ""]
    assert shown(tokenizer, tokens_of("ab\nUsed"), ["\nUser:"])[2] == ["a", "b", "", "", "", "", "\nUsed"]
    assert shown(tokenizer, [*tokens_of("né")[:2]], [])[0] == "n"           # half a character at the end is left out
    assert shown(tokenizer, [255, *tokens_of("a"), EOT], [])[0] == "\ufffda"
    with pytest.raises(UserError, match="an empty text stops"):
        Writer(tokenizer, [""])


def test_text_comes_in_pieces_that_are_whole_characters(tokenizer, writing):
    pieces = list(stream_text(writing, tokenizer, "the mill", 30, temperature=1.5, seed=2))
    again = "".join(stream_text(writing, tokenizer, "the mill", 30, temperature=1.5, seed=2))
    assert "".join(pieces) == again and len(pieces) > 1
    assert all(name not in again for name in SPECIAL)
    assert again == "".join(stream_text(writing, tokenizer, "the mill", 30, temperature=1.5, seed=2, cached=False))
    stop = again[6:9]
    cut = "".join(stream_text(writing, tokenizer, "the mill", 30, temperature=1.5, seed=2, stop=[stop]))
    assert cut == again[:again.find(stop)]
    assert isinstance("".join(stream_text(writing, tokenizer, "say mill", 5, chat=True)), str)


def test_many_prompts_are_completed_as_each_alone(tokenizer, writing):
    prompts = [[EOT, *tokens_of(text)] for text in ("the mill", "", "river and wheel", "a")]
    given = {"temperature": 1.2, "stop": ["e", "zz"]}
    together = complete(writing, tokenizer, prompts, 25, batch=3, seed=9, **given)
    assert together == [complete(writing, tokenizer, [prompt], 25, seed=9 + number, **given)[0]
                        for number, prompt in enumerate(prompts)]


def test_the_limit_of_the_context_is_told_before(tokenizer, writing, caplog):
    with caplog.at_level(logging.WARNING, "gristmill.generate"):
        list(stream_text(writing, tokenizer, "the mill", 40))
        assert not caplog.records                       # 9 tokens and 40: the last needs not be read
        list(stream_text(writing, tokenizer, "the mill", 41))
        several(writing, tokenizer, "the mill", 2, 40)
        assert len(caplog.records) == 1
        several(writing, tokenizer, "the mill", 2, 41)
        assert len(caplog.records) == 2
        for record in caplog.records:
            assert "context of 48 tokens: when it is full, the model goes on from the last 24" in record.getMessage()
    with pytest.raises(UserError, match="the prompt has 50 tokens"):
        list(stream_text(writing, tokenizer, "x" * 49, 1))
    with pytest.raises(UserError, match="needs a question"):
        list(stream_text(writing, tokenizer, "", 1, chat=True))


def test_a_finetuned_model_is_asked_in_the_form_it_was_taught(tokenizer):
    """The prompt of `chat` is the row's tokens up to the answer, behind the end-of-text that rows begin with."""
    read = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.config = torch.nn.Parameter(torch.zeros(1)), model_config("tiny", vocab_size=320)

        def forward(self, tokens, positions=None, segments=None, cache=None, wanted=None):
            read.append(tokens[0].tolist())
            logits = torch.zeros(*tokens.shape, 320)
            logits[..., 105 if len(read) < 3 else SPECIAL["<|end|>"]] = 9
            return logits if wanted is None else logits[wanted]

    text = "".join(stream_text(Spy(), tokenizer, "say mill", 50, chat=True, temperature=0))
    tokens, counted = conversation({"instruction": "say mill", "output": "ii"}, tokenizer)
    assert read[0] == [EOT, *tokens[~counted].tolist()]
    assert text == "ii" and [EOT, *tokens.tolist()][:-1] == read[0] + read[1] + read[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run with checkpoints of the steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("home") / "trainings" / "run"
    write_tokenizer(folder / "tokenizer")
    config = ModelConfig(**SMALL | {"vocab_size": 320})
    for step in (2, 4, 6):
        temporary = checkpoint.begin(folder / "checkpoints", step)
        save_weights(temporary / checkpoint.WEIGHTS, Transformer(config).initialise(step).state_dict(), config)
        (temporary / checkpoint.STATE / "rank-00000.safetensors").write_bytes(b"moments")
        checkpoint.commit(temporary, {"step": step, "run": "run", "kind": "pretrain", "model": asdict(config)})
    return folder


def test_a_run_without_a_checkpoint_is_said(tmp_path, trained):
    with pytest.raises(UserError, match="no checkpoint there"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="no checkpoint of step 3; there are 2, 4, 6"):
        load_run(trained, step=3)
    with pytest.raises(UserError, match="precision: input should be 'auto', 'fp32' or 'bf16'"):
        load_run(trained, precision="fp8")


def test_a_run_is_read_as_of_any_step_and_in_bf16(trained):
    assert [load_run(trained, step=step)[2]["step"] for step in (2, None)] == [2, 6]
    model, tokenizer, _ = load_run(trained, "cpu")
    assert model.embedding.weight.dtype == torch.float32
    half, _, _ = load_run(trained, "cpu", "bf16")
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    nats, short = (text_nats(one, tokenizer, ["the mill grinds grain " * 3], 1)[0] for one in (model, half))
    assert short == pytest.approx(nats, rel=0.01) and short != nats
    text = "".join(stream_text(half, tokenizer, "the mill", 20, top_p=0.9))
    assert text == "".join(stream_text(half, tokenizer, "the mill", 20, top_p=0.9))


def test_a_gpu_without_a_compiler_is_not_given_kernels_to_compile(trained, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Transformer, "to", lambda self, device, dtype: self)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    monkeypatch.delenv("CC", raising=False)
    assert load_run(trained, "cuda", "fp32")[0].attention == "auto" and not caplog.records
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert load_run(trained, "cpu")[0].attention == "auto" and not caplog.records
    assert load_run(trained, "cuda", "fp32")[0].attention == "sdpa" and "no C compiler" in caplog.text


def test_an_evaluation_of_any_step_says_how_far_it_is(trained, tmp_path):
    output, told, questions = tmp_path / "evaluation.json", tmp_path / "progress.json", tmp_path / "mill.jsonl"
    questions.write_text(json.dumps({"query": "the mill", "choices": ["turns", "stands"], "gold": 0}))
    result = evaluate({"run_folder": str(trained), "corpus_folder": None, "output": str(output), "progress": str(told),
                       "step": 4, "settings": {"precision": "bf16", "device": "cpu", "benchmarks": [str(questions)]}})
    assert result == json.loads(output.read_text())
    assert (result["step"], result["precision"], result["device"]) == (4, "bf16", "cpu")
    assert json.loads(told.read_text()) == ["mill", 2, 2]
    exported = launch.convert(str(trained.parents[1]), "run", "huggingface", tmp_path / "exported", step=2)
    assert exported["step"] == 2
    seen = []
    token = stage.progress.set(lambda *part: seen.append(part))
    show = progress("evaluate run")
    stage.progress.reset(token)
    for part in (("held-out", 3, 9), ("mill", 1, 2)):
        show(*part)
    assert seen == [("held-out", 3, 9), ("held-out", 9, 9), ("mill", 1, 2)]


def test_an_evaluation_is_recorded_with_the_checkpoint_that_it_measured(trained, monkeypatch):
    """Not with the newest one, which a live run may have written since."""
    events, seen = [], []

    def measured(arguments, log, error, environment, grace, look):
        config = json.loads(Path(arguments[-1]).read_text())
        Path(config["progress"]).write_text('["mill", 1, 2]')
        look()
        row = {"task": "mill", "metric": "acc", "domain": "0-shot", "value": 0.5, "questions": 2}
        Path(config["output"]).write_text(json.dumps({"step": 4, "results": [row]}))

    monkeypatch.setattr(launch.ranks, "run", measured)
    monkeypatch.setattr(launch, "record", lambda root, kind, run, payload, run_id: events.append(payload))
    asked = (str(trained.parents[1]), "run", Evaluate(held_out=False))
    launch.evaluate(*asked, progress=lambda *part: seen.append(part))
    assert [(event["step"], event["checkpoint"], event["n"]) for event in events] == [
        (4, "trainings/run/checkpoints/step-00000004", 2)]
    assert seen == [("mill", 1, 2)]
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        launch.evaluate(*asked, step=3)


def test_a_checkpoint_that_its_run_removes_meanwhile_is_looked_for_again(trained, tmp_path, monkeypatch):
    """And only the weights of a checkpoint are hashed by readers, not the optimiser's state."""
    folder, hashed = tmp_path / "run", []
    shutil.copytree(trained, folder)
    last, load, digest = checkpoint.latest(folder / "checkpoints"), checkpoint.read, checkpoint.file_digest

    def removed(path, **given):
        about = load(path, **given)
        if path == last:
            path.rename(path.with_name(f".{path.name}.removed"))
        return about

    monkeypatch.setattr(checkpoint, "read", removed)
    monkeypatch.setattr(checkpoint, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    assert load_run(folder)[2]["step"] == 4
    assert {path.rpartition("/")[2] for path in hashed} == {checkpoint.WEIGHTS} and len(hashed) == 2
    (folder / "checkpoints" / checkpoint.name(4) / checkpoint.WEIGHTS).write_bytes(b"changed")
    with pytest.raises(UserError, match="sha256 is not that of"):
        load_run(folder)


# --- the command

def command(*arguments, **given):
    from flows.cli import app

    return CliRunner().invoke(app, ["generate", *arguments], **given)


def test_the_command_streams_and_ends_cleanly(monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_HOME", str(tmp_path))
    asked = {}

    def stream(home, run, prompt, **given):
        asked.update(given, run=run, prompt=prompt)
        yield "gr"
        yield "äin"
        if prompt == "stop":
            raise KeyboardInterrupt

    monkeypatch.setattr("tasks.launch.stream_text", stream)
    result = command("run", "-p", "the", "--stop", "\n\n", "--stop", "x", "--seed", "4")
    assert result.exit_code == 0 and result.stdout == "gräin\n"
    assert asked["stop"] == ["\n\n", "x"] and asked["seed"] == 4 and asked["prompt"] == "the"
    assert (asked["chat"], asked["step"], asked["precision"]) == (None, None, "auto")
    command("run", "--no-chat", "--step", "7", "--device", "cpu", "--precision", "bf16", "-p", "-", input="on\nit\n")
    assert [asked[name] for name in ("prompt", "chat", "step", "device", "precision")] == [
        "on\nit", False, 7, "cpu", "bf16"]
    assert "--prompt: not UTF-8" in command("run", "-p", "-", input=b"\xff").stderr
    result = command("run", "-p", "stop")
    assert result.exit_code == 130 and result.stdout == "gräin\n" and "Aborted" not in result.output


def test_the_command_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_HOME", str(tmp_path))
    result = command("none")
    assert result.exit_code == 2 and "no run 'none'" in result.stderr
    (tmp_path / "trainings" / "new").mkdir(parents=True)
    (tmp_path / "trainings" / "new" / "config.json").write_text(json.dumps({"run": "new", "kind": "pretrain"}))
    result = command("new")
    assert result.exit_code == 2 and "no checkpoint there yet" in result.stderr and "Traceback" not in result.output


def test_several_samples_are_those_of_the_seeds_one_by_one(monkeypatch, trained):
    monkeypatch.setenv("GRISTMILL_HOME", str(trained.parents[1]))
    given = ["run", "-p", "the mill", "--tokens", "9", "--temperature", "2"]
    one, next_one, both = (command(*given, *more) for more in (
        ["--seed", "3"], ["--seed", "4"], ["--seed", "3", "--samples", "2"]))
    assert both.exit_code == 0 and both.stdout == f"{one.stdout}{'-' * 15}\n{next_one.stdout}"
    assert one.stdout != next_one.stdout
    answer = command(*given, "--chat", "--samples", "2", "--step", "2")
    assert answer.exit_code == 0 and answer.stdout.count("-" * 15) == 1

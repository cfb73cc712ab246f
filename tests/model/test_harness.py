"""Our model class under lm-evaluation-harness: by itself, and inside the harness where that is installed."""

import importlib.util
import json
import math
from types import SimpleNamespace

import pytest
import torch
from published_corpus import EOT, write_tokenizer

from model import harness
from model.choices import multiple_choice
from model.config import ModelConfig
from model.generate import complete
from model.settings import Evaluate
from model.texts import bits_per_byte
from model.tokenizer import load_tokenizer
from model.transformer import Transformer
from tasks.errors import UserError

SHAPE = {"vocab_size": 320, "context": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32,
         "init_std": 0.3}
QUESTIONS = [{"query": f"the {word} of the", "choices": ["mill", "river bed", "é", "grain sack"], "gold": i % 4}
             for i, word in enumerate("wheel stone sack door miller roof beam rope".split())]
TEXTS = ["the mill grinds grain", "a river " * 30, "über den Fluß"]
CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs: {cache_dir: %s, data_files: {test: %s, train: %s}}
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]
"""
ROLLING = """
task: local_text
dataset_path: json
dataset_kwargs: {cache_dir: %s, data_files: {test: %s}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Transformer(ModelConfig(**SHAPE)).initialise(3).eval(), load_tokenizer(str(folder))


def asked(*args):
    return SimpleNamespace(args=args)


def test_the_harness_is_told_what_we_compute(parts):
    model, tokenizer = parts
    ours = harness.HarnessModel(model, tokenizer, batch=3)
    found = ours.loglikelihood([asked("the mill", " grinds"), asked("", "grain"), asked("the ", "mill")])
    ids = torch.tensor([[EOT, *tokenizer.encode("the mill grinds")]])
    with torch.no_grad():
        logs = model(ids[:, :-1]).log_softmax(-1)[0]
    assert found[0][0] == pytest.approx(float(sum(logs[i, ids[0, i + 1]] for i in range(8, 15))), abs=1e-4)
    assert [type(greedy) for _, greedy in found] == [bool] * 3
    rolling = ours.loglikelihood_rolling([asked("the mill"), asked("")])
    both = ours.loglikelihood([asked("", "the mill")])
    assert rolling[0] == pytest.approx(both[0][0], abs=1e-4) and rolling[1] == 0


def test_the_harness_gets_what_we_write(parts):
    model, tokenizer = parts
    ours = harness.HarnessModel(model, tokenizer, batch=3)
    greedy, drawn = {"until": ["e", "zz"], "max_gen_toks": 12}, {"max_gen_toks": 9, "do_sample": True, "top_k": 5}
    texts = ours.generate_until([asked("the mill", greedy), asked("grain", drawn), asked("x" * 99, greedy)])
    prompts = [[EOT, *b"the mill"], [EOT, *b"grain"], [*b"x" * 52]]
    expected = complete(model, tokenizer, [prompts[0], prompts[2]], 12, stop=["e", "zz"], temperature=0)
    assert [texts[0], texts[2]] == expected
    assert texts[1] == complete(model, tokenizer, prompts[1:2], 9, temperature=1.0, top_k=5)[0]
    with pytest.raises(UserError, match="max_gen_toks 64 leaves no room"):
        ours.generate_until([asked("a", {"max_gen_toks": 64})])


def test_results_of_the_harness_become_rows():
    found = {"results": {"arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1, "exact_match,strict": 0.25}},
             "n-samples": {"arc": {"original": 9, "effective": 4}}}
    rows = harness.result_rows(found, 2)
    assert [(row["task"], row["metric"], row["value"], row["domain"], row["questions"]) for row in rows] == [
        ("arc", "acc", 0.5, "2-shot", 4), ("arc", "exact_match,strict", 0.25, "2-shot", 4)]


def test_a_harness_that_is_not_installed_is_said(parts, monkeypatch):
    monkeypatch.setattr(harness, "LM", object)
    with pytest.raises(UserError, match="pip install lm_eval"):
        harness.run(*parts, Evaluate(harness=["arc_easy"]))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("lm_eval"), reason="lm_eval is not installed")
def test_the_harness_gives_the_same_numbers(parts, tmp_path, monkeypatch):
    """On tasks of local files, to 1e-4: multiple choice with 0 and 2 worked examples, bits per byte."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    model, tokenizer = parts
    files = {"choice": QUESTIONS[:6], "train": QUESTIONS[6:], "text": [{"text": text} for text in TEXTS]}
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "choice.yaml").write_text(CHOICE % (
        tmp_path / "cache", tmp_path / "choice.jsonl", tmp_path / "train.jsonl"))
    (tmp_path / "text.yaml").write_text(ROLLING % (tmp_path / "cache", tmp_path / "text.jsonl"))
    settings = Evaluate(harness=["local_choice"], harness_tasks=str(tmp_path), few_shot=[0, 2], examples_by="first")
    theirs = {(row["domain"], row["metric"]): row["value"] for row in harness.run(model, tokenizer, settings)}
    mine = {(f"{few_shot}-shot", metric): value for few_shot in (0, 2) for metric, value, _ in
            multiple_choice(model, tokenizer, QUESTIONS[:6], few_shot, settings, QUESTIONS[6:])}
    assert theirs == pytest.approx(mine, abs=1e-4) and len(mine) == 6
    rolling = harness.run(model, tokenizer, settings.model_copy(update={"harness": ["local_text"], "few_shot": [0]}))
    bits = bits_per_byte(model, tokenizer, str(tmp_path / "text.jsonl"), Evaluate())[0]["value"]
    assert [row["value"] for row in rolling] == pytest.approx([bits], abs=1e-4) and math.isfinite(bits)
    with pytest.raises(UserError, match="knows no task 'nothing'"):
        harness.run(model, tokenizer, settings.model_copy(update={"harness": ["nothing"]}))

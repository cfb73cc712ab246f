"""Our model class under lm-evaluation-harness: by itself, and inside the harness where that is installed."""

import importlib.util
import json
import math
from string import ascii_lowercase
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published_corpus import EOT, write_tokenizer

from model import harness
from model.choices import multiple_choice
from model.config import ModelConfig
from model.convert import save_pretrained
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
# text before, continuation, bytes (so many tokens) that count: blanks between the two are the continuation's
PAIRS = [("the mill", " grinds", 7), ("", "grain", 5), ("the ", "mill", 5), ("a river " * 20, "über", 6),
         ("é", "é ", 3), ("mill", "x" * 70, 64)]
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


@pytest.fixture(scope="module")
def exported(parts, tmp_path_factory):
    """The model as transformers reads it."""
    folder = tmp_path_factory.mktemp("exported")
    save_pretrained(folder, parts[0].state_dict(), parts[0].config, parts[1])
    return str(folder)


def test_the_harness_is_told_what_transformers_computes(parts, exported):
    """On the exported model and tokenizer, the text in one piece: nothing here goes through our code."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs, reads = AutoModelForCausalLM.from_pretrained(exported).eval(), AutoTokenizer.from_pretrained(exported)
    ours = harness.HarnessModel(*parts, batch=3)

    @torch.no_grad()
    def by_hand(text: str, n: int) -> tuple[float, bool]:
        """log p in nats of the last n tokens of a text, and whether each is the likeliest."""
        ids = torch.tensor([EOT, *reads(text, add_special_tokens=False)["input_ids"]])[-65:]     # the context, and one
        logs = theirs(ids[None, :-1]).logits[0].double().log_softmax(-1)[-n:]
        return float(logs.gather(-1, ids[-n:, None]).sum()), bool((logs.argmax(-1) == ids[-n:]).all())

    with torch.no_grad():                               # letters that are the likeliest behind two others
        letters = [f"{a}{b}" for a in ascii_lowercase for b in ascii_lowercase]
        likeliest = theirs(torch.tensor([[EOT, *map(ord, two)] for two in letters])).logits[:, -1].argmax(-1).tolist()
    sure = [(two, chr(token)) for two, token in zip(letters, likeliest, strict=True) if chr(token) in ascii_lowercase]
    pairs = [*PAIRS, *((two, letter, 1) for two, letter in sure[:2])]
    found = ours.loglikelihood([asked(before, after) for before, after, _ in pairs])
    expected = [by_hand(before + after, n) for before, after, n in pairs]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=1e-4)
    assert [sure for _, sure in found] == [sure for _, sure in expected] == [False] * len(PAIRS) + [True] * 2
    texts = ["the mill grinds grain", "über den Fluß", "g", "x" * 64]
    rolling = ours.loglikelihood_rolling([asked(text) for text in [*texts, ""]])
    assert rolling == pytest.approx([*(by_hand(text, len(text.encode()))[0] for text in texts), 0], abs=1e-4)


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


@pytest.mark.slow
def test_the_harness_has_the_same_numbers_from_its_own_class(parts, exported):
    """HFLM reads the exported model with transformers; texts longer than the context are among them. Whole texts it
    begins with end-of-text by itself: with add_bos_token it would count a second one as text."""
    hugging_face = pytest.importorskip("lm_eval.models.huggingface", reason="lm_eval or accelerate is not installed")
    from lm_eval.api.instance import Instance

    ours = harness.HarnessModel(*parts, batch=3)
    for kind, given in (("loglikelihood", [pair[:2] for pair in PAIRS[:-1]]),       # it cuts no continuation
                        ("loglikelihood_rolling", [(text,) for text in TEXTS])):
        theirs = hugging_face.HFLM(pretrained=exported, add_bos_token=kind == "loglikelihood", batch_size=2,
                                   device="cpu", dtype="float32")
        found = [getattr(model, kind)([Instance(kind, {}, arguments, 0) for arguments in given])
                 for model in (theirs, ours)]
        assert np.array(found[0]) == pytest.approx(np.array(found[1]), abs=1e-4)

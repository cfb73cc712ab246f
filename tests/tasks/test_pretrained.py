"""A run goes out to transformers' form and comes back: as a run, and as what another training starts from."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from published_corpus import write_corpus

from model import hub
from model.settings import Finetune, Pretrain
from tasks import launch
from tasks.errors import UserError

SMALL = {"context": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
SETTINGS = Pretrain(steps=40, batch=4, micro_batch=4, engine="torch", checkpoint_every=0, evaluate_every=0,
                    evaluate_rows=4, learning_rate=1e-2, model=SMALL)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("pretrained")
    write_corpus(home)
    launch.pretrain(str(home), "mill", run="first", settings=SETTINGS)
    launch.convert(str(home), "first", "huggingface", home / "exported")
    return home


def text(home: Path, run: str) -> str:
    return "".join(launch.stream_text(str(home), run, "the mill", 40, temperature=0.0))


def test_exported_it_answers_the_same_in_transformers(home):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder = home / "exported"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = tokenizer("the mill", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=40, do_sample=False)[0, asked["input_ids"].shape[1]:]
    assert tokenizer.decode(answer, skip_special_tokens=True) == text(home, "first")
    assert sorted(path.suffix for path in folder.iterdir()) == [".json"] * 4 + [".safetensors"]


def test_imported_it_is_a_run_like_any_other(home, tmp_path):
    result = launch.convert(str(home), "back", source=str(home / "exported"))
    assert result["parameters"] == json.loads((home / "trainings/first/summary.json").read_text())["parameters"]
    assert text(home, "back") == text(home, "first")
    ranks = [home / "trainings" / run / "tokenizer" / "ranks.tiktoken" for run in ("first", "back")]
    assert ranks[0].read_bytes() == ranks[1].read_bytes()
    assert {run["run"]: run["kind"] for run in launch.runs(str(home))}["back"] == "import"
    with pytest.raises(UserError, match="'back' exists"):
        launch.convert(str(home), "back", source=str(home / "exported"))
    with pytest.raises(UserError, match="corpus unknown version 0.*name another with the parameter corpus"):
        launch.evaluate(str(home), "back")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"say {word}", "output": word}) + "\n" for word in
                            ("mill", "river", "grain", "wheel") * 3))
    tuned = launch.finetune(str(home), "back", str(rows), run="tuned", settings=Finetune(
        steps=2, batch=2, micro_batch=2, engine="torch", held_out=0))
    assert tuned["base"]["run"] == "back" and tuned["base"]["corpus"]["name"] == "unknown"
    launch.convert(str(home), "tuned", "huggingface", tmp_path / "tuned", dtype="bf16")
    assert "<|assistant|>" in json.loads((tmp_path / "tuned/tokenizer_config.json").read_text())["chat_template"]
    ends = json.loads((tmp_path / "tuned/generation_config.json").read_text())["eos_token_id"]
    assert ends == [256, 259]


def test_a_training_starts_from_it(home):
    first = json.loads((home / "trainings/first/summary.json").read_text())
    initial = SETTINGS.model_copy(update={"initial": str(home / "exported"), "model": {}, "steps": 2, "warmup": 0,
                                          "learning_rate": 1e-6})
    second = launch.pretrain(str(home), "mill", run="second", settings=initial)
    assert second["parameters"] == first["parameters"]
    assert second["loss_first"] == pytest.approx(first["held_out_loss"], abs=0.3) != first["loss_first"]
    about = json.loads((home / "trainings/second/checkpoints/step-00000002/checkpoint.json").read_text())
    assert about["initial"] == {"source": str(home / "exported"),
                                "sha256": hub.weights_digest(home / "exported")}
    with pytest.raises(UserError, match="other settings"):
        launch.pretrain(str(home), "mill", run="second", settings=SETTINGS)


def test_a_model_of_other_tokens_is_refused(home, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for path in (home / "exported").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    about = json.loads((folder / "tokenizer.json").read_text())
    vocab = about["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (folder / "tokenizer.json").write_text(json.dumps(about))
    initial = SETTINGS.model_copy(update={"initial": str(folder), "model": {}})
    with pytest.raises(UserError, match="knows other tokens than corpus mill version 1"):
        launch.pretrain(str(home), "mill", settings=initial)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="which tokens the model knows cannot be told"):
        launch.pretrain(str(home), "mill", settings=initial)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="which tokens the model knows cannot be told|a pickle"):
        launch.convert(str(home), "pickled", source=str(folder))


@pytest.mark.slow
def test_an_encoder_goes_out_and_comes_back(home, tmp_path):
    settings = SETTINGS.model_copy(update={"preset": "bert-tiny", "steps": 2, "model": {"context": 64, "width": 16,
                                                                                         "hidden": 32}})
    launch.pretrain(str(home), "mill", run="encoder", settings=settings)
    launch.convert(str(home), "encoder", "huggingface", tmp_path / "bert")
    launch.convert(str(home), "encoder-back", source=str(tmp_path / "bert"))
    launch.convert(str(home), "encoder-back", "huggingface", tmp_path / "again")
    for path in (tmp_path / "bert").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    tokenizer, model = (kind.from_pretrained(tmp_path / "bert") for kind in (AutoTokenizer, AutoModelForMaskedLM))
    tokens = tokenizer("the <|mask|> grinds", return_tensors="pt")
    assert tokens["input_ids"][0, 4] == tokenizer.mask_token_id == 261
    assert model(**tokens).logits.shape[-1] == 320
    with pytest.raises(UserError, match="is an encoder"):
        text(home, "encoder")
    with pytest.raises(UserError, match="no output for masked tokens"):
        launch.convert(str(home), "encoder", "gguf", tmp_path)


@pytest.mark.parametrize(("arguments", "says"), [
    ({}, "either --to"), ({"to": "gguf", "source": "x"}, "either --to"), ({"to": "onnx", "output": "x"}, "gguf"),
    ({"to": "gguf", "output": "x", "dtype": "q4"}, "there are f32, f16 and bf16"),
    ({"to": "gguf", "output": "x"}, "pre-tokenizer"), ({"source": "nowhere"}, "nowhere: no such folder"),
    ({"source": "x", "output": "y"}, "--output is for exports"), ({"source": "x", "step": 0}, "--step is for exports"),
    ({"source": "x", "dtype": "f32"}, "--dtype is for exports: what --from names becomes run 'new', in fp32"),
    ({"to": "huggingface", "output": "FULL"}, "exists already")])
def test_mistakes_are_said(home, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").touch()
    with pytest.raises(UserError, match=says):
        launch.convert(str(home), "first" if "to" in arguments else "new", **arguments)
    assert not (home / "trainings" / "new" / "config.json").exists()


def test_the_hub_gives_a_commit_and_what_it_gives_is_compared(home, tmp_path, monkeypatch):
    exported = home / "exported"
    digest = hub.sha256_of(exported / "model.safetensors")
    asked, there = [], False

    def info(name, revision=None, files_metadata=False):
        if name != "mill/small":
            raise OSError
        files = [SimpleNamespace(rfilename="model.safetensors", lfs=SimpleNamespace(sha256=digest)),
                 SimpleNamespace(rfilename="config.json", lfs=None)]
        return SimpleNamespace(sha=COMMIT, siblings=files)

    def download(name, revision, cache_dir, allow_patterns=(), ignore_patterns=(), local_files_only=False):
        if local_files_only:
            if there:
                return str(exported)
            raise OSError("not there")
        asked.append((name, revision))
        assert not any(pattern.endswith((".bin", ".pt")) for pattern in allow_patterns)
        return str(exported)

    fake = SimpleNamespace(HfApi=lambda: SimpleNamespace(model_info=info), snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert hub.locate(f"mill/small@{COMMIT}", tmp_path) == exported and asked == [("mill/small", COMMIT)]
    with pytest.raises(UserError, match=f"the newest is mill/small@{COMMIT}"):
        hub.locate("mill/small", tmp_path)
    with pytest.raises(UserError, match="the hub does not give it .OSError"):
        hub.locate(f"mill/none@{COMMIT}", tmp_path)
    there, calls = True, len(asked)                     # fetched before: it is not asked again, nor needs a network
    fake.HfApi = None
    assert hub.locate(f"mill/small@{COMMIT}", tmp_path) == exported and len(asked) == calls
    for name, put in (("tokenizer.json", home / "tokenizer.json"),          # but not all of it: the fetch was cut off
                      ("model.safetensors", exported / "model-00001-of-00002.safetensors")):
        (exported / name).rename(put)
        with pytest.raises(UserError, match="the hub does not give it"):
            hub.locate(f"mill/small@{COMMIT}", tmp_path)
        put.rename(exported / name)
    there, fake.HfApi = False, lambda: SimpleNamespace(model_info=info)
    digest = "0" * 64
    with pytest.raises(UserError, match="sha256 is not that of"):
        hub.locate(f"mill/small@{COMMIT}", tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"gristmill\[hub\]"):
        hub.locate("mill/small", tmp_path)


def test_launching_does_not_load_pytorch():
    code = "import sys; from tasks import launch, pretrained; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

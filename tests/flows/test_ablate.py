"""The flow ablate as a plain function: two corpora, two seeds, one table; run again, nothing is done twice."""

import gzip
import json
import random
import xml.etree.ElementTree as xml
from pathlib import Path

import crawl
import pytest

from flows import ablate as flow
from flows.ablate import VARIANTS, Variant, ablate, parse_variant, prepared
from flows.settings import load_recipe
from model.settings import Evaluate, Pretrain, Processes
from tasks import launch, ledger, lineage, query
from tasks.errors import UserError
from tasks.pool import close_shared_pool
from tasks.storage import Root

SHAPE = {"context": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
TRAINING = Pretrain(engine="torch", model=SHAPE, batch=4, micro_batch=4)


@pytest.fixture(scope="module", autouse=True)
def no_pool_left():
    yield
    close_shared_pool()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    inputs = crawl.write_crawl(folder / "crawl", files=2, pages=20)
    chance = random.Random(5)
    words = [" ".join(chance.choice(crawl.WORDS) for _ in range(40)) for _ in range(3)]
    held_out = folder / "clean.jsonl"
    held_out.write_text("".join(json.dumps({"text": text}) + "\n" for text in words))
    pairs = folder / "pairs.jsonl.gz"
    pairs.write_bytes(gzip.compress("".join(json.dumps({
        "good": " ".join(chance.choice(crawl.WORDS) for _ in range(9)), "bad": "zq xv qz", "uid": "made"}) + "\n"
        for _ in range(4)).encode()))
    # the first page of prose also as a copy with a held-out sentence in it
    leak = folder / "crawl" / "leak.warc.gz"
    leak.write_bytes(crawl.record("https://leak.example/1", crawl.page(
        f"<p>{words[0]}</p>{crawl.prose(random.Random(9), 120)}")))
    return [*map(str, inputs), str(leak)], str(held_out), str(pairs)


def run(home, files, **more):
    inputs, held_out, pairs = files
    given = dict(name="first", inputs=inputs, held_out=[held_out], pairs=[pairs], seeds=2, tokens=2 * 4 * 32,
                 variants={"raw": Variant(recipe="raw"), "short": Variant(recipe="raw", settings={
                     "filter": {"gopher_words": {"enabled": True, "min": 30}}})},
                 settings={"tokenize": {"vocab_size": 400}}, training=TRAINING, processes=Processes(processes=1),
                 evaluation=Evaluate(), workers=2, home=str(home)) | more
    return ablate.fn(**given)


@pytest.fixture(scope="module")
def done(tmp_path_factory, files):
    home = tmp_path_factory.mktemp("home")
    return Root(str(home)), run(home, files)


@pytest.mark.slow
def test_every_variant_is_trained_and_measured(done):
    root, result = done
    table = {(row["variant"], row["metric"]): row for row in result["results"] if row["domain"] == "all"}
    assert set(table) == {(v, m) for v in ("raw", "short") for m in ("bits_per_byte", "accuracy")}
    for row in table.values():
        assert row["seeds"] == 2 and row["low"] <= row["mean"] <= row["high"]
    assert 3 < table["raw", "bits_per_byte"]["mean"] < 12
    assert table["short", "bits_per_byte"]["difference"] == pytest.approx(
        table["short", "bits_per_byte"]["mean"] - table["raw", "bits_per_byte"]["mean"], abs=1e-5)
    raw, short = result["corpora"]["raw"], result["corpora"]["short"]
    assert raw["documents"] > short["documents"] > 0
    assert raw["trained_tokens"] == short["trained_tokens"] == 256 and raw["epochs"] < short["epochs"] <= 4


@pytest.mark.slow
def test_one_tokenizer_and_no_held_out_text(done):
    root, result = done
    manifests = [root.read_json(f"corpora/first-{v}/versions/000001/manifest.json") for v in ("raw", "short")]
    assert manifests[0]["tokenizer"]["files"] == manifests[1]["tokenizer"]["files"]
    for manifest in manifests:
        dropped = {entry["stage"]: entry["rules"] for entry in manifest["funnel"]}["decontaminate"]
        assert sum(dropped.values()) == 1, "the page that holds a held-out text"


@pytest.mark.slow
def test_the_report_the_plot_and_the_ledger(done):
    root, result = done
    folder = Path(result["folder"])
    assert "| short | raw |" in (folder / "report.md").read_text()
    xml.fromstring((folder / "plot.svg").read_text())
    assert json.loads((folder / "results.json").read_text())["results"] == result["results"]
    lineage.rebuild(root)
    rows = query.run(root, "ablations", {"ablation": "first"}).to_pylist()
    assert {(row["variant"], row["verdict"]) for row in rows} >= {("raw", "baseline")} and len(rows) == 4
    runs = query.run(root, "SELECT flow, outcome FROM runs WHERE flow = 'ablate'").to_pylist()
    assert runs == [{"flow": "ablate", "outcome": "ok"}]


@pytest.mark.slow
def test_again_nothing_is_trained_or_measured_twice(done, files, monkeypatch):
    root, result = done
    monkeypatch.setattr(launch, "evaluate", lambda *a, **k: pytest.fail("measured again"))
    monkeypatch.setattr(launch.ranks, "train", lambda *a, **k: pytest.fail("trained again"))
    assert run(root.uri, files)["results"] == result["results"]


def test_mistakes_are_told_before_anything_is_built(tmp_path, files, monkeypatch):
    monkeypatch.setattr(flow, "built", lambda *a, **k: pytest.fail("built"))
    with pytest.raises(UserError, match="no recipe 'rwa'; did you mean 'raw'"):
        run(tmp_path, files, variants={"raw": Variant(recipe="raw"), "wrong": Variant(recipe="rwa")})
    with pytest.raises(UserError, match="two variants"):
        run(tmp_path, files, variants={"raw": Variant(recipe="raw")})
    with pytest.raises(UserError, match="nothing to judge by"):
        run(tmp_path, files, held_out=[], pairs=[])
    with pytest.raises(UserError, match="absent.txt: no such file"):
        run(tmp_path, files, held_out=[str(tmp_path / "absent.txt")])
    with pytest.raises(UserError, match="variant x: .*recipes"):
        parse_variant("x", {"recipes": "raw"})
    tag = {"decontaminate": {"action": "tag"}}
    for more in ({"settings": tag}, {"variants": {"raw": Variant(recipe="raw"), "b": Variant(settings=tag)}}):
        with pytest.raises(UserError, match="decontaminate.action=tag leaves .*held-out"):
            run(tmp_path, files, **more)
    for wrong in ("Fine Web", "-b", "", 1):
        with pytest.raises(UserError, match="variant .*small letters, digits"):
            run(tmp_path, files, variants={"raw": Variant(recipe="raw"), wrong: Variant(recipe="raw")})
        with pytest.raises(UserError, match="variant .*small letters, digits"):
            parse_variant(wrong, {})
    with pytest.raises(UserError, match="first-b{58}.* is 64 characters.* 63"):
        run(tmp_path, files, variants={"raw": Variant(recipe="raw"), "b" * 58: Variant(recipe="raw")})
    with pytest.raises(UserError, match="home memory://ablated: .*a local or mounted folder"):
        run("memory://ablated", files)


def test_the_ledger_says_what_was_asked_for(tmp_path, files, monkeypatch):
    corpus = {"corpus": "c", "version": 1, "documents": 9, "tokens": 1000, "recipe": "raw"}
    monkeypatch.setattr(flow, "built", lambda *a, **k: dict(corpus))
    monkeypatch.setattr(flow, "measured", lambda *a, **k: [
        {"task": "clean", "metric": "bits_per_byte", "domain": "all", "value": 2.0}])
    run(tmp_path, files, tokenizer="gpt2", max_epochs=3.0, evaluation=Evaluate(limit=7))
    events, _ = ledger.events(Root(str(tmp_path)))
    said = [(event["kind"], event["payload"]) for event in events]
    asked = next(one["parameters"] for kind, one in said if kind == "run" and one.get("state") == "started")
    assert (asked["tokenizer"], asked["max_epochs"], asked["evaluation"]["limit"]) == ("gpt2", 3.0, 7)
    assert asked["settings"] == {"tokenize": {"vocab_size": 400}} and asked["training"]["model"] == SHAPE
    found = {one["variant"]: one for kind, one in said if kind == "ablation"}
    assert found["short"]["settings"] == {"tokenize": {"vocab_size": 400}, "filter": {
        "gopher_words": {"enabled": True, "min": 30}}}
    assert {name: one["verdict"] for name, one in found.items()} == {"raw": "baseline", "short": "not told apart"}


def test_a_corpus_that_is_too_small_is_named():
    corpora = {"raw": {"tokens": 1000}, "tight": {"tokens": 10}}
    with pytest.raises(UserError, match=r"variant tight, which has 10; lower tokens to 40"):
        flow.budget(corpora, 1000, TRAINING, 4.0)
    chosen = flow.budget({"raw": {"tokens": 1000}}, 1000, TRAINING, 4.0)
    assert chosen.steps == 8 and chosen.held_out == 0 and chosen.held_out_at_least == 0


def test_the_default_variants_are_recipes():
    for name, variant in VARIANTS.items():
        recipe = load_recipe(variant.recipe, prepared(variant, {}, "trained", ["/x/held_out.jsonl"]))
        assert recipe.decontaminate.benchmarks == ("/x/held_out.jsonl",), name
    raw = load_recipe("raw")
    assert not (raw.dedup.url or raw.dedup.exact or raw.dedup.near)
    own = prepared(Variant(recipe="tiny"), {}, "trained", ["/x/held_out.jsonl"])
    assert own["decontaminate"]["benchmarks"] == ["sample:", "/x/held_out.jsonl"]

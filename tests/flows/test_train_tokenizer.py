"""Deduplication to token shards through the runner, and train-tokenizer on what comes out."""

import hashlib
import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

import flows.train_tokenizer as flow
from tasks.annotate import Annotate, annotate
from tasks.dedup import Dedup, bands, decide, dedup, exact, pairs
from tasks.errors import UserError
from tasks.lines import Lines, lines
from tasks.pool import close_shared_pool
from tasks.sample import Sample, achieved, mixture, plan, sample
from tasks.schema import DOCUMENTS, content_id, doc_id, id_array
from tasks.scrub import Scrub, scrub
from tasks.stage import Build, Unit, run_stage, store
from tasks.storage import Root
from tasks.tokenize import Tokenize, encoding_of, excerpt, quotas, tokenize, tokenizer
from tasks.tokenize import measure as measure_stage
from tasks.tokenizer import load

SECRET = "miller.secret@example.org"


@pytest.fixture(scope="module", autouse=True)
def no_pool_left():
    yield
    close_shared_pool()


def page(number: int) -> str:
    random = np.random.default_rng(number)
    words = "the mill grinds grain and wheat to flour for bread while water turns a wheel of oak near stones".split()
    return " ".join(random.choice(words, 120)) + f". Write to {SECRET} about page {number}."


def documents(numbers, start) -> pa.Table:
    n, texts = len(numbers), [page(i) for i in numbers]
    columns = {name: pa.nulls(n, DOCUMENTS.field(name).type) for name in DOCUMENTS.names}
    columns |= {
        "doc_id": id_array([doc_id("made", start + i) for i in range(n)]),
        "content_id": id_array([content_id(t) for t in texts]),
        "text": pa.array(texts),
        "url": pa.array([f"http://mill.example/{start + i}" for i in range(n)]),
        "source": pa.array(["ab"[i % 2] for i in numbers]),
        "domain": pa.array(["mill.example"] * n),
    }
    return pa.table(columns, schema=DOCUMENTS)


def make(build: Build) -> tuple[dict, list]:
    """The part of the corpus flow from deduplication on, and the manifest's entries that train-tokenizer reads."""
    root, settings, tokens = build.root, Dedup(), Tokenize(vocab_size=300, shard_tokens=1500)

    def each(stage, settings, units):
        return [d.table for d in run_stage(stage, units, settings, build)]

    docs = [
        store(root, "made", documents(numbers, 100 * i))
        for i, numbers in enumerate([list(range(30)), [*range(25, 30), *range(40, 60)], list(range(60, 75))])
    ]
    for d in docs:  # as extract would have left it
        root.write_json(f"{d.path.rsplit('/', 1)[0]}/done.json", {"table": asdict(d)})
    cuts = each(lines, Lines(), [Unit({"documents": d}) for d in docs])
    signals = each(annotate, Annotate(), [Unit({"documents": d, "lines": c}) for d, c in zip(docs, cuts, strict=True)])
    banded = each(bands, settings, [Unit({"signals": s}) for s in signals])
    [same] = each(exact, settings, [Unit({"documents": docs})])
    near = each(
        pairs,
        settings,
        [
            Unit({"bands": banded, "signals": signals, "exact": same}, {"partition": i, "partitions": 2})
            for i in range(2)
        ],
    )
    [decided] = each(decide, settings, [Unit({"documents": docs, "exact": same, "pairs": near})])
    unique = run_stage(
        dedup, [Unit({"documents": d, "decisions": decided}, {"shard": i}) for i, d in enumerate(docs)], settings, build
    )
    kept = [d.table for d in unique]
    spans = each(
        scrub,
        Scrub(),
        [Unit({"documents": d, "lines": c, "kept": k}) for d, c, k in zip(docs, cuts, kept, strict=True)],
    )
    shares = quotas([k.rows for k in kept], tokens)
    texts = each(
        excerpt,
        tokens,
        [
            Unit({"documents": d, "kept": s}, {"quota": q}) for d, s, q in zip(docs, spans, shares, strict=True)
        ],
    )
    [files] = each(tokenizer, tokens, [Unit({"texts": texts})])
    measured = each(
        measure_stage,
        tokens,
        [
            Unit({"documents": d, "signals": s, "kept": k, "tokenizer": files})
            for d, s, k in zip(docs, signals, spans, strict=True)
        ],
    )
    [mixed] = each(mixture, Sample(), [Unit({"measures": measured})])
    sampled = each(
        sample,
        Sample(),
        [
            Unit({"documents": d, "signals": s, "kept": k, "mixture": mixed})
            for d, s, k in zip(docs, signals, kept, strict=True)
        ],
    )
    [passes] = each(plan, Sample(), [Unit({"sampled": sampled, "mixture": mixed}, {"shard_tokens": 1500})])
    planned = root.read_table(passes.path)
    units = []
    for number in range(max(planned["token_shard"].to_pylist()) + 1):
        rows = planned.filter(pa.array(planned["token_shard"].to_numpy() == number))
        named = sorted(set(rows["shard"].to_pylist()))
        units.append(
            Unit(
                {
                    "documents": [docs[i] for i in named],
                    "spans": [spans[i] for i in named],
                    "plan": store(root, "passes", rows),
                    "tokenizer": files,
                },
                {"shards": named},
            )
        )
    shards = each(tokenize, tokens, units)
    root.write_bytes("corpora/mill/versions/000001/plan.parquet", root.read_bytes(passes.path))
    manifest = {
        "name": "mill",
        "version": 1,
        "plan": {"path": "plan.parquet"},
        "parts": [{"documents": d.path, "spans": s.path} for d, s in zip(docs, spans, strict=True)],
        "mixture": achieved(root.read_table(mixed.path), planned, [root.read_table(s.path) for s in shards]),
    }
    root.write_json("corpora/mill/versions/000001/manifest.json", manifest)
    root.write_bytes("corpora/mill/current", b"000001")
    return manifest, [unique, shards, files]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    build = Build(Root(str(tmp_path_factory.mktemp("home"))), run_id="test", workers=2, as_tasks=False)
    return build, *make(build)


def test_from_deduplication_to_token_shards(home):
    build, manifest, (unique, shards, files) = home
    assert [d.rules for d in unique] == [{}, {"exact": 5}, {}]
    encoding = encoding_of(build.root.read_table(files.path))
    tables = [build.root.read_table(s.path) for s in shards]
    rows = pa.concat_tables(tables).to_pylist()
    assert len(rows) == 65 and len(tables) > 2
    texts = [encoding.decode(r["tokens"][:-1]) for r in rows]
    assert SECRET not in "".join(texts) and all("<EMAIL>" in text for text in texts)
    numbers = [*range(30), *range(40, 75)]
    assert texts == [page(i).replace(SECRET, "<EMAIL>") for i in numbers]
    assert sum(m["tokens"] for m in manifest["mixture"]) == sum(r["n_tokens"] for r in rows)
    for entry in manifest["mixture"]:
        assert entry["planned_tokens"] == pytest.approx(entry["tokens"], rel=0.1) and entry["epochs"] == 1


def test_everything_is_skipped_the_second_time(home):
    build, manifest, _ = home
    build.ran.clear()
    assert make(build)[0] == manifest
    assert set(build.ran.values()) == {0}


@pytest.fixture
def train(home, monkeypatch):
    monkeypatch.setattr(flow, "Build", partial(Build, as_tasks=False))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    return partial(flow.train_tokenizer.fn, corpus="mill", home=home[0].root.uri, workers=2)


def test_a_tokenizer_of_a_published_version(home, train):
    root = home[0].root
    summary = train(name="grain", vocab_size=320)
    assert summary["n_vocab"] == 320 and summary["version"] == 1
    assert summary["bytes_per_token"]["grain"] > 2 and set(summary["bytes_per_token"]) == {"grain"}
    encoding = load(summary["folder"])
    assert encoding.name == "grain" and encoding.n_vocab == 320
    assert not [t for t in encoding._mergeable_ranks if b"secret" in t]
    files = root.list("tokenizers/grain")
    before = [hashlib.sha256(root.read_bytes(f)).hexdigest() for f in files]
    assert len(files) == 2 and train(name="grain", vocab_size=320) == summary
    assert [hashlib.sha256(root.read_bytes(f)).hexdigest() for f in files] == before


def test_what_cannot_be_trained_on_says_why(home, train, monkeypatch):
    root = home[0].root
    with pytest.raises(UserError, match="no version 7"):
        train(version=7)
    with pytest.raises(UserError, match="one of tiktoken's encodings"):
        train(name="gpt2")
    manifest = json.loads(root.read_bytes("corpora/mill/versions/000001/manifest.json"))
    manifest["parts"][1]["spans"] = "work/scrub/00/gone/table.parquet"
    with pytest.raises(UserError, match="is gone; build the corpus again"):
        flow.documents_of(root, manifest)

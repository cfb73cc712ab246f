"""The invariants of a build, on the whole flow called as a plain function (tests/flows/test_deployments.py runs it
inside Prefect)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import crawl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flows.build_corpus import build_corpus
from flows.refresh_corpus import refresh_corpus
from tasks.errors import UserError
from tasks.pool import close_shared_pool
from tasks.publish import read_manifest, version_folder
from tasks.schema import id_bytes
from tasks.storage import Root


@pytest.fixture(scope="module", autouse=True)
def no_pool_left():
    yield
    close_shared_pool()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return crawl.write_crawl(tmp_path_factory.mktemp("crawl"))


@pytest.fixture(scope="module")
def built(tmp_path_factory, files):
    home = tmp_path_factory.mktemp("home")
    return Root(str(home)), build(home, files)


def build(home, files, settings=crawl.SETTINGS, workers=2, name="test"):
    return build_corpus.fn(
        name=name,
        recipe="gopher",
        inputs=[str(f) for f in files],
        settings=settings,
        workers=workers,
        engine="local",
        home=str(home),
    )


def bytes_of(root: Root, version: int = 1, name: str = "test") -> dict[str, str]:
    """The digest of every file of a published version."""
    folder = version_folder(name, version)
    return {path.removeprefix(folder): root.digest(path) for path in root.list(folder)}


def fates(root: Root, version: int = 1) -> pa.Table:
    manifest = read_manifest(root, "test", version)
    return pa.concat_tables(
        root.read_table(f"{version_folder('test', version)}/{f['path']}") for f in manifest["fates"]
    )


def test_every_record_has_one_fate(built):
    root, summary = built
    table = fates(root)
    assert len(table) == 3 * 30  # the damaged member is a fate too
    assert len(pc.unique(id_bytes(table["doc_id"]))) == len(table)
    rules = {(r["stage"], r["rule"]) for r in table.to_pylist() if r["outcome"] == "dropped"}
    assert {
        ("extract", "http_status"),
        ("extract", "media_type"),
        ("extract", "unreadable"),
        ("dedup", "exact"),
        ("dedup", "near"),
        ("filter", "gopher_words"),
    } <= rules
    kept = sum(r["outcome"] == "kept" for r in table.to_pylist())
    assert kept == summary["documents"] == summary["funnel"][-1]["kept"] > 20


def test_the_funnel_conserves(built):
    _, summary = built
    for row in summary["funnel"]:
        assert row["in"] == row["kept"] + row["dropped"] and row["dropped"] == sum(row["rules"].values())
    for before, after in zip(summary["funnel"], summary["funnel"][1:], strict=False):
        assert before["kept"] == after["in"]


def test_duplicates_name_their_winner_and_their_similarity(built):
    root, _ = built
    table = fates(root)
    kept = set(id_bytes(table.filter(pc.equal(table["outcome"], "kept"))["doc_id"]).to_pylist())
    near = table.filter(pc.equal(table["rule"], "near"))
    assert len(near) and all(w in kept for w in id_bytes(near["duplicate_of"]).to_pylist())
    assert all(0.75 <= s < 1 for s in near["similarity"].to_pylist())


def test_personal_data_is_gone_from_the_tokens_and_everything_else(built):
    from tasks.tokenizer import load

    root, _ = built
    folder = version_folder("test", 1)
    encoding = load(root.url(f"{folder}/tokenizer"))
    texts = [
        encoding.decode(t)
        for s in read_manifest(root, "test")["shards"]
        for t in root.read_table(f"{folder}/{s['path']}")["tokens"].to_pylist()
    ]
    assert not any(crawl.EMAIL in text for text in texts)
    assert any("<EMAIL>" in text for text in texts)
    for path in root.list(""):
        if not path.startswith(("work/extract/", "work/excerpt/")):
            assert crawl.EMAIL not in said(root, path), path


def said(root: Root, path: str) -> str:
    """All that a file says: its bytes, and of Parquet every value."""
    text = root.read_bytes(path).decode("utf-8", "replace")
    if path.endswith(".parquet"):
        table = root.read_table(path)
        text += str(table.drop_columns([c for c in table.column_names if c in ("tokens", "minhash")]).to_pylist())
    return text


@pytest.mark.parametrize(("workers", "seed"), [(1, "0"), (4, "1")])
def test_the_same_bytes_with_any_workers_and_hash_seed(built, files, tmp_path, workers, seed):
    root, _ = built
    run_in_process(tmp_path, files, workers=workers, env={"PYTHONHASHSEED": seed})
    assert bytes_of(Root(str(tmp_path))) == bytes_of(root)


def test_a_second_build_does_nothing_and_says_so(built, files):
    root, first = built
    again = build(root.uri, files)
    assert not again["published"] and again["version"] == first["version"]
    assert set(again["ran"].values()) == {0}


def test_a_changed_threshold_runs_the_filter_and_what_follows_and_nothing_before(built, files, tmp_path):
    root, _ = built
    stricter = {**crawl.SETTINGS, "filter": {**crawl.SETTINGS["filter"], "gopher_words": {"enabled": True, "min": 100}}}
    copy = tmp_path / "home"
    subprocess.run(["cp", "-r", root.uri, str(copy)], check=True)
    summary = build(copy, files, stricter)
    before = ["extract", "annotate", "dedup-bands", "dedup-exact", "dedup-pairs", "dedup-decide", "dedup"]
    assert all(summary["ran"][stage] == 0 for stage in before)
    assert summary["ran"]["filter"] > 0 and summary["ran"]["tokenize"] > 0
    assert summary["published"] and summary["version"] == 2


def test_a_refresh_keeps_what_a_build_of_everything_keeps(built, files, tmp_path):
    fixed = {
        **crawl.SETTINGS,
        "tokenize": {
            **crawl.SETTINGS["tokenize"],
            "tokenizer": f"{built[0].uri}/{version_folder('test', 1)}/tokenizer",
        },
    }
    folder = tmp_path / "inputs"
    folder.mkdir()
    first = [Path(os.link(f, folder / f"a{i}.warc.gz") or folder / f"a{i}.warc.gz") for i, f in enumerate(files)]
    inputs = f"web={folder}/*.warc.gz"
    step = tmp_path / "step"
    build_corpus.fn(
        name="test", recipe="gopher", inputs=[inputs], settings=fixed, workers=2, engine="local", home=str(step)
    )
    later = crawl.write_crawl(tmp_path / "later", files=1, seed=2)[0]
    copies = tmp_path / "later" / "copies.warc.gz"  # of pages that the corpus has
    copies.write_bytes(files[0].read_bytes())
    os.link(later, folder / "b0.warc.gz")
    os.link(copies, folder / "b1.warc.gz")
    refreshed = refresh_corpus.fn(name="test", inputs=[], workers=2, engine="local", home=str(step))
    assert refreshed["version"] == 2
    units_of_new = sum(len(i["cuts"]) for i in read_manifest(Root(str(step)), "test")["inputs"][len(first) :])
    assert refreshed["ran"]["extract"] == refreshed["ran"]["annotate"] == units_of_new
    whole = tmp_path / "whole"
    build_corpus.fn(
        name="test", recipe="gopher", inputs=[inputs], settings=fixed, workers=2, engine="local", home=str(whole)
    )
    a, b = bytes_of(Root(str(step)), 2), bytes_of(Root(str(whole)), 1)
    assert {k: v for k, v in a.items() if k.startswith(("/tokens", "/fates", "/plan"))} == {
        k: v for k, v in b.items() if k.startswith(("/tokens", "/fates", "/plan"))
    }
    nothing_new = refresh_corpus.fn(name="test", inputs=[], workers=2, engine="local", home=str(step))
    assert not nothing_new["published"] and nothing_new["version"] == 2


def test_a_refresh_goes_on_without_inputs_that_are_gone(files, tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for i, f in enumerate(files):
        os.link(f, folder / f"a{i}.warc.gz")
    home = tmp_path / "home"
    first = build_corpus.fn(
        name="test",
        recipe="gopher",
        inputs=[f"web={folder}/*.warc.gz"],
        settings=crawl.SETTINGS,
        workers=2,
        engine="local",
        home=str(home),
    )
    (folder / "a0.warc.gz").unlink()
    again = refresh_corpus.fn(name="test", inputs=[], workers=2, engine="local", home=str(home))
    assert not again["published"] and again["documents"] == first["documents"]


def test_killed_before_its_last_step_a_publication_is_finished_and_not_repeated(built, files, tmp_path, monkeypatch):
    root, _ = built
    write = Root.write_bytes

    def dies(self, path, data):
        if path == "corpora/test/current":
            raise KeyboardInterrupt
        return write(self, path, data)

    monkeypatch.setattr(Root, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, files)
    monkeypatch.undo()
    summary = build(tmp_path, files)
    assert (summary["published"], summary["version"]) == (True, 1)
    assert bytes_of(Root(str(tmp_path))) == bytes_of(root)
    assert not build(tmp_path, files)["published"]


def test_two_builds_of_one_corpus_at_once_are_kept_apart(files, tmp_path):
    root = Root(str(tmp_path))
    with root.lock("corpora/test/lock", "the corpus test"):
        with pytest.raises(UserError, match="the corpus test is locked by another process"):
            build(tmp_path, files)


def test_a_corpus_of_nothing_is_not_published(tmp_path):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(crawl.record("https://a.example/", b"gone", status="404 Not Found"))
    with pytest.raises(UserError, match="no document of the corpus test was kept.*extract.http_status took 1"):
        build(tmp_path / "home", [path])
    with pytest.raises(UserError, match="no corpus 'test' is published"):
        read_manifest(Root(str(tmp_path / "home")), "test")


def run_in_process(home, files, workers=2, env=None, wait=True):
    script = (
        "import json, sys; from flows.build_corpus import build_corpus; a = json.loads(sys.argv[1]); "
        "build_corpus.fn(**a)"
    )
    arguments = {
        "name": "test",
        "recipe": "gopher",
        "inputs": [str(f) for f in files],
        "settings": crawl.SETTINGS,
        "workers": workers,
        "engine": "local",
        "home": str(home),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(arguments)],
        env=os.environ | (env or {}),
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, error[-2000:]
    return process


@pytest.mark.slow
def test_killed_at_ten_moments_the_build_ends_with_the_same_bytes(built, files, tmp_path):
    root, _ = built
    rng = random.Random(7)
    killed = 0
    for _ in range(10):
        process = run_in_process(tmp_path, files, wait=False)
        work = tmp_path / "work"
        until = time.monotonic() + 60
        while not work.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run_in_process(tmp_path, files)
    assert killed >= 3
    assert bytes_of(Root(str(tmp_path))) == bytes_of(root)

"""The sample crawl: what it holds, that its bytes are always the same, and that a build does to every planted page what
expectations.yaml says."""

import gzip
import json
import re
import sys
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.errors import UserError
from tasks.ingest import Ingest, plan
from tasks.sample_crawl import (
    BENCHMARK,
    documentation,
    expectations,
    inputs,
    planted,
    planted_values,
    write_sample_crawl,
)
from tasks.sample_crawl.archive import Exchange, archives
from tasks.scrub import apply, find
from tasks.storage import Root

MODULES = ["os", "textwrap", "doctest", "click", "click.types"]  # of the environment, with addresses, with sets
PLANTED = expectations()


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crawl")
    write_sample_crawl(folder, modules=MODULES)
    return folder


def records(path, kind=WarcRecordType.response):
    with open(path, "rb") as file:
        for record in ArchiveIterator(file, record_types=kind):
            yield record.headers["WARC-Target-URI"], record.reader.read()


def pages(folder):
    return {url: body.decode() for source in ("stdlib", "packages")
            for path in folder.glob(f"{source}-*.warc.gz") for url, body in records(path)}


def test_it_is_warc_with_requests_and_responses(crawl):
    warcio = pytest.importorskip("warcio")
    for path in sorted(crawl.glob("*.warc.gz")):
        if "-cut-" in path.name:
            continue
        kinds, requests = Counter(), {}
        with open(path, "rb") as file:
            for record in warcio.ArchiveIterator(file, check_digests="raise"):
                kinds[record.rec_type] += 1
                assert record.format == "warc" and record.rec_headers.protocol == "WARC/1.1"
                if record.rec_type == "request":
                    requests[record.rec_headers["WARC-Concurrent-To"]] = record.rec_headers["WARC-Target-URI"]
                elif record.rec_type == "response":
                    record.content_stream().read()
                    identity = record.rec_headers["WARC-Record-ID"]
                    assert requests[identity] == record.rec_headers["WARC-Target-URI"]
        assert kinds["warcinfo"] == 1 and kinds["request"] == kinds["response"] > 0


def test_the_sources_and_their_addresses(crawl):
    found = plan(inputs(crawl), Ingest(), Root(str(crawl)))
    assert Counter(file.source for file in found.inputs) == {"stdlib": 1, "packages": 1, "planted": 2}
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert {f"https://docs.python.invalid/{version}/library/textwrap.html",
            "https://packages.python.invalid/click/click.types.html"} <= set(pages(crawl))
    for path in crawl.glob("*.warc.gz"):
        if "-cut-" not in path.name:
            assert all(re.match(r"https://[a-z0-9.-]+\.(invalid|example)/", url) for url, _ in records(path))


def test_pages_are_documentation_and_say_nothing_of_this_machine(crawl):
    made = pages(crawl)
    assert len(made) == len(MODULES)
    text = "\n".join(made.values()).replace("&nbsp;", " ")
    assert "Text wrapping and filling." in text and "TestResults" in text
    for path in {sys.prefix, sys.base_prefix, str(documentation.Path.home()), str(crawl.parent)} - {"/usr"}:
        assert path not in text
    assert "file:/" not in text and "gristmill" not in text
    assert set(re.findall(r"\bat 0x[0-9a-f]+", text)) == {"at 0x7f0000000000"}


def test_the_same_bytes_again_from_another_place(crawl, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "17")
    monkeypatch.setenv("SECRET_OF_THIS_SHELL", "must not be seen")
    monkeypatch.chdir(tmp_path)
    write_sample_crawl(tmp_path / "again", modules=MODULES)
    first = {path.name: path.read_bytes() for path in crawl.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_a_second_call_skips_and_a_lost_file_is_written_again(tmp_path, caplog):
    caplog.set_level("INFO", "gristmill.sample_crawl")
    written = write_sample_crawl(tmp_path, modules=["textwrap"])
    assert sorted(written) == sorted(tmp_path.glob("*.warc.gz"))
    assert write_sample_crawl(tmp_path, modules=["textwrap"]) == [] and "skipped" in caplog.text
    written[0].unlink()
    assert write_sample_crawl(tmp_path, modules=["textwrap"]) == written


def test_files_of_another_installation_go(tmp_path, monkeypatch):
    write_sample_crawl(tmp_path, modules=["textwrap"])
    assert list(tmp_path.glob("stdlib-*"))
    monkeypatch.setattr(documentation, "versions", lambda: {"python": "another"})
    write_sample_crawl(tmp_path, modules=[])
    assert not list(tmp_path.glob("stdlib-*")) and list(tmp_path.glob("planted-1-*"))


def test_the_second_batch_lies_beside_the_first(crawl, tmp_path):
    second = write_sample_crawl(tmp_path, batch=2)
    assert len(second) == 1 and not (tmp_path / "stdlib-00000.warc.gz").exists()
    assert second[0].name not in {path.name for path in crawl.iterdir()} and second[0].match("planted-*.warc.gz")
    with pytest.raises(UserError, match="batch 3"):
        write_sample_crawl(tmp_path, batch=3)


def test_a_module_that_hangs_crashes_or_fails_leaves_the_others(tmp_path, monkeypatch):
    modules = {"good": '"""A good one."""', "hangs": "import time; time.sleep(600)", "dies": "import os; os.abort()",
               "fails": "1 / 0", "leaves": "raise SystemExit", "swaps": "import sys; sys.modules[__name__] = 5",
               "asks": "input()", "last": '"""The last one."""'}
    for name, source in modules.items():
        (tmp_path / f"sample_{name}.py").write_text(source)
    monkeypatch.setattr(documentation, "_ENVIRONMENT", documentation._ENVIRONMENT | {"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(documentation, "MODULE_SECONDS", 1.0)
    monkeypatch.setattr(documentation, "standard_library", lambda: [f"sample_{name}" for name in modules])
    monkeypatch.setattr(documentation, "packages", dict)
    rendered = documentation.render(modules=[f"sample_{name}" for name in modules])
    assert set(rendered["stdlib"]) == {"sample_good", "sample_last"}


def test_modules_with_side_effects_are_left_out():
    names = documentation.standard_library()
    assert len(names) > 400 and {"os", "email.message", "xml.dom.minidom", "encodings.utf_8"} <= set(names)
    tops = {name.partition(".")[0] for name in names}
    assert not tops & {"antigravity", "this", "idlelib", "turtledemo", "tkinter", "test", "turtle"}
    assert not any(part.startswith("_") or part == "tests" for name in names for part in name.split("."))


def test_archives_are_closed_when_they_are_full():
    exchanges = [Exchange(f"https://x.example/{n}", "2024-05-01T00:00:00Z", b"%d" % n * 500) for n in range(20)]
    made = dict(archives(exchanges, "x", limit=3000))
    assert list(made) == [f"x-{n:05d}.warc.gz" for n in range(len(made))] and len(made) > 2
    assert all(gzip.decompress(data).startswith(b"WARC/1.1\r\n") for data in made.values())


def test_expectations_are_complete():
    assert len(PLANTED) > 60
    used = {entry["file"] for entry in PLANTED if "file" in entry}
    assert used == {path.name for path in planted.FOLDER.glob("*.html")}
    for entry in PLANTED:
        assert entry["what"] and entry["outcome"] in ("kept", "dropped")
        assert (entry["outcome"] == "dropped") == ("rule" in entry and "stage" in entry)
    assert sum(entry["what"] == "prose" for entry in PLANTED) >= 28


def test_planted_values_stand_in_the_pages_and_are_found():
    texts = {entry["url"]: (planted.FOLDER / entry["file"]).read_text() for entry in PLANTED if "values" in entry}
    assert len(planted_values()) >= 12
    for entry in PLANTED:
        assert all(value in texts[entry["url"]] for value in entry.get("values", ()))
    for text in texts.values():
        [spans] = find([text])
        assert not any(value in apply(text, spans) for value in planted_values())


def test_the_bomb_is_one():
    body, _, _ = planted._bomb()
    assert len(gzip.decompress(body)) > 900 * len(body)


def test_the_benchmark_is_multiple_choice():
    rows = [json.loads(line) for line in BENCHMARK.read_text().splitlines()]
    assert len(rows) >= 40 and len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert len(row["query"].split()) >= 14 and len(set(row["choices"])) == 4 and 0 <= row["gold"] < 4
    assert len({row["gold"] for row in rows}) == 4
    quiz = " ".join((planted.FOLDER / "quiz_night.html").read_text().split())
    assert [row["id"] for row in rows if row["query"] in quiz] == ["sample-21"]


# The build of both nights, with a part of the documentation: rendering all of it takes most of a minute.

@pytest.fixture(scope="module")
def built(tmp_path_factory):
    from flows.build_corpus import build_corpus
    from flows.refresh_corpus import refresh_corpus
    from tasks.pool import close_shared_pool

    home = str(tmp_path_factory.mktemp("home"))
    standard, installed = documentation.standard_library(), documentation.packages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documentation, "standard_library", lambda: standard[::5])
        patch.setattr(documentation, "packages", lambda: {name: names[:4] for name, names in installed.items()})
        first = build_corpus.fn(name="sample", recipe="tiny", inputs=["sample:"], workers=2, home=home)
    root = Root(home)
    write_sample_crawl(root.local / "sample", batch=2)
    second = refresh_corpus.fn(name="sample", workers=2, home=home)
    close_shared_pool()
    return root, first, second


def fates(root, version):
    from tasks.publish import read_manifest, version_folder

    manifest = read_manifest(root, "sample", version)
    folder = version_folder("sample", version)
    return pa.concat_tables(root.read_table(f"{folder}/{part['path']}") for part in manifest["fates"]).to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_every_planted_page_meets_its_fate(built, version):
    root, *_ = built
    rows = fates(root, version)
    names = {row["doc_id"]: row["url"] for row in rows}
    found = defaultdict(Counter)
    for row in rows:
        if row["source"] == "planted":
            of = names.get(row["duplicate_of"])
            found[row["url"]][row["outcome"], row["stage"], row["rule"], of] += 1
    expected = defaultdict(Counter)
    details = {(row["url"], row["rule"]): row["detail"] for row in rows}
    for entry in PLANTED:
        if entry.get("batch", 1) <= version:
            entry = entry | (entry.get("later", {}) if version == 2 else {})
            url = "" if entry.get("cut") else entry["url"]
            expected[url][entry["outcome"], entry.get("stage"), entry.get("rule"), entry.get("duplicate_of")] += 1
            if "detail" in entry:
                assert details[url, entry["rule"]] == entry["detail"], url
    assert found == expected


@pytest.mark.slow
def test_most_documentation_is_kept(built):
    root, first, second = built
    rows = [row for row in fates(root, 1) if row["source"] != "planted"]
    for source in ("stdlib", "packages"):
        outcomes = Counter(row["outcome"] for row in rows if row["source"] == source)
        assert outcomes["kept"] >= 0.55 * outcomes.total(), outcomes
    manifest = root.read_json("corpora/sample/versions/000001/manifest.json")
    assert manifest["bytes"] > 1_000_000
    assert {row["rule"] for row in rows} >= {None, "near", "gopher_words"}
    assert second["version"] == 2 and second["documents"] == first["documents"] + 4
    assert first["failures"] == [] and manifest["sources"] == ["sample:"]


@pytest.fixture(scope="module")
def texts(built):
    root, found = built[0], defaultdict(str)
    for path in root.list("work/extract"):
        if path.endswith("table.parquet"):
            for row in root.read_table(path, ["url", "text"]).to_pylist():
                found[row["url"]] += row["text"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in PLANTED if "holds" in entry], ids=lambda entry: entry["url"])
def test_texts_are_read_as_they_were_written(texts, entry):
    assert entry["holds"] in " ".join(texts[entry["url"]].split())


def contents(root, path):
    """Everything that a file says, as text: its bytes, and of Parquet and DuckDB every value."""
    yield root.read_bytes(path).decode("utf-8", "replace")
    if path.endswith(".parquet"):
        with root.open(path) as file:
            for batch in pq.ParquetFile(file).iter_batches():
                yield str(batch.to_pylist())
    elif path.endswith(".duckdb"):
        import duckdb

        with duckdb.connect(root.at(path), read_only=True) as connection:
            for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield str(connection.execute(f'SELECT * FROM "{name}"').fetchall())


@pytest.mark.slow
def test_no_planted_personal_value_leaves_the_documents(built):
    from tasks.tokenizer import load

    root, *_ = built
    documents = ("work/extract/", "work/excerpt/", "work/documents/", "sample/")
    values = planted_values()
    searched = 0
    for path in root.list(""):
        if not path.startswith(documents):
            searched += 1
            for text in contents(root, path):
                assert not [number for number, value in enumerate(values) if value in text], path
    assert searched > 50
    for version in ("000001", "000002"):
        folder = f"corpora/sample/versions/{version}"
        encoding, texts = load(root.url(f"{folder}/tokenizer")), []
        for path in root.list(f"{folder}/tokens"):
            texts += [encoding.decode(tokens) for tokens in root.read_table(path, ["tokens"])["tokens"].to_pylist()]
        assert not [number for number, value in enumerate(values) if any(value in text for text in texts)]
        choir = [text for text in texts if "The choir of the lower town" in text]
        assert len(choir) == 1
        for kind in ("EMAIL", "PHONE", "IP", "CARD", "IBAN", "AWS_KEY"):
            assert f"<{kind}>" in choir[0], kind

"""From what the user names to splits."""

import gzip
import json

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import members, response
from backports import zstd

from tasks.errors import UserError
from tasks.ingest import Ingest, Split, anchored, compression, plan
from tasks.storage import Root


@pytest.fixture
def root(tmp_path):
    return Root(str(tmp_path / "home"))


def put(folder, name, data=None):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(members(response(0), response(1)) if data is None else data)
    return path


def test_globs_are_sorted_and_each_file_taken_once(tmp_path, root):
    for name in ("b.warc.gz", "a.warc.gz", "sub/c.warc.gz"):
        put(tmp_path / "crawl", name)
    (tmp_path / "link.warc.gz").symlink_to(tmp_path / "crawl/a.warc.gz")
    inputs = [f"{tmp_path}/crawl/b*", f"{tmp_path}/crawl/**/*.warc.gz", f"{tmp_path}/link.warc.gz"]
    planned = plan(inputs, Ingest(), root)
    assert [i.uri.rpartition("/")[2] for i in planned.inputs] == ["b.warc.gz", "a.warc.gz", "c.warc.gz"]
    assert not planned.failures
    folder = plan([f"{tmp_path}/crawl"], Ingest(), root)
    assert [i.uri.rpartition("/")[2] for i in folder.inputs] == ["a.warc.gz", "b.warc.gz", "c.warc.gz"]


def test_names_and_sources(tmp_path, root):
    put(tmp_path, "home/in/x.warc.gz")
    put(tmp_path, "CC-MAIN-2025-18/warc/y.warc.gz")
    put(tmp_path, "news/z.warc.gz")
    put(tmp_path, "more/w.warc.gz")
    planned = plan([f"{tmp_path}/home/in/*", f"{tmp_path}/CC-*/warc/*", f"papers={tmp_path}/news/*"],
                   Ingest(sources={"books": [f"{tmp_path}/more/w.warc.gz"]}, snapshot="S1"), root)
    assert [(i.source, i.snapshot) for i in planned.inputs] == [
        ("in", "S1"), ("web", "CC-MAIN-2025-18"), ("papers", "S1"), ("books", "S1")]
    assert planned.inputs[0].uri == "home:/in/x.warc.gz"
    assert planned.inputs[1].uri == f"file://{tmp_path}/CC-MAIN-2025-18/warc/y.warc.gz"
    assert "path" not in planned.splits[0].identity and "path" not in planned.inputs[0].manifest()


def test_a_home_that_moves_keeps_the_names(tmp_path):
    put(tmp_path, "one/in/x.warc.gz")
    put(tmp_path, "two/in/x.warc.gz")
    splits = [plan([f"{tmp_path}/{home}/in/*"], Ingest(), Root(str(tmp_path / home))).splits for home in ("one", "two")]
    assert [s.identity for s in splits[0]] == [s.identity for s in splits[1]]


@pytest.mark.parametrize("text", ["nothing/*.warc.gz", "absent.warc.gz", "memory://nothing/*.gz", "news=nothing/*"])
def test_input_that_matches_nothing(text, root):
    with pytest.raises(UserError, match="matches no file"):
        plan([text], Ingest(), root)


def test_known_input_may_be_gone(tmp_path, root, caplog):
    put(tmp_path, "new.warc.gz")
    gone, new = f"{tmp_path}/gone/*.warc.gz", f"{tmp_path}/new.warc.gz"
    settings = Ingest(sources={"books": [f"{tmp_path}/books/*"]})
    planned = plan([gone, new], settings, root, known=[gone, f"{tmp_path}/books/*"])
    assert len(planned.inputs) == 1 and "gone/*.warc.gz matches no file" in caplog.text
    with pytest.raises(UserError, match="books.* matches no file"):
        plan([gone, new], settings, root, known=[gone])


def test_no_input(root):
    with pytest.raises(UserError, match="no input"):
        plan([], Ingest(), root)


def test_large_files_are_split_and_others_not(tmp_path, root):
    data = members(*map(response, range(50)))
    put(tmp_path, "in/a.warc.gz", data)
    put(tmp_path, "in/b.jsonl", b'{"text": "x"}\n' * 1000)
    put(tmp_path, "in/c.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 100_000))
    splits = plan([f"{tmp_path}/in/*"], Ingest(split_bytes=4000), root).splits
    by_file = {}
    for split in splits:
        by_file.setdefault(split.uri[-8:], []).append((split.start, split.end))
    cuts = by_file["a.warc.gz"[-8:]]
    assert cuts[0][0] == 0 and cuts[-1][1] == len(data)
    assert all(a[1] == b[0] for a, b in zip(cuts, cuts[1:], strict=False))
    assert all(end - start <= 4000 for start, end in cuts) and len(cuts) == -(-len(data) // 4000)
    assert len(by_file["/b.jsonl"]) == 4 and len(by_file["jsonl.gz"]) == 1


def test_parquet_is_split_at_row_groups(tmp_path, root):
    path = put(tmp_path, "in/x.parquet", b"")
    pq.write_table(pa.table({"text": [f"row {n}" * 50 for n in range(1000)]}), path, row_group_size=100)
    splits = plan([str(path)], Ingest(split_bytes=1), root).splits
    assert [(s.start, s.end) for s in splits] == [(n, n + 100) for n in range(0, 1000, 100)]


def test_files_that_cannot_be_read_are_failures(tmp_path, root):
    put(tmp_path, "in/empty.warc.gz", b"")
    put(tmp_path, "in/not.parquet", b"nothing of the kind")
    put(tmp_path, "in/x.warc.gz")
    planned = plan([f"{tmp_path}/in/*"], Ingest(), root)
    assert len(planned.inputs) == 1 and sorted(f.reason for f in planned.failures) == ["empty_file", "unreadable_file"]


def test_digests_are_kept_and_follow_changes(tmp_path, root, monkeypatch):
    monkeypatch.setattr("tasks.ingest.download._CACHED_FROM", 0)
    path = put(tmp_path, "in/x.warc.gz")
    first = plan([str(path)], Ingest(), root).inputs[0].digest
    assert root.list("cache/digests") and plan([str(path)], Ingest(), root).inputs[0].digest == first
    path.write_bytes(members(response(5)))
    assert plan([str(path)], Ingest(), root).inputs[0].digest != first


def test_memory_uris(root):
    import fsspec

    fs = fsspec.filesystem("memory")
    for name in ("b", "a"):
        fs.pipe_file(f"/ingest-test/{name}.warc.gz", members(response(0)))
    planned = plan(["memory://ingest-test/*.warc.gz"], Ingest(), root)
    assert [i.uri[-9:] for i in planned.inputs] == ["a.warc.gz"[-9:], "b.warc.gz"[-9:]]
    assert all(s.path.startswith(root.uri) for s in planned.splits)
    remote = plan(["memory://ingest-test/*.warc.gz"], Ingest(), Root("memory://ingest-home"))
    assert [s.path for s in remote.splits] == [i.uri for i in remote.inputs]
    assert [i.digest for i in remote.inputs] == [i.digest for i in planned.inputs]


def test_compression_is_told_by_the_first_bytes():
    assert compression(gzip.compress(b"x")[:4]) == "gzip"
    assert compression(b"\x28\xb5\x2f\xfd") == "zstd" and compression(b"\x5d\x2a\x4d\x18") == "zstd"
    assert compression(b"\x04\x22\x4d\x18") == "lz4" and compression(b"WARC") == "none" and compression(b"") == "none"


@pytest.mark.parametrize("suffix, pack", [("gz", gzip.compress), ("lz4", lz4.frame.compress), ("zst", zstd.compress)])
def test_json_lines_are_known_in_any_packing_and_read_as_one(tmp_path, root, suffix, pack):
    data = b"".join(b'{"text": "%064x"}\n' % i for i in range(200))
    put(tmp_path, f"rows/a.jsonl.{suffix}", pack(data))
    planned = plan([f"{tmp_path}/rows/a.jsonl.{suffix}"], Ingest(split_bytes=4096), root)
    assert [(i.kind, i.source) for i in planned.inputs] == [("jsonl", "rows")] and len(planned.splits) == 1


@pytest.mark.parametrize("pack", [lz4.frame.compress, zstd.compress])
def test_archives_are_entered_at_any_frame(tmp_path, root, pack):
    suffix = "lz4" if pack is lz4.frame.compress else "zst"
    put(tmp_path, f"crawl.warc.{suffix}", b"".join(pack(b"WARC/1.0\r\n%0999d" % i) for i in range(100)))
    assert len(plan([f"{tmp_path}/crawl.warc.{suffix}"], Ingest(split_bytes=2048), root).splits) > 1


def test_a_split_is_a_plain_value():
    split = Split("home:/x", "/a/x", 0, 5, "web", "", "0" * 64, "warc")
    assert json.loads(json.dumps(split.identity))["uri"] == "home:/x"


def test_home_means_the_data_root(tmp_path, root):
    put(tmp_path, "home/in/x.warc.gz")
    put(tmp_path, "home/in/y.warc.gz")
    planned = plan(["home:/in/*.warc.gz", "news=home:/in/y.warc.gz"], Ingest(), root)
    assert [(i.uri, i.source) for i in planned.inputs] == [("home:/in/x.warc.gz", "in"), ("home:/in/y.warc.gz", "in")]
    assert [i.source for i in plan(["news=home:/in/y.warc.gz"], Ingest(), root).inputs] == ["news"]
    with pytest.raises(UserError, match="leaves the data root"):
        plan(["home:/../outside.warc.gz"], Ingest(), root)


def test_sample_means_the_sample_crawl(root, monkeypatch):
    import tasks.sample_crawl as sample_crawl

    write = sample_crawl.write_sample_crawl
    monkeypatch.setattr(sample_crawl, "write_sample_crawl", lambda folder: write(folder, modules=["textwrap", "click"]))
    planned = plan(["sample:"], Ingest(), root)
    assert [i.source for i in planned.inputs] == ["stdlib", "packages", "planted", "planted"]
    assert planned.inputs[0].uri == "home:/sample/stdlib-00000.warc.gz"
    assert [i.digest for i in plan(["sample:"], Ingest(), root).inputs] == [i.digest for i in planned.inputs]
    with pytest.raises(UserError, match="local disk"):
        plan(["sample:"], Ingest(), Root("memory://sample-home"))


def test_anchored_inputs_are_found_from_any_folder_and_carry_no_secret(tmp_path, monkeypatch):
    root = Root(str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert anchored("crawl/*.warc.gz", root) == f"{tmp_path}/crawl/*.warc.gz"
    assert anchored("news=crawl/*.warc.gz", root) == f"news={tmp_path}/crawl/*.warc.gz"
    assert anchored("home/sample/x.warc.gz", root) == "home:/sample/x.warc.gz"
    for same in ("sample:", "home:/x", "commoncrawl:CC-MAIN-2025-18", "s3://bucket/x/*.warc.gz"):
        assert anchored(same, root) == same
    for secret in ("https://me:word@host/x.warc.gz", "https://host/x.warc.gz?X-Amz-Signature=abc", "https://h/x?token=t"):
        with pytest.raises(UserError, match="carries a credential") as caught:
            anchored(secret, root)
        assert "abc" not in str(caught.value) and "word" not in str(caught.value)

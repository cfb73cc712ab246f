"""What a refresh goes on with when inputs are empty, gone, or arrive."""

import crawl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.build_corpus import build_corpus
from flows.refresh_corpus import arrived, refresh_corpus
from tasks.ingest import Input, Plan, Split
from tasks.pool import close_shared_pool


@pytest.fixture(scope="module", autouse=True)
def no_pool_left():
    yield
    close_shared_pool()


def file(name: str, digest: str = "0") -> Input:
    return Input(f"file:///{name}", "web", "", digest, 10, f"/{name}", "warc")


def split(of: Input) -> Split:
    return Split(of.uri, of.path, 0, of.bytes, of.source, of.snapshot, of.digest, of.kind)


def test_the_order_is_that_of_arrival_and_a_changed_file_keeps_its_place():
    a, b, c = file("a"), file("b"), file("c")
    last = {"inputs": [i.manifest() | {"kind": "warc", "cuts": [[0, 10]]} for i in (b, c)]}
    changed = file("b", "1")
    found = arrived(last, Plan([split(a), split(changed)], [a, changed], []))
    assert [i.uri for i in found.inputs] == [b.uri, c.uri, a.uri]
    assert [s.identity for s in found.splits] == [split(i).identity for i in (changed, c, a)]


def test_inputs_that_are_empty_or_all_gone(tmp_path):
    folder, home = tmp_path / "in", str(tmp_path / "home")
    crawl.write_crawl(folder, files=1)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "empty.parquet")
    first = build_corpus.fn(
        name="test", recipe="gopher", inputs=[f"{folder}/*"], settings=crawl.SETTINGS, workers=1, home=home
    )
    again = refresh_corpus.fn(name="test", workers=1, home=home)
    assert not again["published"] and again["documents"] == first["documents"]
    folder.rename(tmp_path / "elsewhere")
    gone = refresh_corpus.fn(name="test", workers=1, home=home)
    assert not gone["published"] and gone["documents"] == first["documents"]

"""Downloads from a server that lays files out as Common Crawl does, throttles, and cuts connections."""

import gzip
import http.server
import threading
from collections import Counter

import pytest
from archives import members, response

from tasks.errors import UserError
from tasks.extract import Extract, documents
from tasks.ingest import Ingest, plan
from tasks.ingest.download import FetchError, fetch
from tasks.storage import Root

FILES = [f"crawl-data/CC-MAIN-2025-18/segments/1/warc/CC-MAIN-{n}.warc.gz" for n in range(3)]


class Crawl(http.server.BaseHTTPRequestHandler):
    """Serves `files`; what `faults` lists for a path happens first, one a request: a status, "cut", "no_range",
    "chunks" (no length is stated) or "chunks_cut"."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    faults: dict[str, list]
    seen: Counter
    ranges: list

    def do_GET(self):
        path = self.path.lstrip("/")
        self.seen[path] += 1
        fault = self.faults[path].pop(0) if self.faults.get(path) else None
        data = self.files.get(path)
        if isinstance(fault, int) or data is None:
            self.send_response(fault if fault else 404)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault in ("chunks", "chunks_cut"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s" % (len(data), data if fault == "chunks" else data[:len(data) // 2]))
            if fault == "chunks":
                self.wfile.write(b"\r\n0\r\n\r\n")
            self.close_connection = True
            return
        start = 0
        if (wanted := self.headers.get("Range")) and fault != "no_range":
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.ranges.append(start)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:]
        self.wfile.write(rest[:len(rest) // 2] if fault == "cut" else rest)
        if fault == "cut":
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def crawl():
    files = {name: members(*(response(10 * n + i) for i in range(4))) for n, name in enumerate(FILES)}
    files["crawl-data/CC-MAIN-2025-18/warc.paths.gz"] = gzip.compress("\n".join(FILES).encode() + b"\n")
    handler = type("Handler", (Crawl,), {"files": files, "faults": {}, "seen": Counter(), "ranges": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}/"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path):
    return Root(str(tmp_path / "home"))


def fast(crawl, **more):
    return Ingest(base_url=crawl.url, backoff_seconds=0, attempts=4, timeout_seconds=5, **more)


def test_a_snapshot_by_name_with_a_limit(crawl, root):
    planned = plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl, limit=2), root)
    assert [i.uri for i in planned.inputs] == [f"commoncrawl:{name}" for name in FILES[:2]]
    assert {(i.source, i.snapshot) for i in planned.inputs} == {("commoncrawl", "CC-MAIN-2025-18")}
    assert all(len(documents(s, Extract()).table) == 4 for s in planned.splits)


def test_a_path_list_by_address_brings_its_own_base(crawl, root):
    settings = fast(crawl).model_copy(update={"base_url": "http://127.0.0.1:9/"})
    planned = plan([f"{crawl.url}crawl-data/CC-MAIN-2025-18/warc.paths.gz"], settings, root)
    assert len(planned.inputs) == 3 and not planned.failures


def test_a_local_path_list_over_a_local_mirror(crawl, root, tmp_path):
    for name, data in crawl.files.items():
        (tmp_path / "mirror" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror" / name).write_bytes(data)
    settings = Ingest(base_url=str(tmp_path / "mirror"))
    planned = plan(["commoncrawl:CC-MAIN-2025-18"], settings, root)
    assert [i.uri for i in planned.inputs] == [f"commoncrawl:{name}" for name in FILES]


def test_throttling_and_cut_connections_are_outlasted(crawl, root):
    crawl.faults = {FILES[0]: [503, 403, 429], FILES[1]: ["cut", "cut", 500, "cut"], FILES[2]: ["cut", "no_range"]}
    planned = plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root)
    assert not planned.failures and len(planned.inputs) == 3
    for split, name in zip(planned.splits, FILES, strict=True):
        with open(split.path, "rb") as file:
            assert file.read() == crawl.files[name]
    assert crawl.ranges  # went on where it was cut


def test_what_was_fetched_is_not_fetched_again(crawl, root):
    first = plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root)
    seen = {name: crawl.seen[name] for name in FILES}
    assert plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root) == first
    assert {name: crawl.seen[name] for name in FILES} == seen


def test_a_path_list_that_grew_is_seen_and_the_old_one_serves_when_the_server_is_down(crawl, root):
    paths = "crawl-data/CC-MAIN-2025-18/warc.paths.gz"
    whole, crawl.files[paths] = crawl.files[paths], gzip.compress(FILES[0].encode() + b"\n")
    assert len(plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root).inputs) == 1
    crawl.files[paths] = whole
    crawl.faults = {paths: [503] * 4}
    assert len(plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root).inputs) == 1
    assert len(plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root).inputs) == 3


def test_a_mirror_of_the_same_files_adds_none(crawl, root, tmp_path):
    for name, data in crawl.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    texts = ["commoncrawl:CC-MAIN-2025-18", str(tmp_path / "crawl-data/CC-MAIN-2025-18/warc.paths.gz")]
    planned = plan(texts, fast(crawl), root)
    assert [i.uri for i in planned.inputs] == [f"commoncrawl:{name}" for name in FILES]


def test_a_download_of_no_stated_length_that_is_cut_is_not_taken_for_whole(crawl, root):
    crawl.faults = {FILES[0]: ["chunks_cut", "chunks_cut", "chunks"]}
    with open(fetch(crawl.url + FILES[0], root, fast(crawl)), "rb") as file:
        assert file.read() == crawl.files[FILES[0]]
    assert crawl.seen[FILES[0]] == 3


def test_a_failed_download_is_a_failure_and_not_the_end(crawl, root):
    crawl.faults = {FILES[0]: [503] * 9}
    del crawl.files[FILES[1]]
    planned = plan(["commoncrawl:CC-MAIN-2025-18"], fast(crawl), root)
    assert [(f.uri, f.reason) for f in planned.failures] == [
        (f"commoncrawl:{FILES[0]}", "http_503"), (f"commoncrawl:{FILES[1]}", "http_404")]
    assert len(planned.inputs) == 1 and crawl.seen[FILES[0]] == 4 and crawl.seen[FILES[1]] == 1
    assert not [p for p in root.list("cache/raw") if FILES[0][-12:] in p]


def test_an_unknown_snapshot_says_what_to_check(crawl, root):
    with pytest.raises(UserError, match="snapshot's name.*base_url"):
        plan(["commoncrawl:CC-MAIN-1066-01"], fast(crawl), root)


def test_waiting_grows_and_has_jitter(crawl, root):
    crawl.faults = {FILES[0]: [503] * 9}
    waits = []
    settings = fast(crawl).model_copy(update={"attempts": 7, "backoff_seconds": 1.0})
    with pytest.raises(FetchError, match="http_503"):
        fetch(crawl.url + FILES[0], root, settings, waits.append)
    assert len(waits) == 6
    assert all(2 ** n / 2 <= wait <= 2 ** n for n, wait in enumerate(waits))


def test_no_server(root):
    with pytest.raises(FetchError, match="ConnectionRefusedError"):
        fetch("http://127.0.0.1:9/x", root, Ingest(attempts=2, backoff_seconds=0))

import http.server
import json
import os
import threading
import time

import pytest

from tasks import doctor, lineage
from tasks.errors import UserError
from tasks.storage import Root
from tests.lineage_home import make_home


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def findings(root: Root, **options) -> dict[str, tuple[str, str, str]]:
    return {name: tuple(rest) for name, *rest in doctor.diagnose(root, **options)}


def test_a_sound_home_is_ok(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    lineage.rebuild(root)
    found = findings(root)
    for check in ("python", "data root", "lineage", "locks", "unfinished files", "settings", "prefect server"):
        assert found[check][0] == "ok", (check, found[check])
    assert found["lineage"][1].startswith("3 corpus versions, ")
    assert not list(tmp_path.glob(".doctor*"))


def test_every_finding_that_is_not_ok_says_how_to_mend_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = findings(Root(str(tmp_path / "not" / "there")))
    assert found["prefect server"][0] == "fail" and "127.0.0.1:9" in found["prefect server"][1]
    assert found["compiler"][0] == "warn" and "C++" in found["compiler"][1]
    assert not (tmp_path / "not").exists()
    for state, said, remedy in found.values():
        assert state in ("ok", "warn", "fail") and said
        assert state == "ok" or remedy


def _serve(version: str):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/admin/version" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(version).encode())

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize(("version", "state"), [(doctor._version("prefect"), "ok"), ("2.0.1", "warn")])
def test_a_server_of_another_version_is_told(tmp_path, monkeypatch, version, state):
    server = _serve(version)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    try:
        assert doctor.prefect_server()[0] == state
    finally:
        server.shutdown()
        server.server_close()


def test_a_check_that_hangs_or_breaks_does_not_end_the_doctor(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("no")

    monkeypatch.setattr(doctor, "DEADLINE", 0.2)
    monkeypatch.setattr(doctor, "gpu", lambda: time.sleep(60))
    monkeypatch.setattr(doctor, "machine", broken)
    found = findings(Root(str(tmp_path)))
    assert found["gpu"][0] == "warn" and "no answer" in found["gpu"][1]
    assert found["cores and memory"] == ("warn", "the check itself failed (RuntimeError)", "report it as a defect")


def test_packages_that_do_not_fit_are_named(monkeypatch):
    versions = {"prefect": "3.9.1", "fastapi": "0.151.0", "duckdb": None}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1.0"))
    monkeypatch.setattr(doctor, "_requirements", lambda: ["prefect==3.8.*", "fastapi<0.151", "duckdb>=1.4", "rich",
                                                          "dask; extra == 'dask'"])
    state, said, remedy = doctor.packages()
    assert state == "fail" and "pip install" in remedy
    assert said == "prefect is 3.9.1, not ==3.8.*; fastapi is 0.151.0, not <0.151; duckdb is missing"


def test_two_packages_that_are_fasttext_are_told(monkeypatch):
    there = {"fasttext-predict": "1", "fasttext-numpy2-wheel": "1"}
    monkeypatch.setattr(doctor, "_version", there.get)
    assert doctor.fasttext()[0] == "fail" and "fasttext-predict" in doctor.fasttext()[1]


def test_a_full_disk_and_an_unwritable_root_are_told(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2**20, "total": 2**40})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert doctor.disk(Root(str(tmp_path)))[0] == "fail"

    def refuse(self, path, data):
        raise PermissionError("no")

    monkeypatch.setattr(Root, "write_bytes", refuse)
    assert doctor.writable(Root(str(tmp_path)))[0] == "fail"


def test_left_over_files_and_held_locks_are_told(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    old = tmp_path / "work" / ".table.parquet.0123456789ab.tmp"
    old.write_bytes(b"x" * 2**20)
    os.utime(old, (1, 1))
    (tmp_path / "work" / ".young.tmp").write_bytes(b"x")
    state, said, remedy = doctor.orphans(root)
    assert state == "warn" and "1 temporary files" in said and "1.0 MiB" in said and str(tmp_path) in remedy
    assert doctor.locks(root)[1] == "none held"
    with root.lock("corpora/web/lock", "web"):
        if os.path.exists("/proc/locks"):
            assert "corpora/web/lock (process" in doctor.locks(root)[1]
    assert doctor.locks(root)[1] == "none held"


def test_a_lineage_that_is_broken_or_stale_is_told(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    lineage.rebuild(root)
    root.remove("corpora/other/versions/000001/plan.parquet")
    assert doctor.lineage(root)[0] == "warn" and doctor.lineage(root)[1].startswith("1 of the tables")
    (tmp_path / "lineage.duckdb").write_bytes(b"x" * 10_000)
    assert doctor.lineage(root)[0] == "fail"


def test_settings_are_loaded_and_their_mistakes_shown(tmp_path, monkeypatch):
    def wrong():
        raise UserError("tiny.yaml: there is no setting fliter; did you mean filter?")

    assert findings(Root(str(tmp_path)), settings=wrong)["settings"] == (
        "fail", "tiny.yaml: there is no setting fliter; did you mean filter?", "mend the file")
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    (tmp_path / "flows" / "recipes").mkdir(parents=True)
    assert doctor.recipes()[0] == "fail"
    (tmp_path / "flows" / "recipes" / "mine.yaml").write_text("a: [1\nb: 2\n")
    assert doctor.recipes()[0] == "fail" and "mine.yaml cannot be read at line 2" in doctor.recipes()[1]

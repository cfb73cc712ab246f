import errno
import multiprocessing
import os

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import UserError
from tasks.storage import Root, from_anywhere, home_uri


@pytest.fixture
def root(tmp_path):
    return Root(str(tmp_path / "home"))


@pytest.mark.parametrize("uri", ["memory://storage-test", None])
def test_reads_back_what_was_written(uri, tmp_path):
    root = Root(uri or str(tmp_path))
    digest = root.write_bytes("a/b.bin", b"abc")
    assert root.read_bytes("a/b.bin") == b"abc"
    assert root.digest("a/b.bin") == digest
    assert root.list("a") == root.list("") == ["a/b.bin"]
    assert root.exists("a/b.bin") and not root.exists("a/c.bin")
    assert root.list("nothing") == [] and root.folders("nothing") == []
    table = pa.table({"x": [1, 2, 3], "y": ["a", None, "c"]})
    root.write_table("t.parquet", table)
    assert root.read_table("t.parquet").equals(table)
    root.remove("a/b.bin")
    root.remove("a/b.bin")
    assert not root.exists("a/b.bin")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ".."])
def test_a_path_cannot_leave_the_root(root, path):
    with pytest.raises(UserError, match="leaves the data root"):
        root.write_bytes(path, b"")


def test_a_failed_write_leaves_the_old_file_and_no_other(root, monkeypatch):
    root.write_bytes("x", b"old")

    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match="disk is full.*GRISTMILL_HOME"):
        root.write_bytes("x", b"new")
    assert root.read_bytes("x") == b"old"
    assert os.listdir(root.uri) == ["x"]


def test_unfinished_files_are_not_listed(root):
    root.write_bytes("d/x", b"")
    (root.local / "d" / ".y.123.tmp").write_bytes(b"half")
    assert root.list("d") == ["d/x"]


def test_a_flipped_bit_in_a_table_is_noticed(root):
    root.write_table(
        "t.parquet",
        pa.table({"x": list(range(10000))}),
        compression="none",
        compression_level=None,
        use_dictionary=False,
    )
    data = bytearray(root.read_bytes("t.parquet"))
    data[5000] ^= 4
    root.write_bytes("t.parquet", bytes(data))
    with pytest.raises(OSError):
        root.read_table("t.parquet")


@given(value=st.dictionaries(st.text(max_size=5), st.integers()))
def test_equal_values_are_equal_json(value):
    root = Root("memory://json-test")
    assert root.write_json("a", value) == root.write_json("b", dict(reversed(value.items())))
    assert root.read_json("a") == value


def _hold(uri, ready, end):
    with Root(uri).lock("lock", "the corpus x"):
        ready.set()
        end.wait(30)
        os._exit(9)  # as if killed: no clean-up runs


def test_one_at_a_time_holds_the_lock_and_a_dead_process_none(root):
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(root.uri, ready, end))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UserError, match="the corpus x is locked"), root.lock("lock", "the corpus x"):
            pass
    finally:
        end.set()
        process.join(30)
    with root.lock("lock", "the corpus x"):
        pass


def test_a_file_system_without_locks_is_not_taken_for_one_that_is_locked(root, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UserError, match="this file system gives no locks .No locks available"):
        with root.lock("lock", "the corpus x"):
            pass


def test_the_lock_of_an_object_store():
    root = Root("memory://lock-test")
    with root.lock("lock", "the corpus x"):
        with pytest.raises(UserError, match="locked"), root.lock("lock", "the corpus x"):
            pass
    with root.lock("lock", "the corpus x"):
        pass


def test_a_link_is_the_same_bytes(root):
    root.write_bytes("a/x", b"123")
    root.link("a/x", "b/y")
    root.remove("a/x")
    assert root.read_bytes("b/y") == b"123"


def test_the_home_is_the_argument_then_the_environment_then_data(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRISTMILL_HOME", raising=False)
    assert home_uri() == str(tmp_path / "data")
    monkeypatch.setenv("GRISTMILL_HOME", "s3://bucket/prefix")
    assert home_uri() == "s3://bucket/prefix"
    assert home_uri(str(tmp_path)) == str(tmp_path)


def test_a_link_outlives_a_power_cut_and_a_full_disk_is_told(root, monkeypatch):
    root.write_bytes("a", b"x")
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    root.link("a", "folder/b")
    assert synced == [root.at("folder")]
    for function in ("link", "makedirs"):

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(UserError, match="the disk is full"):
                root.link("a", "other/c")


def test_a_file_that_a_setting_names_is_found_from_any_folder(tmp_path, monkeypatch):
    from tasks.decontaminate import Decontaminate
    from tasks.extract import Extract
    from tasks.scrub import Scrub

    monkeypatch.chdir(tmp_path)
    assert from_anywhere("key") == f"{tmp_path}/key" and not from_anywhere("~/key").startswith("~")
    assert [from_anywhere(a) for a in ("s3://b/x", "sample:", "https://a/x")] == ["s3://b/x", "sample:", "https://a/x"]
    assert Scrub(replacement="pseudonym", key_file="key").key_file == f"{tmp_path}/key"
    assert Decontaminate(benchmarks=["b/*.jsonl"]).benchmarks == (f"{tmp_path}/b/*.jsonl",)
    assert Extract(opt_out=["o.txt"], blocklists=["s3://b/l.gz"]).opt_out == (f"{tmp_path}/o.txt",)

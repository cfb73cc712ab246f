"""Arrays that are made once and mapped by every process."""

import os
import time

import numpy as np
import pytest

from tasks import mapped as module
from tasks.mapped import mapped


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gristmill" / "tables"


ARRAYS = (np.arange(7, dtype=np.uint8), np.arange(10, dtype=np.uint64), np.ones((3, 5), np.float32),
          np.zeros(0, np.int32), np.array([7], np.int64))


def maker(calls, *files, **others):
    """A function as another process would have it: with nothing in memory yet."""
    @mapped(*files, **others)
    def arrays():
        calls.append(1)
        return tuple(array.copy() for array in ARRAYS)

    return arrays


def check(found):
    assert len(found) == len(ARRAYS)
    for array, expected in zip(found, ARRAYS, strict=True):
        assert array.dtype == expected.dtype and array.shape == expected.shape and (array == expected).all()
        assert not array.flags.writeable and array.flags.aligned and array.flags.c_contiguous


def test_they_are_made_once(cache):
    calls = []
    first = maker(calls)
    check(first())
    assert first() is first()
    check(maker(calls)())
    assert calls == [1] and len(list(cache.iterdir())) == 1


def test_another_source_or_version_makes_them_anew(cache, tmp_path, monkeypatch):
    calls, source = [], tmp_path / "words.bin"
    source.write_bytes(b"one")
    maker(calls, source, libraries=("numpy",))()
    source.write_bytes(b"two")
    maker(calls, source, libraries=("numpy",))()
    assert len(calls) == 2
    monkeypatch.setattr(module, "library_version", lambda name: "0.0")
    maker(calls, source, libraries=("numpy",))()
    assert len(calls) == 3 == len(list(cache.iterdir()))


@pytest.mark.parametrize("left", [0, 1, 150, -1, -8, -70, -264])
def test_a_damaged_file_is_replaced(cache, left):
    calls = []
    maker(calls)()
    path, = cache.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:left])
    check(maker(calls)())
    assert len(calls) == 2 and path.read_bytes() == data


def test_what_others_could_have_written_is_not_believed(cache):
    calls = []
    maker(calls)()
    path, = cache.iterdir()
    for part in (path, cache):
        mode = part.stat().st_mode
        part.chmod(mode | 0o002)
        check(maker(calls)())
        part.chmod(mode & ~0o022)
    assert len(calls) == 3
    check(maker(calls)())
    assert len(calls) == 3 and cache.stat().st_mode & 0o077 == 0


def test_what_older_versions_left_goes_after_a_month(cache, tmp_path):
    calls, source = [], tmp_path / "words.bin"
    for text, days in (("old", 40), ("newer", 20), ("now", 0)):
        source.write_text(text)
        before = set(cache.glob("*"))
        maker(calls, source)()
        path, = set(cache.iterdir()) - before
        os.utime(path, (time.time() - days * 86400,) * 2)
    assert len(list(cache.iterdir())) == 2


def test_without_a_folder_each_process_makes_its_own(cache):
    calls = []
    cache.parent.mkdir(parents=True)
    cache.write_text("no folder")
    check(maker(calls)())
    check(maker(calls)())
    assert len(calls) == 2


def test_a_user_without_a_home_is_served(monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    check(maker([])())

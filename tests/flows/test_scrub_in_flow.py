"""Pseudonyms in a whole build: one fake a value, the same for any number of workers, and the key nowhere."""

import base64
import hashlib

import crawl
import pytest

from tasks.publish import read_manifest, version_folder
from tasks.scrub.pseudonyms import Pseudonyms
from tasks.storage import Root
from tasks.tokenizer import load

KEY = b"for tests alone: no secret 0123456789"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "pseudonyms.key"
    path.write_bytes(KEY)
    return path


@pytest.fixture(scope="module")
def homes(key_file, tmp_path_factory):
    from flows.build_corpus import build_corpus

    files = crawl.write_crawl(tmp_path_factory.mktemp("crawl"), files=2, pages=20)
    settings = crawl.SETTINGS | {"scrub": {"replacement": "pseudonym", "key_file": str(key_file)}}
    made = []
    for workers, order in ((1, files), (2, files[::-1])):
        home = tmp_path_factory.mktemp(f"home{workers}")
        inputs = [str(path) for path in order]
        build_corpus.fn(name="test", recipe="gopher", inputs=inputs, settings=settings, workers=workers, engine="local",
                        home=str(home))
        made.append(Root(str(home)))
    return made


def texts(root):
    folder = version_folder("test", 1)
    encoding = load(root.url(f"{folder}/tokenizer"))
    return [encoding.decode(tokens) for shard in read_manifest(root, "test")["shards"]
            for tokens in root.read_table(f"{folder}/{shard['path']}")["tokens"].to_pylist()]


def test_one_fake_stands_for_the_value_everywhere(homes):
    fake = Pseudonyms(KEY).fake("EMAIL", crawl.EMAIL)
    for root in homes:
        read = texts(root)
        assert sum(fake in text for text in read) >= 2
        assert not any(crawl.EMAIL in text or "<EMAIL>" in text for text in read)
    assert sorted(texts(homes[0])) == sorted(texts(homes[1]))


def test_the_key_is_in_no_file_of_a_build(homes):
    forms = [KEY, KEY.hex().encode(), base64.b64encode(KEY), hashlib.sha256(KEY).hexdigest().encode(),
             hashlib.sha256(KEY).digest()]
    searched = 0
    for root in homes:
        for path in root.list(""):
            data = root.read_bytes(path)
            if path.endswith(".parquet"):
                data += str(root.read_table(path).to_pydict()).encode()
            assert not any(form in data for form in forms), path
            searched += 1
    assert searched > 50

import pytest

from tasks.errors import UserError
from tasks.publish import funnel, published_versions, read_manifest
from tasks.stage import Artifact, Done
from tasks.storage import Root


def done(rows_in: int, **rules: int) -> Done:
    return Done("key", Artifact("path", "sha", rows_in - sum(rules.values())), None, rows_in, rules, 0.0, 0.0)


def test_the_funnel_adds_up_the_shards():
    rows = funnel([("extract", [done(10, http_status=3), done(5, http_status=1, empty_text=1)]), ("dedup", [done(10)])])
    assert rows == [
        {"stage": "extract", "in": 15, "kept": 10, "dropped": 5, "rules": {"empty_text": 1, "http_status": 4}},
        {"stage": "dedup", "in": 10, "kept": 10, "dropped": 0, "rules": {}}]


def test_records_lost_between_stages_stop_the_publication():
    with pytest.raises(ValueError, match="7 records came out before dedup, and 6 went into it"):
        funnel([("extract", [done(10, http_status=3)]), ("dedup", [done(6)])])


def test_an_unknown_corpus_or_version_names_those_there_are(tmp_path):
    root = Root(str(tmp_path))
    with pytest.raises(UserError, match="no corpus 'news' is published.*build one with"):
        read_manifest(root, "news")
    root.write_json("corpora/web/versions/000002/manifest.json", {"version": 2})
    root.write_bytes("corpora/web/versions/000003/tokens/shard-00000.parquet", b"of a publication that was killed")
    root.write_bytes("corpora/web/current", b"000002")
    assert published_versions(root, "web") == [2]
    assert read_manifest(root, "web") == read_manifest(root, "web", 2) == {"version": 2}
    with pytest.raises(UserError, match="no corpus 'news' is published.*there are web"):
        read_manifest(root, "news")
    with pytest.raises(UserError, match="the corpus web has no version 3; there are 2"):
        read_manifest(root, "web", 3)

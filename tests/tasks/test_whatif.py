"""What would be kept under other rules, held against the filter stage itself."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cli import app
from tasks import schema
from tasks.annotate import SIGNALS
from tasks.errors import UserError
from tasks.filter import ORIGIN, PRESETS, RULE_TABLE, Filter, decide
from tasks.publish import Account, all_fates
from tasks.storage import Root
from tasks.whatif import changed_settings, parse_changes, whatif

PARTS, ROWS = 3, 40
NOW = Filter(presets=["gopher", "c4"], language={"keep": ["en", "de"]}, gopher_words={"min": {"default": 50, "de": 70}})


def make_part(part: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Documents, signals and the kept rows that deduplication leaves. Values lie near the bounds of several rules."""
    rng = np.random.default_rng(part)
    ids = schema.id_array([schema.doc_id(f"part{part}", i) for i in range(ROWS)])
    special = {
        "n_words": rng.integers(30, 120, ROWS), "n_bytes": rng.integers(300, 900, ROWS),
        "mean_word_length": rng.uniform(2.8, 8, ROWS),
        "letter_token_fraction": rng.choice([0.6, 0.79, 0.9], ROWS, p=[0.1, 0.1, 0.8]),
        "n_stop_words": rng.integers(1, 8, ROWS), "c4_sentences": rng.integers(3, 9, ROWS),
        "n_curly_brackets": rng.choice([0, 2], ROWS, p=[0.9, 0.1]), "mean_words_per_line": rng.uniform(2.5, 30, ROWS),
        "language": rng.choice(["en", "de", "fr"], ROWS, p=[0.6, 0.3, 0.1]), "n_pieces": rng.integers(120, 140, ROWS),
        "language_score": rng.choice([0.5, 0.7, 0.9], ROWS, p=[0.1, 0.1, 0.8]),
        "terminal_line_fraction": rng.uniform(0.1, 1, ROWS),
        "short_line_fraction": rng.uniform(0, 0.8, ROWS), "letter_piece_fraction": rng.choice([0.7, 0.9], ROWS),
        "repeated_5gram_char_fraction": rng.choice([0.0, 0.2], ROWS)}
    signals = {"doc_id": ids, "row": np.arange(ROWS, dtype=np.int32)} | {
        field.name: pa.array(special.get(field.name, np.zeros(ROWS)).tolist()).cast(field.type)
        for field in SIGNALS if field.name not in ("doc_id", "row", "minhash")}
    documents = {"doc_id": ids, "url": [f"https://site{i % 5}.example/{part}/{i}" for i in range(ROWS)],
                 "domain": [f"site{i % 5}.example" for i in range(ROWS)], "snapshot": ["CC-MAIN-2026-01"] * ROWS,
                 "source": rng.choice(["web", "news"], ROWS).tolist(), "warc_file": ["crawl.warc.gz"] * ROWS,
                 "warc_offset": np.arange(ROWS), "rights": [["noai"] if i % 9 == 0 else [] for i in range(ROWS)]}
    table = pa.table(documents)
    return table, pa.table(signals), schema.all_rows(table).filter(pa.array(np.arange(ROWS) % 7 != 3))


def make_home(root: Root) -> None:
    """A corpus of three parts; one kept document of each part falls to a stage behind the filter."""
    folder, manifest = "corpora/made/versions/000001", {"parts": [], "fates": [], "shards": []}
    funnel = {"extract": [0, 0], "dedup": [0, 0], "filter": [0, 0], "decontaminate": [0, 0]}
    for part in range(PARTS):
        documents, signals, unique = make_part(part)
        result = decide(documents, signals, unique, NOW)
        gone = np.setdiff1d(np.arange(ROWS), unique["row"].to_numpy())
        kept = result.table.slice(1)
        dropped = [schema.fates(documents.select(ORIGIN), gone, "dedup", "near"), result.fates,
                   schema.fates(documents.select(ORIGIN), result.table["row"][:1].to_numpy(), "decontaminate", "ngram")]
        paths = {"documents": f"work/documents/{part}.parquet", "signals": f"work/signals/{part}.parquet"}
        root.write_table(paths["documents"], documents)
        root.write_table(paths["signals"], signals)
        manifest["parts"].append(paths)
        fates = all_fates(documents, kept, dropped, ROWS, Account()).table
        root.write_table(f"{folder}/fates/{part}.parquet", fates)
        manifest["fates"].append({"path": f"fates/{part}.parquet"})
        taken = signals.take(kept["row"])
        sizes = taken["n_bytes"].to_numpy()
        tokens = pa.table({"doc_id": kept["doc_id"], "source": documents["source"].take(kept["row"]),
                           "language": taken["language"], "repeat": np.zeros(len(kept), np.int16), "n_bytes": sizes,
                           "n_tokens": sizes // np.where(np.array(taken["language"].to_pylist()) == "de", 3, 4)})
        again = tokens.slice(0, 2).set_column(3, "repeat", pa.array([1] * len(tokens[:2]), pa.int16()))
        root.write_table(f"{folder}/tokens/{part}.parquet", pa.concat_tables([tokens, again]))
        manifest["shards"].append({"path": f"tokens/{part}.parquet"})
        for stage, came, took in (("extract", ROWS, 0), ("dedup", ROWS, len(gone)),
                                  ("filter", len(unique), len(result.fates)), ("decontaminate", len(result.table), 1)):
            funnel[stage][0] += came
            funnel[stage][1] += took
    manifest["funnel"] = [{"stage": name, "in": a, "kept": a - b, "dropped": b} for name, (a, b) in funnel.items()]
    tokens = sum(sum(root.read_table(f"{folder}/{shard['path']}")["n_tokens"].to_pylist())
                 for shard in manifest["shards"])
    settings = {"filter": NOW.model_dump(mode="json"),
                "annotate": {"quality": {"model": "model.bin"}, "bad_words": {"en": "list.txt"}}}
    root.write_json(f"{folder}/manifest.json", {"name": "made", "version": 1, "settings": settings, "tokens": tokens,
                                                **manifest})
    root.write_bytes("corpora/made/current", b"000001")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Root:
    root = Root(str(tmp_path_factory.mktemp("home")))
    make_home(root)
    return root


def kept_under(settings: Filter) -> set[str]:
    """What the filter stage keeps, of all parts as if they were one shard."""
    parts = map(make_part, range(PARTS))
    documents, signals, unique = (pa.concat_tables(tables) for tables in zip(*parts, strict=True))
    rows = np.concatenate([make_part(part)[2]["row"].to_numpy() + part * ROWS for part in range(PARTS)])
    unique = unique.set_column(1, "row", pa.array(rows.astype(np.int32)))
    return {str(one) for one in decide(documents, signals, unique, settings).table["doc_id"].to_pylist()}


@pytest.fixture(scope="module")
def kept_now() -> set[str]:
    return kept_under(NOW)


CHANGES = st.fixed_dictionaries({}, optional={
    "gopher_words": st.fixed_dictionaries({}, optional={
        "min": st.one_of(st.integers(20, 130), st.just({"default": 40, "de": 90}), st.just({"en": 60})),
        "max": st.integers(60, 130), "enabled": st.booleans()}),
    "gopher_letters": st.fixed_dictionaries({"min": st.sampled_from([0.5, 0.7, 0.85])}),
    "gopher_word_length": st.fixed_dictionaries({"min": st.just("fineweb2:min_avg_word_length")}),
    "c4_curly_brackets": st.fixed_dictionaries({"enabled": st.booleans()}),
    "c4_sentences": st.fixed_dictionaries({"min": st.integers(3, 9), "terminal": st.booleans()}),
    "fineweb_short_lines": st.fixed_dictionaries({"enabled": st.booleans(), "max": st.just(0.5)}),
    "language": st.fixed_dictionaries({"keep": st.sampled_from([[], ["de"], ["en", "fr"]])}),
    "language_score": st.fixed_dictionaries({"min": st.sampled_from([0.4, 0.65, 0.8])}),
    "consent": st.fixed_dictionaries({"max": st.integers(0, 1), "enabled": st.booleans()})})


@given(CHANGES, st.one_of(st.just([]), st.lists(st.sampled_from(PRESETS), min_size=1, max_size=2, unique=True)))
@examples(max_examples=15, deadline=None)
def test_it_says_what_the_filter_would_do(home, kept_now, changes, presets):
    answer = whatif(home, "made", changes, presets, samples=1000)
    after = changed_settings(NOW, changes, presets)
    now, then = kept_now, kept_under(after)
    lost, gained = ({row["doc_id"] for row in answer[side]} for side in ("lost", "gained"))
    assert (lost, gained) == (now - then, then - now)
    assert answer["filter"] == {"kept_now": len(now), "lost": len(lost), "gained": len(gained), "kept_then": len(then)}
    rows = answer["by_source_and_language"]
    assert (sum(row["lost"] for row in rows), sum(row["gained"] for row in rows)) == (len(lost), len(gained))
    assert sum(row["published_tokens"] for row in rows) == answer["tokens"]["published_now"]
    names = {row["rule"] for row in answer["rules"]}
    for row in answer["lost"] + answer["gained"]:
        assert row["failed"] and {one["rule"] for one in row["failed"]} <= names


def test_tokens_lost_are_counted_and_tokens_gained_estimated(home):
    lost = whatif(home, "made", {"gopher_words": {"min": 100}}, samples=1000)
    ids = {row["doc_id"] for row in lost["lost"]}
    published = pa.concat_tables([home.read_table(f"corpora/made/versions/000001/tokens/{part}.parquet")
                                  for part in range(PARTS)])
    rows = published.to_pylist()
    assert lost["tokens"]["lost"] == sum(row["n_tokens"] for row in rows if str(row["doc_id"]) in ids) > 0
    gained = whatif(home, "made", {"gopher_words": {"min": 20}, "gopher_letters": {"enabled": False}}, samples=1000)
    assert gained["tokens"]["lost"] == 0 < gained["filter"]["gained"]
    sizes = {str(one): (size, language) for part in range(PARTS) for one, size, language in zip(
        *(make_part(part)[1][name].to_pylist() for name in ("doc_id", "n_bytes", "language")), strict=True)}
    rates = {code: sum(r["n_tokens"] for r in rows if r["language"] == code) /
             sum(r["n_bytes"] for r in rows if r["language"] == code) for code in ("en", "de")}
    expected = sum(sizes[row["doc_id"]][0] * rates[sizes[row["doc_id"]][1]] for row in gained["gained"])
    assert gained["tokens"]["gained"] == pytest.approx(expected, abs=6)          # each stratum is rounded
    assert any("estimated" in note for note in gained["notes"])


def test_samples_name_the_rule_the_value_and_the_threshold_and_show_no_text(home):
    answer = whatif(home, "made", {"gopher_words": {"min": {"default": 90, "de": 100}}}, samples=3)
    assert len(answer["lost"]) == 3 and answer["gained"] == []
    for row in answer["lost"]:
        one, = row["failed"]
        assert one["rule"] == "gopher_words" and one["threshold"] == (100 if row["language"] == "de" else 90)
        assert one["value"] < one["threshold"] and row["url"].startswith("https://site")
        assert set(row) == {"url", "doc_id", "source", "language", "failed"}
    rule, = answer["rules"]
    assert rule["rule"] == "gopher_words" and "'de': 70.0" in rule["now"] and "'de': 100.0" in rule["then"]
    assert rule["lost"] == answer["filter"]["lost"]
    back = whatif(home, "made", {"gopher_words": {"enabled": False}})
    assert back["rules"][0]["then"] == "off" and back["filter"]["lost"] == 0 < back["filter"]["gained"]
    assert all(one["value"] < one["threshold"] for row in back["gained"] for one in row["failed"])


def test_no_change_changes_nothing(home):
    answer = whatif(home, "made", {"gopher_words": {"max": 100000}})
    assert answer["rules"] == answer["lost"] == answer["gained"] == []
    assert answer["tokens"]["published_then"] == answer["tokens"]["published_now"]


def test_changes_are_read_and_mistakes_are_named():
    assert parse_changes(["gopher_words.min=100", "filter.gopher_words.max=9e3", "c4_policy.enabled=false",
                          "gopher_letters.min={default: 0.8, ja: 0.5}", "language.keep=[en, de]"]) == {
        "gopher_words": {"min": 100, "max": "9e3"}, "c4_policy": {"enabled": False},
        "gopher_letters": {"min": {"default": 0.8, "ja": 0.5}}, "language": {"keep": ["en", "de"]}}
    for wrong, message in (("gopher_wrods.min=1", "did you mean gopher_words"),
                           ("gopher_words.mim=1", "did you mean min"),
                           ("gopher_words=1", "RULE.PARAMETER=VALUE"), ("gopher_words.min", "RULE.PARAMETER=VALUE"),
                           ("gopher_words.min={", "not YAML")):
        with pytest.raises(UserError, match=message):
            parse_changes([wrong])
    with pytest.raises(UserError, match="gopher_words.min: .*must be a number"):
        changed_settings(NOW, {"gopher_words": {"min": "many"}})
    with pytest.raises(UserError, match="did you mean dclm"):
        changed_settings(NOW, {}, ["dclmm"])
    kept = changed_settings(NOW, {"gopher_letters": {"min": 0.5}}, ["rpv2"])      # own settings stay, presets go
    assert (kept.gopher_words.min, kept.gopher_letters.min, kept.presets) == (NOW.gopher_words.min, 0.5, ["rpv2"])


def test_what_is_not_there_is_said(home, tmp_path):
    with pytest.raises(UserError, match="no corpus"):
        whatif(home, "other", {})
    root = Root(str(tmp_path))
    make_home(root)
    root.write_table("work/signals/0.parquet", make_part(0)[1].drop_columns(["n_curly_brackets"]))
    with pytest.raises(UserError, match="c4_curly_brackets reads n_curly_brackets, which this version was"):
        whatif(root, "made", {"c4_curly_brackets": {"max": 1}})
    root.remove("work/signals/1.parquet")
    with pytest.raises(UserError, match="cannot be read"):
        whatif(root, "made", {"gopher_words": {"min": 60}})
    manifest = root.read_json("corpora/made/versions/000001/manifest.json")
    manifest["settings"]["filter"]["gone_rule"] = {}
    root.write_json("corpora/made/versions/000001/manifest.json", manifest)
    with pytest.raises(UserError, match="rules that are not those of today"):
        whatif(root, "made", {})


def test_a_signal_that_was_not_measured_decides_nothing(tmp_path):
    root = Root(str(tmp_path))
    make_home(root)
    assert not any("c4_bad_words" in note for note in whatif(root, "made", {"c4_bad_words": {"max": 3}})["notes"])
    path = "corpora/made/versions/000001/manifest.json"
    manifest = root.read_json(path)
    manifest["settings"]["annotate"] = {"quality": {"model": None}, "bad_words": None}
    root.write_json(path, manifest)
    for changes, presets in (({}, ["dclm"]), ({"dclm_quality": {"enabled": True}}, [])):
        with pytest.raises(UserError, match="dclm_quality reads quality_score, and version 1 .* without a classifier"):
            whatif(root, "made", changes, presets)
    assert whatif(root, "made", {"dclm_quality": {"enabled": False}}, ["dclm"])["corpus"] == "made"
    notes = whatif(root, "made", {"c4_bad_words": {"max": 3}})["notes"]
    assert any("c4_bad_words passes every page" in note for note in notes)
    assert not any("c4_bad_words" in note for note in whatif(root, "made", {"gopher_words": {"min": 60}})["notes"])


def test_what_a_preset_does_not_change_is_said(home):
    notes = whatif(home, "made", {"language": {"keep": ["en"]}}, ["c4"])["notes"]
    own, = [note for note in notes if "stays as this corpus set it" in note]
    assert 'gopher_words.min={"de": 70.0, "default": 50.0}' in own and "language.keep" not in own
    assert any("lines stay cut as they were" in note for note in notes)
    notes = whatif(home, "made", {"gopher_words": {"min": 60}})["notes"]
    assert not any("stay" in note for note in notes)


def test_the_command(home, monkeypatch):
    monkeypatch.setenv("GRISTMILL_HOME", home.uri)
    shown = CliRunner().invoke(app, ["whatif", "made", "--rule", "gopher_words.min=90", "--samples", "2"])
    assert shown.exit_code == 0 and "gopher_words" in shown.output and "estimated" in shown.output
    answer = CliRunner().invoke(app, ["whatif", "made", "--rule", "gopher_words.min=90", "--json"])
    assert json.loads(answer.stdout)["filter"] == whatif(home, "made", {"gopher_words": {"min": 90}})["filter"]
    nothing = CliRunner().invoke(app, ["whatif", "made"])
    assert nothing.exit_code == 0 and "no rule is changed" in nothing.output
    assert CliRunner().invoke(app, ["whatif", "made", "--rule", "gopher_wrods.min=9"]).exit_code == 2


@pytest.mark.parametrize("enabled", [True, False])
def test_every_rule_can_be_asked_for(home, kept_now, enabled):
    changes = {name: {"enabled": enabled} for name in RULE_TABLE}
    answer = whatif(home, "made", changes, samples=1000)
    then = kept_under(changed_settings(NOW, changes))
    assert {row["doc_id"] for row in answer["gained"]} == then - kept_now
    assert {row["doc_id"] for row in answer["lost"]} == kept_now - then

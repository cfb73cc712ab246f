"""Rules: how they are read, what they decide, and what they refuse."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks import filter as stage
from tasks import schema
from tasks.annotate import SIGNALS, Annotate, signals
from tasks.errors import UserError
from tasks.filter import (
    COLUMNS,
    DEFAULT_PRESETS,
    PRESETS,
    RULE_TABLE,
    Filter,
    check,
    decide,
    enabled_rules,
    evaluate,
    parse_rules,
)
from tasks.filter.rules import PRESET_TABLE, by_language, read_presets
from tasks.filter.settings import own_settings
from tasks.lines import Lines, cut_lines

GOOD = {"n_chars": 3000, "n_words": 500, "n_lines": 20, "n_paragraphs": 10, "n_sentences": 30, "mean_word_length": 4.7,
        "max_token_length": 14, "mean_words_per_line": 25.0, "unique_word_fraction": 0.5, "letter_token_fraction": 0.97,
        "n_stop_words": 7, "terminal_line_fraction": 0.9, "c4_sentences": 28, "c4_sentences_any_end": 30,
        "newline_word_ratio": 0.05, "language": "en", "language_score": 0.98, "lorem_ipsum": False, "n_pieces": 550,
        "letter_piece_fraction": 0.9, "n_language_stop_words": 9, "n_bad_words": 0, "quality_score": 0.5,
        "second_language": None}
EVERYTHING = {"presets": list(PRESETS)}


def shard(*changes: dict) -> tuple[pa.Table, pa.Table]:
    """Documents and signals, one row a change of GOOD (`rights` goes to the documents)."""
    n = len(changes)
    ids = schema.id_array([schema.doc_id("shard", i) for i in range(n)])
    rows = [{**GOOD, **change} for change in changes]
    columns = {"doc_id": ids, "row": np.arange(n, dtype=np.int32)}
    for field in SIGNALS:
        if field.name not in columns and field.name != "minhash":
            columns[field.name] = pa.array([row.get(field.name, 0) for row in rows], field.type)
    documents = {"doc_id": ids, "rights": pa.array([row.get("rights", []) for row in rows], pa.list_(pa.string()))}
    for field in schema.DOCUMENTS:
        if field.name in stage.ORIGIN[1:]:
            values = [f"{field.name}{i}" for i in range(n)] if field.type == pa.string() else range(n)
            documents[field.name] = pa.array(values, field.type)
    return pa.table(documents), pa.table(columns)


def fates(*changes: dict, **settings) -> list[dict]:
    documents, measured = shard(*changes)
    result = decide(documents, measured, schema.all_rows(documents), Filter(**settings))
    assert len(result.table) + len(result.fates) == len(changes)
    return result.fates.to_pylist()


def test_a_good_page_stays():
    documents, measured = shard({}, {"n_words": 10}, {})
    result = decide(documents, measured, schema.all_rows(documents), Filter())
    assert result.table.schema.equals(schema.KEPT) and result.fates.schema.equals(schema.FATES)
    assert result.table["row"].to_pylist() == [0, 2]


# column, a value that breaks the rule, the bound it breaks, a value that just passes
BOUNDS = {
    "consent": [("rights", ["cc-by-4.0", "noai", "tdm-reservation"], 0, ["cc-by-4.0", "noindex"])],
    "language": [("language", "de", None, "en")],
    "language_score": [("language_score", 0.6499, 0.65, 0.65)],
    "language_mixture": [("other_language_fraction", 1.01, 1, 1.0)],      # as it is, it keeps everything
    "gopher_words": [("n_words", 49, 50, 50), ("n_words", 100001, 100000, 100000)],
    "gopher_word_length": [("mean_word_length", 2.99, 3, 3.0), ("mean_word_length", 10.01, 10, 10.0)],
    "gopher_hashes": [("hash_word_ratio", 0.101, 0.1, 0.1)],
    "gopher_ellipses": [("ellipsis_word_ratio", 0.101, 0.1, 0.1)],
    "gopher_bullet_lines": [("bullet_line_fraction", 0.91, 0.9, 0.9)],
    "gopher_ellipsis_lines": [("ellipsis_line_fraction", 0.31, 0.3, 0.3)],
    "gopher_letters": [("letter_token_fraction", 0.79, 0.8, 0.8)],
    "gopher_stop_words": [("n_stop_words", 1, 2, 2)],
    "gopher_duplicate_lines": [("duplicate_line_fraction", 0.31, 0.3, 0.3)],
    "gopher_duplicate_line_chars": [("duplicate_line_char_fraction", 0.21, 0.2, None)],
    "gopher_duplicate_paragraphs": [("duplicate_paragraph_fraction", 0.31, 0.3, 0.3)],
    "gopher_duplicate_paragraph_chars": [("duplicate_paragraph_char_fraction", 0.21, 0.2, 0.2)],
    **{f"gopher_top_{n}grams": [(f"top_{n}gram_char_fraction", bound + 0.001, bound, bound)]
       for n, bound in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"gopher_duplicate_{n}grams": [(f"duplicate_{n}gram_char_fraction", bound + 0.001, bound, bound)]
       for n, bound in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))},
    "c4_sentences": [("c4_sentences", 4, 5, 5)],
    "c4_words_per_line": [("mean_words_per_line", 2.9, 3, 3.0)],
    "c4_word_length": [("max_token_length", 1001, 1000, 1000)],
    "c4_lorem_ipsum": [("lorem_ipsum", True, 0, False)],
    "c4_curly_brackets": [("n_curly_brackets", 1, 0, 0)],
    "c4_javascript": [("javascript_word_fraction", 0.051, 0.05, 0.05)],
    "c4_policy": [("policy_word_fraction", 0.051, 0.05, 0.05)],
    "fineweb_line_punctuation": [("terminal_line_fraction", 0.119, 0.12, 0.12)],
    "fineweb_short_lines": [("short_line_fraction", 0.68, 0.67, 0.67)],
    "fineweb_duplicate_line_chars": [("duplicate_line_char_fraction", 0.011, 0.01, 0.01)],
    "c4_bad_words": [("n_bad_words", 1, 0, 0), ("n_bad_words", 3, 0, None)],
    "fineweb_newlines": [("newline_word_ratio", 0.34, 0.3, 0.32)],          # 0.34 * 500 / 550 = 0.31
    "fineweb2_letters": [("letter_piece_fraction", 0.79, 0.8, 0.8)],
    "fineweb2_stop_words": [("n_language_stop_words", 1, 2, 2)],
    "rpv2_symbols": [("hash_word_ratio", 0.12, 0.1, 0.1), ("ellipsis_word_ratio", 0.12, 0.1, 0.1)],
    "rpv2_letters": [("letter_piece_fraction", 0.79, 0.8, 0.8)],
    **{f"rpv2_repeated_{n}grams": [(f"repeated_{n}gram_char_fraction", bound + 0.001, bound, bound)]
       for n, bound in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))},
    "dclm_quality": [("quality_score", 0.0181, 0.018112, 0.018112)],
    "refinedweb_removed_words": [("removed_word_fraction", 0.051, 0.05, 0.05)],
}
SCALED = {"fineweb_newlines", "rpv2_symbols"}          # whose value is more than a column


def test_every_rule_has_its_bounds_here():
    assert set(BOUNDS) == set(RULE_TABLE)


@pytest.mark.parametrize(("rule", "column", "bad", "bound", "good"),
                         [(rule, *case) for rule, cases in BOUNDS.items() for case in cases])
def test_the_published_bounds(rule, column, bad, bound, good):
    preset = RULE_TABLE[rule].preset
    presets = {"presets": [preset]} if preset in PRESETS else {}
    fate, = fates({column: bad}, {} if good is None else {column: good}, **presets)
    failed = {f["rule"]: f for f in fate["failed"]}
    assert failed[rule]["threshold"] == bound
    assert fate["rule"] == next(name for name in RULE_TABLE if name in failed)          # the first in order decides
    assert fate["stage"] == "filter" and fate["outcome"] == "dropped" and fate["url"] == "url0"
    if isinstance(bad, (int, float)) and rule not in SCALED:
        assert failed[rule]["value"] == pytest.approx(float(bad))


def test_every_failing_rule_is_recorded_and_the_first_decides():
    fate, = fates({"n_words": 10, "n_stop_words": 0, "language": "de"})
    assert (fate["rule"], fate["value"], fate["threshold"], fate["detail"]) == ("language", 0.98, None, "de")
    assert [(f["rule"], f["value"], f["threshold"]) for f in fate["failed"]] == [
        ("language", 0.98, None), ("gopher_words", 10.0, 50.0), ("gopher_stop_words", 0.0, 2.0)]


def test_consent_names_the_opt_out():
    fate, = fates({"rights": ["tdm-reservation", "noai"]}, {"rights": None}, {"rights": ["noimageai", "license"]})
    assert (fate["rule"], fate["value"], fate["threshold"], fate["detail"]) == ("consent", 2.0, 0.0, "noai")


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "rights"])
def test_a_null_never_passes_in_silence(column):
    cannot_judge = {"n_bad_words", "n_language_stop_words"}         # NULL says that there is no list
    reads = [rule.name for rule in RULE_TABLE.values() if column not in cannot_judge
             and column in stage._columns_of(((rule.value, rule.keep),))[0]
             and not (rule.name == "c4_sentences" and column == "c4_sentences_any_end")]
    documents, measured = shard({})
    nulls = measured.set_column(measured.schema.get_field_index(column), column,
                                pa.nulls(1, measured.schema.field(column).type))
    settings = Filter(**EVERYTHING, language={"keep": ["en"]})
    failed, = evaluate(nulls.append_column("rights", documents["rights"]), settings).to_pylist()
    assert [(f["rule"], f["threshold"]) for f in failed if f["value"] is None or column == "language"] == [
        (name, None) for name in reads]


def test_not_a_number_never_passes():
    """In SQL NaN is above every number: a lower bound alone would let it through."""
    fate, = fates({"letter_token_fraction": float("nan"), "language_score": float("nan")})
    assert [f["rule"] for f in fate["failed"]] == ["language", "language_score", "gopher_letters"]


def test_parameters_presets_and_switches():
    assert not fates({"n_words": 30}, gopher_words={"min": 30})
    assert fates({"n_words": 79}, gopher_words={"min": 80})[0]["threshold"] == 80
    assert not fates({"n_words": 30}, gopher_words={"enabled": False})
    assert not fates({"n_words": 30}, presets=["c4", "fineweb"])
    assert fates({"n_words": 30}, presets=[], gopher_words={"enabled": True})[0]["rule"] == "gopher_words"
    assert fates({"rights": ["noai"]}, presets=[])[0]["rule"] == "consent"
    assert not fates({"rights": ["noai"]}, presets=[], consent={"enabled": False})
    assert not fates({"language": "de"}, {"language": "ja"}, language={"keep": []})
    fate, = fates({"language": "de"}, {"language": "ja"}, language={"keep": ["en", "de"]})
    assert fate["detail"] == "ja"
    assert not fates({"c4_sentences": 0}, c4_sentences={"terminal": False})
    everything_off = {name: {"enabled": False} for name in RULE_TABLE}
    assert not fates({"n_words": 0, "rights": ["noai"]}, **everything_off)


def test_unknown_rules_presets_and_parameters_are_refused():
    for wrong in ({"gopher_wrods": {}}, {"gopher_words": {"minimum": 3}}, {"presets": ["gofer"]},
                  {"gopher_words": {"min": "many"}}, {"gopher_words": {"min": float("nan")}}):
        with pytest.raises(ValidationError):
            Filter(**wrong)


def test_settings_travel_and_describe_themselves():
    chosen = Filter(gopher_words={"min": 80}, presets=["gopher"])
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert Filter.model_validate(chosen.model_dump(mode="json")) == chosen
    form = Filter.model_json_schema()
    assert all(form["properties"][name]["description"] for name in (*RULE_TABLE, "presets"))


def test_rule_files_are_resources_of_the_presets_in_use():
    names = [path.rsplit("/", 1)[1] for path in stage.filter.resources(Filter(presets=["c4"]))]
    assert names == ["rights.sql", "language.sql", "c4.sql"]
    assert {rule.preset for rule in enabled_rules(Filter())} == {"rights", "language", *DEFAULT_PRESETS}


def test_a_rule_on_an_absent_column_is_an_error(monkeypatch):
    check(Filter())
    with pytest.raises(UserError, match="fineweb_newlines names the column newline_word_ratio"):
        check(Filter(), [name for name in COLUMNS if name != "newline_word_ratio"])
    text = stage.RULES.joinpath("gopher.sql").read_text(encoding="utf-8").replace("n_words BETWEEN", "nwords BETWEEN")
    monkeypatch.setitem(RULE_TABLE, "gopher_words", parse_rules(text, "gopher")[0])
    with pytest.raises(UserError, match=r"gopher_words names the column nwords.*did you mean n_words\?"):
        check(Filter())
    with pytest.raises(UserError, match="nwords"):
        fates({})
    check(Filter(gopher_words={"enabled": False}))


HEADER = "-- rule: r\n-- about: a\n-- source: s\n-- value: n_words\n-- params: min=1\n-- keep when:\nn_words >= $min\n"


def test_rule_files_are_read():
    rule, = parse_rules("-- A comment.\n--   indented\n\n" + HEADER.replace("s\n", "s\n--   and more\n", 1), "p")
    assert (rule.name, rule.preset, rule.value, rule.params, rule.keep, rule.detail) == (
        "r", "p", "n_words", {"min": 1}, "n_words >= $min", "NULL")
    assert len(parse_rules(HEADER + "\n" + HEADER.replace("rule: r", "rule: q"), "p")) == 2


@pytest.mark.parametrize(("text", "message"), [
    (HEADER.replace("-- source: s\n", ""), "source:' is missing"),
    (HEADER.replace("$min", "$max"), r"\$max is not among its params"),
    (HEADER.replace("min=1", "min=open('x')"), "cannot read params"),
    (HEADER.replace("min=1", "min="), "cannot read params"),
    (HEADER.replace("min=1", "1"), "cannot read params"),
    (HEADER + "-- about: again\n", "stands twice"),
    ("-- about: a\n" + HEADER, "before its"),
    ("n_words > 1\n" + HEADER, "SQL outside"),
])
def test_broken_rule_files_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_rules(text, "p")


def test_kept_rows_select_and_misaligned_tables_are_refused():
    documents, measured = shard({}, {"n_words": 3}, {}, {"n_words": 4})
    kept = schema.all_rows(documents).take(pa.array([3, 2]))
    result = decide(documents, measured, kept, Filter())
    assert result.table["row"].to_pylist() == [2] and result.fates["url"].to_pylist() == ["url3"]
    with pytest.raises(ValueError, match="do not belong"):
        decide(documents, measured.take(pa.array([0, 1, 3, 2])), kept, Filter())
    with pytest.raises(ValueError, match="do not belong"):
        decide(documents.take(pa.array([0, 1, 3, 2])), measured, kept, Filter())
    none = decide(documents, measured, kept.slice(0, 0), Filter())
    assert len(none.table) == len(none.fates) == 0


@given(st.lists(st.fixed_dictionaries({
    "n_words": st.one_of(st.none(), st.integers(0, 200)), "mean_word_length": st.floats(0, 12),
    "language": st.sampled_from(["en", "de", None]), "rights": st.sampled_from([None, [], ["noai"]])}), max_size=6))
@examples(max_examples=12, deadline=None)
def test_conservation_and_freedom_from_company(changes):
    documents, measured = shard(*changes)
    result = decide(documents, measured, schema.all_rows(documents), Filter())
    rows = result.table["row"].to_pylist()
    dropped = [int(url[3:]) for url in result.fates["url"].to_pylist()]
    assert sorted(rows + dropped) == list(range(len(changes)))
    apart = fates(*changes[::-1][:3]) + fates(*changes[::-1][3:])
    whole = result.fates["failed"].to_pylist()
    assert sorted(map(repr, whole)) == sorted(repr(fate["failed"]) for fate in apart)


def test_pages_from_text_to_fate():
    prose = ("The committee met again on Tuesday, and it was agreed that the bridge would have to be repaired. "
             "Members spoke with engineers about the cost of stone. Nobody could say when work might begin! "
             "A second report is expected in spring. Until then the old road stays open to traffic. "
             "Farmers, for their part, asked that a ferry be provided during harvest. ")
    texts = [prose, "buy now " * 200, "{" + prose + "}", prose + "\n" + prose]
    documents = shard(*[{}] * 4)[0].append_column("text", pa.array(texts))
    measured = signals(documents, cut_lines(documents, Lines(presets=[])), Annotate())
    result = decide(documents, measured, schema.all_rows(documents), Filter())
    assert result.table["row"].to_pylist() == [0]
    decided = {fate["url"]: [f["rule"] for f in fate["failed"]] for fate in result.fates.to_pylist()}
    assert "gopher_duplicate_5grams" in decided["url1"] and decided["url2"] == ["c4_curly_brackets"]
    assert decided["url3"][0] == "gopher_duplicate_lines"


def test_a_preset_uses_rules_of_earlier_files():
    rules, presets = read_presets({
        "a": HEADER + "\n" + HEADER.replace("rule: r", "rule: q"),
        "b": "-- use: r min=5\n-- use: q\n", "c": "-- use: a\n-- use: b\n" + HEADER.replace("rule: r", "rule: s")})
    assert list(rules) == ["r", "q", "s"] and presets["a"] == {"r": {"min": 1}, "q": {"min": 1}}
    assert presets["b"] == {"r": {"min": 5}, "q": {"min": 1}}
    assert presets["c"] == {"r": {"min": 5}, "q": {"min": 1}, "s": {"min": 1}}     # where two set a rule, the later


@pytest.mark.parametrize(("text", "message"), [
    ("-- use: nothing\n", "no file before this one has nothing"),
    ("-- use: b\n", "no file before this one has b"),
    ("-- use: a min=3\n", "a preset takes no parameters"),
    ("-- use: r least=3\n", "the rule r has no parameter least; it has min"),
    ("-- use: r min=least\n", "cannot read params"),
    (HEADER, "the name r is taken"),
    (HEADER.replace("rule: r", "rule: a"), "the name a is taken"),
    ("-- use: r\n-- about: a\n", "stands twice or before"),
])
def test_uses_of_what_is_not_there_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_presets({"a": HEADER, "b": text})


def test_the_later_preset_counts_and_own_settings_above_all():
    assert Filter(presets=["fineweb2", "gopher"]).gopher_duplicate_lines.max == 0.3
    assert Filter(presets=["gopher", "fineweb2"]).gopher_duplicate_lines.max == "fineweb2:dup_line_frac"
    chosen = Filter(presets=["fineweb2"], gopher_duplicate_lines={"max": 0.5}, gopher_words={"min": 10})
    assert (chosen.gopher_duplicate_lines.max, chosen.gopher_words.min, chosen.gopher_words.max) == (0.5, 10, 100000)
    assert own_settings(chosen) == {"gopher_words": {"min": 10}, "gopher_duplicate_lines": {"max": 0.5}}
    assert own_settings(Filter()) == {}
    assert pickle.loads(pickle.dumps(chosen)) == chosen == Filter.model_validate(chosen.model_dump(mode="json"))


def test_numbers_by_language():
    """The value for the page's language, or the default; without a default the others fail, with no threshold."""
    pages = [{"n_words": 60, "language": code} for code in ("en", "ja", "de", None)]
    everywhere = {"language": {"enabled": False}, "presets": ["gopher"]}
    fate, = fates(*pages, **everywhere, gopher_words={"min": {"default": 50, "ja": 80}})
    assert (fate["url"], fate["value"], fate["threshold"]) == ("url1", 60.0, 80.0)
    found = fates(*pages, **everywhere, gopher_words={"min": {"en": 61, "ja": 50}})
    assert [(f["url"], f["value"], f["threshold"]) for f in found] == [
        ("url0", 60.0, 61.0), ("url2", 60.0, None), ("url3", 60.0, None)]
    found = fates({"mean_word_length": 1.0, "language": "ja"}, {"mean_word_length": 8.0, "language": "ja"},
                  {"mean_word_length": 1.0}, {"mean_word_length": 1.0, "language": "xx"}, language={"enabled": False},
                  presets=["gopher"], gopher_word_length={"min": "fineweb2:min_avg_word_length",
                                                          "max": "fineweb2:max_avg_word_length"})
    assert [(f["url"], f["threshold"]) for f in found] == [("url1", 6.0), ("url2", 3.0), ("url3", 3.0)]


@given(st.dictionaries(st.sampled_from(["default", "en", "de", "ja", "zz"]), st.integers(0, 100), min_size=1),
       st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["en", "de", "ja", "xx", None])), max_size=6))
@examples(max_examples=15, deadline=None)
def test_a_mapping_decides_as_its_number_for_the_language_would(bounds, pages):
    off = {name: {"enabled": False} for name in RULE_TABLE}
    rows = [{"n_words": words, "language": language} for words, language in pages]
    whole = {f["url"]: f["threshold"] for f in fates(*rows, **off | {"gopher_words": {"enabled": True, "min": bounds}})}
    for i, (words, language) in enumerate(pages):
        bound = bounds.get(language, bounds.get("default"))
        assert (f"url{i}" in whole) == (bound is None or words < bound)
        assert whole.get(f"url{i}") == (bound if f"url{i}" in whole else None)


def test_numbers_by_language_are_checked():
    for wrong, message in (({}, "must be a number"), ({"en": "many"}, "must be a number"), ({"en": True}, "must be"),
                           (True, "must be a number"), ("fineweb3:dup_line_frac", "there is no table 'fineweb3'"),
                           ("fineweb2:dup", "has no column 'dup'; it has language_score"), ("ten", "must be a number")):
        with pytest.raises(ValidationError, match=message):
            Filter(gopher_words={"min": wrong})
    names = [path.rsplit("/", 1)[1] for path in stage.filter.resources(Filter(presets=["fineweb2"]))]
    assert names == ["rights.sql", "language.sql", "gopher.sql", "fineweb.sql", "fineweb2.sql",
                     "fineweb2.parameters.json"]
    check(Filter(presets=["fineweb2"]))
    with pytest.raises(UserError, match="gopher_words names the column language"):
        check(Filter(presets=["gopher"], language={"enabled": False}, language_score={"enabled": False},
                     gopher_words={"min": {"en": 3}}),
              [name for name in COLUMNS if name != "language"])


def test_the_table_of_fineweb2_has_a_number_for_every_language():
    table = {path.stem.split(".")[0]: path for path in stage.RULES.glob("*.parameters.json")}
    assert list(table) == ["fineweb2"]
    read = json.loads(table["fineweb2"].read_text(encoding="utf-8"))
    assert {len(row) for row in read["languages"].values()} == {len(read["columns"])} == {len(read["default"])}
    assert by_language("fineweb2:dup_5_gram")["de"] == 0.141 and by_language("fineweb2:language_score")["de"] == 0.821
    assert by_language("fineweb2:max_avg_word_length")["default"] == 10
    used = {value for params in PRESET_TABLE["fineweb2"].values() for value in params.values()
            if isinstance(value, str)}
    assert used == {f"fineweb2:{column}" for column in read["columns"]}


def test_a_share_of_a_classifier_becomes_its_score(tmp_path):
    table = [{"keep": 0.05, "threshold": 0.9}, {"keep": 0.1, "threshold": 0.7}, {"keep": 0.3, "threshold": 0.2}]
    about = {"sha256": "0" * 64, "label": "__label__hq", "text": "words", "keep": table}
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    chosen = Filter(presets=["dclm"], dclm_quality={"min": {"keep": 0.1, "classifier": str(tmp_path)}})
    assert chosen.dclm_quality.min == 0.7 == Filter.model_validate(chosen.model_dump(mode="json")).dclm_quality.min
    between = Filter(dclm_quality={"min": {"keep": 0.2, "classifier": str(tmp_path)}})
    assert between.dclm_quality.min == pytest.approx(0.45)
    for keep, name, message in ((0.5, "", "keep=0.5 is outside"), (0.1, "no", "holds no classifier")):
        with pytest.raises(ValidationError, match=message):
            Filter(dclm_quality={"min": {"keep": keep, "classifier": str(tmp_path / name)}})


@pytest.mark.parametrize("by_language", [False, True])
def test_a_page_that_fails_everything_is_recorded_with_every_value_and_threshold(by_language):
    """With bounds that are numbers, and with numbers for the page's language alone."""
    page = {case[0]: case[1] for cases in BOUNDS.values() for case in cases[-1:]}
    page |= {"duplicate_line_char_fraction": 0.25, "newline_word_ratio": 0.4, "letter_piece_fraction": 0.5}
    own = Filter(presets=[]).model_dump(exclude={"presets"})
    for params in own.values():
        for key, value in params.items():
            if by_language and isinstance(value, float):
                params[key] = {page["language"]: value}
        params["enabled"] = True
    fate, = fates(page, presets=[], **own)
    assert [f["rule"] for f in fate["failed"]] == list(RULE_TABLE)
    for f in fate["failed"]:
        params = RULE_TABLE[f["rule"]].params
        assert f["value"] is not None and (f["threshold"] is None) == (f["rule"] == "language")
        if f["threshold"] is not None:
            below, above = f["value"] < f["threshold"], f["value"] > f["threshold"]
            assert ("min" in params and below) or ("max" in params and above)

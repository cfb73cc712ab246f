"""The mixture: shares, epochs, choice and order."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import UserError
from tasks.sample import MEASURES, MIXTURE, PLAN, SAMPLED, Sample, achieved, chance, cuts, fill, planned, rake, sampled
from tasks.sample import strata as mix
from tasks.schema import TOKENS, all_rows, id_array, id_bytes


def ids(names):
    return id_array([hashlib.blake2b(str(n).encode(), digest_size=16).digest() for n in names])


def shard(n, source="a", language="en", n_bytes=1000, start=0, every_other=False):
    """Documents, signals and kept of a shard of n documents of one stratum."""
    names = [f"{source}-{language}-{start + i}" for i in range(n)]
    documents = pa.table({"doc_id": ids(names), "source": pa.array([source] * n, pa.string()),
                          **{c: pa.array([c] * n, pa.string()) for c in ("url", "domain", "snapshot", "warc_file")},
                          "warc_offset": pa.array(range(n), pa.int64())})
    signals = pa.table({"doc_id": ids(names), "language": pa.array([language] * n, pa.string()),
                        "n_bytes": pa.array([n_bytes] * n, pa.int64())})
    kept = all_rows(documents)
    return documents, signals, kept.take(pa.array(range(0, n, 2))) if every_other else kept


def measured(*strata):
    """A MEASURES table of (source, language, documents, bytes), four bytes a token."""
    rows = [(s, lang, d, b, b, b // 4) for s, lang, d, b in strata]
    return pa.table([list(c) for c in zip(*rows, strict=True)], schema=MEASURES)


def by(table, column, of="weight"):
    out: dict = {}
    for row in table.to_pylist():
        out[row[column]] = out.get(row[column], 0) + row[of]
    return out


BUILD = measured(("a", "en", 100, 600_000), ("a", "de", 100, 200_000), ("b", "en", 50, 100_000),
                 ("c", "fr", 50, 100_000))


def test_without_wishes_every_document_is_seen_once():
    mixture = mix([BUILD], Sample())
    assert mixture.schema == MIXTURE and mixture["epochs"].to_pylist() == [1.0] * 4
    assert sum(mixture["weight"].to_pylist()) == pytest.approx(1)
    result = sampled(*shard(20, every_other=True), mixture, Sample())
    assert result.table.schema == SAMPLED and len(result.table) == 10 and len(result.fates) == 0
    assert result.table["row"].to_pylist() == list(range(0, 20, 2)) and set(result.table["repeats"].to_pylist()) == {1}


def test_listed_sources_share_their_part_and_the_rest_keep_theirs():
    plain, weighed = mix([BUILD], Sample()), mix([BUILD], Sample(sources={"a": 1, "b": 2}))
    natural, shares = by(plain, "source"), by(weighed, "source")
    assert shares["c"] == pytest.approx(natural["c"])
    assert shares["b"] == pytest.approx(2 * shares["a"]) == pytest.approx((natural["a"] + natural["b"]) * 2 / 3)
    german = {r["language"]: r["weight"] for r in weighed.to_pylist() if r["source"] == "a"}
    before = {r["language"]: r["weight"] for r in plain.to_pylist() if r["source"] == "a"}
    assert german["de"] / german["en"] == pytest.approx(before["de"] / before["en"])


def test_sources_and_languages_are_both_met():
    shares = mix([BUILD], Sample(sources={"a": 2, "b": 1}, languages={"en": 5, "de": 1}))
    sources = by(shares, "source")
    assert sources["a"] == pytest.approx(2 * sources["b"], rel=1e-6) and sources["c"] == pytest.approx(0.1, rel=0.01)
    languages = by(shares, "language")
    assert languages["en"] == pytest.approx(5 * languages["de"], rel=1e-5)


def test_weight_zero_leaves_a_source_out():
    settings_ = Sample(sources={"b": 0})
    mixture = mix([BUILD], settings_)
    assert [r["epochs"] for r in mixture.to_pylist() if r["source"] == "b"] == [0]
    result = sampled(*shard(5, "b"), mixture, settings_)
    assert len(result.table) == 0 and result.fates["rule"].to_pylist() == ["weight"] * 5
    assert result.fates["threshold"].to_pylist() == [0] * 5 and min(result.fates["value"].to_pylist()) >= 0
    with pytest.raises(UserError, match="gives every document the weight 0"):
        mix([BUILD], Sample(sources={"a": 0, "b": 0, "c": 0}))


def test_small_sources_are_repeated_at_most_max_epochs_and_the_rest_make_up_for_it():
    mixture = mix([BUILD], Sample(sources={"a": 1, "b": 9}))
    epochs = {(r["source"], r["language"]): r["epochs"] for r in mixture.to_pylist()}
    assert epochs["b", "en"] == 4.0
    tokens = sum(r["epochs"] * r["tokens"] for r in mixture.to_pylist())
    assert tokens == pytest.approx(sum(mixture["tokens"].to_pylist()), rel=1e-6)
    capped = mix([BUILD], Sample(target_tokens=10**9, max_epochs=2.5))
    assert set(capped["epochs"].to_pylist()) == {2.5}


def test_a_target_takes_a_fraction_and_repeats_take_whole_epochs_and_a_fraction():
    half = mix([BUILD], Sample(target_tokens=125_000))
    assert half["epochs"].to_pylist() == pytest.approx([125_000 / 250_300] * 4)
    result = sampled(*shard(4000), half, Sample())
    assert 0.45 < len(result.table) / 4000 < 0.55 and len(result.table) + len(result.fates) == 4000
    assert all(f["value"] >= f["threshold"] for f in result.fates.to_pylist())
    more = mix([BUILD], Sample(target_tokens=2 * 250_300 + 75_090))
    repeats = sampled(*shard(4000), more, Sample()).table["repeats"].to_numpy()
    assert set(repeats) == {2, 3} and 2.25 < repeats.mean() < 2.35


def test_a_larger_fraction_only_adds_documents():
    def chosen(target, seed=0):
        options = Sample(target_tokens=target, seed=seed)
        return set(id_bytes(sampled(*shard(1000), mix([BUILD], options), options).table["doc_id"]).to_pylist())

    few, more, other = chosen(100_000), chosen(110_000), chosen(100_000, seed=1)
    assert few < more and len(more - few) < 100 and len(few & other) < 0.6 * len(few)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="sample.sources names 'aa'.*nearest is 'a'"):
        mix([BUILD], Sample(sources={"aa": 1}))
    with pytest.raises(UserError, match="sample.languages names 'xx'"):
        mix([BUILD], Sample(languages={"xx": 1}))
    with pytest.raises(UserError, match="a weight is a number from 0 up"):
        mix([BUILD], Sample(sources={"a": -1}))


def test_shards_add_up_whatever_their_order():
    parts = [BUILD.slice(0, 2), BUILD.slice(2), measured(("a", "en", 1, 5000))]
    assert mix(parts, Sample()).equals(mix(parts[::-1], Sample()))
    assert len(mix([], Sample())) == 0 and len(mix([MEASURES.empty_table()], Sample(target_tokens=5))) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.1, 100)), min_size=1, max_size=6), st.floats(0.1, 1000))
def test_fill_reaches_the_target_or_every_limit(strata, target):
    shares, limits = (np.array(c) for c in zip(*strata, strict=True))
    tokens = fill(shares, limits, target)
    assert (tokens <= limits * (1 + 1e-9)).all() and tokens.sum() == pytest.approx(min(target, limits.sum()))
    free = tokens < limits * (1 - 1e-9)
    if free.any():
        ratio = tokens[free] / shares[free]
        assert ratio == pytest.approx(ratio[0])


def test_raking_keeps_absent_strata_absent():
    shares = rake(np.array([5.0, 0.0, 5.0]), [(["x", "x", "y"], {"x": 3, "y": 1}, "sources")])
    assert shares == pytest.approx([0.75, 0, 0.25])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 500), st.integers(1, 4), st.integers(0, 99))
def test_cuts_are_contiguous_balanced_and_without_gaps(tokens, size, least, seed):
    tokens, drawn = np.array(tokens, np.int64), np.random.default_rng(seed).random(len(tokens))
    shards = cuts(tokens, drawn, size, least)
    assert len(shards) == len(tokens)
    if len(shards):
        assert shards[0] == 0 and (np.isin(np.diff(shards), (0, 1))).all()
        sizes = np.bincount(shards, tokens)
        if round(tokens.sum() / size) > least:
            assert (sizes[:-1] >= 0.9 * size - 50).all() and (sizes[:-1] <= 1.1 * size + 50).all()
            assert sizes[-1] <= 1.5 * size + 50


def test_cuts_further_on_stay_where_documents_come_or_go():
    random = np.random.default_rng(1)
    tokens, drawn = random.integers(1, 2000, 100_000), random.random(100_000)
    before = cuts(tokens, drawn, 1_000_000)
    gone = np.ones(100_000, bool)
    gone[[5, 17, 30_000]] = False
    after = cuts(tokens[gone], drawn[gone], 1_000_000)

    def groups(shards, names):
        return {tuple(names[shards == s]) for s in range(shards.max() + 1)}

    same = groups(before, np.arange(100_000)) & groups(after, np.flatnonzero(gone))
    assert len(same) > 0.8 * (before.max() + 1) and before.max() > 90


def plan_of(options, **more):
    shards = [shard(30, "a"), shard(10, "b", start=100), shard(30, "a", "de", start=200)]
    table = measured(("a", "en", 30, 30_000), ("a", "de", 30, 30_000), ("b", "en", 10, 10_000))
    mixture = mix([table], options)
    parts = [sampled(*s, mixture, options).table for s in shards]
    return shards, mixture, planned(parts, mixture, options, **more)


def test_the_plan_has_every_pass_and_keeps_copies_apart():
    shards, mixture, plan = plan_of(Sample(sources={"a": 1, "b": 1}), shard_tokens=4000)
    assert plan.schema == PLAN
    order = list(zip(*(plan[c].to_pylist() for c in ("repeat", "shard", "row")), strict=True))
    assert order == sorted(order) and len(set(order)) == len(order)
    b = [r for r in plan.to_pylist() if r["source"] == "b"]
    epochs = {r["source"]: r["epochs"] for r in mixture.to_pylist()}
    assert epochs["b"] == pytest.approx(3.5) and {r["repeat"] for r in b} == {0, 1, 2, 3} and 30 < len(b) < 40
    for row in plan.to_pylist():
        assert row["doc_id"] == shards[row["shard"]][0]["doc_id"][row["row"]].as_py()
        assert row["planned_tokens"] == 251
    assert plan["token_shard"].to_pylist()[-1] == 3


def test_a_small_corpus_has_min_shards_even_ones():
    _, _, plan = plan_of(Sample(), min_shards=4)
    assert np.bincount(plan["token_shard"].to_numpy()).tolist() in ([18, 17, 18, 17], [17, 18, 17, 18])
    assert len(planned([], mix([], Sample()), Sample())) == 0


def test_the_mixture_of_the_manifest():
    _, mixture, plan = plan_of(Sample(sources={"b": 0}))
    tokens = pa.table({"source": ["a", "a", "a"], "language": ["en", "en", "de"],
                       "n_tokens": pa.array([10, 20, 5], TOKENS.field("n_tokens").type)})
    rows = achieved(mixture, plan, [tokens])
    assert [(r["source"], r["language"], r["tokens"], r["documents"]) for r in rows] == \
        [("a", "de", 5, 30), ("a", "en", 30, 30), ("b", "en", 0, 0)]
    assert rows[2]["epochs"] == 0 and sum(r["planned_tokens"] for r in rows) == sum(plan["planned_tokens"].to_pylist())


def test_chance_is_even_and_depends_on_the_seed():
    names = ids(range(20_000))
    u = chance(names, 0)
    assert (u >= 0).all() and (u < 1).all() and np.histogram(u, 10, (0, 1))[0].min() > 1850
    assert abs(np.corrcoef(u, chance(names, 1))[0, 1]) < 0.03
    assert chance(ids(["x"]), 7)[0] == pytest.approx(chance(ids(["y", "x"]), 7)[1])

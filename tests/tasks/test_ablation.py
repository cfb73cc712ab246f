"""The statistics of an ablation, against tables of Student's t and by hand."""

import math
import xml.etree.ElementTree as xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ablation import LOWER_IS_BETTER, interval, markdown, summarise, t_probability, t_quantile, verdict
from tasks.ablation_plot import plot


@pytest.mark.parametrize(("confidence", "df", "t"), [        # NIST/SEMATECH handbook, table 1.3.6.7.2
    (0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 4, 2.776), (0.95, 10, 2.228), (0.95, 100, 1.984),
    (0.99, 2, 9.925), (0.90, 5, 2.015)])
def test_the_quantiles_are_those_of_the_tables(confidence, df, t):
    assert t_quantile(confidence, df) == pytest.approx(t, abs=6e-4)
    assert t_probability(t_quantile(confidence, df), df) == pytest.approx(1 - confidence, abs=1e-12)


def test_one_and_two_degrees_of_freedom_have_closed_forms():
    for t in (0.1, 1.0, 3.7, 40.0):
        assert t_probability(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-10)
        assert t_probability(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    assert t_probability(0.0, 3) == pytest.approx(1) and t_probability(math.inf, 3) == 0


@given(st.floats(0, 50), st.integers(1, 60))
def test_a_larger_t_is_less_probable(t, df):
    assert 0 <= t_probability(t + 0.5, df) <= t_probability(t, df) <= 1 + 1e-12


def test_an_interval_by_hand():
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, round(low, 3), round(high, 3)) == (2.0, -0.484, 4.484)          # 4.303 * 1 / sqrt(3)
    assert interval([5.0]) == (5.0, None, None)


def scores(**by_variant) -> list[dict]:
    return [{"variant": variant, "seed": seed, "task": "clean", "metric": "bits_per_byte", "domain": "all", "value": v}
            for variant, values in by_variant.items() for seed, v in enumerate(values)]


def test_differences_are_paired_by_seed():
    """The seeds differ far more than the variants: only their pairs show it."""
    rows = {row["variant"]: row for row in summarise(
        scores(raw=[2.0, 3.0, 4.0], good=[1.9, 2.89, 3.91], other=[2.1, 2.8, 4.0]), ["raw", "good", "other"])}
    assert rows["raw"]["difference"] is None and rows["raw"]["mean"] == 3.0
    assert rows["good"]["difference"] == pytest.approx(-0.1)
    assert rows["good"]["difference_high"] < 0 and rows["good"]["p"] < 0.01
    assert rows["good"]["low"] < rows["raw"]["mean"] < rows["good"]["high"]
    assert [verdict(rows[name]) for name in ("raw", "good", "other")] == ["baseline", "better", "not told apart"]


def test_only_seeds_that_both_have_are_paired():
    rows = summarise(scores(raw=[2.0, 3.0], late=[1.0, 2.0, 9.0]), ["raw", "late"])
    assert rows[1]["difference"] == -1.0 and rows[1]["seeds"] == 3 and rows[1]["p"] == 0.0


def test_one_seed_has_no_interval():
    row = summarise(scores(raw=[2.0], good=[1.5]), ["raw", "good"])[1]
    assert row["difference"] == -0.5 and row["low"] is row["p"] is row["difference_low"] is None
    assert verdict(row) == "one seed"


def test_more_is_better_for_accuracy():
    found = [row | {"metric": "accuracy"} for row in scores(raw=[0.5, 0.51, 0.5], good=[0.6, 0.612, 0.6])]
    assert verdict(summarise(found, ["raw", "good"])[1]) == "better"


def test_the_plot_says_what_the_report_says():
    values = {"raw": [0.5, 0.51, 0.5], "up": [0.6, 0.612, 0.6], "down": [0.4, 0.412, 0.4], "same": [0.6, 0.4, 0.5]}
    found = [row | {"metric": metric} for metric in (*sorted(LOWER_IS_BETTER), "accuracy") for row in scores(**values)]
    found += [row | {"metric": "single"} for row in scores(raw=[0.5], up=[0.6])]
    rows = summarise(found, list(values))
    told = {(row["metric"], row["variant"]): verdict(row) for row in rows}
    assert {told[metric, "up"] for metric in LOWER_IS_BETTER} == {"worse"} and told["accuracy", "up"] == "better"
    panels = [text for text in plot(rows, found, "a").split("<text") if "is better" in text]
    assert {text.rpartition("clean: ")[2].partition(" is")[0] for text in panels} == {
        "bits per byte (lower", "perplexity (lower", "accuracy (higher", "single (higher"}


CORPORA = {name: {"recipe": "raw", "documents": 1200, "tokens": 34567, "trained_tokens": 69134, "epochs": 2.0}
           for name in ("raw", "a<b")}


def test_the_report_and_the_plot_hold_every_variant():
    found = scores(raw=[2.0, 3.0, 4.0], **{"a<b": [1.9, 2.9, 3.9]})
    rows = summarise(found, ["raw", "a<b"])
    report = markdown(rows, CORPORA)
    assert "| a<b | raw | 1,200 | 34,567 | 69,134 | 2.00 |" in report and "**clean, bits per byte**" in report
    assert "-0.1000" in report
    picture = xml.fromstring(plot(rows, found, "Ablation <1>"))
    shapes = [element.tag.rpartition("}")[2] for element in picture]
    assert shapes.count("circle") == 6
    words = [element.text for element in picture if element.tag.endswith("text")]
    assert "a<b" in words and "Ablation <1>" in words
    width = float(picture.get("width"))
    assert all(0 < float(element.get("cx")) < width for element in picture if element.tag.endswith("circle"))


def test_a_plot_of_equal_values_has_a_scale():
    found = scores(raw=[2.0, 2.0], good=[2.0, 2.0])
    assert "nan" not in plot(summarise(found, ["raw", "good"]), found, "same").lower()

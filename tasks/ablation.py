"""What an ablation says: means over seeds with confidence intervals, and paired differences from the first variant.

A run's score is a sample of its variant; runs of equal seed begin with the same weights, so differences are paired by
seed. Intervals are Student's t over the seeds (two-sided): they say how far other seeds would lead, not other crawls or
other models.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

CONFIDENCE = 0.95
ROUND = 6
LOWER_IS_BETTER = frozenset({"bits_per_byte", "perplexity"})    # of all other metrics more is better


def t_probability(t: float, df: int) -> float:
    """P(|T| > |t|) of Student's t with `df` degrees of freedom: the regularised incomplete beta function
    I_x(df/2, 1/2) at x = df / (df + t^2) (Abramowitz and Stegun 26.7.1 and 26.5.8)."""
    if math.isnan(t):
        return math.nan
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):                          # the continued fraction converges quickly below that
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300                                           # Lentz's algorithm
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 500):
        for term in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                     -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


def t_quantile(confidence: float, df: int) -> float:
    """The t that |T| stays below with probability `confidence`."""
    low, high = 0.0, 1.0
    while t_probability(high, df) > 1 - confidence:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, df) > 1 - confidence else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float | None, float | None]:
    """(mean, low, high) of a mean of independent values; no interval for a single one."""
    mean = fmean(values)
    if len(values) < 2:
        return mean, None, None
    half = t_quantile(confidence, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def summarise(scores: Sequence[dict[str, Any]], variants: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each measure and variant, from one score for each measure, variant and seed.

    Args:
        scores: rows of variant, seed, task, metric, domain, value.
        variants: in order; the first one is what the others are held against.
    Returns:
        Rows of task, metric, domain, variant, seeds, mean, low, high, difference, difference_low, difference_high and p
        (two-sided, of a difference of zero; not corrected for the number of comparisons). None where one seed says
        nothing.
    """
    values: dict[tuple, dict[str, dict[int, float]]] = {}
    for row in scores:
        measure = values.setdefault((row["task"], row["metric"], row["domain"]), {})
        measure.setdefault(row["variant"], {})[row["seed"]] = row["value"]
    rows = []
    for (task, metric, domain), by_variant in values.items():
        baseline = by_variant.get(variants[0], {})
        for variant in variants:
            if not (mine := by_variant.get(variant)):
                continue
            mean, low, high = interval([mine[seed] for seed in sorted(mine)])
            row = {"task": task, "metric": metric, "domain": domain, "variant": variant, "seeds": len(mine),
                   "mean": mean, "low": low, "high": high, "difference": None, "difference_low": None,
                   "difference_high": None, "p": None}
            both = sorted(mine.keys() & baseline.keys())
            if variant != variants[0] and both:
                paired = [mine[seed] - baseline[seed] for seed in both]
                row["difference"], row["difference_low"], row["difference_high"] = interval(paired)
                if len(paired) > 1:
                    error = stdev(paired) / math.sqrt(len(paired))
                    row["p"] = t_probability(row["difference"] / error, len(paired) - 1) if error else \
                        float(row["difference"] == 0)
            rows.append({name: round(value, ROUND) if isinstance(value, float) else value
                         for name, value in row.items()})
    return rows


def verdict(row: dict[str, Any]) -> str:
    """What a row says of its variant against the first: better, worse, that the seeds do not tell, or that it
    is the baseline."""
    if row["difference"] is None:
        return "baseline"
    if row["difference_low"] is None:
        return "one seed"
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return "not told apart"
    return "better" if (row["difference"] < 0) == (row["metric"] in LOWER_IS_BETTER) else "worse"


def markdown(rows: Sequence[dict[str, Any]], corpora: dict[str, dict[str, Any]]) -> str:
    """The tables of a report: what each variant was trained on, and one table a measure (domain "all")."""
    lines = ["| variant | recipe | documents | tokens in the corpus | tokens trained | epochs |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {one['recipe']} | {one['documents']:,} | {one['tokens']:,} | {one['trained_tokens']:,} | "
              f"{one['epochs']:.2f} |" for name, one in corpora.items()]
    measures = dict.fromkeys((row["task"], row["metric"]) for row in rows if row["domain"] == "all")
    for task, metric in measures:
        lines += ["", f"**{task}, {metric.replace('_', ' ')}** (mean of seeds, 95 % interval; difference from the "
                  "first, paired by seed)", "", "| variant | seeds | mean | interval | difference | interval | p | |",
                  "|---|---|---|---|---|---|---|---|"]
        for row in rows:
            if (row["task"], row["metric"], row["domain"]) == (task, metric, "all"):
                lines.append(f"| {row['variant']} | {row['seeds']} | {row['mean']:.4f} | "
                             f"{_span(row['low'], row['high'])} | {_number(row['difference'], '+.4f')} | "
                             f"{_span(row['difference_low'], row['difference_high'], '+.4f')} | "
                             f"{_number(row['p'], '.3f')} | {verdict(row)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _span(low: float | None, high: float | None, form: str = ".4f") -> str:
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"

"""The picture of an ablation, as SVG by hand: a plotting library would be a large dependency for one picture."""

import html
from collections.abc import Sequence
from typing import Any

from tasks.ablation import LOWER_IS_BETTER


def plot(rows: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]], title: str) -> str:
    """An SVG: a panel a measure (domain "all"), a line a variant, with every seed, the mean and its interval."""
    measures = list(dict.fromkeys((row["task"], row["metric"]) for row in rows if row["domain"] == "all"))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    left, width, step, head = 150, 520, 26, 58
    panel = head + step * len(variants) + 34
    height = 34 + panel * len(measures)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 40}" height="{height}" '
           'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="12" y="22" font-size="15" font-weight="bold">{html.escape(title)}</text>']
    for number, (task, metric) in enumerate(measures):
        top = 34 + panel * number
        mine = [row for row in rows if (row["task"], row["metric"], row["domain"]) == (task, metric, "all")]
        points = [row for row in scores if (row["task"], row["metric"], row["domain"]) == (task, metric, "all")]
        edges = [point["value"] for point in points] + [row[key] for row in mine for key in ("low", "high")
                                                        if row[key] is not None]
        low, high = min(edges), max(edges)
        pad = (high - low or abs(high) or 1) * 0.06
        low, high = low - pad, high + pad

        def x(value: float, low=low, high=high) -> float:
            return round(left + width * (value - low) / (high - low), 1)

        better = "lower" if metric in LOWER_IS_BETTER else "higher"
        name = html.escape(f"{task}: {metric}".replace("_", " "))
        out.append(f'<text x="12" y="{top + 24}" font-weight="bold">{name} ({better} is better)</text>')
        bottom = top + head + step * len(variants)
        for tick in range(5):
            value = low + (high - low) * tick / 4
            out.append(f'<line x1="{x(value)}" x2="{x(value)}" y1="{top + 36}" y2="{bottom - 8}" stroke="#ddd"/>'
                       f'<text x="{x(value)}" y="{bottom + 8}" text-anchor="middle" fill="#666">{value:.4g}</text>')
        for at, variant in enumerate(variants):
            y = top + head + step * at - 4
            out.append(f'<text x="12" y="{y + 4}">{html.escape(variant)}</text>')
            for row in mine:
                if row["variant"] == variant:
                    if row["low"] is not None:
                        out.append(f'<line x1="{x(row["low"])}" x2="{x(row["high"])}" y1="{y}" y2="{y}" '
                                   'stroke="#2b6cb0" stroke-width="3"/>')
                    out.append(f'<rect x="{x(row["mean"]) - 2}" y="{y - 7}" width="4" height="14" fill="#2b6cb0"/>')
            out += [f'<circle cx="{x(point["value"])}" cy="{y}" r="3" fill="#dd6b20" fill-opacity="0.8"/>'
                    for point in points if point["variant"] == variant]
    return "\n".join([*out, "</svg>", ""])

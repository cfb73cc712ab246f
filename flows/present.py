"""What people see: tables, progress, summaries; JSON where a script reads."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tasks import stage

PLAIN_EVERY = 5.0  # seconds between lines of progress where there is no terminal


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Shows the stages of a build as they go: bars on a terminal, a line now and then elsewhere (standard error)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        said: dict[str, float] = {}

        def line(name: str, done: int, of: int) -> None:
            if done == of or time.monotonic() - said.get(name, 0.0) > PLAIN_EVERY:
                said[name] = time.monotonic()
                print(f"{name}: {done} of {of}", file=sys.stderr, flush=True)

        token = stage.progress.set(line)
        try:
            yield
        finally:
            stage.progress.reset(token)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        shown: dict[str, Any] = {}

        def bar(name: str, done: int, of: int) -> None:
            if name not in shown:
                shown[name] = bars.add_task(name, total=of)
            bars.update(shown[name], completed=done, total=of)

        token = stage.progress.set(bar)
        try:
            yield
        finally:
            stage.progress.reset(token)


def rows_of(table: pa.Table | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as plain values that JSON can hold: ids and times as text."""
    rows = table.to_pylist() if isinstance(table, pa.Table) else [dict(row) for row in table]
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def print_tables(tables: Mapping[str, pa.Table | Sequence[Mapping[str, Any]]], as_json: bool) -> None:
    """Prints named tables; as JSON one list, or an object of lists when there are several names.

    Columns without a value are left out; a table wider than the terminal becomes one block a row.
    """
    plain = {name: rows_of(table) for name, table in tables.items()}
    if as_json:
        print(json.dumps(plain[""] if list(plain) == [""] else plain, ensure_ascii=False))
        return
    for name, rows in plain.items():
        columns = [c for c in (rows[0] if rows else []) if any(row[c] not in (None, "", []) for row in rows)]
        _print(columns, rows, name.replace("_", " "))


def _print(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    console = Console()
    width = sum(max([len(c), *(len(cell(row[c])) for row in rows)]) + 3 for c in columns)
    if not console.is_terminal:
        console = Console(width=max(80, width + 1))  # a pipe has no width
    if not rows:
        console.print(f"{title}: no rows" if title else "no rows")
    elif width <= console.width:
        console.print(grid(columns, rows, title))
    else:
        if title:
            console.print(title, style="italic")
        names = max(len(c) for c in columns)
        for row in rows:
            for c in columns:
                if row[c] not in (None, "", []):
                    console.print(f"{c:>{names}}  {cell(row[c])}", markup=False, highlight=False, soft_wrap=True)
            console.print()


def grid(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """A table for the terminal: numbers to the right, thousands apart."""
    table = Table(title=title or None, title_justify="left", header_style="bold", show_edge=False)
    for name in columns:
        numeric = any(isinstance(row[name], (int, float)) for row in rows) and not any(
            isinstance(row[name], str) for row in rows
        )
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row[name])) for name in columns))  # what pages say is not markup
    return table


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def print_mapping(result: Mapping[str, Any], as_json: bool) -> None:
    """Prints a flow's summary: its plain values as lines, its lists of rows as tables."""
    if as_json:
        print(json.dumps({k: _plain(v) for k, v in result.items()}, ensure_ascii=False))
        return
    console = Console()
    for name, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = rows_of(value)
            shared = [column for column in rows[0] if all(column in row for row in rows)]
            _print(shared, rows, name.replace("_", " "))
        else:
            line = f"{name.replace('_', ' ')}: {cell(_plain(value))}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_build(summary: Mapping[str, Any], as_json: bool) -> None:
    """Prints what a build gave: the funnel, the tokens by source, and where they are."""
    if as_json:
        print(json.dumps({k: _plain(v) for k, v in summary.items()}, ensure_ascii=False))
        return
    console = Console()
    state = "published" if summary["published"] else "holds the same already:"
    console.print(
        f"{summary['corpus']}: {state} version {summary['version']}, {summary['documents']:,} documents, "
        f"{summary['tokens']:,} tokens in {len(summary['shards'])} shards",
        highlight=False,
    )
    _print(["stage", "in", "kept", "dropped"], summary["funnel"], "funnel")
    sources = [
        {k: row[k] for k in ("source", "language", "documents", "tokens", "epochs")} for row in summary["mixture"]
    ]
    if sources:
        _print(list(sources[0]), sources, "mixture")
    for failure in summary["failures"]:
        console.print(
            f"not read: {failure['uri']} ({failure['reason']}); run the same again to try it once more",
            style="yellow",
            markup=False,
        )
    console.print(f"shards: {summary['folder']}/tokens", highlight=False, markup=False)


def print_whatif(answer: Mapping[str, Any], as_json: bool) -> None:
    """Prints what a corpus would keep under other rules: the sums, by rule, by source and language, and samples."""
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    documents, tokens = answer["filter"], answer["tokens"]
    console = Console()
    console.print(
        f"{answer['corpus']}, version {answer['version']}: the filter would keep {documents['kept_then']:,} documents "
        f"(now {documents['kept_now']:,}): -{documents['lost']:,} +{documents['gained']:,}; tokens "
        f"{tokens['published_then']:,} (now {tokens['published_now']:,}): -{tokens['lost']:,} "
        f"+{tokens['gained']:,} estimated",
        highlight=False,
        soft_wrap=True,
    )
    if not answer["rules"]:
        console.print("no rule is changed: name some with --rule RULE.PARAMETER=VALUE or --preset", highlight=False)
        return
    for name in ("rules", "by_source_and_language"):
        _print(list(answer[name][0]) if answer[name] else [], answer[name], name.replace("_", " "))
    for side in ("lost", "gained"):
        rows = [
            {k: row[k] for k in ("url", "source", "language")}
            | {
                "rules": ", ".join(
                    f"{one['rule']} {cell(one['value'])}"
                    + (f" ({cell(one['threshold'])})" if one["threshold"] is not None else "")
                    for one in row["failed"]
                )
            }
            for row in answer[side]
        ]
        if rows:
            _print(list(rows[0]), rows, f"{side}, for example")
    for note in answer["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)

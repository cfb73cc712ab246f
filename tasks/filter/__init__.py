"""filter: which documents stay, decided in SQL over their signals.

`tasks.filter.rules` says what a rule is and how presets are made of them, `tasks.filter.settings` how they are set.

The columns of a rule are those of SIGNALS (without minhash) and the documents' `rights`. A document stays when every
rule that is on keeps it. NULL never passes in silence: where the value or the expression is NULL, or the value is not
a number, the rule fails with no threshold; a rule for which NULL means something says so with COALESCE. The threshold
of a fate is the bound among `min` and `max` that the value breaks, NULL where there is none. A number given by
language counts by the column `language`; a language that the mapping lacks takes its `default`, and fails without.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import schema
from tasks.annotate import SIGNALS
from tasks.errors import UserError
from tasks.filter.rules import ALWAYS, PRESETS, RULE_TABLE, RULES, Rule, by_language, parse_rules
from tasks.filter.settings import DEFAULT_PRESETS, Filter, enabled_rules, tables
from tasks.stage import Result, Stage

__all__ = ["ALWAYS", "COLUMNS", "DEFAULT_PRESETS", "PRESETS", "RULES", "RULE_TABLE", "Filter", "Rule", "check",
           "columns_read", "decide", "enabled_rules", "evaluate", "filter", "parse_rules", "query", "rule_sql"]

ORIGIN = ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset"]
COLUMNS = [name for name in SIGNALS.names if name not in ("doc_id", "row", "minhash")] + ["rights"]


def check(settings: Filter, columns: Iterable[str] = tuple(COLUMNS)) -> None:
    """Raises UserError when a rule that is on names a column that is not among `columns`."""
    columns = set(columns)
    for rule, named in columns_read(settings).items():
        for name in sorted(named - columns):
            near = difflib.get_close_matches(name, sorted(columns), 1)
            raise UserError(f"sql/rules/{RULE_TABLE[rule].preset}.sql: the rule {rule} names the column {name}, which "
                            f"is not there; mend the rule{f' (did you mean {near[0]}?)' if near else ''}, "
                            f"or turn it off with filter.{rule}.enabled=false")


def columns_read(settings: Filter) -> dict[str, set[str]]:
    """The columns that each rule that is on reads, by the rule's name."""
    rules = enabled_rules(settings)
    written = tuple(tuple(rule_sql(rule, settings, {})) for rule in rules)
    return dict(zip([rule.name for rule in rules], _columns_of(written), strict=True))


@lru_cache(maxsize=64)
def _columns_of(rules: tuple[tuple[str, ...], ...]) -> list[set[str]]:
    """The columns that each rule's SQL expressions read, as DuckDB's own parser sees them."""
    with _database().cursor() as connection:
        return [_columns(connection, expressions) for expressions in rules]


def _columns(connection: duckdb.DuckDBPyConnection, expressions: tuple[str, ...]) -> set[str]:
    text, = connection.execute("SELECT json_serialize_sql($1)", [f"SELECT {', '.join(expressions)}"]).fetchone()
    tree = json.loads(text)
    if tree["error"]:
        raise UserError(f"a rule is not SQL: {tree['error_message']}; its expression reads {expressions[1]}")
    found: set[str] = set()

    def walk(node, bound: frozenset[str]) -> None:
        if isinstance(node, list):
            for child in node:
                walk(child, bound)
        elif isinstance(node, dict):
            if node.get("class") == "LAMBDA":
                bound = bound | set(node["lhs"].get("column_names", []))
            if node.get("class") == "COLUMN_REF" and node["column_names"][-1] not in bound:
                found.add(node["column_names"][-1])
            for child in node.values():
                walk(child, bound)

    walk(tree, frozenset())
    return found


class RuleSQL(NamedTuple):
    """A rule as SQL expressions over COLUMNS: DOUBLE, BOOLEAN (never NULL), DOUBLE and VARCHAR."""

    value: str
    keep: str
    threshold: str
    detail: str


def rule_sql(rule: Rule, settings: Filter, parameters: dict[str, Any], languages: Iterable[str] = ()) -> RuleSQL:
    """The SQL of a rule under `settings`; adds the parameters that it binds to `parameters`.

    `languages` are those that occur in the data: of numbers by language only theirs are bound.
    """
    chosen, written = getattr(settings, rule.name), {}
    for name in rule.params:
        value, key = getattr(chosen, name), f"{rule.name}__{name}"
        written[name] = f"${key}"
        if isinstance(value, str):
            value = by_language(value)
        if isinstance(value, Mapping):
            present = [code for code in sorted(languages) if code in value]
            parameters |= {f"{key}__of": present, f"{key}__is": [value[code] for code in present],
                           f"{key}__default": value.get("default")}
            written[name] = (f"coalesce(map(${key}__of::VARCHAR[], ${key}__is::DOUBLE[])[language], "
                             f"${key}__default::DOUBLE)")
        else:
            parameters[key] = value

    def named(sql: str) -> str:
        return re.sub(r"\$(\w+)", lambda found: written[found[1]], sql)

    value = f"CAST(({named(rule.value)}) AS DOUBLE)"
    broken = [f"WHEN {value} {sign} {written[name]} THEN CAST({written[name]} AS DOUBLE)"
              for name, sign in (("min", "<"), ("max", ">")) if name in rule.params]
    return RuleSQL(value, f"coalesce(({named(rule.keep)}) AND NOT isnan({value}), FALSE)",
                   f"CASE {' '.join(broken) or 'WHEN FALSE THEN 0'} END::DOUBLE", f"({named(rule.detail)})::VARCHAR")


def query(settings: Filter, languages: Iterable[str] = ()) -> tuple[str, dict[str, Any]]:
    """The SQL over a table `pages` (COLUMNS and `position`) that gives each its failed rules; its parameters."""
    structs, parameters = [], {}
    for rule in enabled_rules(settings):
        sql = rule_sql(rule, settings, parameters, languages)
        structs.append(f"{{'rule': '{rule.name}', 'value': {sql.value}, 'threshold': {sql.threshold}, "
                       f"'detail': {sql.detail}, 'keep': {sql.keep}}}")
    failed = f"list_filter([{', '.join(structs)}], lambda rule: NOT rule.keep)" if structs else "[]::VARCHAR[]"
    return f"SELECT position, {failed} AS failed FROM pages ORDER BY position", parameters


filter = Stage(
    "filter", version=2, settings=Filter, makes=schema.KEPT, conserves="kept",
    needs={"documents": [*ORIGIN, "rights"], "signals": ["doc_id", *COLUMNS[:-1]], "kept": ["doc_id", "row"]},
    resources=lambda settings: [str(RULES / f"{preset}.sql") for preset in dict.fromkeys(
        rule.preset for rule in enabled_rules(settings))] + tables(settings))


@filter.shard
def decide(documents: pa.Table, signals: pa.Table, kept: pa.Table, settings: Filter) -> Result:
    """The kept rows that every rule keeps, and a fate for each other one.

    The first failing rule, in the order of RULE_TABLE, names the fate; `failed` holds all that fail.
    Raises ValueError if signals, documents and kept rows are not of the same shard.
    """
    pages = schema.take(signals, kept).append_column("rights", schema.take(documents, kept)["rights"])
    failed = evaluate(pages, settings)
    counts = pc.list_value_length(failed).to_numpy()
    dropped = np.flatnonzero(counts)
    stay = kept.filter(pa.array(counts == 0)).cast(schema.KEPT)
    if not len(dropped):
        return Result(stay, schema.FATES.empty_table())
    failed = failed.take(pa.array(dropped))
    first = pc.list_element(failed, 0)
    column = {name: first.field(name) for name in ("rule", "value", "threshold", "detail")}
    return Result(stay, schema.fates(documents, kept["row"].to_numpy()[dropped], "filter", column["rule"],
                                     value=column["value"], threshold=column["threshold"], detail=column["detail"],
                                     failed=_without_detail(failed)))


def evaluate(pages: pa.Table, settings: Filter) -> pa.ListArray:
    """For each row of `pages` (COLUMNS) the rules that fail: list<struct<rule, value, threshold, detail, keep>>.

    Raises UserError when a rule names a column that `pages` lacks.
    """
    languages = pc.unique(pages["language"]).drop_null().to_pylist() if "language" in pages.column_names else []
    sql, parameters = query(settings, languages)
    table = pages.drop_columns([name for name in ("doc_id",) if name in pages.column_names]).append_column(
        "position", pa.array(np.arange(len(pages))))
    with _database().cursor() as connection:
        connection.register("pages", table)
        try:
            # Through a table: what gives Arrow at once would plan the rules twice.
            connection.execute(_parsed(f"CREATE TEMP TABLE decided AS {sql}"), parameters)
            return connection.sql("SELECT failed FROM decided").to_arrow_table()["failed"].combine_chunks()
        except duckdb.BinderException:
            check(settings, pages.column_names)
            raise


@lru_cache(maxsize=4)
def _parsed(sql: str) -> duckdb.Statement:
    """A statement, for many shards: to parse the rules takes as long as to plan and run them."""
    statement, = _database().extract_statements(sql)
    return statement


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    """An empty database, of which each use takes a cursor; to make one takes as long as a shard's rules."""
    # One thread, since a pool gives each core a process; no way out of the database for an expression.
    return duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False})


def _without_detail(failed: pa.ListArray) -> pa.ListArray:
    kind = schema.FATES.field("failed").type
    entries = failed.flatten()
    fields = [entries.field(field.name) for field in kind.value_type]
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(failed).to_numpy())]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(fields, fields=list(kind.value_type)),
                                    type=kind)

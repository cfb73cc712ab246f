"""filter: which documents stay, decided in SQL over their signals.

A rule is one named expression in `sql/rules/PRESET.sql`, under a header that says where it comes from:

    -- rule: gopher_words
    -- about: too short to judge, or too long for a page
    -- source: Rae et al. 2021, ...
    -- value: n_words                       the number that decides, for the fate
    -- params: min=50, max=100000           Python literals; settings override them
    -- detail: language                     optional: a string of a closed vocabulary, for the fate
    -- keep when:
    n_words BETWEEN $min AND $max

The columns are those of SIGNALS (without minhash) and the documents' `rights`. A document stays when every rule that
is on keeps it. NULL never passes in silence: where the value or the expression is NULL, or the value is not a number,
the rule fails with no threshold; a rule for which NULL means something says so with COALESCE. The threshold of a fate
is the bound among `min` and `max` that the value breaks, NULL where there is none.
"""

import ast
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, create_model

from tasks import schema
from tasks.annotate import SIGNALS
from tasks.errors import UserError
from tasks.stage import Result, Stage

RULES = Path(__file__).resolve().parent.parent / "sql" / "rules"
ALWAYS = ("rights", "language")              # on whatever presets are chosen
PRESETS = ("gopher", "c4", "fineweb")
ORIGIN = ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset"]
COLUMNS = [name for name in SIGNALS.names if name not in ("doc_id", "row", "minhash")] + ["rights"]
_HEADER = re.compile(r"-- (rule|about|source|value|params|detail|keep when):\s*(.*)")


@dataclass(frozen=True)
class Rule:
    """A rule as its file states it; `value`, `keep` and `detail` are SQL over COLUMNS and the parameters ($min)."""

    name: str
    preset: str
    about: str
    source: str
    value: str
    params: Mapping[str, Any]
    keep: str
    detail: str = "NULL"


def parse_rules(text: str, preset: str) -> list[Rule]:
    """The rules of a file's text, in order. Raises UserError naming the preset and the line that is wrong."""
    rules: list[dict] = []
    heading = None
    for number, line in enumerate(text.splitlines(), 1):
        where = f"sql/rules/{preset}.sql, line {number}"
        if match := _HEADER.fullmatch(line.rstrip()):
            heading, content = match.groups()
            if heading == "rule":
                rules.append({"rule": content, "line": number})
            elif not rules or heading in rules[-1]:
                raise UserError(f"{where}: '{heading}' stands twice or before its '-- rule:'; give each rule one")
            else:
                rules[-1][heading] = content
        elif line.startswith("--   ") and rules and heading not in (None, "keep when"):
            rules[-1][heading] += " " + line[2:].strip()
        elif line.strip() and not line.startswith("--"):
            if heading != "keep when":
                raise UserError(f"{where}: SQL outside '-- keep when:'; put the rule's header above it")
            rules[-1][heading] += f"\n{line}"
    return [_rule(parts, preset) for parts in rules]


def _rule(parts: dict, preset: str) -> Rule:
    where = f"sql/rules/{preset}.sql, rule {parts['rule']}"
    if missing := [h for h in ("about", "source", "value", "params", "keep when") if not parts.get(h, "").strip()]:
        raise UserError(f"{where}: '-- {missing[0]}:' is missing or empty; every rule states it")
    try:
        call = ast.parse(f"f({parts['params']})", mode="eval").body
        params = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        raise UserError(f"{where}: cannot read params; write them as name=value, name=value") from None
    sql = " ".join((parts["value"], parts["keep when"], parts.get("detail", "")))
    if unknown := sorted(set(re.findall(r"\$(\w+)", sql)) - set(params)):
        raise UserError(f"{where}: ${unknown[0]} is not among its params; add it there")
    return Rule(parts["rule"], preset, parts["about"], parts["source"], parts["value"], params,
                parts["keep when"].strip().rstrip(";"), parts.get("detail", "NULL"))


def _read_rules() -> dict[str, Rule]:
    rules = [rule for preset in (*ALWAYS, *PRESETS)
             for rule in parse_rules((RULES / f"{preset}.sql").read_text(encoding="utf-8"), preset)]
    table = {rule.name: rule for rule in rules}
    if len(table) != len(rules) or "presets" in table:
        raise UserError("sql/rules: two rules have the same name, or one is called presets; rename it")
    return table


RULE_TABLE = _read_rules()                   # by name, in the order in which they decide


def _settings_of(rule: Rule) -> type[BaseModel]:
    """The settings model of one rule: `enabled` and its parameters."""
    kinds = {bool: bool, int: float, float: float, list: list[str], str: str}
    fields: dict[str, Any] = {
        name: (kinds[type(default)], Field(default, allow_inf_nan=False) if kinds[type(default)] is float else default)
        for name, default in rule.params.items()}
    return create_model(
        f"Rule_{rule.name}", __config__=ConfigDict(extra="forbid", frozen=True), __module__=__name__,
        __doc__=f"{rule.about[0].upper()}{rule.about[1:]}. {rule.source}",
        enabled=(bool | None, Field(None, description="on or off; by default as the presets say")), **fields)


_MODELS = {name: _settings_of(rule) for name, rule in RULE_TABLE.items()}
globals().update({model.__name__: model for model in _MODELS.values()})     # pickle finds classes by name

Filter = create_model(
    "Filter", __config__=ConfigDict(extra="forbid", frozen=True), __module__=__name__,
    __doc__="Which documents stay: presets of rules, and each rule's own parameters (filter.gopher_words.min=80).",
    presets=(list[Literal[PRESETS]],
             Field(list(PRESETS), description="rule files that are on, beside rights and language")),
    **{name: (model, Field(default_factory=model, description=RULE_TABLE[name].about))
       for name, model in _MODELS.items()})


def enabled_rules(settings: Filter) -> list[Rule]:
    """The rules that are on, in the order in which they decide."""
    def on(rule: Rule) -> bool:
        chosen = getattr(settings, rule.name).enabled
        return rule.preset in (*ALWAYS, *settings.presets) if chosen is None else chosen

    return [rule for rule in RULE_TABLE.values() if on(rule)]


def check(settings: Filter, columns: Iterable[str] = tuple(COLUMNS)) -> None:
    """Raises UserError when a rule that is on names a column that is not among `columns`."""
    columns = set(columns)
    rules = enabled_rules(settings)
    read = _columns_of(tuple((rule.value, rule.keep, rule.detail) for rule in rules))
    for rule, named in zip(rules, read, strict=True):
        for name in sorted(named - columns):
            near = difflib.get_close_matches(name, sorted(columns), 1)
            raise UserError(f"sql/rules/{rule.preset}.sql: the rule {rule.name} names the column {name}, which is "
                            f"not there; mend the rule{f' (did you mean {near[0]}?)' if near else ''}, "
                            f"or turn it off with filter.{rule.name}.enabled=false")


@lru_cache(maxsize=64)
def _columns_of(rules: tuple[tuple[str, ...], ...]) -> list[set[str]]:
    """The columns that each rule's SQL expressions read, as DuckDB's own parser sees them."""
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
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


def query(settings: Filter) -> tuple[str, dict[str, Any]]:
    """The SQL over a table `pages` (COLUMNS and `position`) that gives each its failed rules; its parameters."""
    structs, bound = [], {}
    for rule in enabled_rules(settings):
        chosen = getattr(settings, rule.name)
        bound |= {f"{rule.name}__{name}": getattr(chosen, name) for name in rule.params}

        def named(sql: str, rule=rule) -> str:
            return re.sub(r"\$(\w+)", rf"${rule.name}__\1", sql)

        value = f"CAST(({named(rule.value)}) AS DOUBLE)"
        bounds = [f"WHEN {value} {sign} {named('$' + name)} THEN CAST({named('$' + name)} AS DOUBLE)"
                  for name, sign in (("min", "<"), ("max", ">")) if name in rule.params]
        structs.append(f"""{{'rule': '{rule.name}', 'value': {value},
            'threshold': CASE {' '.join(bounds) or 'WHEN FALSE THEN 0'} END::DOUBLE,
            'detail': ({named(rule.detail)})::VARCHAR,
            'keep': coalesce(({named(rule.keep)}) AND NOT isnan({value}), FALSE)}}""")
    failed = f"list_filter([{', '.join(structs)}], lambda rule: NOT rule.keep)" if structs else "[]::VARCHAR[]"
    return f"SELECT position, {failed} AS failed FROM pages ORDER BY position", bound


filter = Stage(
    "filter", version=1, settings=Filter, makes=schema.KEPT, conserves="kept",
    needs={"documents": [*ORIGIN, "rights"], "signals": ["doc_id", *COLUMNS[:-1]], "kept": ["doc_id", "row"]},
    resources=lambda settings: [str(RULES / f"{preset}.sql")
                                for preset in dict.fromkeys(rule.preset for rule in enabled_rules(settings))])


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
    sql, bound = query(settings)
    table = pages.drop_columns([name for name in ("doc_id",) if name in pages.column_names]).append_column(
        "position", pa.array(np.arange(len(pages))))
    # One thread, since a pool gives each core a process; no way out of the database for an expression.
    with duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False}) as connection:
        connection.register("pages", table)
        try:
            return connection.sql(sql, params=bound).to_arrow_table()["failed"].combine_chunks()
        except duckdb.BinderException:
            check(settings, pages.column_names)
            raise


def _without_detail(failed: pa.ListArray) -> pa.ListArray:
    kind = schema.FATES.field("failed").type
    entries = failed.flatten()
    fields = [entries.field(field.name) for field in kind.value_type]
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(failed).to_numpy())]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(fields, fields=list(kind.value_type)),
                                    type=kind)

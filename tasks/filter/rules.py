"""Rule files: how they are read, and what each preset turns on.

A rule is one named expression in `sql/rules/PRESET.sql`, under a header that says where it comes from:

    -- rule: gopher_words
    -- about: too short to judge, or too long for a page
    -- source: Rae et al. 2021, ...
    -- value: n_words                       the number that decides, for the fate
    -- params: min=50, max=100000           Python literals; settings override them
    -- detail: language                     optional: a string of a closed vocabulary, for the fate
    -- keep when:
    n_words BETWEEN $min AND $max

A preset turns on the rules of its file, and those that it uses from files before it, with its own parameters:

    -- use: gopher                          every rule that the preset gopher turns on, as there
    -- use: gopher_words, gopher_hashes     rules, as their own files say
    -- use: gopher_words max=10000          one rule with other parameters

A number may be given by language, as a mapping with the key `default` for all other languages, or as
`TABLE:COLUMN`, a column of `sql/rules/TABLE.parameters.json`.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.errors import UserError

RULES = Path(__file__).resolve().parents[2] / "sql" / "rules"
ALWAYS = ("rights", "language")              # on whatever presets are chosen
PRESETS = ("gopher", "c4", "fineweb", "fineweb2", "rpv2", "refinedweb", "dclm")     # each may use those before it
_HEADER = re.compile(r"-- (rule|use|about|source|value|params|detail|keep when):\s*(.*)")


@dataclass(frozen=True)
class Rule:
    """A rule as its file states it; `value`, `keep` and `detail` are SQL over the columns and the parameters ($min)."""

    name: str
    preset: str
    about: str
    source: str
    value: str
    params: Mapping[str, Any]
    keep: str
    detail: str = "NULL"


@dataclass(frozen=True)
class Use:
    """A line `-- use:` of a preset: a rule or a preset of an earlier file, and the parameters it gets here."""

    name: str
    params: Mapping[str, Any]
    where: str


def parse_rules(text: str, preset: str) -> list[Rule]:
    """The rules of a file's text, in order. Raises UserError naming the preset and the line that is wrong."""
    return [part for part in parse(text, preset) if isinstance(part, Rule)]


def parse(text: str, preset: str) -> list[Rule | Use]:
    """The rules and uses of a file's text, in order. Raises UserError naming the preset and the line that is wrong."""
    parts: list[dict] = []
    heading = None
    for number, line in enumerate(text.splitlines(), 1):
        where = f"sql/rules/{preset}.sql, line {number}"
        if match := _HEADER.fullmatch(line.rstrip()):
            heading, content = match.groups()
            if heading in ("rule", "use"):
                parts.append({heading: content, "where": where})
            elif not parts or heading in parts[-1] or "use" in parts[-1]:
                raise UserError(f"{where}: '{heading}' stands twice or before its '-- rule:'; give each rule one")
            else:
                parts[-1][heading] = content
        elif line.startswith("--   ") and parts and heading not in (None, "keep when"):
            parts[-1][heading] += " " + line[2:].strip()
        elif line.strip() and not line.startswith("--"):
            if heading != "keep when":
                raise UserError(f"{where}: SQL outside '-- keep when:'; put the rule's header above it")
            parts[-1][heading] += f"\n{line}"
    return [one for part in parts for one in (_uses(part) if "use" in part else [_rule(part, preset)])]


def _uses(part: dict) -> list[Use]:
    if "=" not in part["use"]:
        return [Use(name.strip(), {}, part["where"]) for name in part["use"].split(",")]
    name, _, params = part["use"].strip().partition(" ")
    return [Use(name, _literals(params, part["where"]), part["where"])]


def _rule(part: dict, preset: str) -> Rule:
    where = f"sql/rules/{preset}.sql, rule {part['rule']}"
    if missing := [h for h in ("about", "source", "value", "params", "keep when") if not part.get(h, "").strip()]:
        raise UserError(f"{where}: '-- {missing[0]}:' is missing or empty; every rule states it")
    params = _literals(part["params"], where)
    sql = " ".join((part["value"], part["keep when"], part.get("detail", "")))
    if unknown := sorted(set(re.findall(r"\$(\w+)", sql)) - set(params)):
        raise UserError(f"{where}: ${unknown[0]} is not among its params; add it there")
    return Rule(part["rule"], preset, part["about"], part["source"], part["value"], params,
                part["keep when"].strip().rstrip(";"), part.get("detail", "NULL"))


def _literals(params: str, where: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({params})", mode="eval").body
        if call.args:
            raise ValueError("no name")
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError):
        raise UserError(f"{where}: cannot read params; write them as name=value, name=value") from None


def read_presets(texts: Mapping[str, str]) -> tuple[dict[str, Rule], dict[str, dict[str, dict[str, Any]]]]:
    """All rules by name, and for each preset the rules that it turns on with their parameters.

    `texts` are the files by preset, in the order in which the rules decide. Raises UserError for a name that two
    rules share and for a use of what no earlier file has.
    """
    rules: dict[str, Rule] = {}
    presets: dict[str, dict[str, dict[str, Any]]] = {}
    for preset, text in texts.items():
        on = presets[preset] = {}
        for part in parse(text, preset):
            if isinstance(part, Rule):
                if part.name in rules or part.name == "presets" or part.name in set(texts) - {preset}:
                    raise UserError(f"sql/rules/{preset}.sql: the name {part.name} is taken; call the rule another")
                rules[part.name] = part
                on[part.name] = dict(part.params)
            elif part.name in rules:
                if unknown := sorted(set(part.params) - set(rules[part.name].params)):
                    raise UserError(f"{part.where}: the rule {part.name} has no parameter {unknown[0]}; it has "
                                    f"{', '.join(rules[part.name].params)}")
                on[part.name] = {**rules[part.name].params, **part.params}
            elif part.name in presets and part.name != preset and not part.params:
                on |= {name: dict(params) for name, params in presets[part.name].items()}
            else:
                raise UserError(f"{part.where}: no file before this one has {part.name} (a preset takes no parameters);"
                                f" use a rule or a preset of {', '.join(list(texts)[:list(texts).index(preset)])}")
    return rules, presets


RULE_TABLE, PRESET_TABLE = read_presets(
    {preset: (RULES / f"{preset}.sql").read_text(encoding="utf-8") for preset in (*ALWAYS, *PRESETS)})


def table_path(reference: str) -> Path:
    """The file of a `TABLE:COLUMN`."""
    return RULES / f"{reference.partition(':')[0]}.parameters.json"


def by_language(reference: str) -> Mapping[str, float]:
    """The numbers of a `TABLE:COLUMN` by language. Raises ValueError when there is no such table or column."""
    table, _, column = reference.partition(":")
    known = {path.name.removesuffix(".parameters.json") for path in RULES.glob("*.parameters.json")}
    if table not in known:
        raise ValueError(f"there is no table {table!r}; there are {', '.join(sorted(known))}")
    columns = _columns(table)
    if column not in columns:
        raise ValueError(f"the table {table} has no column {column!r}; it has {', '.join(columns)}")
    return columns[column]


@lru_cache(maxsize=8)
def _columns(table: str) -> dict[str, dict[str, float]]:
    read = json.loads((RULES / f"{table}.parameters.json").read_text(encoding="utf-8"))
    rows = {"default": read["default"], **read["languages"]}
    return {name: {language: row[i] for language, row in rows.items()} for i, name in enumerate(read["columns"])}

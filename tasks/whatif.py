"""What a corpus would keep under other filter settings, from its stored signals and fates.

A change of rules touches two kinds of documents only, and everything else stays as it is:

    lost     kept by the filter now, and broken by a changed rule as it would be
    gained   dropped by the filter now, where every rule that it is recorded to fail is a changed one, and kept by all
             of these as they would be

so only the columns that the changed rules read are evaluated, by the same SQL as in the filter stage, and fates are
looked up only where the changed rules decide otherwise than they did. Deduplication comes before the filter and is not
touched. What is behind it is not asked: benchmark passages, sampling and mixing may take some of what comes back, and
change what a source's share is. A dropped document has no token count: its tokens are estimated from its bytes by the
tokens a byte of its language in this corpus (of all languages, where it has none).
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import yaml
from pydantic import ValidationError

from tasks.errors import UserError
from tasks.filter import columns_read, enabled_rules, rule_sql
from tasks.filter.rules import PRESETS, RULE_TABLE
from tasks.filter.settings import Filter, own_settings
from tasks.publish import read_manifest, version_folder
from tasks.storage import Root

SAMPLES = 5
NOTES = (
    "tokens of documents that come back are estimated: their bytes times the tokens a byte of their language",
    "later stages (decontamination, sampling) may take some of what comes back, and mixing may change the shares",
)


def parse_changes(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`["gopher_words.min=100"]` -> `{"gopher_words": {"min": 100}}`; values are YAML.

    Raises UserError for what is not RULE.PARAMETER=VALUE, naming the nearest rule or parameter that there is.
    """
    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        rule, dot, parameter = name.strip().removeprefix("filter.").partition(".")
        if not equals or not dot:
            raise UserError(f"--rule {assignment!r} is not RULE.PARAMETER=VALUE; write it as gopher_words.min=100, or "
                            f"gopher_words.enabled=false")
        _known(rule, RULE_TABLE, "rule")
        _known(parameter, [*RULE_TABLE[rule].params, "enabled"], f"parameter of {rule}")
        try:
            changes.setdefault(rule, {})[parameter] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--rule {assignment!r}: the value is not YAML") from None
    return changes


def _known(name: str, names: Iterable[str], kind: str) -> None:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
        raise UserError(f"there is no {kind} {name!r}; " + (f"did you mean {near[0]}?" if near else
                                                             f"there are {', '.join(names)}"))


def changed_settings(now: Filter, changes: Mapping[str, Mapping[str, Any]], presets: Sequence[str] = ()) -> Filter:
    """`now` with `changes` by rule laid over it, and `presets` in place of its own if there are any.

    Raises UserError when a value does not fit.
    """
    for preset in presets:
        _known(preset, PRESETS, "preset")
    said = own_settings(now) if presets else now.model_dump(mode="json", exclude={"presets"})
    merged = {rule: {**said.get(rule, {}), **changes.get(rule, {})} for rule in {**said, **changes}}
    try:
        return Filter(presets=list(presets) or now.presets, **merged)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"--rule: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def changed_rules(before: Filter, after: Filter) -> tuple[list[str], list[str]]:
    """The changed rules that are on before, and those that are on after, in the order in which rules decide."""
    was, is_ = ({rule.name: getattr(settings, rule.name).model_dump(exclude={"enabled"})
                 for rule in enabled_rules(settings)} for settings in (before, after))
    changed = [name for name in RULE_TABLE if was.get(name) != is_.get(name)]
    return [name for name in changed if name in was], [name for name in changed if name in is_]


def whatif(root: Root, corpus: str, changes: Mapping[str, Mapping[str, Any]], presets: Sequence[str] = (),
           version: int | None = None, samples: int = SAMPLES) -> dict[str, Any]:
    """What the filter of a published version (the current one by default) would keep under other settings.

    Returns plain values:
        corpus, version
        filter   documents kept_now, lost, gained, kept_then
        tokens   published_now, lost, gained (estimated), published_then (estimated)
        rules    rule, now, then, and how many of the lost break it and of the gained broke it
        by_source_and_language    documents and tokens published now, lost and gained
        lost, gained    samples, the first by doc_id, which is a hash: url, doc_id, source, language, and `failed`: the
                 rules that it would break (lost) or broke (gained), with value and threshold
        notes    what this does not know
    Raises UserError for a corpus, rule or value that is not there or does not fit, and for a changed rule that reads
    the score of a classifier that the corpus was built without.
    """
    manifest = read_manifest(root, corpus, version)
    before = _recorded(manifest)
    after = changed_settings(before, changes, presets)
    was_on, on = changed_rules(before, after)
    notes = [*NOTES, *_unmeasured(manifest, after, on), *(_staying(before, changes) if presets else ())]
    folder = version_folder(corpus, manifest["version"])
    files = {kind: [root.url(path) for path in paths] for kind, paths in (
        ("fates", [f"{folder}/{entry['path']}" for entry in manifest["fates"]]),
        ("tokens", [f"{folder}/{entry['path']}" for entry in manifest["shards"]]),
        ("signals", [part["signals"] for part in manifest["parts"]]),
        ("documents", [part["documents"] for part in manifest["parts"]]))}
    with duckdb.connect(":memory:") as con:
        if root.local is None:
            con.register_filesystem(root.fs)
        try:
            _find_moved(con, (before, after), (was_on, on), _stages_before(manifest), files)
            rows, by_rule = _strata(con, files["tokens"]), _by_rule(con)
            shown = {side: _samples(con, side, samples) for side in ("lost", "gained")}
        except (duckdb.IOException, OSError) as error:
            raise UserError(f"a file of the corpus {corpus} cannot be read ({type(error).__name__}); if the folder "
                            f"work was cleared, build the corpus again") from None
    lost, gained, lost_tokens, gained_tokens = (sum(row[name] for row in rows) for name in (
        "lost", "gained", "lost_tokens", "gained_tokens"))
    kept = next(entry["kept"] for entry in manifest["funnel"] if entry["stage"] == "filter")
    return {
        "corpus": corpus, "version": manifest["version"],
        "filter": {"kept_now": kept, "lost": lost, "gained": gained, "kept_then": kept - lost + gained},
        "tokens": {"published_now": manifest["tokens"], "lost": lost_tokens, "gained": gained_tokens,
                   "published_then": manifest["tokens"] - lost_tokens + gained_tokens},
        "rules": [{"rule": name, "now": _said(before, name, was_on), "then": _said(after, name, on),
                   **by_rule.get(name, {"lost": 0, "gained": 0})}
                  for name in RULE_TABLE if name in was_on or name in on],
        "by_source_and_language": rows, **shown, "notes": notes}


def _unmeasured(manifest: Mapping[str, Any], after: Filter, on: Sequence[str]) -> list[str]:
    """Notes on changed rules that read a signal which was not measured, so that it is NULL for every page.

    Raises UserError where such a rule would drop every page.
    """
    read, annotate = columns_read(after) if on else {}, manifest["settings"].get("annotate") or {}
    if (annotate.get("quality") or {}).get("model") is None:
        for rule in on:
            if "quality_score" in read[rule]:
                raise UserError(f"the rule {rule} reads quality_score, and version {manifest['version']} of the corpus "
                                f"{manifest['name']} was built without a classifier, so that it would drop every page; "
                                f"build it with annotate.quality.classifier, or give --rule {rule}.enabled=false")
    return [f"{rule} passes every page: this version was built without a list of bad words (annotate.bad_words)"
            for rule in on if "n_bad_words" in read[rule] and annotate.get("bad_words") is None]


def _staying(before: Filter, changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Notes on what other presets leave as it is."""
    own = [f"{rule}.{name}={json.dumps(value, ensure_ascii=False)}"                 # which is YAML, as --rule reads it
           for rule, said in own_settings(before).items() for name, value in said.items()
           if name not in changes.get(rule, {})]
    return ["lines stay cut as they were: presets of lines belong to a build",
            *([f"stays as this corpus set it: {', '.join(own)}; --rule changes it"] if own else [])]


def _recorded(manifest: Mapping[str, Any]) -> Filter:
    try:
        return Filter.model_validate(manifest["settings"]["filter"])
    except (ValidationError, KeyError):
        raise UserError(f"version {manifest['version']} of the corpus {manifest['name']} was built with rules that are "
                        f"not those of today; build it again, then ask") from None


def _stages_before(manifest: Mapping[str, Any]) -> list[str]:
    stages = [entry["stage"] for entry in manifest["funnel"]]
    return stages[:stages.index("filter")]


def _said(settings: Filter, name: str, on: Sequence[str]) -> str:
    """The parameters of a rule, as one would set them; "off" when it is not on."""
    if name not in on:
        return "off"
    said = getattr(settings, name).model_dump(mode="json", exclude={"enabled"})
    return ", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                     for key, value in said.items()) or "on"


def _find_moved(con: duckdb.DuckDBPyConnection, settings: tuple[Filter, Filter], on: tuple[list[str], list[str]],
                earlier: Sequence[str], files: Mapping[str, list[str]]) -> None:
    """Makes the table `moved`: a row for each document lost or gained, with the rules that it breaks as they would be
    (lost) or broke as they are (gained), as in fates. `settings` and the changed rules `on` are those before and after.

    Raises UserError when a changed rule reads a signal that the version was built without.
    """
    con.execute("CREATE TEMP TABLE moved (side VARCHAR, doc_id UUID, source VARCHAR, filename VARCHAR, "
                "language VARCHAR, n_bytes INTEGER, failed STRUCT(rule VARCHAR, value DOUBLE, threshold DOUBLE)[])")
    parameters: dict[str, Any] = {"signals": files["signals"]}
    read = _columns(con, settings, on, files["signals"][0])
    pages = "read_parquet($signals)"
    if "rights" in read:
        pages += " JOIN (SELECT doc_id, rights FROM read_parquet($documents)) USING (doc_id)"
        parameters["documents"] = files["documents"]
    languages = _languages(con, settings, on, files["signals"])
    bounds: tuple[dict, dict] = ({}, {})
    rules = [{name: rule_sql(RULE_TABLE[name], chosen, bound, languages) for name in names}
             for chosen, names, bound in zip(settings, on, bounds, strict=True)]
    passes = [" AND ".join(sql.keep for sql in one.values()) or "TRUE" for one in rules]
    # Both settings name their parameters alike.
    passes[0] = re.sub(r"\$(\w+)", r"$\1__before", passes[0])
    parameters |= bounds[1] | {f"{name}__before": value for name, value in bounds[0].items()}
    broken = ", ".join(f"{{'rule': '{name}', 'value': {sql.value}, 'threshold': {sql.threshold}, 'keep': {sql.keep}}}"
                       for name, sql in rules[1].items()) or "NULL"
    columns = ", ".join(f'"{name}"' for name in sorted({"doc_id", "language", "n_bytes"} | read))
    con.execute(f"""CREATE TEMP TABLE turned AS
        SELECT doc_id, language, n_bytes, CASE WHEN passes THEN [] ELSE [{broken}] END AS rules, passes
        FROM (SELECT {columns}, {passes[0]} AS passed, {passes[1]} AS passes FROM {pages})
        WHERE passed <> passes""", parameters)
    lost, gained = con.execute("SELECT count(*) FILTER (NOT passes), count(*) FILTER (passes) FROM turned").fetchone()
    if lost:
        con.execute("""INSERT INTO moved BY NAME
            SELECT 'lost' AS side, doc_id, source, filename, language, n_bytes,
                   list_transform(list_filter(rules, lambda one: NOT one.keep), lambda one:
                                  {'rule': one.rule, 'value': one.value, 'threshold': one.threshold}) AS failed
            FROM (SELECT doc_id, source, filename FROM read_parquet($fates, filename = true)
                  WHERE outcome = 'kept' OR NOT list_contains($dropped::VARCHAR[], stage))
            JOIN (FROM turned WHERE NOT passes) USING (doc_id)""",
                    {"fates": files["fates"], "dropped": [*earlier, "filter"]})
    if gained:
        # The rule that names a fate is the first that failed: where it is not a changed one, `failed` is not read.
        names = ", ".join(f"'{name}'" for name in on[0])
        con.execute(f"""INSERT INTO moved BY NAME
            SELECT 'gained' AS side, doc_id, source, filename, language, n_bytes, failed
            FROM (SELECT doc_id, source, filename, failed FROM read_parquet($fates, filename = true)
                  WHERE stage = 'filter' AND rule IN ({names})
                    AND list_has_all([{names}], list_transform(failed, lambda one: one.rule)))
            JOIN (FROM turned WHERE passes) USING (doc_id)""", {"fates": files["fates"]})


def _columns(con: duckdb.DuckDBPyConnection, settings: tuple[Filter, Filter], on: tuple[list[str], list[str]],
             file: str) -> set[str]:
    there = {name for name, *_ in con.execute("DESCRIBE SELECT * FROM read_parquet(?)", [file]).fetchall()} | {"rights"}
    wanted = set()
    for chosen, names in zip(settings, on, strict=True):
        read = columns_read(chosen) if names else {}
        for name in names:
            if missing := sorted(read[name] - there):
                raise UserError(f"the rule {name} reads {missing[0]}, which this version was built without; build it "
                                f"again, then ask")
            wanted |= read[name]
    return wanted


def _languages(con: duckdb.DuckDBPyConnection, settings: tuple[Filter, Filter], on: tuple[list[str], list[str]],
               files: list[str]) -> list[str]:
    """The languages of the corpus, where a changed rule has numbers by language."""
    if not any(isinstance(value, (str, dict)) for chosen, names in zip(settings, on, strict=True) for name in names
               for value in getattr(chosen, name).model_dump(exclude={"enabled"}).values()):
        return []
    return [code for code, in con.execute("SELECT DISTINCT language FROM read_parquet(?) WHERE language IS NOT NULL",
                                          [files]).fetchall()]


def _strata(con: duckdb.DuckDBPyConnection, tokens: list[str]) -> list[dict[str, Any]]:
    """The rows by source and language."""
    return _rows(con.execute("""
        WITH published AS (SELECT source, language, count(*) FILTER (repeat = 0) AS documents, sum(n_tokens) AS tokens,
                                  sum(n_bytes) AS bytes FROM read_parquet($tokens) GROUP BY ALL),
        rates AS (SELECT language, sum(tokens) / sum(bytes) AS rate FROM published GROUP BY language),
        overall AS (SELECT sum(tokens) / sum(bytes) AS rate FROM published),
        counted AS (
            SELECT source, language, documents, tokens, 0 AS lost, 0 AS lost_tokens, 0 AS gained, 0.0 AS gained_tokens
            FROM published
            UNION ALL BY NAME SELECT source, language, count(*) AS lost FROM moved WHERE side = 'lost' GROUP BY ALL
            UNION ALL BY NAME
            SELECT m.source, m.language, sum(p.n_tokens) AS lost_tokens
            FROM (FROM moved WHERE side = 'lost') AS m JOIN read_parquet($tokens) AS p USING (doc_id) GROUP BY ALL
            UNION ALL BY NAME
            SELECT m.source, m.language, count(*) AS gained, sum(m.n_bytes * coalesce(r.rate, o.rate)) AS gained_tokens
            FROM moved AS m CROSS JOIN overall AS o LEFT JOIN rates AS r ON r.language = m.language
            WHERE side = 'gained' GROUP BY ALL)
        SELECT source, language, coalesce(sum(documents), 0)::BIGINT AS published,
               coalesce(sum(tokens), 0)::BIGINT AS published_tokens, coalesce(sum(lost), 0)::BIGINT AS lost,
               coalesce(sum(lost_tokens), 0)::BIGINT AS lost_tokens, coalesce(sum(gained), 0)::BIGINT AS gained,
               coalesce(round(sum(gained_tokens)), 0)::BIGINT AS gained_tokens
        FROM counted GROUP BY source, language ORDER BY published_tokens DESC, source, language""", {"tokens": tokens}))


def _by_rule(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """How many of the lost each rule breaks, and of the gained it broke."""
    found = con.execute("""SELECT one.rule AS rule, count(*) FILTER (side = 'lost') AS lost,
                                  count(*) FILTER (side = 'gained') AS gained
                           FROM (SELECT side, unnest(failed) AS one FROM moved) GROUP BY ALL""")
    return {row.pop("rule"): row for row in _rows(found)}


def _samples(con: duckdb.DuckDBPyConnection, side: str, samples: int) -> list[dict[str, Any]]:
    """The first documents of a side by doc_id."""
    rows = _rows(con.execute("SELECT doc_id, source, language, failed, filename FROM moved WHERE side = $side "
                             "ORDER BY doc_id LIMIT $n", {"side": side, "n": samples}))
    if not rows:
        return []
    urls = dict(con.execute("SELECT doc_id, url FROM read_parquet($files) WHERE list_contains($ids::UUID[], doc_id)",
                            {"files": sorted({row["filename"] for row in rows}),
                             "ids": [row["doc_id"] for row in rows]}).fetchall())
    return [{"url": urls[row["doc_id"]], "doc_id": str(row["doc_id"])} |
            {name: row[name] for name in ("source", "language", "failed")} for row in rows]


def _rows(found: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

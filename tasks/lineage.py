"""lineage.duckdb: the window onto what was made, from what, and why.

Small tables come from the ledger's events and the corpora's manifests, large ones stay in Parquet and
are seen through views. The file is built privately and put in place whole, so readers are never in
the way and never see half of it; nothing in it is worth keeping, it can be rebuilt at any time. It is
written in DuckDB's storage version of 1.0, so any DuckDB since then opens it.
"""

import contextlib
import glob
import hashlib
import json
import os
import posixpath
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import ledger
from tasks.errors import UserError
from tasks.schema import CLEAN, DOCUMENTS, FATES, TOKENS, UUID
from tasks.storage import Root

LINEAGE = "lineage.duckdb"
LOCK = "ledger/rebuild.lock"
SCHEMA = Path(__file__).parents[1] / "sql" / "schema"
PATIENCE = 120.0                                # seconds to wait for another rebuild, which takes about one

# What a view shows before there is a file, and at the least: columns that a file lacks are NULL.
COLUMNS = {
    "documents": DOCUMENTS,
    "signals": pa.schema([("doc_id", UUID), ("row", pa.int32()), ("language", pa.string()), ("n_words", pa.int32())]),
    "spans": CLEAN,
    "fates": FATES,
    "plan": pa.schema([("doc_id", UUID), ("source", pa.string())]),
    "tokens": TOKENS,
    "packing": pa.schema([("sample_id", pa.int64()), ("segment", pa.int32()), ("shard", pa.int32()),
                          ("row", pa.int32()), ("offset", pa.int32()), ("length", pa.int32()), ("doc_id", UUID)]),
}
LEFT_OUT = {"text", "minhash", "tokens"}        # large, and BYTE_STREAM_SPLIT integers are more than old DuckDBs read
NUMBERS = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
           "FLOAT", "DOUBLE"}

Tables = dict[str, list[dict]]


def rebuild(root: Root) -> str:
    """Builds lineage.duckdb anew and puts it in place; returns its path or URI.

    Merges small event files on the way. Raises UserError when another rebuild holds the lock for two minutes.
    """
    with _alone(root), tempfile.TemporaryDirectory() as scratch:
        ledger.compact(root)
        tables = from_events(*ledger.events(root))
        for name, rows in from_manifests(root, tables["publications"]).items():
            tables[name] += rows
        tables["files"] += packings(root)
        built = os.path.join(scratch, LINEAGE)
        build(built, root, tables)
        root.write_bytes(LINEAGE, Path(built).read_bytes())
    return root.url(LINEAGE)


@contextlib.contextmanager
def _alone(root: Root):
    """One rebuild at a time on a local disk; elsewhere the last one wins, each being whole."""
    if root.local is None:
        yield
        return
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(root.lock(LOCK, "lineage.duckdb"))
                break
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield


def from_events(found: Iterable[dict], broken: Iterable[str] = ()) -> Tables:
    """The rows that events give, by table; `broken` are files of events that could not be read.

    An event whose payload has another shape than its kind says stays an event, and is a failure beside.
    """
    tables: Tables = defaultdict(list)
    keyed: dict[str, dict] = {name: {} for name in ("runs", "trainings", "steps", "checkpoints", "ablations")}
    for event in found:
        at = event["at"].replace(tzinfo=None)
        tables["events"].append(event | {"recorded_at": at})
        try:
            _add(tables, keyed, event, at)
        except (TypeError, ValueError, AttributeError, KeyError):
            tables["failures"].append({"subject": event["event_id"], "stage": "ledger", "reason": "event_malformed",
                                       "run_id": event["run_id"], "recorded_at": at})
    for (run, step), row in keyed["checkpoints"].items():
        samples = row.get("samples")
        if isinstance(step, int) and isinstance(samples, int) and step > 0 and run in keyed["trainings"]:
            keyed["trainings"][run].setdefault("batch", samples // step)  # a step takes the same number throughout
    for name, rows in keyed.items():
        tables[name] = list(rows.values())
    tables["failures"] += [{"subject": path, "stage": "ledger", "reason": "event_unreadable"} for path in broken]
    return tables


def _add(tables: Tables, keyed: dict[str, dict], event: dict, at: datetime) -> None:
    """Adds what one event says to the tables, or to the rows that later events of the same subject go on with."""
    kind, subject, said = event["kind"], event["subject"], event["payload"]
    origin = {"run_id": event["run_id"], "recorded_at": at}
    if kind == "run":
        _follow(keyed["runs"].setdefault(event["run_id"] or event["event_id"], {}), said, at, flow=subject,
                run_id=event["run_id"])
    elif kind == "training":
        batch = {"batch": said["settings"].get("batch")} if isinstance(said.get("settings"), dict) else {}
        _follow(keyed["trainings"].setdefault(subject, {}), batch | said, at, run=subject)
    elif kind == "shard":
        tables["shards"] += [{"stage": subject} | origin | shard for shard in said.get("shards", [])]
    elif kind == "step":
        keyed["steps"].update({(subject, step["step"]): {"recorded_at": at} | step | {"run": subject}
                               for step in said.get("steps", [])})
    elif kind == "checkpoint":
        keyed["checkpoints"][subject, said["step"]] = {"recorded_at": at} | said | {"run": subject}
    elif kind == "evaluation":
        tables["evaluations"].append(origin | said | {"run": subject})
    elif kind == "ablation":                                # made again, its last word counts
        measure = (subject, said["variant"], said["task"], said["metric"], said.get("domain"))
        keyed["ablations"][measure] = origin | said | {"name": subject}
    elif kind == "classifier":
        tables["classifiers"].append(origin | said | {"name": subject})
        for table, rows in (("thresholds", said.get("thresholds")), ("reliability", said.get("reliability"))):
            tables[f"classifier_{table}"] += [row | {"name": subject, "sha256": said["sha256"]} for row in rows or []]
    elif kind == "artifact":
        tables["artifacts"].append(origin | {"name": subject} | said)
    elif kind == "publication":
        tables["publications"].append({"name": subject, "version": int(said["version"]), "published_at": at})
    elif kind == "failure":
        tables["failures"].append(origin | said | {"subject": subject})


def _follow(row: dict, said: dict, at: datetime, **names) -> None:
    """Adds a started or ended event to the row of its run: what was said last counts, a new start opens it again."""
    ended = said.get("state") == "ended" or said.get("outcome") is not None
    if not ended:
        for key in ("outcome", "reason", "ended_at"):
            row.pop(key, None)
    row |= {key: value for key, value in said.items() if value is not None} | names
    row.setdefault("started_at", at)
    if ended:
        row["ended_at"] = at
        row.setdefault("seconds", (at - row["started_at"]).total_seconds())


def from_manifests(root: Root, publications: Iterable[dict]) -> Tables:
    """The rows that the manifests of all published versions give, by table."""
    published: dict = {}
    for event in publications:
        published.setdefault((event["name"], event["version"]), event["published_at"])
    tables: Tables = defaultdict(list)
    for name in root.folders("corpora"):
        current = _current(root, name)
        for folder in root.folders(f"corpora/{name}/versions"):
            path = f"corpora/{name}/versions/{folder}/manifest.json"
            try:
                data = root.read_bytes(path)
                rows = _of_manifest(root, posixpath.dirname(path), json.loads(data))
            except FileNotFoundError:
                continue  # not published yet
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                tables["failures"].append({"subject": path, "stage": "publish", "reason": "manifest_unreadable"})
                continue
            corpus = rows["corpora"][0]
            corpus |= {"manifest": hashlib.sha256(data).hexdigest(), "is_current": corpus["version"] == current,
                       "published_at": published.get((corpus["name"], corpus["version"]))}
            for table, more in rows.items():
                tables[table] += more
    return tables


def _current(root: Root, name: str) -> int | None:
    try:
        return int(root.read_bytes(f"corpora/{name}/current"))
    except (OSError, ValueError):
        return None


def _of_manifest(root: Root, folder: str, manifest: dict) -> Tables:
    which = {"name": manifest["name"], "version": manifest["version"]}
    tokenizer = manifest.get("tokenizer") or {}
    shards, parts = manifest.get("shards", []), manifest.get("parts", [])

    here = root.url("work").removesuffix("work")        # a manifest of a large corpus names many thousand files

    def file(kind: str, number: int, path: str) -> dict:
        return which | {"kind": kind, "number": number, "path": root.url(path) if ".." in path else here + path}

    funnel = manifest.get("funnel", [])
    published = {"tokens": shards, "fates": manifest.get("fates", []),
                 "plan": [manifest["plan"]] if manifest.get("plan") else []}
    return {
        "corpora": [which | {key: manifest.get(key) for key in (
            "parent", "recipe", "settings_key", "settings", "dtype", "documents", "tokens", "bytes")} | {
            "tokenizer": tokenizer.get("name"), "n_vocab": tokenizer.get("n_vocab"), "shards": len(shards)}],
        "corpus_inputs": [which | entry for entry in manifest.get("inputs", [])],
        "corpus_shards": [which | entry | {"shard": number, "file": entry["path"]}
                          for number, entry in enumerate(shards)],
        "funnel": [which | {"position": position, "stage": entry["stage"], "rows_in": entry.get("in"),
                            "kept": entry.get("kept"), "dropped": entry.get("dropped")}
                   for position, entry in enumerate(funnel)],
        "funnel_rules": [which | {"stage": entry["stage"], "rule": rule, "dropped": n}
                         for entry in funnel for rule, n in sorted((entry.get("rules") or {}).items())],
        "mixtures": [which | entry for entry in manifest.get("mixture", [])],
        "files": [file(kind, number, entry[kind]) for number, entry in enumerate(parts)
                  for kind in ("documents", "signals", "spans") if entry.get(kind)]
        + [file(kind, number, f"{folder}/{entry['path']}") for kind, entries in published.items()
           for number, entry in enumerate(entries)],
    }


def packings(root: Root) -> list[dict]:
    """The rows of `files` that name the packing of each training."""
    runs = [(run, f"trainings/{run}/packing.parquet") for run in root.folders("trainings")]
    return [{"kind": "packing", "name": run, "path": root.url(path)} for run, path in runs if root.exists(path)]


def build(path: str, root: Root, tables: Tables) -> None:
    """Writes a new DuckDB file at the local `path`: the tables of sql/schema/tables.sql filled, and the views."""
    con = duckdb.connect(":memory:")
    try:
        if root.local is None:
            con.register_filesystem(root.fs)
        con.execute(f"ATTACH {_text(path)} AS lineage (STORAGE_VERSION 'v1.0.0')")
        con.execute("USE lineage")
        con.execute((SCHEMA / "tables.sql").read_text())
        for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall():
            if tables.get(name):
                schema = con.sql(f"FROM {name} LIMIT 0").to_arrow_table().schema
                con.register("incoming", as_table(tables[name], schema))
                con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
                con.unregister("incoming")
        files = tables.get("files", [])
        relations = {kind: _relation(con, root, [file for file in files if file["kind"] == kind], columns)
                     for kind, columns in COLUMNS.items()}
        relations["numbers"] = _numbers(con, relations["signals"])
        con.execute(re.sub(r"\{(\w+)\}", lambda found: relations[found[1]], (SCHEMA / "views.sql").read_text()))
        con.execute("USE memory")
        con.execute("DETACH lineage")           # which checkpoints it
    finally:
        con.close()


def as_table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    """Rows as a table of `schema`: other keys are left out; what is absent or does not fit is null."""
    return pa.table([_column([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema)


def _column(values: list, kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)           # fast, and enough for what our own flows record
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([_fit(value, kind) for value in values], kind)


def _fit(value, kind: pa.DataType):
    if value is None:
        return None
    try:
        if pa.types.is_boolean(kind):
            return bool(value)
        if pa.types.is_integer(kind):
            return int(value) if -2**63 <= int(value) < 2**63 else None
        if pa.types.is_floating(kind):
            return float(value)
        if pa.types.is_timestamp(kind):
            return value if isinstance(value, datetime) else None
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return text.encode("utf-8", "replace").decode()
    except (TypeError, ValueError, OverflowError):
        return None


def _relation(con: duckdb.DuckDBPyConnection, root: Root, files: list[dict], columns: pa.Schema) -> str:
    """SQL that reads `files`, those of equal schema together, with `columns` at the least.

    The files of one version and kind were made by one stage with one settings, so one footer speaks for all.
    """
    groups: dict[tuple, dict[str, None]] = {}
    versions = defaultdict(dict)
    for file in files:
        if root.local is None or os.path.exists(file["path"]):
            versions[file["name"], file.get("version")][file["path"]] = None
    footers: dict[str, tuple | None] = {}
    placed = set()
    for paths in versions.values():
        first = next(iter(paths))
        if first not in footers:
            footers[first] = _footer(root, first)
        new = [path for path in paths if path not in placed]
        if footers[first] is not None and new:
            placed.update(new)
            groups.setdefault(footers[first], {}).update(dict.fromkeys(new))
    wanted = _types(con, columns)
    if not groups:
        nothing = ", ".join(f"NULL::{kind} AS {_name(name)}" for name, kind in wanted.items())
        return f"(SELECT {nothing}, NULL::VARCHAR AS filename, NULL::BIGINT AS file_row_number WHERE false)"
    return "(" + "\nUNION ALL BY NAME\n".join(_read(names, paths, wanted) for names, paths in groups.items()) + ")"


def _read(names: tuple[str, ...], paths: Iterable[str], wanted: dict[str, str]) -> str:
    columns = [_name(name) for name in names if name not in LEFT_OUT]
    columns += [f"NULL::{kind} AS {_name(name)}" for name, kind in wanted.items() if name not in names]
    listed = ", ".join(_text(glob.escape(path)) for path in paths)
    return (f"SELECT {', '.join(columns)}, filename, file_row_number "
            f"FROM read_parquet([{listed}], filename = true, file_row_number = true)")


def _numbers(con: duckdb.DuckDBPyConnection, relation: str) -> str:
    """The columns of `relation` that measure something, as DOUBLE: numbers and truth values, but not places."""
    described = con.execute(f"DESCRIBE SELECT * EXCLUDE (row, file_row_number) FROM {relation}").fetchall()
    return ", ".join(f"{_name(name)}::DOUBLE AS {_name(name)}" for name, kind, *_ in described if kind in NUMBERS)


def _footer(root: Root, url: str) -> tuple[str, ...] | None:
    try:
        if root.local is not None:
            return tuple(pq.read_schema(url).names)
        with root.fs.open(url) as file:
            return tuple(pq.read_schema(file).names)
    except (OSError, pa.ArrowException):
        return None


def _types(con: duckdb.DuckDBPyConnection, columns: pa.Schema) -> dict[str, str]:
    """The DuckDB types of Arrow columns, as DuckDB itself maps them."""
    kept = pa.schema([field for field in columns if field.name not in LEFT_OUT])
    con.register("shape", kept.empty_table())
    described = con.execute("DESCRIBE shape").fetchall()
    con.unregister("shape")
    return {name: kind for name, kind, *_ in described}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'

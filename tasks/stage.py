"""The mechanism that every stage shares.

A stage is a value: a name, a code version, its settings type, the columns it needs and makes, and
one pure function from a shard's tables to its output table and fates. Everything else is here, once:
keys and skipping, the task that takes a group of shards through a stage on the pool, deadlines and
quarantine, the check that no record is lost, the atomic commit, the ledger.

A unit of work is one shard through one stage. Its key is a hash of the digests of its inputs, the
stage's settings, its resources (files that settings name) and its code version, and its output
lies at `work/STAGE/KE/KEY/`. `done.json` is written last, so a unit is done when that file exists.
Inputs count by the sha256 of their bytes, not by their keys: a stage that runs again and makes the same
bytes does not wake those behind it.
"""

import hashlib
import importlib
import importlib.metadata
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from tasks import ledger
from tasks.errors import UserError
from tasks.mapped import library_version
from tasks.pool import Limits, Outcome, ShardError, shared_pool
from tasks.pool_child import NO_ITEM, attempt, set_poisoned
from tasks.schema import FATES, id_words
from tasks.storage import Root, parquet

__all__ = ["Artifact", "Build", "Done", "Result", "Stage", "Unit", "attempt", "run_stage"]

log = logging.getLogger("gristmill.stage")

# Who wants to see (stage, units done, units in all); the command line sets it.
progress: ContextVar[Callable[[str, int, int], None]] = ContextVar("progress", default=lambda stage, done, of: None)

MAX_GROUPS = 100  # task runs a stage: Prefect's database grows 20 to 25 KB with each
MAX_FAILURES = 4  # of a shard in a row, with no item found to blame
MAX_POISONED_ITEMS = 1000  # a shard with more killer pages than this is not worth its processes


@dataclass(frozen=True)
class Result:
    """What a shard function gives: its table, the fates of the records it dropped, and how many it saw.

    `rows_in` is for stages that count their records themselves (extract); the others are counted by the runner.
    """

    table: pa.Table
    fates: pa.Table | None = None
    rows_in: int | None = None


@dataclass(frozen=True)
class Artifact:
    """A table in the data root and the sha256 of its bytes."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Unit:
    """One shard's input: tables by the names in `needs` (or lists of tables), and plain parameters.

    `params` go to the function as keyword arguments; `identity` (JSON) is their part in the key, by
    default the params themselves. `size` is any measure of the work: the longest units start first.
    """

    inputs: Mapping[str, Artifact | Sequence[Artifact]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] | None = None
    size: float = 0.0


@dataclass(frozen=True)
class Done:
    """A finished unit: its output and its counts, as `done.json` holds them."""

    key: str
    table: Artifact
    fates: Artifact | None
    rows_in: int
    rules: dict[str, int]
    seconds: float
    cpu_seconds: float


class Stage:
    """A stage of the corpus flow.

    Args:
        name: of the stage, in paths, fates and settings.
        version: of its code; raise it with every change of behaviour, so that old output is not taken for new.
        settings: the pydantic model of its settings.
        needs: the input tables and the columns to read of each.
        makes: the schema of the output, or a function from settings to it.
        conserves: the input whose every row must come out, in the output or in the fates; None for stages that
            make another kind of row.
        resources: settings -> URIs of the files that decide the output beside the inputs.
        libraries: packages whose version decides the output ("unicodedata": of Python's Unicode tables).
    """

    def __init__(
        self,
        name: str,
        *,
        version: int,
        settings: type[BaseModel],
        needs: Mapping[str, Sequence[str]],
        makes: pa.Schema | Callable[[BaseModel], pa.Schema] | None,
        conserves: str | None = None,
        resources: Callable[[BaseModel], Sequence[str]] = lambda settings: (),
        libraries: Sequence[str] = (),
    ):
        self.name, self.version, self.settings, self.needs, self.makes = name, version, settings, needs, makes
        self.conserves, self.resources, self.libraries = conserves, resources, libraries

    def shard(self, function: Callable) -> Callable:
        """Decorates the stage's pure function; the function stays callable as it is."""
        self.function, self.module = function, function.__module__
        return function

    def __reduce__(self):  # by name: functions and lambdas do not travel
        module = sys.modules[self.module]
        attribute = next(name for name, value in vars(module).items() if value is self)
        return _named, (self.module, attribute)

    @cached_property
    def task(self):
        """The Prefect task: a group of units of this stage, spread over the pool."""
        from prefect import task  # a second of import that the pool's children, who load stages too, do without
        from prefect.cache_policies import NO_CACHE

        return task(
            run_group,
            name=self.name,
            persist_result=False,
            cache_policy=NO_CACHE,
            log_prints=False,
            retries=1,
            retry_delay_seconds=5,
            retry_condition_fn=_worth_retrying,
        )

    def keys(self, settings: BaseModel, units: Sequence[Unit]) -> list[str]:
        """The content key of each unit, 32 hex digits."""
        common = {
            "stage": self.name,
            "version": self.version,
            "settings": settings.model_dump(mode="json"),
            "resources": [resource_digest(uri) for uri in self.resources(settings)],
            "libraries": {name: library_version(name) for name in self.libraries},
        }

        def digests(value):
            return value.sha256 if isinstance(value, Artifact) else [a.sha256 for a in value]

        def key(unit: Unit) -> str:
            inputs = {name: digests(value) for name, value in unit.inputs.items()}
            identity = unit.params if unit.identity is None else unit.identity
            parts = json.dumps(common | {"inputs": inputs, "identity": identity}, sort_keys=True)
            return hashlib.sha256(parts.encode()).hexdigest()[:32]

        return [key(unit) for unit in units]

    def folder(self, key: str) -> str:
        return f"work/{self.name}/{key[:2]}/{key}"


def _named(module: str, attribute: str) -> Stage:
    return getattr(importlib.import_module(module), attribute)


@dataclass
class Build:
    """What a run of the flow carries through its stages."""

    root: Root
    run_id: str
    workers: int = 2
    limits: Limits = Limits()
    runner: Any = None  # a Prefect task runner for Dask or Ray; None: this process
    groups: int = 1  # of shards that a stage is cut into for such a runner
    as_tasks: bool = True  # False: groups run as plain calls, outside Prefect
    ran: dict[str, int] = field(default_factory=dict)  # units run by stage, the skipped ones left out
    spans: list[tuple[float, float]] = field(default_factory=list)  # when a stage's function ran, in any process

    def working_seconds(self) -> float:
        """The wall time in which at least one stage function ran."""
        total, until = 0.0, 0.0
        for began, ended in sorted(self.spans):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total


def resource_digest(uri: str) -> str:
    """The sha256 of a file that settings name. Raises UserError when it is not there."""
    try:
        fs, path = fsspec.core.url_to_fs(uri)
        about = fs.info(path)
        stamp = tuple(str(about.get(name)) for name in ("size", "mtime", "ino", "ETag", "LastModified"))
        return _digest(uri, stamp)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"cannot read {uri}, which the settings name ({type(error).__name__}); "
            f"check the path, or take it out of the settings"
        ) from None


@lru_cache(maxsize=4096)
def _digest(uri: str, stamp: tuple[str, ...]) -> str:
    """`stamp` is what changes when the file does: a process may live for many builds."""
    with fsspec.open(uri, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_stage(stage: Stage, units: Sequence[Unit], settings: BaseModel, build: Build) -> list[Done]:
    """Takes every unit through `stage`, skipping what is done, and returns the results in the units' order.

    Raises UserError for what the user can mend, ShardError when a shard fails for a reason of the code's own.
    """
    keys = stage.keys(settings, units)
    todo = {
        key: unit
        for key, unit in zip(keys, units, strict=True)
        if not build.root.exists(f"{stage.folder(key)}/done.json")
    }
    skipped = len(units) - len(todo)
    log.info("%s: %d units to do, %d done before", stage.name, len(todo), skipped)
    tell = progress.get()
    tell(stage.name, skipped, len(units))
    build.ran[stage.name] = build.ran.get(stage.name, 0) + len(todo)
    if todo:
        from prefect.utilities.annotations import quote  # Prefect would walk through every unit in search of futures

        work = sorted(todo.items(), key=lambda entry: -entry[1].size)  # the longest first: none is left at the end
        common = dict(
            settings=settings, home=build.root.uri, workers=build.workers, limits=build.limits, run_id=build.run_id
        )
        if build.runner is None:
            size = max(64, -(-len(work) // MAX_GROUPS))
            for start in range(0, len(work), size):

                def count(done: int, before=skipped + start):
                    tell(stage.name, before + done, len(units))

                group = work[start : start + size]
                if build.as_tasks:
                    build.spans += stage.task(quote(stage), quote(group), progress=quote(count), **common)
                else:
                    build.spans += run_group(stage, group, progress=count, **common)
        else:
            groups = max(1, min(len(work), MAX_GROUPS, build.groups))
            futures = [
                build.runner.submit(stage.task, dict(stage=stage, work=work[i::groups], **common))
                for i in range(groups)
            ]
            for number, future in enumerate(futures, 1):
                build.spans += future.result()
                tell(stage.name, skipped + len(todo) * number // groups, len(units))
    done = [_read_done(build.root, stage, key) for key in keys]
    return done


def _read_done(root: Root, stage: Stage, key: str) -> Done:
    record = root.read_json(f"{stage.folder(key)}/done.json")
    fates = Artifact(**record["fates"]) if record["fates"] else None
    return Done(
        key,
        Artifact(**record["table"]),
        fates,
        record["rows_in"],
        record["rules"],
        record["seconds"],
        record["cpu_seconds"],
    )


def _worth_retrying(task, task_run, state) -> bool:
    try:
        state.result()
    except (UserError, ShardError, ValueError, TypeError):
        return False  # the same input would fail the same way
    except Exception:
        return True
    return False


def run_group(
    stage: Stage,
    work: Sequence[tuple[str, Unit]],
    settings: BaseModel,
    home: str,
    workers: int,
    limits: Limits,
    run_id: str,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[float, float]]:
    """Runs the units of a group on this process's pool; a shard whose process is killed is tried again without the
    item that killed it. Returns when work on each unit began and ended, in seconds since the epoch."""
    root, pool = Root(home), shared_pool(workers)
    poisoned: dict[str, dict[int, str]] = {key: {} for key, _ in work}
    suspects: dict[str, set[int]] = {key: set() for key, _ in work}
    failures = dict.fromkeys(poisoned, 0)  # in a row, without finding the item to blame
    waiting, spans, reports, said = list(work), [], [], time.monotonic()
    try:
        while waiting:
            jobs = [(stage, key, unit, settings, home, poisoned[key]) for key, unit in waiting]
            again = []
            for outcome in pool.map(_perform, jobs, limits):
                key, unit = waiting[outcome.index]
                if isinstance(outcome.error, UserError):
                    raise outcome.error
                if outcome.error or outcome.killed:
                    why = outcome.killed or str(outcome.error)
                    failures[key] += 1
                    if outcome.killed and _blame(outcome, poisoned[key], suspects[key]):
                        failures[key] = 0
                    elif outcome.error and not outcome.passing or failures[key] >= MAX_FAILURES:
                        raise ShardError(
                            f"{stage.name} failed on shard {key} ({why}); the input is "
                            f"{json.dumps(unit.identity or {}, sort_keys=True, default=str)[:300]}; "
                            f"limits.shard_seconds and limits.memory_gib bound a shard"
                        )
                    log.warning("%s: shard %s, item %s: %s; tried again", stage.name, key, outcome.item, why)
                    again.append((key, unit))
                    continue
                report, span = outcome.value
                reports.append(report)
                spans.append(span)
                if progress:
                    progress(len(spans))
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    log.info("%s: %d of %d units", stage.name, len(spans), len(work))
            waiting = again
        return spans
    finally:
        if reports:
            ledger.record(root, "shard", stage.name, {"shards": reports}, run_id)


def _blame(outcome: Outcome, poisoned: dict[int, str], suspects: set[int]) -> bool:
    """Whether the killed process was at an item that is to blame, which is then left out of the next attempt.

    Time spent in an item is its own. A crash, or memory, may come from outside or from what a process did before: such
    an item is only suspected, until a fresh process dies in it again.
    """
    item = outcome.item
    if item == NO_ITEM or item in poisoned or len(poisoned) >= MAX_POISONED_ITEMS:
        return False
    if outcome.killed == "timeout" or item in suspects:
        poisoned[item] = outcome.killed
        return True
    suspects.add(item)
    return False


def _perform(stage: Stage, key: str, unit: Unit, settings: BaseModel, home: str, poisoned: dict[int, str]) -> tuple:
    """In a child: reads a unit's tables, calls the stage's function, checks and commits what it gives.

    Returns what the ledger says of it, and when it began and ended."""
    at, began, cpu = time.time(), time.perf_counter(), time.process_time()
    root = Root(home)
    set_poisoned(poisoned)
    tables = {name: _read(root, source, stage.needs[name]) for name, source in unit.inputs.items()}
    result = stage.function(**tables, settings=settings, **unit.params)
    if isinstance(result, pa.Table):
        result = Result(result)
    schema = stage.makes(settings) if callable(stage.makes) else stage.makes
    if schema is not None and not result.table.schema.equals(schema):
        raise UserError(f"the stage {stage.name} made other columns than it declares; this is a defect of the stage")
    rows_in = check_conservation(stage, tables, result)
    folder = stage.folder(key)

    def commit(name: str, table: pa.Table) -> dict:
        path = f"{folder}/{name}.parquet"
        return {"path": path, "sha256": root.write_table(path, table, **parquet_options(table)), "rows": len(table)}

    fates = result.fates if result.fates is not None and len(result.fates) else None
    rules = {} if fates is None else {r["values"]: r["counts"] for r in fates["rule"].value_counts().to_pylist()}
    record = {
        "stage": stage.name,
        "version": stage.version,
        "key": key,
        "rows_in": rows_in,
        "rules": rules,
        "table": commit("table", result.table),
        "fates": commit("fates", fates) if fates is not None else None,
        "poisoned": {str(item): reason for item, reason in sorted(poisoned.items())},
    }
    record |= {"seconds": round(time.perf_counter() - began, 4), "cpu_seconds": round(time.process_time() - cpu, 4)}
    root.write_json(f"{folder}/done.json", record)
    report = {name: record[name] for name in ("key", "rows_in", "seconds", "cpu_seconds")}
    return report | {"rows_out": len(result.table), "dropped": sum(rules.values())}, (at, time.time())


def _read(root: Root, source: Artifact | Sequence[Artifact], columns: Sequence[str]) -> pa.Table | Sequence[pa.Table]:
    if isinstance(source, Artifact):
        return root.read_table(source.path, list(columns))
    return Tables(root, [artifact.path for artifact in source], list(columns))


class Tables(Sequence):
    """The tables of many shards, each read when it is asked for: a stage over all of them holds what it needs."""

    def __init__(self, root: Root, paths: Sequence[str], columns: list[str]):
        self._root, self._paths, self._columns = root, paths, columns

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, shard: int) -> pa.Table:
        return self._root.read_table(self._paths[shard], self._columns)


def parquet_options(table: pa.Table) -> dict:
    """Encodings by column: token ids byte by byte (an id's high byte compresses to nothing), names as dictionaries;
    arrays (of the benchmark index) as they are, since hashes do not compress and each shard reads them."""
    if "tokens" in table.schema.names:
        return {
            "use_dictionary": ["source", "domain", "language"],
            "row_group_size": 1024,  # training mixes row groups and holds some of them
            "column_encoding": {"tokens.list.element": "BYTE_STREAM_SPLIT"},
        }
    if table.schema.names == ["name", "kind", "data"]:
        return {"compression": "none", "compression_level": None, "use_dictionary": False}
    return {}


def check_conservation(stage: Stage, tables: Mapping[str, Any], result: Result) -> int:
    """Every record that goes in comes out once: kept, or with a fate. Returns how many went in.

    Raises ValueError when a record is lost, doubled or invented.
    """
    dropped = result.fates if result.fates is not None else FATES.empty_table()
    out = len(result.table) + len(dropped)
    if stage.conserves is None:
        if result.rows_in not in (None, out):
            raise ValueError(f"{stage.name}: {result.rows_in} records in, {out} out")
        return out
    source = tables[stage.conserves]
    came = id_words(source["doc_id"])
    went = np.concatenate([id_words(result.table["doc_id"]), id_words(dropped["doc_id"])])
    if len(came) != len(went) or not np.array_equal(_sorted(came), _sorted(went)):
        raise ValueError(f"{stage.name}: {len(came)} records in, {out} out, and not the same ones")
    return len(came)


def _sorted(ids: np.ndarray) -> np.ndarray:
    return ids[np.lexsort((ids[:, 1], ids[:, 0]))]


def store(root: Root, kind: str, table: pa.Table) -> Artifact:
    """Puts a table that no stage made (a slice of a global one) under a name that is its content."""
    data = parquet(table, **parquet_options(table))
    digest = hashlib.sha256(data).hexdigest()
    path = f"work/{kind}/{digest[:2]}/{digest[:32]}.parquet"
    if not root.exists(path):
        root.write_bytes(path, data)
    return Artifact(path, digest, len(table))

"""build-corpus: from crawls to a published corpus.

Read `make` from top to bottom: that is the order of the work. Each line takes every shard through one
stage; what is done already is skipped, by content.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from flows.settings import Recipe, load_recipe
from tasks import ledger, lineage
from tasks.annotate import annotate
from tasks.decontaminate import benchmark_index, decontaminate
from tasks.dedup import Dedup, bands, decide, dedup, exact, pairs
from tasks.engine import Engine, engine_runner
from tasks.extract import extract
from tasks.filter import filter as keep_good
from tasks.ingest import Input, Plan, Split, anchored, plan
from tasks.lines import lines
from tasks.pool import shared_pool
from tasks.publish import Account, account, funnel, publish, version_folder
from tasks.sample import achieved, mixture, sample
from tasks.sample import plan as plan_passes
from tasks.schema import id_bytes
from tasks.scrub import scrub
from tasks.stage import Artifact, Build, Done, Stage, Unit, run_stage, store
from tasks.storage import Root, home_uri
from tasks.tokenize import encoding_of, excerpt, files_table, measure, quotas, tokenize, tokenizer

log = logging.getLogger("gristmill.flow")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="the corpus, also its folder's name")]
Workers = Annotated[int, Field(ge=0, description="processes; 0 is one a core")]
Home = Annotated[str | None, Field(description="the data root; GRISTMILL_HOME by default")]


@flow(name="build-corpus", description="Crawls in, a published version of a corpus out.")
def build_corpus(
    name: Name = "corpus",
    recipe: Annotated[str, Field(description="fineweb, gopher, c4 or tiny, or the path of your own")] = "fineweb",
    inputs: Annotated[list[str], Field(description="globs, URIs or path lists; NAME=GLOB names the source")] = [],  # noqa: B006
    snapshot: Annotated[
        str | None, Field(description="a snapshot of Common Crawl to read, such as CC-MAIN-2025-30")
    ] = None,
    limit: Annotated[int | None, Field(gt=0, description="files to take of a snapshot or path list")] = None,
    settings: Annotated[
        dict[str, Any], Field(description="over the recipe's: {filter: {gopher_words: {min: 80}}}")
    ] = {},  # noqa: B006
    workers: Workers = 0,
    engine: Annotated[Engine, Field(description="where the tasks run")] = "local",
    home: Home = None,
) -> dict[str, Any]:
    """Builds a corpus, and publishes it when it differs from the current version. Returns its summary."""
    root, workers = Root(home_uri(home)), started(engine, workers)
    inputs = [anchored(text, root) for text in inputs] + ([f"commoncrawl:{snapshot}"] if snapshot else [])
    if limit:
        settings = settings | {"ingest": settings.get("ingest", {}) | {"limit": limit}}
    chosen = load_recipe(recipe, settings)
    with recorded(root, name, "build-corpus", {"recipe": recipe, "inputs": inputs, "settings": settings}) as run_id:
        with root.lock(f"corpora/{name}/lock", f"the corpus {name}"):
            found = plan(inputs, chosen.ingest, root)
            return make(root, run_id, name, recipe, chosen, inputs, found, workers=workers, engine=engine)


def started(engine: Engine, workers: int) -> int:
    """How many processes to use; the pool's are started, to import while the inputs are looked at."""
    workers = workers or os.cpu_count() or 1
    if engine == "local":
        shared_pool(workers).start([extract.module])
    return workers


@contextmanager
def recorded(root: Root, name: str, flow: str, parameters: dict[str, Any]) -> Iterator[str]:
    """Puts a flow's run, and how it ended, into the ledger, and the ledger into lineage.duckdb. Gives the run's id."""
    run_id, began = flow_run.id or os.urandom(8).hex(), time.monotonic()
    ledger.record(root, "run", flow, {"state": "started", "parameters": {"name": name} | parameters}, run_id)
    outcome, reason = "ok", None
    try:
        yield run_id
    except BaseException as error:
        # Prefect cancels, like Ctrl-C and SIGTERM, with what is no Exception.
        outcome, reason = "failed" if isinstance(error, Exception) else "cancelled", type(error).__name__
        raise
    finally:
        ended = {"state": "ended", "outcome": outcome, "reason": reason, "seconds": round(time.monotonic() - began, 2)}
        try:
            ledger.record(root, "run", flow, ended, run_id)
            lineage.rebuild(root)
        except Exception:
            if outcome == "ok":
                raise
            log.exception("the end of the run could not be recorded")  # what failed first is what counts


def make(
    root: Root,
    run_id: str,
    name: str,
    recipe_name: str,
    recipe: Recipe,
    inputs: Sequence[str],
    found: Plan,
    *,
    workers: int,
    engine: Engine,
    own_tokenizer: dict[str, bytes] | None = None,
) -> dict[str, Any]:
    """Takes the splits of `found`, in order of arrival, through every stage, and publishes.

    `own_tokenizer` are the files of the tokenizer that the corpus has: a refresh does not train another.
    """
    began = time.monotonic()
    for failure in found.failures:
        ledger.record(root, "failure", failure.uri, {"stage": "ingest", "reason": failure.reason}, run_id)
    with engine_runner(engine) as (runner, groups):
        build = Build(root, run_id, workers, recipe.limits.as_limits(), runner, groups, as_tasks=bool(flow_run.id))

        def each(stage: Stage, settings: BaseModel, units: Sequence[Unit]) -> list[Done]:
            return run_stage(stage, units, settings, build)

        def whole(stage: Stage, settings: BaseModel, inputs: dict, **params) -> Artifact:
            return each(stage, settings, [Unit(inputs, params)])[0].table

        extracted = each(extract, recipe.extract, read_units(found.splits))
        documents = tables(extracted)
        cuts = tables(each(lines, recipe.lines, units(documents=documents)))
        signals = tables(each(annotate, recipe.annotate, units(documents=documents, lines=cuts)))

        banded = tables(each(bands, recipe.dedup, units(signals=signals)))
        same = whole(exact, recipe.dedup, {"documents": documents})
        similar = tables(each(pairs, recipe.dedup, range_units(recipe.dedup, banded, signals, same)))
        decided = whole(decide, recipe.dedup, {"documents": documents, "exact": same, "pairs": similar})
        decisions = by_shard(root, decided, len(documents))
        unique = each(dedup, recipe.dedup, units(documents=documents, decisions=decisions))

        good = each(keep_good, recipe.filter, units(documents=documents, signals=signals, kept=tables(unique)))
        found_in = units(documents=documents, lines=cuts, kept=tables(good))
        hidden = tables(each(scrub, recipe.scrub, found_in))
        known = whole(benchmark_index, recipe.decontaminate, {})
        found_in = units(documents=documents, spans=hidden, kept=tables(good), benchmarks=known)
        clean = each(decontaminate, recipe.decontaminate, found_in)
        kept = tables(clean)  # what is left, with all that is cut and replaced in it

        tokens = recipe.tokenize
        if own_tokenizer:
            vocabulary = store(root, "tokenizer", files_table(own_tokenizer))
        else:
            shares = [{"quota": quota} for quota in quotas([a.rows for a in kept], tokens)]
            parts = units(documents=documents, kept=kept, params=shares)
            texts = tables(each(excerpt, tokens, parts)) if tokens.tokenizer == "trained" else []
            vocabulary = whole(tokenizer, tokens, {"texts": texts})
        measured = each(measure, tokens, units(documents=documents, signals=signals, kept=kept, tokenizer=vocabulary))
        mixed = whole(mixture, recipe.sample, {"measures": tables(measured)})
        sampled = each(sample, recipe.sample, units(documents=documents, signals=signals, kept=kept, mixture=mixed))
        sizes = {"shard_tokens": tokens.shard_tokens, "min_shards": tokens.min_shards}
        passes = whole(plan_passes, recipe.sample, {"sampled": tables(sampled), "mixture": mixed}, **sizes)
        planned = root.read_table(passes.path)
        tokenized = each(tokenize, tokens, token_units(root, planned, documents, kept, vocabulary))

        steps = {"extract": extracted, "dedup": unique, "filter": good, "decontaminate": clean, "sample": sampled}
        dropped = [[done[i].fates for done in steps.values() if done[i].fates] for i in range(len(documents))]
        seen = [{"records": done.rows_in} for done in extracted]
        accounted = each(
            account, Account(), units(documents=documents, kept=tables(sampled), dropped=dropped, params=seen)
        )

        there = {file.uri for file in found.inputs}  # kept from the last version, though not to be had today
        held = {f"tokenizer/{row['name']}": row["data"] for row in root.read_table(vocabulary.path).to_pylist()}
        shards = [root.read_table(d.table.path, ["source", "language", "n_tokens", "n_bytes"]) for d in tokenized]
        counts = [{"tokens": _sum(t["n_tokens"]), "bytes": _sum(t["n_bytes"])} for t in shards]
        encoding = encoding_of(root.read_table(vocabulary.path))
        content = {
            "recipe": recipe_name,
            "settings": recipe.model_dump(mode="json", exclude={"limits"}),
            "settings_key": recipe.key(),
            "sources": list(inputs),
            "inputs": described(found.inputs, found.splits),
            "missing": [failure._asdict() for failure in found.failures if failure.uri not in there],
            "tokenizer": {
                "name": encoding.name,
                "n_vocab": encoding.n_vocab,
                "eot": encoding.eot_token,
                "files": {path: _sha256(data) for path, data in held.items()},
            },
            "dtype": "uint16" if encoding.n_vocab <= 1 << 16 else "uint32",
            "documents": len(pc.unique(id_bytes(planned["doc_id"]))),
            "tokens": sum(c["tokens"] for c in counts),
            "bytes": sum(c["bytes"] for c in counts),
            "shards": counts,
            "parts": [
                {"documents": d.path, "signals": s.path, "spans": p.path}
                for d, s, p in zip(documents, signals, kept, strict=True)
            ],
            "funnel": funnel(list(steps.items())),
            "mixture": achieved(root.read_table(mixed.path), planned, shards),
        }
        manifest, new = publish(build, name, content, tokenized, passes, accounted, held)
    return announce(root, manifest, new, build, found, time.monotonic() - began)


def tables(done: Sequence[Done]) -> list[Artifact]:
    return [d.table for d in done]


def units(*, params: Sequence[dict[str, Any]] | None = None, **inputs: Any) -> list[Unit]:
    """One unit for each shard, from lists that run over the shards; a single table goes to all of them.

    Units with large tables are started first.
    """
    columns = {name: value for name, value in inputs.items() if not isinstance(value, Artifact)}
    common = {name: value for name, value in inputs.items() if isinstance(value, Artifact)}
    made = []
    for shard, row in enumerate(zip(*columns.values(), strict=True)):
        tables = dict(zip(columns, row, strict=True)) | common
        size = max(table.rows for table in tables.values() if isinstance(table, Artifact))
        made.append(Unit(tables, params[shard] if params else {}, size=size))
    return made


def read_units(splits: Sequence[Split]) -> list[Unit]:
    """One unit for each piece of input; where a file lies now is not part of its identity."""
    return [Unit(params={"split": s}, identity=s.identity, size=s.end - s.start) for s in splits]


def range_units(settings: Dedup, banded: Sequence[Artifact], signals: Sequence[Artifact], same: Artifact) -> list[Unit]:
    """One unit for each range of band hashes, over all shards."""
    ranges = settings.partitions(sum(table.rows for table in signals))
    tables = {"bands": banded, "signals": signals, "exact": same}
    return [Unit(tables, {"partition": i, "partitions": ranges}) for i in range(ranges)]


def by_shard(root: Root, decided: Artifact, shards: int) -> list[Artifact]:
    """The decisions of each shard on their own, so that those of another do not wake it."""
    decisions = root.read_table(decided.path)
    rows = {entry["values"]: entry["counts"] for entry in pc.value_counts(decisions["shard"]).to_pylist()}
    slices, at = [], 0
    for shard in range(shards):
        slices.append(store(root, "decisions", decisions.slice(at, rows.get(shard, 0))))
        at += rows.get(shard, 0)
    return slices


def token_units(
    root: Root, planned: pa.Table, documents: Sequence[Artifact], spans: Sequence[Artifact], vocabulary: Artifact
) -> list[Unit]:
    """One unit for each token shard: its rows of the plan and the document shards that they name."""
    made, at = [], 0
    # The plan is in the order of its token shards. Its weights and estimates move with every refresh and decide nothing
    # here, so they stay out of the keys.
    for entry in pc.value_counts(planned["token_shard"]).to_pylist():
        rows = planned.slice(at, entry["counts"]).select(tokenize.needs["plan"])
        at += entry["counts"]
        named = sorted(pc.unique(rows["shard"]).to_pylist())
        tables = {
            "documents": [documents[i] for i in named],
            "spans": [spans[i] for i in named],
            "plan": store(root, "passes", rows),
            "tokenizer": vocabulary,
        }
        made.append(Unit(tables, {"shards": named}, size=len(rows)))
    return made


def described(inputs: Sequence[Input], splits: Sequence[Split]) -> list[dict[str, Any]]:
    """What the manifest says of the inputs: enough for a refresh to go on without the files."""
    cuts: dict[str, list[list[int]]] = {file.uri: [] for file in inputs}
    for split in splits:
        cuts[split.uri].append([split.start, split.end])
    return [{**file.manifest(), "kind": file.kind, "cuts": cuts[file.uri]} for file in inputs]


def announce(
    root: Root, manifest: dict[str, Any], new: bool, build: Build, found: Plan, seconds: float
) -> dict[str, Any]:
    """The summary of a build; a new version also becomes an event and an artifact in Prefect."""
    name, version = manifest["name"], manifest["version"]
    summary = {
        "corpus": name,
        "version": version,
        "published": new,
        "documents": manifest["documents"],
        "tokens": manifest["tokens"],
        "folder": root.url(version_folder(name, version)),
        "shards": [s["path"] for s in manifest["shards"]],
        "funnel": manifest["funnel"],
        "mixture": manifest["mixture"],
        "failures": [{"uri": f.uri, "reason": f.reason} for f in found.failures],
        "ran": build.ran,
        "seconds": round(seconds, 2),
        "stage_seconds": round(build.working_seconds(), 2),
        "workers": build.workers,
    }
    if new and flow_run.id:
        try:
            tell_prefect(
                root, name, version, {key: summary[key] for key in ("corpus", "version", "documents", "tokens")}
            )
        except Exception:  # the corpus is published all the same
            log.exception("%s: Prefect could not be told of version %d", name, version)
    return summary


def tell_prefect(root: Root, name: str, version: int, payload: dict[str, Any]) -> None:
    """Emits the event that the automation waits for, and shows the dataset card as an artifact."""
    resource = {"prefect.resource.id": f"gristmill.corpus.{name}"}
    emit_event("gristmill.corpus.published", resource=resource, payload=payload)
    card = root.read_bytes(f"{version_folder(name, version)}/README.md").decode().split("---", 2)[-1]
    key = f"corpus-{name.replace('_', '-')}"
    create_markdown_artifact(card, key=key, description=f"{name}, version {version}")


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Publishing: the books are balanced, then a version of a corpus appears whole.

A version is a folder `corpora/NAME/versions/NNNNNN/` and exists when its `manifest.json` does, which is
written last; `corpora/NAME/current` then names it. The manifest holds no time, run or place, so the
same inputs, settings and code give the same bytes.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from tasks import ledger
from tasks.card import dataset_card
from tasks.errors import UserError
from tasks.schema import FATES, id_words
from tasks.stage import Artifact, Build, Done, Result, Stage
from tasks.storage import Root

log = logging.getLogger("gristmill.publish")

ORIGIN = ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset"]
FORMAT = 1


class Account(BaseModel):
    """No settings: conservation is not negotiable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


account = Stage(
    "account",
    version=1,
    settings=Account,
    makes=FATES,
    needs={"documents": ORIGIN, "kept": ["doc_id", "row"], "dropped": FATES.names},
)


@account.shard
def all_fates(
    documents: pa.Table, kept: pa.Table, dropped: Sequence[pa.Table], records: int, settings: Account
) -> Result:
    """The fate of every input record of a shard, sorted by domain, URL and doc_id: the order in which people ask.

    `records` is how many were read. Raises ValueError when a record has no fate, or two.
    """
    survivors = documents.take(kept["row"])
    n = len(survivors)
    columns = {
        field.name: survivors[field.name] if field.name in ORIGIN else pa.nulls(n, field.type) for field in FATES
    }
    columns["duplicate_of"] = pa.ExtensionArray.from_storage(
        FATES.field("duplicate_of").type, pa.nulls(n, pa.binary(16))
    )
    columns["outcome"] = pa.array(["kept"] * n, pa.string())
    table = pa.concat_tables([pa.table(columns, schema=FATES), *dropped]).combine_chunks()
    ids = id_words(table["doc_id"])
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    if n_same := int((ids[order][1:] == ids[order][:-1]).all(axis=1).sum()):
        raise ValueError(f"{n_same} records have two fates")
    by_id = table.take(order)
    by_address = pc.sort_indices(by_id, sort_keys=[("domain", "ascending"), ("url", "ascending")])
    return Result(by_id.take(by_address), rows_in=records)


def funnel(stages: Sequence[tuple[str, Sequence[Done]]]) -> list[dict[str, Any]]:
    """What went into each stage, what stayed and what each rule took, in the order of the flow.

    Raises ValueError when a stage did not get what the one before kept.
    """
    rows, before = [], None
    for name, done in stages:
        rules: dict[str, int] = {}
        for unit in done:
            for rule, n in unit.rules.items():
                rules[rule] = rules.get(rule, 0) + n
        came, dropped = sum(d.rows_in for d in done), sum(rules.values())
        if before not in (None, came):
            raise ValueError(f"{before} records came out before {name}, and {came} went into it")
        before = came - dropped
        rows.append(
            {"stage": name, "in": came, "kept": before, "dropped": dropped, "rules": dict(sorted(rules.items()))}
        )
    return rows


def current_version(root: Root, name: str) -> int | None:
    """The version that `current` names, or None when the corpus has none."""
    path = f"corpora/{name}/current"
    return int(root.read_bytes(path)) if root.exists(path) else None


def version_folder(name: str, version: int) -> str:
    return f"corpora/{name}/versions/{version:06d}"


def read_manifest(root: Root, name: str, version: int | None = None) -> dict[str, Any]:
    """The manifest of a published version (the current one by default).

    Raises UserError when there is no such corpus or version, naming those there are.
    """
    versions = published_versions(root, name)
    if not versions:
        known = [n for n in root.folders("corpora") if published_versions(root, n)]
        raise UserError(
            f"no corpus {name!r} is published under {root.uri}; "
            + (f"there are {', '.join(known)}" if known else "build one with `gristmill build`")
        )
    version = version if version is not None else current_version(root, name) or versions[-1]
    if version not in versions:
        raise UserError(f"the corpus {name} has no version {version}; there are {', '.join(map(str, versions))}")
    return root.read_json(f"{version_folder(name, version)}/manifest.json")


def published_versions(root: Root, name: str) -> list[int]:
    """The versions whose manifest is in place, ascending."""
    folders = root.folders(f"corpora/{name}/versions")
    return [int(f) for f in folders if f.isdigit() and root.exists(f"corpora/{name}/versions/{f}/manifest.json")]


def publish(
    build: Build,
    name: str,
    content: Mapping[str, Any],
    shards: Sequence[Done],
    plan: Artifact,
    fates: Sequence[Done],
    tokenizer_files: Mapping[str, bytes],
) -> tuple[dict[str, Any], bool]:
    """Puts a version in place and returns its manifest and whether it is new.

    `content` is the manifest without what is known only here (format, name, version, parent, shards, plan, fates).
    When the current version holds the same, nothing is published.
    """
    root = build.root
    if not shards:
        rules = [(n, row["stage"], rule) for row in content["funnel"] for rule, n in row["rules"].items()]
        took = ", ".join(f"{stage}.{rule} took {n}" for n, stage, rule in sorted(rules, reverse=True)[:3])
        raise UserError(
            f"no document of the corpus {name} was kept, so there is nothing to publish: of "
            f"{content['funnel'][0]['in']} records {took or 'none was a page'}; choose another recipe, or turn a rule "
            f"off with --set filter.RULE.enabled=false"
        )
    manifest = {"format": FORMAT, "name": name, **content}
    manifest["shards"] = [
        {"path": f"tokens/shard-{i:05d}.parquet", "sha256": d.table.sha256, "rows": d.table.rows, **counts}
        for i, (d, counts) in enumerate(zip(shards, content["shards"], strict=True))
    ]
    manifest["fates"] = [
        {"path": f"fates/part-{i:05d}.parquet", "sha256": d.table.sha256, "rows": d.table.rows}
        for i, d in enumerate(fates)
    ]
    manifest["plan"] = {"path": "plan.parquet", "sha256": plan.sha256, "rows": plan.rows}
    parent, versions = current_version(root, name), published_versions(root, name)
    if versions:
        before = read_manifest(root, name, versions[-1])
        if _content(before) == _content(manifest):
            if versions[-1] != parent:  # a publication that was killed before its last steps
                _make_current(build, before, root.digest(f"{version_folder(name, versions[-1])}/manifest.json"))
                return before, True
            log.info("%s: version %d holds the same; nothing to publish", name, parent)
            return before, False
    version = max(versions, default=0) + 1
    manifest |= {"version": version, "parent": parent}
    folder = version_folder(name, version)
    root.remove_folder(folder)  # of a publication that was killed: without a manifest it never existed
    for entries, units in ((manifest["shards"], shards), (manifest["fates"], fates)):
        for entry, unit in zip(entries, units, strict=True):
            root.link(unit.table.path, f"{folder}/{entry['path']}")
    root.link(plan.path, f"{folder}/plan.parquet")
    for file, data in tokenizer_files.items():
        root.write_bytes(f"{folder}/{file}", data)
    root.write_bytes(f"{folder}/README.md", dataset_card(manifest).encode())
    _make_current(build, manifest, root.write_json(f"{folder}/manifest.json", manifest))
    return manifest, True


def _content(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two versions the same: not their numbers, nor what could not be read in addition."""
    return {name: value for name, value in manifest.items() if name not in ("version", "parent", "missing")}


def _make_current(build: Build, manifest: Mapping[str, Any], sha256: str) -> None:
    root, name, version = build.root, manifest["name"], manifest["version"]
    counts = {key: manifest[key] for key in ("documents", "tokens")}
    ledger.record(root, "publication", name, {"version": version, "manifest": sha256} | counts, build.run_id)
    root.write_bytes(f"corpora/{name}/current", f"{version:06d}".encode())
    log.info("%s: published version %d, %d documents, %d tokens", name, version, counts["documents"], counts["tokens"])

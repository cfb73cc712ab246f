"""refresh-corpus: what is new since a corpus's last version goes through the stages, and the next version appears.

A refresh is the build of all inputs in their order of arrival: those of the last version first, as its
manifest names them, then the new ones. What is done is skipped by its content, so the cost follows
the new data, and the outcome is that of a build from nothing.
"""

import logging
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.build_corpus import Home, Name, Workers, make, recorded, started
from flows.settings import PoolLimits, Recipe
from tasks.engine import Engine
from tasks.ingest import Input, Plan, Split, anchored, plan
from tasks.publish import read_manifest, version_folder
from tasks.storage import Root, home_uri
from tasks.tokenizer import read_files

log = logging.getLogger("gristmill.flow")


@flow(name="refresh-corpus", description="Takes what is new since a corpus's last version and publishes the next.")
def refresh_corpus(
    name: Name = "corpus",
    inputs: Annotated[list[str], Field(description="inputs besides those that the corpus names already")] = [],  # noqa: B006
    limits: PoolLimits = PoolLimits(),  # noqa: B008
    workers: Workers = 0,
    engine: Annotated[Engine, Field(description="where the tasks run")] = "local",
    home: Home = None,
) -> dict[str, Any]:
    """Looks again where the corpus's inputs come from, and builds the next version with what is new there."""
    root, workers = Root(home_uri(home)), started(engine, workers)
    with recorded(root, name, "refresh-corpus", {"inputs": inputs}) as run_id:
        with root.lock(f"corpora/{name}/lock", f"the corpus {name}"):
            last = read_manifest(root, name)
            recipe = Recipe.model_validate(last["settings"] | {"limits": limits})
            known = [*last["sources"], *(text for texts in recipe.ingest.sources.values() for text in texts)]
            sources = list(dict.fromkeys([*last["sources"], *(anchored(text, root) for text in inputs)]))
            found = arrived(last, plan(sources, recipe.ingest, root, known=known))
            log.info("%s: %d inputs, %d of them new", name, len(found.inputs), len(found.inputs) - len(last["inputs"]))
            own = read_files(root.url(f"{version_folder(name, last['version'])}/tokenizer"))
            return make(
                root,
                run_id,
                name,
                last["recipe"],
                recipe,
                sources,
                found,
                workers=workers,
                engine=engine,
                own_tokenizer=own,
            )


def arrived(last: dict[str, Any], found: Plan) -> Plan:
    """The inputs of the last version, in their order, then those of `found` that it lacks.

    An input of the last version that is gone from its place stays in the corpus: its shards are made already.
    """
    there = {file.uri: file for file in found.inputs}
    splits: dict[str, list[Split]] = {}
    for split in found.splits:
        splits.setdefault(split.uri, []).append(split)
    files, cuts = [], []
    for entry in last["inputs"]:
        uri = entry["uri"]
        if uri in there:
            files.append(there.pop(uri))
            cuts += splits.get(uri, [])  # an empty file has none
            continue
        gone = Input(
            uri, entry["source"], entry["snapshot"], entry["digest"], entry["bytes"], path=uri, kind=entry["kind"]
        )
        files.append(gone)
        cuts += [
            Split(uri, uri, start, end, gone.source, gone.snapshot, gone.digest, gone.kind)
            for start, end in entry["cuts"]
        ]
    new = list(there.values())
    return Plan(cuts + [s for file in new for s in splits.get(file.uri, [])], files + new, found.failures)

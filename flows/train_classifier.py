"""train-classifier: a fastText classifier of quality from examples, with what it is worth."""

import json
import logging
import os
from typing import Annotated, Any

import pyarrow as pa
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import Field

from flows.build_corpus import Home, Workers, recorded
from tasks import ledger, lineage
from tasks.classifier.examples import Found, read_examples
from tasks.classifier.training import DESCRIPTION, MODEL, Training, classifier
from tasks.errors import UserError
from tasks.pool import Limits
from tasks.publish import read_manifest
from tasks.stage import Build, Unit, run_stage, store
from tasks.storage import Root, home_uri

log = logging.getLogger("gristmill.flow")

# One process holds all examples several times over, and takes its time.
LIMITS = Limits(shard_seconds=24 * 3600.0, memory_bytes=64 << 30)
SHOWN = (0.1, 0.2, 0.3, 0.5)  # shares of random crawl whose thresholds are printed

CRAWL = """SELECT doc_id FROM documents JOIN signals USING (name, version, doc_id)
WHERE name = '{name}' AND version = {version} AND language = '{language}' AND language_score >= 0.65"""


@flow(name="train-classifier", description="Trains a fastText quality classifier on good texts and random crawl.")
def train_classifier(
    name: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$", description="the classifier's name")
    ] = "quality",
    positives: Annotated[
        list[str], Field(description="good texts: globs of JSONL, Parquet or text files, or SQL that gives doc_id")
    ] = [],  # noqa: B006
    negatives: Annotated[
        list[str], Field(description="the same of the others; by default random documents of the corpus")
    ] = [],  # noqa: B006
    corpus: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="whose documents are the negatives by default")
    ] = "corpus",
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$", description="of those documents")] = "en",
    text_column: Annotated[str | None, Field(description="column of the text in files of another form")] = None,
    limit: Annotated[int, Field(ge=1, description="texts at most of each class")] = 200_000,
    settings: Annotated[Training, Field(description="how to train")] = Training(),  # noqa: B008
    workers: Workers = 0,
    home: Home = None,
) -> dict[str, Any]:
    """Trains on what the sources give and writes HOME/classifiers/NAME/{model.bin, classifier.json}. Use it with
    `--set annotate.quality.classifier=HOME/classifiers/NAME --set filter.dclm_quality.enabled=true
    --set filter.dclm_quality.min=THRESHOLD`.

    Returns name, folder, sha256, the figures on held-out texts and the thresholds that keep a share of random crawl.
    Raises UserError for sources that cannot be read, and for examples that are too few, or in both classes.
    """
    root = Root(home_uri(home))
    parameters = {"positives": positives, "negatives": negatives, "corpus": corpus, "language": language,
                  "text_column": text_column, "limit": limit, "settings": settings.model_dump(mode="json")}  # fmt: skip
    if not positives:
        raise UserError("there are no positives; give good texts: instruction rows, reference text, or SQL")
    with recorded(root, name, "train-classifier", parameters) as run_id:
        if not negatives:
            version = read_manifest(root, corpus, None)["version"]
            negatives = [CRAWL.format(name=corpus, version=version, language=language)]
            lineage.rebuild(root)
        good = read_examples(positives, 1, root, column=text_column, limit=limit)
        other = read_examples(negatives, 0, root, column=text_column, limit=limit, what="negatives")
        build = Build(root, run_id, workers or os.cpu_count() or 1, LIMITS, as_tasks=bool(flow_run.id))
        examples = store(root, "examples", pa.concat_tables([good.table, other.table]))
        made = run_stage(classifier, [Unit({"examples": examples})], settings, build)[0].table
        files = {row["name"]: row["data"] for row in root.read_table(made.path).to_pylist()}
        about = written(root, name, files, good, other)
        ledger.record(root, "classifier", name, event_of(root, name, about), run_id)
    if flow_run.id:
        try:
            key = f"classifier-{name.replace('_', '-').replace('.', '-')}"
            create_markdown_artifact(card(name, about), key=key, description=f"{name}, a classifier of quality")
        except Exception:  # the classifier is there all the same
            log.exception("%s: Prefect could not be told of it", name)
    summary = summary_of(root, name, about)
    log.info("%s: AUC %.4f on %d held-out texts", name, summary["auc"], summary["held_out"])
    return summary


def written(root: Root, name: str, files: dict[str, bytes], good: Found, other: Found) -> dict[str, Any]:
    """Puts the classifier in its place and returns what its classifier.json says."""
    folder = f"classifiers/{name}"
    about = json.loads(files[DESCRIPTION]) | {"name": name, "positives": good.sources, "negatives": other.sources}
    # The description goes last: it pins the model, so a classifier that is half there is none.
    about |= {"sha256": root.write_bytes(f"{folder}/{MODEL}", files[MODEL]), "bytes": len(files[MODEL])}
    root.write_json(f"{folder}/{DESCRIPTION}", about)
    return about


def event_of(root: Root, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """What the ledger says of a classifier."""
    sources = {f"{side}": [{key: entry[key] for key in ("source", "sha256", "rows")} for entry in about[side]]
               for side in ("positives", "negatives")}  # fmt: skip
    return {"path": root.url(f"classifiers/{name}/{MODEL}"), "settings": about["settings"] | sources} | {
        key: about[key] for key in ("sha256", "bytes", "label", "reliability")
    } | about["metrics"] | about["confusion"] | about["examples"] | about["training"] | {"thresholds": about["keep"]}


def summary_of(root: Root, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """What the flow returns and the command prints."""
    folder, metrics, confusion = root.url(f"classifiers/{name}"), about["metrics"], about["confusion"]
    held = sum(about["examples"][f"held_out_{side}"] for side in ("positives", "negatives"))
    shares = sorted({*SHOWN, confusion["keep"]})
    return {
        "classifier": name,
        "folder": folder,
        "sha256": about["sha256"],
        "trained": sum(about["examples"][f"trained_{side}"] for side in ("positives", "negatives")),
        "held_out": held,
        **{key: metrics[key] for key in ("auc", "auc_low", "auc_high", "ece")},
        "thresholds": [row for row in about["keep"] if row["keep"] in shares],
        "confusion": [
            {"held out": side, "kept": confusion[kept], "dropped": confusion[dropped]}
            for side, kept, dropped in (
                ("positives", "true_positive", "false_negative"),
                ("negatives", "false_positive", "true_negative"),
            )
        ],
        "use": f"--set annotate.quality.classifier={folder} --set filter.dclm_quality.enabled=true "
        f"--set 'filter.dclm_quality.min={{keep: {confusion['keep']:g}, classifier: {folder}}}'",
    }


def card(name: str, about: dict[str, Any]) -> str:
    """A page about a classifier, Markdown."""
    metrics, examples, confusion = about["metrics"], about["examples"], about["confusion"]
    rows = [f"| {row['keep']:.0%} | {row['threshold']:.4f} |" for row in about["keep"]]
    bins = [
        f"| {row['low']:.1f} to {row['high']:.1f} | {row['texts']} | {row['probability']:.3f} | {row['positive']:.3f} |"
        for row in about["reliability"]
    ]
    return "\n".join([
        f"# {name}",
        "",
        f"Held out: {examples['held_out_positives']} positives, {examples['held_out_negatives']} negatives. "
        f"AUC {metrics['auc']:.4f} ({metrics['auc_low']:.4f} to {metrics['auc_high']:.4f}), Brier "
        f"{metrics['brier']:.4f}, calibration error {metrics['ece']:.4f} ({metrics['ece_scaled']:.4f} after Platt's "
        "scaling).",
        "",
        f"| at {confusion['threshold']:.4f} | kept | dropped |",
        "|---|---|---|",
        f"| positives | {confusion['true_positive']} | {confusion['false_negative']} |",
        f"| negatives | {confusion['false_positive']} | {confusion['true_negative']} |",
        "",
        "| best share of random crawl | threshold |",
        "|---|---|",
        *rows,
        "",
        "| probability | texts | mean | positives |",
        "|---|---|---|---|",
        *bins,
    ])  # fmt: skip

"""ablate: does it make better models? The same small model on corpora built by different recipes from one crawl.

    variants -> a corpus each (build-corpus), all with one tokenizer, none with the held-out text in it
             -> a model each and seed (pretrain), the same steps
             -> bits per byte on the held-out text, accuracy on minimal pairs (evaluate)
             -> means, intervals and paired differences over seeds: a table, a plot, the ledger

What is done (a corpus, a run, an evaluation) is skipped when the same is asked again.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import fsspec
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flows.build_corpus import Home, Name, Workers, build_corpus, recorded
from flows.evaluate import evaluate
from flows.pretrain import pretrain
from flows.settings import load_recipe, sentences
from model.config import model_config
from model.rows import check_names
from model.settings import Evaluate as EvaluateSettings
from model.settings import Pretrain as PretrainSettings
from model.settings import Processes
from tasks import launch, ledger
from tasks.ablation import markdown, summarise, verdict
from tasks.ablation_plot import plot
from tasks.errors import UserError
from tasks.overlay import overlaid
from tasks.publish import version_folder
from tasks.storage import Root, home_uri

log = logging.getLogger("gristmill.flow")


class Variant(BaseModel):
    """A corpus to compare: a recipe, and settings over it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = Field("fineweb", description="a recipe's name, or the path of one")
    settings: dict[str, Any] = Field({}, description="over the recipe's: {dedup: {near: false}}")


def parse_variant(name: str, given: Any) -> Variant:
    """A variant from plain values; UserError names what is wrong in it, or in its name."""
    try:
        TypeAdapter(Name).validate_python(name, strict=True)
    except ValidationError:
        raise UserError(f"variant {name!r}: its corpus is named after it: small letters, digits, - and _, a letter or "
                        f"digit first, at most {LONGEST} of them") from None
    try:
        return given if isinstance(given, Variant) else Variant.model_validate(given or {})
    except ValidationError as error:
        raise UserError(f"variant {name}: {sentences(Variant, error)}") from None


LONGEST = 63                    # characters of a corpus's name
NO_DEDUP = {"dedup": {"url": False, "exact": False, "near": False}}
VARIANTS = {
    "raw": Variant(recipe="raw"),
    "english": Variant(recipe="raw", settings={
        "filter": {"language": {"enabled": True}, "language_score": {"enabled": True}}}),
    "gopher": Variant(recipe="gopher"),
    "fineweb": Variant(recipe="fineweb"),
    "fineweb-copies": Variant(recipe="fineweb", settings=NO_DEDUP),
}


@flow(name="ablate", description="The same small model on corpora of different recipes: which makes better models?")
def ablate(
    name: Name = "ablation",
    inputs: Annotated[list[str], Field(description="the crawl: globs, URIs or path lists")] = [],  # noqa: B006
    held_out: Annotated[list[str], Field(description="clean text to predict: text files, or jsonl{,.gz} with rows of "
                                         "text; no variant gets to see it")] = [],  # noqa: B006
    pairs: Annotated[list[str], Field(description="minimal pairs such as BLiMP: jsonl{,.gz} of good and bad")] = [],  # noqa: B006
    variants: Annotated[dict[Name, Variant], Field(description="corpora by name; the others are held against the first")
                        ] = VARIANTS,  # noqa: B006
    seeds: Annotated[int, Field(ge=1, description="models a variant")] = 3,
    tokens: Annotated[int, Field(gt=0, description="that each model is trained on")] = 1_000_000,
    max_epochs: Annotated[float, Field(gt=0, description="passes over a corpus at most")] = 4.0,
    tokenizer: Annotated[str, Field(description="of all variants: \"trained\" on the first, one of tiktoken's, or a "
                                    "folder")] = "trained",
    settings: Annotated[dict[str, Any], Field(description="over every variant's")] = {},  # noqa: B006
    training: PretrainSettings = PretrainSettings(),  # noqa: B008
    evaluation: EvaluateSettings = EvaluateSettings(),  # noqa: B008
    processes: Processes = Processes(),  # noqa: B008
    workers: Workers = 0,
    home: Home = None,
) -> dict[str, Any]:
    """Builds, trains, evaluates, and returns {"results": rows of tasks.ablation.summarise, "corpora", "folder"}.

    Raises UserError for a file or recipe that is not there, a name that no corpus can have, a home that is no folder,
    held-out text that would stay in a corpus, and when a corpus is too small for `tokens`.
    """
    root = Root(home_uri(home))
    if root.local is None:
        raise UserError(f"home {root.uri}: an ablation trains, which needs a local or mounted folder; set "
                        f"GRISTMILL_HOME to one, and give what lies elsewhere as URIs")
    if not held_out and not pairs:
        raise UserError("ablate: nothing to judge by; give held_out text, or pairs of sentences")
    if len(variants) < 2:
        raise UserError("ablate: give two variants or more; the first is what the others are held against")
    check_names("pairs", pairs)
    for key, variant in variants.items():
        parse_variant(key, variant)
        if len(corpus := f"{name}-{key}") > LONGEST:
            raise UserError(f"variant {key}: its corpus {corpus} is {len(corpus)} characters, and a name has {LONGEST} "
                            f"at most; shorten the name of the ablation or of the variant")
    folder = f"ablations/{name}"
    parameters = {"inputs": list(inputs), "held_out": list(held_out), "pairs": list(pairs), "seeds": seeds,
                  "tokens": tokens, "max_epochs": max_epochs, "tokenizer": tokenizer, "settings": settings,
                  "variants": {key: one.model_dump(mode="json") for key, one in variants.items()},
                  "training": training.model_dump(mode="json"), "evaluation": evaluation.model_dump(mode="json")}
    with recorded(root, name, "ablate", parameters) as run_id, root.lock(f"{folder}/lock", f"the ablation {name}"):
        texts = hold_out(root, folder, held_out)
        hidden = [*texts, *pairs]
        for variant in variants.values():                   # a mistake is told before anything is built
            prepared(variant, settings, tokenizer, hidden)
        corpora: dict[str, dict[str, Any]] = {}
        for key, variant in variants.items():
            corpus = corpora[key] = built(name, key, variant, prepared(variant, settings, tokenizer, hidden), inputs,
                                          workers, home)
            if tokenizer == "trained":
                tokenizer = f"{root.url(version_folder(corpus['corpus'], corpus['version']))}/tokenizer"
        training = budget(corpora, tokens, training, max_epochs)
        evaluation = evaluation.model_copy(update={"texts": texts, "pairs": list(pairs), "held_out": False})
        scores = []
        for seed in range(seeds):                           # a run that is cut short has whole seeds
            for key, corpus in corpora.items():
                found = measured(root, folder, f"{name}-{key}-s{seed}", corpus, training.model_copy(
                    update={"seed": seed}), evaluation, processes, home, run_id)
                scores += [{"variant": key, "seed": seed} | row for row in found]
        rows = summarise(scores, list(variants))
        asked = {key: overlaid(settings, variant.settings) for key, variant in variants.items()}
        told(root, name, folder, asked, corpora, rows, scores, run_id)
    return {"ablation": name, "results": rows, "corpora": corpora, "folder": root.url(folder)}


def hold_out(root: Root, folder: str, files: Sequence[str]) -> list[str]:
    """The held-out documents as one file of rows {id, text, source}: what is read at the end, and what decontaminate
    looks for. None without files.
    """
    from model.texts import read_texts

    rows = [row for uri in files for row in read_texts(uri)]
    if not rows:
        return []
    path = f"{folder}/held_out.jsonl"
    lines = [json.dumps({"id": number, "text": row["text"], "source": row["source"]}, ensure_ascii=False)
             for number, row in enumerate(rows)]
    root.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return [root.url(path)]


def prepared(variant: Variant, settings: Mapping[str, Any], tokenizer: str, hidden: Sequence[str]) -> dict[str, Any]:
    """The settings of a variant's build: its own over the common ones, one tokenizer, nothing of `hidden` in it.

    Raises UserError for a recipe or settings that are wrong, or that would leave `hidden` where it is.
    """
    mine = overlaid(settings, variant.settings)
    chosen = load_recipe(variant.recipe, mine)
    if hidden and chosen.decontaminate.action == "tag":
        raise UserError(f"ablate: decontaminate.action=tag leaves the held-out text in the corpus of a variant (recipe "
                        f"{variant.recipe}), which would train on what it is judged by; set it to drop or cut")
    return overlaid(mine, {"tokenize": {"tokenizer": tokenizer},
                         "decontaminate": {"benchmarks": [*chosen.decontaminate.benchmarks, *hidden]}})


def built(name: str, key: str, variant: Variant, settings: dict[str, Any], inputs: Sequence[str], workers: int,
          home: str | None) -> dict[str, Any]:
    """Builds a variant's corpus: {"corpus", "version", "documents", "tokens", "recipe"}."""
    make = build_corpus if flow_run.id else build_corpus.fn
    summary = make(name=f"{name}-{key}", recipe=variant.recipe, inputs=list(inputs), settings=settings, workers=workers,
                   engine="local", home=home)
    log.info("%s: %d documents, %d tokens", key, summary["documents"], summary["tokens"])
    return {part: summary[part] for part in ("corpus", "version", "documents", "tokens")} | {"recipe": variant.recipe}


def budget(corpora: dict[str, dict[str, Any]], tokens: int, training: PretrainSettings, max_epochs: float
           ) -> PretrainSettings:
    """The training with as many steps as `tokens` make, nothing held out; puts the tokens and epochs into `corpora`.

    Raises UserError when a corpus would be read more than `max_epochs` times.
    """
    length = training.sequence_length or model_config(training.preset, **training.model).context
    steps = -(-tokens // (training.batch * length))
    trained = steps * training.batch * length
    for key, corpus in corpora.items():
        corpus |= {"trained_tokens": trained, "epochs": trained / max(corpus["tokens"], 1)}
        if corpus["epochs"] > max_epochs:
            raise UserError(f"ablate: {trained:,} tokens are {corpus['epochs']:.1f} passes over variant {key}, which "
                            f"has {corpus['tokens']:,}; lower tokens to {int(max_epochs * corpus['tokens']):,}, give "
                            f"more input, or raise max_epochs")
    return training.model_copy(update={"steps": steps, "held_out": 0.0, "held_out_at_least": 0, "evaluate_every": 0,
                                       "keep_checkpoints": 1})


def measured(root: Root, folder: str, run: str, corpus: dict[str, Any], training: PretrainSettings,
             evaluation: EvaluateSettings, processes: Processes, home: str | None, run_id: str) -> list[dict[str, Any]]:
    """Trains and evaluates one model: rows of task, metric, domain, value."""
    given = dict(run=run, settings=training, processes=processes, home=home)
    if flow_run.id:
        summary = pretrain(corpus=corpus["corpus"], version=corpus["version"], **given)
    else:
        summary = launch.pretrain(root, corpus["corpus"], corpus["version"], run, training, processes, run_id=run_id)
    asked = {"checkpoint": summary["weights"] if "weights" in summary else summary["checkpoint"],
             "corpus": [corpus["corpus"], corpus["version"]], "training": training.model_dump(mode="json"),
             "evaluation": evaluation.model_dump(mode="json", exclude={"texts", "pairs"}),
             "files": [_digest(uri) for uri in (*evaluation.texts, *evaluation.pairs)]}
    path = f"{folder}/scores/{run}.json"
    if root.exists(path) and (known := root.read_json(path))["asked"] == asked:
        return known["results"]
    if flow_run.id:
        found = evaluate(run=run, settings=evaluation, home=home)
    else:
        found = launch.evaluate(root, run, evaluation, run_id=run_id)
    results = [{part: row[part] for part in ("task", "metric", "domain", "value")} for row in found["results"]
               if row["metric"] != "perplexity"]        # bits per byte say it
    root.write_json(path, {"asked": asked, "results": results})
    return results


def _digest(uri: str) -> str:
    with fsspec.open(uri, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def told(root: Root, name: str, folder: str, settings: Mapping[str, Any], corpora: dict[str, dict[str, Any]],
         rows: list[dict[str, Any]], scores: list[dict[str, Any]], run_id: str) -> None:
    """Writes results.json, report.md and plot.svg, one event a variant and measure, and Prefect's artifacts.

    `settings` are those of each variant's build by its name, as asked for.
    """
    report = f"# Ablation {name}\n\n{markdown(rows, corpora)}"
    root.write_json(f"{folder}/results.json", {"results": rows, "scores": scores, "corpora": corpora})
    root.write_bytes(f"{folder}/report.md", report.encode())
    root.write_bytes(f"{folder}/plot.svg", plot(rows, scores, f"Ablation {name}").encode())
    for row in rows:
        corpus = corpora[row["variant"]]
        about = {part: corpus[part] for part in ("corpus", "version", "recipe", "trained_tokens", "epochs")}
        about |= {"settings": settings[row["variant"]], "verdict": verdict(row)}
        ledger.record(root, "ablation", name, row | about, run_id)
    ledger.record(root, "artifact", f"{folder}/plot.svg", {"path": f"{folder}/plot.svg", "media": "image/svg+xml"},
                  run_id)
    if flow_run.id:
        key = f"ablation-{name.replace('_', '-')}"
        create_table_artifact([row for row in rows if row["domain"] == "all"], key=key, description=f"ablation {name}")
        create_markdown_artifact(report, key=f"{key}-report", description=f"ablation {name}")

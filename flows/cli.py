"""`gristmill`: the flows and the queries, from a shell.

Exit status: 0 done, 1 something failed, 2 a mistake in what was asked, 130 interrupted.
"""

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows import model_commands
from flows.settings_help import listing
from tasks.errors import UserError
from tasks.storage import Root, home_uri


class Commands(TyperGroup):
    """Turns what a user can mend into one line and status 2, and an interrupt into status 130."""

    def invoke(self, ctx):
        from tasks.pool import ShardError

        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # RuntimeErrors too
            raise
        except (UserError, ShardError) as error:
            if "--json" in sys.argv:
                print(json.dumps({"error": str(error)}))
            print(f"gristmill: {error}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, UserError) else 1) from None
        except RuntimeError as error:  # ranks that failed or were stopped, a server that did not answer
            print(f"gristmill: {type(error).__name__}: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("gristmill: interrupted; run the same again and it goes on where it stopped", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    name="gristmill",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn web crawls into versioned token corpora and train language models on them. Every page's fate is "
    "explained, and every token a model saw can be traced back to its page. The data root is GRISTMILL_HOME (./data).",
)

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Corpus = Annotated[str, typer.Argument(help="the corpus")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="a setting over the recipe's, such as filter.gopher_words.min=80; may be given again"),
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting in the list below; may be given again")
]
PROCESSES = "model.settings:Processes processes."
Workers = Annotated[int, typer.Option("--workers", min=0, help="processes; 0 is one a core")]
EngineName = Annotated[str, typer.Option("--engine", help="where tasks run: local, dask or ray")]
Version = Annotated[int | None, typer.Option("--version", help="a version of the corpus; the current one by default")]


def root() -> Root:
    return Root(home_uri())


@app.command()
def build(
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            help="a glob, a URI, a list of paths, or NAME=GLOB to say which source it is of; may be given again",
        ),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="the corpus to build")] = "corpus",
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="a recipe's name, or the path of one")] = "fineweb",
    workers: Workers = 0,
    engine: EngineName = "local",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build a corpus from crawls and publish it, in this process; run again, it goes on where it stopped.

    gristmill build --input 'crawl/*.warc.gz' --name news --recipe fineweb --set filter.gopher_words.min=80
    """
    from flows.settings import load_recipe, parse_overrides
    from tasks.ingest import check_local

    settings = parse_overrides(overrides or [])
    load_recipe(recipe, settings)  # a mistake is told before anything is started
    check_local(inputs)
    summary = _run(
        "flows.build_corpus",
        "build_corpus",
        name=name,
        recipe=recipe,
        inputs=inputs,
        settings=settings,
        workers=workers,
        engine=engine,
    )
    _print_build(summary, as_json)


@app.command()
def refresh(
    name: Corpus,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="more inputs than the corpus names")] = None,
    workers: Workers = 0,
    engine: EngineName = "local",
    memory_gib: Annotated[
        float, typer.Option("--memory-gib", min=0.1, help="of one process, before it is ended")
    ] = 4.0,
    as_json: Json = False,
) -> None:
    """Take what is new since the last version of a corpus, and publish the next."""
    from flows.settings import PoolLimits

    summary = _run(
        "flows.refresh_corpus",
        "refresh_corpus",
        name=name,
        inputs=inputs or [],
        limits=PoolLimits(memory_gib=memory_gib),
        workers=workers,
        engine=engine,
    )
    _print_build(summary, as_json)


def _print_build(summary: dict[str, Any], as_json: bool) -> None:
    from flows.present import print_build

    print_build(summary, as_json)


def _run(module: str, flow: str, **parameters) -> dict[str, Any]:
    """Runs a flow in this process, with the server that is up or with one of its own."""
    import importlib

    from flows import embedded
    from flows.present import progress

    home = home_uri()
    with embedded.in_process(home), progress():
        return getattr(importlib.import_module(module), flow)(**parameters, home=home)


@app.command("train-classifier", cls=listing(the_classifier="tasks.classifier.training:Training"))
def train_classifier(
    positives: Annotated[list[str], typer.Option("--positive", "-p", help="good texts: a glob or SQL; again for more")],
    negatives: Annotated[
        list[str] | None, typer.Option("--negative", help="the others; else the documents of --corpus in --language")
    ] = None,
    name: Annotated[str, typer.Option("--name", "-n", help="the classifier's name")] = "quality",
    corpus: Annotated[str, typer.Option("--corpus", help="whose documents are the negatives by default")] = "corpus",
    language: Annotated[str, typer.Option("--language", help="of those documents")] = "en",
    text_column: Annotated[str | None, typer.Option("--text-column", help="the column of the text in files")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="texts at most of each class")] = 200_000,
    overrides: Changes = None,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Train a quality classifier on good texts and random crawl; print what it is worth and which score keeps how much.

    gristmill train-classifier --positive 'sft/*.jsonl' --positive 'books/*.txt' --corpus web --name good
    """
    from flows.settings import parse_overrides
    from tasks.classifier.training import Training

    given = dict(name=name, positives=positives, negatives=negatives or [], corpus=corpus, language=language)
    given |= dict(text_column=text_column, settings=_checked(Training, parse_overrides(overrides or [])))
    _show(_run("flows.train_classifier", "train_classifier", **given, limit=limit, workers=workers), as_json)


@app.command(cls=listing(the_training="model.settings:Pretrain", its_processes=PROCESSES))
def pretrain(
    corpus: Corpus = "corpus",
    version: Version = None,
    run: Annotated[str | None, typer.Option("--run", help="a name for the run; the same name resumes it")] = None,
    overrides: Changes = None,
    as_json: Json = False,
) -> None:
    """Pretrain a model on a published corpus: gristmill pretrain sample --set preset=tiny --set steps=200

    HOME/trainings/RUN gets metrics.jsonl, TensorBoard files and checkpoints; stopped or killed, the same command goes
    on from the last checkpoint. `gristmill sizes` lists the presets.
    """
    _train(
        "flows.pretrain", "pretrain", "PretrainSettings", overrides, as_json, corpus=corpus, version=version, run=run
    )


@app.command(cls=listing(the_training="model.settings:Finetune", its_processes=PROCESSES))
def finetune(
    run: Annotated[str, typer.Argument(help="the training run to start from")],
    data: Annotated[str, typer.Option("--data", help="instruction rows: JSONL with instruction, input, output")],
    name: Annotated[str | None, typer.Option("--name", help="a name for the new run")] = None,
    overrides: Changes = None,
    as_json: Json = False,
) -> None:
    """Finetune a trained model on instruction rows, with the loss on the answers only."""
    _train("flows.finetune", "finetune", "FinetuneSettings", overrides, as_json, base=run, data=data, run=name)


@app.command(cls=listing(the_evaluation="model.settings:Evaluate"))
def evaluate(
    run: Annotated[str, typer.Argument(help="the training run to evaluate")],
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", help="multiple choice: JSONL with query, choices, gold; may be given again"),
    ] = None,
    shots: Annotated[int, typer.Option("--shots", min=0, help="solved examples before each question")] = 0,
    corpus: Annotated[str | None, typer.Option("--corpus", help="another corpus's held-out documents")] = None,
    version: Version = None,
    step: Annotated[int | None, typer.Option("--step", help="of an older checkpoint; the newest by default")] = None,
    overrides: Changes = None,
    as_json: Json = False,
) -> None:
    """Bits per byte by domain on held-out documents, and multiple-choice accuracy, by one process on one device."""
    from flows.settings import parse_overrides
    from model.settings import Evaluate, parse

    settings = parse(Evaluate, parse_overrides(overrides or []))
    given = dict(benchmarks=benchmark or [], shots=shots, settings=settings, corpus=corpus, version=version, step=step)
    _show(_run("flows.evaluate", "evaluate", run=run, **given), as_json)


@app.command()
def ablate(
    inputs: Annotated[list[str], typer.Option("--input", "-i", help="the crawl: a glob, a URI or a list of paths")],
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", help="clean text to predict: text files or JSONL with text; may be given again"),
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--pairs", help="minimal pairs such as BLiMP: JSONL with good and bad")
    ] = None,
    name: Annotated[str, typer.Option("--name", "-n", help="of the ablation; the same name goes on")] = "ablation",
    variants: Annotated[
        Path | None,
        typer.Option("--variants", help="YAML: names to {recipe: ..., settings: {...}}; the first is the baseline"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="models a variant; 3 at least for an interval")] = 3,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="that each model is trained on")] = 1_000_000,
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="of all variants: trained (on the first), one of tiktoken's, a folder")
    ] = "trained",
    overrides: Overrides = None,
    training: Annotated[
        list[str] | None, typer.Option("--train", help="a setting of the training, such as preset=tiny or batch=8")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="pairs of each paradigm; 0 is all")] = 0,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Which recipe makes better models? The same small model, tokens and seeds on a corpus of each variant.

    Every variant is built from the same crawl with one tokenizer; documents that hold some of the held-out text or of
    the pairs are left out of all. Judged are bits per byte on the held-out text (lower is better) and how often the
    good sentence of a pair is the likelier one. HOME/ablations/NAME/ gets report.md (means over seeds with 95 %
    intervals, differences from the first variant paired by seed), plot.svg and results.json. Run again, it goes on.

    By default five variants: raw (no rule, no deduplication), english, gopher, fineweb, and fineweb with its copies.

    gristmill ablate -i 'crawl/*.warc.gz' --held-out clean.jsonl --pairs blimp.jsonl --seeds 5 --tokens 20000000
    """
    import yaml

    from flows.ablate import VARIANTS, parse_variant
    from flows.settings import parse_overrides
    from model.settings import Evaluate, Pretrain, parse
    from tasks.ingest import check_local

    try:
        chosen = yaml.safe_load(variants.read_text()) if variants else VARIANTS
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        chosen = None
    if not isinstance(chosen, dict):
        raise UserError(f"--variants {variants}: no such YAML; give a file of names to {{recipe: ..., settings: ...}}")
    chosen = {key: parse_variant(key, value) for key, value in chosen.items()}
    check_local(inputs)
    result = _run(
        "flows.ablate",
        "ablate",
        name=name,
        inputs=inputs,
        held_out=held_out or [],
        pairs=pairs or [],
        variants=chosen,
        seeds=seeds,
        tokens=tokens,
        tokenizer=tokenizer,
        settings=parse_overrides(overrides or []),
        training=parse(Pretrain, parse_overrides(training or [])),
        evaluation=Evaluate(limit=limit),
        workers=workers,
    )
    if as_json:
        _show(result, as_json)
    else:
        print(Path(f"{result['folder']}/report.md").read_text())
        print(f"plot: {result['folder']}/plot.svg")


def _train(module: str, flow: str, kind: str, overrides: list[str] | None, as_json: bool, **parameters) -> None:
    import importlib

    from flows.settings import parse_overrides

    flows = importlib.import_module(module)
    given = parse_overrides(overrides or [])
    started = given.pop("processes", {})
    if not isinstance(started, dict):
        raise UserError(f"--set processes={started}: say which of its settings, such as processes.processes={started}")
    processes = _checked(flows.Processes, started)
    settings = _checked(getattr(flows, kind), given)
    _show(_run(module, flow, settings=settings, processes=processes, **parameters), as_json)


def _checked(model: Any, given: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from flows.settings import sentences

    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise UserError(f"--set: {sentences(model, error)}") from None


def _show(result: Any, as_json: bool) -> None:
    from flows.present import print_mapping

    print_mapping(result, as_json)


for command in (model_commands.generate, model_commands.convert, model_commands.sizes, model_commands.runs):
    app.command()(command)


@app.command()
def stats(
    name: Annotated[str | None, typer.Argument(help="one corpus; all without")] = None, as_json: Json = False
) -> None:
    """What the corpora hold: funnel, mixture, languages, lengths (the queries of sql/stats)."""
    from flows.present import print_tables
    from tasks import query

    names = ["funnel", "tokens_by_source", "tokens_by_language", "mixture", "document_lengths", "growth"]
    print_tables({n: query.run(root(), n, {"corpus": name} if name else {}) for n in names}, as_json)


@app.command()
def sql(
    statement: Annotated[
        str | None, typer.Argument(help="SQL, a file, or the name of a canned query; a shell without")
    ] = None,
    parameter: Annotated[list[str] | None, typer.Option("--param", help="NAME=VALUE of a canned query")] = None,
    seconds: Annotated[float, typer.Option("--timeout", help="seconds after which a query is ended")] = 300.0,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="build lineage.duckdb anew first (after moving data)")
    ] = False,
    as_json: Json = False,
) -> None:
    """Query the lineage, read-only: gristmill sql "SELECT * FROM corpora", gristmill sql funnel, or a shell."""
    from flows.present import print_tables
    from tasks import lineage, query

    if rebuild:
        lineage.rebuild(root())
    if statement is None:
        query.shell(root())
        return
    parameters = dict(p.partition("=")[::2] for p in parameter or [])
    print_tables({"": query.run(root(), statement, parameters, timeout=seconds)}, as_json)


@app.command()
def why(
    url: Annotated[str, typer.Argument(help="the page's URL")],
    as_json: Json = False,
) -> None:
    """What became of a page, in every version, and why; exits with 1 when no version met it."""
    from flows.present import print_tables
    from tasks import query

    rows = query.run(root(), "why", {"url": url})
    print_tables({"": rows}, as_json)
    if not len(rows):
        if not as_json:
            print(f"No published version has met {url}; is it spelled as in the crawl?", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def whatif(
    corpus: Corpus = "corpus",
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="RULE.PARAMETER=VALUE, or RULE.enabled=false; may be given again"),
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option("--preset", help="in place of its presets; own settings stay; again for more")
    ] = None,
    version: Version = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="pages to show of each side")] = 5,
    as_json: Json = False,
) -> None:
    """What a corpus would keep under other rules, from its stored signals, and samples of what changes sides.

    gristmill whatif news --rule gopher_words.min=100 --rule c4_curly_brackets.enabled=false
    """
    from flows.present import print_whatif
    from tasks.whatif import parse_changes, whatif

    print_whatif(whatif(root(), corpus, parse_changes(rule or []), preset or [], version, samples), as_json)


@app.command()
def corpora(as_json: Json = False) -> None:
    """The published corpora and their versions."""
    from flows.present import print_tables
    from tasks import query

    print_tables({"": query.run(root(), "growth", {})}, as_json)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="extract, lines, annotate, filter, scrub or decontaminate")],
    inputs: Annotated[list[str], typer.Argument(help="WARC files for extract; Parquet of documents for the others")],
    output: Annotated[Path, typer.Option("--output", "-o", help="a folder for the Parquet files")],
    recipe: Annotated[str, typer.Option("--recipe", "-r")] = "fineweb",
    workers: Workers = 0,
    overrides: Overrides = None,
) -> None:
    """Run one stage alone on files, to look and to measure: gristmill stage extract x.warc.gz -o out"""
    from flows.one_stage import run_one_stage
    from flows.settings import load_recipe, parse_overrides

    chosen = load_recipe(recipe, parse_overrides(overrides or []))
    for line in run_one_stage(name, inputs, output, chosen, workers or os.cpu_count() or 1):
        print(line)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check versions, disk, server, GPU and settings; say what is wrong and how to mend it (exit 1 on a failure)."""
    from flows.present import print_tables
    from flows.settings import load_recipe, recipes
    from tasks.doctor import diagnose

    def settings() -> str:
        return f"{len([load_recipe(name) for name in recipes()])} recipes: {', '.join(recipes())}"

    rows = diagnose(root(), settings)
    print_tables(
        {"": [{"check": c, "state": state, "found": found, "remedy": remedy} for c, state, found, remedy in rows]},
        as_json,
    )
    if any(state == "fail" for _, state, _, _ in rows):
        raise typer.Exit(1)


def main() -> None:
    """The entry point."""
    # What the flow says of itself goes to Prefect's server; the terminal shows progress, the outcome and mistakes.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    try:
        app()
    except SystemExit as ended:
        if "prefect" not in sys.modules:
            raise
        # Prefect's threads outlive the interpreter's teardown, which DuckDB's binding then reports as a page of leaks.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1)


if __name__ == "__main__":
    main()

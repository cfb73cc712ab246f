"""One stage alone on files, outside any corpus: to look at what it does, and to measure it."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.settings import Recipe
from tasks.annotate import annotate
from tasks.decontaminate import benchmark_index, decontaminate
from tasks.errors import UserError
from tasks.extract import extract
from tasks.filter import filter as keep_good
from tasks.ingest import plan
from tasks.lines import lines
from tasks.schema import DOCUMENTS, all_rows
from tasks.scrub import scrub
from tasks.stage import Artifact, Build, Stage, Unit, run_stage, store
from tasks.storage import Root

STAGES = {
    "extract": extract,
    "lines": lines,
    "annotate": annotate,
    "filter": keep_good,
    "scrub": scrub,
    "decontaminate": decontaminate,
}


def run_one_stage(name: str, inputs: Sequence[str], output: Path, recipe: Recipe, workers: int) -> Iterator[str]:
    """Runs a stage over files and yields lines that say what it made.

    `extract` reads archives and writes documents; the others read documents (Parquet that `extract` wrote).
    Tables go to OUTPUT/NAME-00000.parquet, fates to OUTPUT.fates/NAME-00000.parquet; older ones there are replaced.
    Raises UserError for an unknown stage, or files that are not documents.
    """
    if name not in STAGES:
        raise UserError(f"there is no stage {name!r} to run alone; choose {', '.join(STAGES)}")
    stage, settings, output = STAGES[name], getattr(recipe, name), output.absolute()
    work = output / ".work"
    root = Root(str(work))
    build = Build(root, run_id="one-stage", workers=workers, limits=recipe.limits.as_limits(), as_tasks=False)
    try:
        if name == "extract":
            found = plan(inputs, recipe.ingest, root)
            for failure in found.failures:
                yield f"not read: {failure.uri} ({failure.reason})"
            units = [Unit(params={"split": s}, identity=s.identity, size=s.end - s.start) for s in found.splits]
        else:
            units = [_unit(name, path, root, recipe, build) for path in _files(inputs)]
        began = time.perf_counter()
        done = run_stage(stage, units, settings, build)
        seconds = time.perf_counter() - began
        fates = output.with_name(f"{output.name}.fates")
        for folder in (output, fates):
            for old in folder.glob(f"{name}-*.parquet"):
                old.unlink()
        rules: dict[str, int] = {}
        for number, unit in enumerate(done):
            shutil.copyfile(root.at(unit.table.path), output / f"{name}-{number:05d}.parquet")
            if unit.fates:
                fates.mkdir(exist_ok=True)
                shutil.copyfile(root.at(unit.fates.path), fates / f"{name}-{number:05d}.parquet")
            for rule, n in unit.rules.items():
                rules[rule] = rules.get(rule, 0) + n
    finally:
        shutil.rmtree(work, ignore_errors=True)
    came, made = sum(d.rows_in for d in done), sum(d.table.rows for d in done)
    yield f"{name}: {came} in, {made} out, in {seconds:.2f} s with {workers} processes ({came / seconds:.0f}/s)"
    for rule, n in sorted(rules.items(), key=lambda entry: (-entry[1], entry[0])):
        yield f"  {n} dropped by {rule}"
    yield f"tables: {output}/{name}-*.parquet" + (f", fates: {fates}/{name}-*.parquet" if rules else "")


def _files(inputs: Sequence[str]) -> list[Path]:
    files = [
        f for text in inputs for f in (sorted(Path(text).glob("*.parquet")) if Path(text).is_dir() else [Path(text)])
    ]
    if missing := [f for f in files if not f.is_file()]:
        raise UserError(f"there is no file {missing[0]}; give Parquet that `gristmill stage extract` wrote")
    return files


def _unit(name: str, path: Path, root: Root, recipe: Recipe, build: Build) -> Unit:
    """The tables that a stage needs beside the documents: all of them kept, the stages before run on them."""
    try:
        documents = pq.read_table(path, columns=DOCUMENTS.names).cast(DOCUMENTS)
    except (KeyError, OSError, ValueError, pa.ArrowInvalid):
        raise UserError(f"{path} holds no documents; give Parquet that `gristmill stage extract` wrote") from None
    shard = store(root, "documents", documents)
    kept = store(root, "kept", all_rows(documents))

    def run(stage: Stage, **tables: Artifact) -> Artifact:
        return run_stage(stage, [Unit({"documents": shard} | tables)], getattr(recipe, stage.name), build)[0].table

    def known() -> Artifact:
        return run_stage(benchmark_index, [Unit()], recipe.decontaminate, build)[0].table

    if name == "lines":
        return Unit({"documents": shard}, size=len(documents))
    cuts = run(lines)
    tables = {
        "annotate": lambda: {"lines": cuts},
        "filter": lambda: {"signals": run(annotate, lines=cuts), "kept": kept},
        "scrub": lambda: {"lines": cuts, "kept": kept},
        "decontaminate": lambda: {"spans": run(scrub, lines=cuts, kept=kept), "kept": kept, "benchmarks": known()},
    }
    return Unit({"documents": shard} | tables[name](), size=len(documents))

"""evaluate: how well a trained model predicts held-out text, and answers multiple-choice questions.

One process measures, on one device: a GPU where there is one.
"""

import logging
import time
from collections.abc import Callable
from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.build_corpus import Home, recorded
from flows.pretrain import EVERY, again
from model.settings import Evaluate as EvaluateSettings
from tasks import launch, stage
from tasks.storage import Root, home_uri

log = logging.getLogger("gristmill.flow")


@flow(name="evaluate", description="Perplexity, bits per byte by domain and multiple-choice benchmarks of a model.")
def evaluate(
    run: Annotated[str, Field(description="the training run")],
    benchmarks: Annotated[list[str], Field(description="jsonl{,.gz} files of query, choices, gold")] = [],  # noqa: B006
    shots: Annotated[int, Field(ge=0, description="solved examples before each question")] = 0,
    settings: EvaluateSettings = EvaluateSettings(),  # noqa: B008
    corpus: Annotated[str | None, Field(description="another corpus whose held-out documents to read")] = None,
    version: Annotated[int | None, Field(description="its version")] = None,
    step: Annotated[int | None, Field(description="of the checkpoint to measure; the newest by default")] = None,
    home: Home = None,
) -> dict[str, Any]:
    """Evaluates, and returns {"run", "step", "device", "precision", "results": rows of task, metric, domain, value}."""
    root = Root(home_uri(home))
    given = {"benchmarks": [*settings.benchmarks, *benchmarks]} | ({"few_shot": [shots]} if shots else {})
    parameters = {"run": run, "benchmarks": benchmarks, "shots": shots, "step": step}
    with recorded(root, run, "evaluate", parameters) as run_id:
        return _evaluate(root.uri, run, settings.model_copy(update=given), corpus, version, step, run_id)


@task(name="evaluate", retries=1, retry_delay_seconds=10, retry_condition_fn=again, persist_result=False)
def _evaluate(home: str, run: str, settings: EvaluateSettings, corpus: str | None, version: int | None,
              step: int | None, run_id: str) -> dict[str, Any]:
    result = launch.evaluate(home, run, settings, corpus, version, run_id=run_id, step=step,
                             progress=progress(f"evaluate {run}"))
    table = [{name: row[name] for name in ("task", "domain", "metric", "value")} for row in result["results"]]
    create_table_artifact(table, key="evaluation", description=f"run {run}, step {result['step']}")
    return result


def progress(name: str) -> Callable[[str, int, int], None]:
    """What shows how far an evaluation is: a bar for each part on a terminal, a line in the log now and then."""
    bar, said, parts = stage.progress.get(), [time.monotonic()], {}

    def show(part: str, done: int, of: int) -> None:
        for before in parts.keys() - {part}:
            size = parts.pop(before)
            bar(before, size, size)             # its end came between two looks
        parts[part] = of
        bar(part, done, of)
        if time.monotonic() - said[0] > EVERY:
            said[0] = time.monotonic()
            log.info("%s: %s, %d of %d", name, part, done, of)

    return show

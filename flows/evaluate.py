"""evaluate: how well a trained model predicts held-out text, and answers multiple-choice questions."""

from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.build_corpus import Home, recorded
from flows.pretrain import again
from model.settings import Evaluate as EvaluateSettings
from tasks import launch
from tasks.storage import Root, home_uri


@flow(name="evaluate", description="Perplexity, bits per byte by domain and multiple-choice benchmarks of a model.")
def evaluate(
    run: Annotated[str, Field(description="the training run; its newest checkpoint is measured")],
    benchmarks: Annotated[list[str], Field(description="jsonl{,.gz} files of query, choices, gold")] = [],  # noqa: B006
    shots: Annotated[int, Field(ge=0, description="solved examples before each question")] = 0,
    settings: EvaluateSettings = EvaluateSettings(),  # noqa: B008
    corpus: Annotated[str | None, Field(description="another corpus whose held-out documents to read")] = None,
    version: Annotated[int | None, Field(description="its version")] = None,
    home: Home = None,
) -> dict[str, Any]:
    """Evaluates, and returns {"run", "step", "results": rows of task, metric, domain, value}."""
    root = Root(home_uri(home))
    given = {"benchmarks": [*settings.benchmarks, *benchmarks]} | ({"few_shot": [shots]} if shots else {})
    with recorded(root, run, "evaluate", {"run": run, "benchmarks": benchmarks, "shots": shots}) as run_id:
        return _evaluate(root.uri, run, settings.model_copy(update=given), corpus, version, run_id)


@task(name="evaluate", retries=1, retry_delay_seconds=10, retry_condition_fn=again, persist_result=False)
def _evaluate(home: str, run: str, settings: EvaluateSettings, corpus: str | None, version: int | None,
              run_id: str) -> dict[str, Any]:
    result = launch.evaluate(home, run, settings, corpus, version, run_id=run_id)
    table = [{name: row[name] for name in ("task", "domain", "metric", "value")} for row in result["results"]]
    create_table_artifact(table, key="evaluation", description=f"run {run}, step {result['step']}")
    return result

"""finetune: a trained model and instruction rows in, a model that answers out."""

from typing import Annotated, Any

from prefect import flow, task
from pydantic import Field

from flows.build_corpus import Home, recorded
from flows.pretrain import Run, again, check_grace, progress, report
from model.settings import Finetune as FinetuneSettings
from model.settings import Processes
from tasks import launch
from tasks.storage import Root, home_uri


@flow(name="finetune", description="Finetunes a trained model on instruction rows, with the loss on the answers only.")
def finetune(
    base: Annotated[str, Field(description="the training run to start from")],
    data: Annotated[str, Field(description="jsonl or jsonl.gz file or URI of rows: instruction, input, output")],
    run: Run = None,
    settings: FinetuneSettings = FinetuneSettings(),  # noqa: B008
    processes: Processes = Processes(),  # noqa: B008
    home: Home = None,
) -> dict[str, Any]:
    """Finetunes, and returns the run's summary."""
    root = Root(home_uri(home))
    with recorded(root, run or base, "finetune", {"base": base, "data": data}) as run_id:
        return _train(root.uri, base, data, run, settings, processes, run_id)


@task(name="finetune", retries=2, retry_delay_seconds=10, retry_condition_fn=again, persist_result=False)
def _train(home: str, base: str, data: str, run: str | None, settings: FinetuneSettings, processes: Processes,
           run_id: str) -> dict[str, Any]:
    check_grace(processes)
    shown = progress(f"finetune {run or base}", settings.steps)
    return report(launch.finetune(home, base, data, run, settings, processes, shown, run_id))

"""pretrain: a published version of a corpus in, a trained model out.

The work is done by processes that tasks/launch starts and watches; this flow retries them from their last
checkpoint and shows how far they are.
"""

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from pydantic import Field

from flows.build_corpus import Home, recorded
from flows.supervise import FLOW_GRACE
from model.settings import Pretrain as PretrainSettings
from model.settings import Processes
from tasks import launch, stage
from tasks.errors import UserError
from tasks.storage import Root, home_uri

log = logging.getLogger("gristmill.flow")
EVERY = 10.0  # seconds between updates of the artifact: each is an event that `--watch` prints
PAUSE = 60.0  # seconds after one that failed
WAIT = 5.0  # seconds that the last update gets
Run = Annotated[str | None, Field(description="a name for the run; the same name goes on from its last checkpoint")]


@flow(name="pretrain", description="Trains a language model on a published version of a corpus.")
def pretrain(
    corpus: Annotated[str, Field(description="name of a published corpus, or the URI of its folder")] = "corpus",
    version: Annotated[int | None, Field(description="its version; the current one by default")] = None,
    run: Run = None,
    settings: PretrainSettings = PretrainSettings(),  # noqa: B008
    processes: Processes = Processes(),  # noqa: B008
    home: Home = None,
) -> dict[str, Any]:
    """Trains, and returns the run's summary: loss from first to last step, bits per byte, checkpoint ..."""
    root = Root(home_uri(home))
    with recorded(root, run or corpus, "pretrain", {"corpus": corpus, "version": version}) as run_id:
        return _train(root.uri, corpus, version, run, settings, processes, run_id)


def again(task: Any, task_run: Any, state: Any) -> bool:
    """A crash is tried again from the last checkpoint; a mistake of the user or a wish to stop is not."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, UserError | launch.Stopped)


def check_grace(processes: Processes) -> None:
    """Warns of a grace that whoever stops the worker does not wait for. Cancelling a run leaves all of it."""
    if processes.grace > FLOW_GRACE:
        log.warning("setting processes.grace: ranks may take %.0f seconds to save, but `make serve` when stopped kills "
                    "them after %.0f, and a container goes after its own stop period", processes.grace, FLOW_GRACE)


@task(name="train", retries=2, retry_delay_seconds=10, retry_condition_fn=again, persist_result=False)
def _train(home: str, corpus: str, version: int | None, run: str | None, settings: PretrainSettings,
           processes: Processes, run_id: str) -> dict[str, Any]:
    check_grace(processes)
    with_progress = progress(f"pretrain {run or corpus}", settings.steps)
    return report(launch.pretrain(home, corpus, version, run, settings, processes, with_progress, run_id))


def progress(name: str, steps: int) -> Callable[[dict[str, Any]], None]:
    """What shows a run's newest step: a progress artifact in the UI, a bar on a terminal. With `steps` 0 (the settings
    have epochs) the run is as long as its lines say.

    The artifact appears with the first step that is seen: on the first machine alone, where there are several. It is
    sent from a thread, with the newest line when one is done: a training goes on and is recorded while Prefect's server
    is away.
    """
    bar, next_at, artifact, sending, missed = stage.progress.get(), [-math.inf], [], [], []

    def send(done: float, says: str) -> None:
        try:
            if artifact:
                update_progress_artifact(artifact[0], done, description=says)
            else:
                artifact.append(create_progress_artifact(done, description=says))
        except Exception as error:
            next_at[0] = time.monotonic() + PAUSE
            if not missed:
                log.warning("%s: Prefect does not take its progress (%s); the training goes on, and it is tried again "
                            "every %.0f seconds", name, type(error).__name__, PAUSE)
            missed.append(error)

    def show(line: dict[str, Any]) -> None:
        step = line["step"]
        log.info("%s: step %d, loss %.4f, %.0f tokens/s", name, step, line["loss"], line["tokens_per_second"])
        last = steps or line.get("steps")
        if not last:                                    # written by a version that did not say
            return
        bar(name, step, last)
        if sending and step == last:
            sending[-1].join(WAIT)
        if (time.monotonic() > next_at[0] or step == last) and not (sending and sending[-1].is_alive()):
            next_at[0] = time.monotonic() + EVERY
            # Prefect finds the task that an artifact belongs to in the context
            sending[:] = [threading.Thread(target=contextvars.copy_context().run, name="progress", daemon=True, args=(
                send, 100 * step / last, f"{name}: {sentence(line, last)}"))]
            sending[0].start()
        if sending and step == last:
            sending[-1].join(WAIT)

    return show


def sentence(line: dict[str, Any], steps: int) -> str:
    """Where a run is: step 20 of 400, loss 4.1234, 12,345 tokens/s, MFU 41.2 %, 1.2345 bits a byte, 0:12:34 left."""
    parts = [f"step {line['step']} of {steps}", f"loss {line['loss']:.4f}",
             f"{line['tokens_per_second']:,.0f} tokens/s"]
    if "mfu" in line:
        parts.append(f"MFU {100 * line['mfu']:.1f} %")
    if "bits_per_byte" in line:
        parts.append(f"{line['bits_per_byte']:.4f} bits a byte")
    left = timedelta(seconds=round((steps - line["step"]) * line["seconds"]))
    return ", ".join([*parts, f"{left} left"])


def report(summary: dict[str, Any]) -> dict[str, Any]:
    """Puts a run's figures into an artifact and gives them on."""
    rows = [("steps", summary["step"]), ("tokens", f"{summary['tokens']:,}"),
            ("parameters", f"{summary['parameters']:,}"),
            ("loss, first step", f"{summary['loss_first']:.4f}"), ("loss, last step", f"{summary['loss_last']:.4f}"),
            ("tokens a second", f"{summary['tokens_per_second']:,.0f}"),
            ("energy", f"{summary['energy_joules'] / 1000:,.1f} kJ: {summary['energy_how']}"),
            ("checkpoint", f"{summary['run']}/{summary['checkpoint']}")]
    for name in ("held_out_loss", "bits_per_byte"):
        if summary.get(name) is not None:
            rows.append((f"held-out {name.removeprefix('held_out_').replace('_', ' ')}", f"{summary[name]:.4f}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    create_markdown_artifact(f"# {summary['run']}\n\n| | |\n|---|---|\n{table}\n", key="training",
                             description=f"training run {summary['run']}")
    return summary

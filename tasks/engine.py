"""Where the tasks of a build run: this process, or a Dask or Ray cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from tasks.errors import UserError

Engine = Literal["local", "dask", "ray"]


@contextmanager
def engine_runner(engine: Engine) -> Iterator[tuple[Any, int]]:
    """Where the tasks run, and into how many groups to cut a stage: (None, 0) for this process, or a started Dask or
    Ray task runner.

    DASK_SCHEDULER_ADDRESS or RAY_ADDRESS names a cluster, which then gets GRISTMILL_GROUPS (32) groups of shards a
    stage, some for each machine; without one, a local one is started, whose one worker has the pool of processes.
    Raises UserError when the engine is not installed.
    """
    if engine == "local":
        yield None, 0
        return
    address = os.environ.get({"dask": "DASK_SCHEDULER_ADDRESS", "ray": "RAY_ADDRESS"}[engine])
    try:
        if engine == "dask":
            from prefect_dask import DaskTaskRunner as Runner

            alone = {"cluster_kwargs": {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}}
        else:
            from prefect_ray import RayTaskRunner as Runner

            alone = {"init_kwargs": {"num_cpus": 1, "include_dashboard": False}}
    except ImportError:
        raise UserError(f"the engine {engine} is not installed; run: pip install 'gristmill[{engine}]'") from None
    with Runner(address=address) if address else Runner(**alone) as runner:
        yield runner, int(os.environ.get("GRISTMILL_GROUPS", "32")) if address else 1

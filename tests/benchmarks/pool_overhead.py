"""What the mechanism costs a shard: many units of a stage that does nothing, read, checked, committed and skipped.

    python tests/benchmarks/pool_overhead.py [UNITS] [WORKERS]

Prints milliseconds of wall time a unit for a first pass (keys, pool, commit with fsync, ledger) and for a second one
that finds all of it done.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tasks"), str(Path(__file__).parents[2])]

import stages_for_tests as stages  # noqa: E402

from tasks.pool import close_shared_pool, shared_pool  # noqa: E402
from tasks.stage import Build, Unit, run_stage  # noqa: E402
from tasks.storage import Root  # noqa: E402


def main() -> None:
    units, workers = (int(text) for text in [*sys.argv[1:], *["1000", "2"][len(sys.argv) - 1 :]])
    work = [Unit(params={"shard": i + 10}) for i in range(units)]
    with tempfile.TemporaryDirectory() as home:
        build = Build(Root(home), run_id="bench", workers=workers, as_tasks=False)
        shared_pool(workers).start([stages.__name__])
        run_stage(stages.pages, work[:workers], stages.Settings(keep_below=1), build)  # imports
        for name in ("first pass", "second pass"):
            began = time.perf_counter()
            run_stage(stages.pages, work, stages.Settings(), build)
            each = 1000 * (time.perf_counter() - began) / units
            print(f"{name}: {each:.2f} ms a unit, {units} units, {workers} workers")
    close_shared_pool()


if __name__ == "__main__":
    main()

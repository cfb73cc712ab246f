"""The whole corpus flow on real crawls: pages and megabytes of HTML a second, and what is not spent in stages.

    python tests/benchmarks/whole_flow.py $GRISTMILL_SHARED/data/web/*.warc.gz $GRISTMILL_SHARED/data/bulk/*.warc.gz
    python tests/benchmarks/whole_flow.py FILE.warc.gz --copies 200      # as many shards as that, of one file each

Runs the flow build-corpus in Prefect, with a server of its own, on a fresh data root that is removed afterwards, and
prints one JSON object. `flow_seconds` is the call of the flow, `running_seconds` what Prefect gives as the run's time
in the state Running; `outside_stages` is the share of that in which no stage function ran in any process (Prefect's
tasks, start of the pool, planning, publishing, lineage).
`--tokenizer gpt2` with TIKTOKEN_CACHE_DIR makes it comparable with others that are given a tokenizer.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recipe", default="fineweb")
    parser.add_argument("--tokenizer", default="trained")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--copies", type=int, default=1, help="read each file so many times, as files of their own")
    parser.add_argument("--split-bytes", type=int, default=16 << 20)
    parser.add_argument("--keep", help="leave the data root here")
    args = parser.parse_args()
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    folder = Path(tempfile.mkdtemp(prefix="gristmill-whole-flow-"))
    home = Path(args.keep) if args.keep else folder / "home"
    inputs = [os.path.abspath(f) for f in args.files]
    if args.copies > 1:
        inputs = [str(folder / f"{i:04d}-{Path(f).name}") for i in range(args.copies) for f in inputs]
        for link in inputs:
            shutil.copyfile(next(f for f in args.files if link.endswith(Path(f).name)), link)  # a link is the same file

    from flows import embedded

    started = time.perf_counter()
    with embedded.in_process(str(home)):
        ready = time.perf_counter()
        from flows.build_corpus import build_corpus

        began = time.perf_counter()
        summary = build_corpus(
            name="bench",
            recipe=args.recipe,
            inputs=inputs,
            workers=args.workers,
            engine=args.engine,
            settings={"tokenize": {"tokenizer": args.tokenizer}, "ingest": {"split_bytes": args.split_bytes}},
            home=str(home),
        )
        seconds = time.perf_counter() - began
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            run = max(client.read_flow_runs(), key=lambda run: run.start_time)
            running, tasks = run.total_run_time.total_seconds(), len(client.read_task_runs())
    html = sum(
        sum(pq.read_table(p, columns=["html_bytes"])["html_bytes"].to_pylist())
        for p in home.glob("work/extract/*/*/table.parquet")
    )
    records = summary["funnel"][0]["in"]
    print(
        json.dumps(
            {
                "workers": args.workers,
                "shards": summary["ran"]["extract"],
                "records": records,
                "html_mb": round(html / 1e6, 1),
                "documents": summary["documents"],
                "tokens": summary["tokens"],
                "server_seconds": round(ready - started, 1),
                "flow_seconds": round(seconds, 2),
                "records_per_second": round(records / seconds, 1),
                "html_mb_per_second": round(html / 1e6 / seconds, 1),
                "stage_seconds": summary["stage_seconds"],
                "running_seconds": running,
                "outside_stages": round(1 - summary["stage_seconds"] / running, 4),
                "task_runs": tasks,
                "peak_mb": {
                    "this process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                    "largest child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
                },
            },
            indent=1,
        )
    )
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""The whole road on one machine, `make run`: sample crawl, corpus, trained model, and what to try next.

Everything is real: a Prefect server, the deployments of prefect.yaml, a worker, and `prefect deployment run` as
anybody would type it. Run again, what is done is skipped.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from flows import embedded
from flows.deployments import PROJECT, call
from model.verdict import SUMMARY
from tasks.errors import UserError
from tasks.storage import Root, home_uri

CORPUS = "sample"
PROMPT = "The function returns"
ANSI = re.compile(rb"\x1b\[[0-9;]*m")

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Runs it all; 0 done, 1 a flow failed, 2 a mistake in the set-up, 130 interrupted."""
    began, home = time.monotonic(), home_uri()
    try:
        with embedded.terminable():
            return _main(home, began)
    except UserError as error:
        console.print(f"gristmill: {error}", style="red")
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; all that was started has been stopped. `make run` goes on where it stopped.")
        return 130


def _main(home: str, began: float) -> int:
    root = Root(home)
    if root.local is None:
        raise UserError(f"the sample needs a data root on a local disk, and GRISTMILL_HOME is {home}")

    def say(text: str) -> None:
        console.print(f"[bold]{text}[/bold]  [dim]{time.monotonic() - began:.0f} s[/dim]")

    say("Prefect server and sample crawl")
    with embedded.server(home, meanwhile=lambda: say(sample_crawl(root.local))) as api_url:
        say(f"server: {api_url.removesuffix('/api')}")
        with embedded.worker(api_url, home) as worker:
            say(f"{embedded.register(api_url, home)} deployments, worker")
            before = current(root)
            say(f"prefect deployment run build-corpus/{CORPUS} --watch")
            if not deployment_run(f"build-corpus/{CORPUS}", api_url, home, worker):
                return 1
            manifest = published(root)
            same = before == current(root)
            say(f"corpus {CORPUS}, version {manifest['version']}" + (": nothing new, all skipped" if same else ""))
            before = training(root, manifest)
            say(f"prefect deployment run pretrain/{CORPUS} --watch")
            if not deployment_run(f"pretrain/{CORPUS}", api_url, home, worker):
                return 1
            run = training(root, manifest)
            if run is None:
                raise UserError(f"the flow pretrain ended, but {home}/trainings holds no complete run on this version")
            say(f"training {run['run']}" + (": complete already, skipped" if run == before else ""))
        summary(root, manifest, run, api_url)
    say("done; server and worker are stopped")
    return 0


def sample_crawl(home: Path) -> str:
    """Writes HOME/sample/*.warc.gz unless it is there, and says what it did."""
    from tasks.sample_crawl import write_sample_crawl

    folder = home / "sample"
    if not write_sample_crawl(folder):
        return f"sample crawl: {folder} is there already, skipped"
    files = sorted(folder.glob("*.warc.gz"))
    return f"sample crawl: {folder}, {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB"


def deployment_run(name: str, api_url: str, home: str, worker: psutil.Popen) -> bool:
    """`prefect deployment run NAME --watch`, with what it prints; True when the flow run completed.

    Says why when it did not. Ends when the worker does: the run would wait for ever.
    """
    # Python buffers what goes to a pipe, and this is what people watch
    command = [sys.executable, "-u", "-m", "prefect", "deployment", "run", name, "--watch"]
    env = embedded.environment(home, api_url) | {"COLUMNS": "200"}  # an event a line
    with subprocess.Popen(command, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True) as process:  # fmt: skip
        os.set_blocking(process.stdout.fileno(), False)
        printed = b""
        try:
            for line in _lines(_output(process, lambda: worker.poll() is None)):
                printed += line
                if b"prefect.artifact.updated" not in line:  # progress bars of the UI, once a second
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()
        except BaseException:
            process.terminate()
            raise
    if worker.poll() is not None:
        raise UserError(f"the worker ended; the reason is at the end of {embedded.folder(home)}/logs/worker.log")
    found = re.search(rb"UUID: ([0-9a-f-]{36})", ANSI.sub(b"", printed))
    state = call(api_url, f"/flow_runs/{found[1].decode()}")["state"] if found else {}
    if process.returncode == 0 and state.get("type") == "COMPLETED":
        return True
    reason = state.get("message") or "it could not be started"
    console.print(f"{name} failed: {reason}", style="red", markup=False)
    console.print(f"The whole log: {embedded.folder(home)}/logs/worker.log", markup=False)
    return False


def _output(process: subprocess.Popen, worth_waiting: Callable[[], bool]) -> Iterator[bytes]:
    """What the process prints, as it comes, until it ends; ends it when it is not worth waiting for any more."""
    ended = False
    while not ended:
        ended = process.poll() is not None
        if not ended and not worth_waiting():
            process.terminate()
            process.wait()
        while piece := process.stdout.read(1 << 16):
            yield piece
        time.sleep(0 if ended else 0.1)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
    yield rest


def current(root: Root) -> str | None:
    path = f"corpora/{CORPUS}/current"
    return root.read_bytes(path).decode().strip() if root.exists(path) else None


def published(root: Root) -> dict[str, Any]:
    version = current(root)
    if version is None:
        raise UserError(f"the flow build-corpus ended, but {root.uri}/corpora/{CORPUS} has no version")
    return json.loads(root.read_bytes(f"corpora/{CORPUS}/versions/{version}/manifest.json"))


def training(root: Root, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the newest complete pretraining on that version."""
    found = []
    for path in root.local.glob(f"trainings/*/{SUMMARY}"):
        run = json.loads(path.read_text())
        about = run.get("corpus", {})
        if run.get("kind") == "pretrain" and (about.get("name"), about.get("version")) == (CORPUS, manifest["version"]):
            found.append((path.stat().st_mtime, path.parent.name, run))
    return max(found)[2] if found else None


def summary(root: Root, manifest: dict[str, Any], run: dict[str, Any], api_url: str) -> None:
    """What came of it, and what to try next."""
    folder = f"{root.uri}/corpora/{CORPUS}/versions/{manifest['version']:06d}"
    funnel = _table("Funnel", "stage", "in", "kept", "dropped", "most by")
    for row in manifest["funnel"]:
        rules = sorted(row["rules"].items(), key=lambda item: (-item[1], item[0]))[:3]
        most = ", ".join(f"{rule} {n:,}" for rule, n in rules)
        funnel.add_row(row["stage"], f"{row['in']:,}", f"{row['kept']:,}", f"{row['dropped']:,}", most)
    console.print(funnel)

    mixture = _table("Tokens", "source", "language", "documents", "tokens", "epochs")
    for row in manifest["mixture"]:
        mixture.add_row(row["source"], row["language"], f"{row['documents']:,}", f"{row['tokens']:,}",
                        f"{row['epochs']:.2f}")
    console.print(mixture)

    console.print(f"Corpus    {folder}: {manifest['documents']:,} documents, {manifest['tokens']:,} tokens")
    for shard in manifest["shards"][:8]:
        console.print(f"          {folder}/{shard['path']}  {shard['tokens']:,} tokens")
    if len(manifest["shards"]) > 8:
        console.print(f"          and {len(manifest['shards']) - 8} more")
    bits = run.get("bits_per_byte")
    console.print(f"Model     {root.uri}/trainings/{run['run']}: {run.get('parameters', 0):,} parameters, "
                  f"{run['tokens']:,} tokens seen")
    console.print(f"Loss      {run['loss_first']:.3f} -> {run['loss_last']:.3f} in {run['step']:,} steps")
    console.print(f"Held out  {bits:.3f} bits per byte" if bits is not None else "Held out  nothing was")
    console.print("It says   " + generated(root, run["run"]), markup=False)
    console.print(NEXT.format(ui=api_url.removesuffix("/api"), url=a_dropped_url(root), run=run["run"],
                              home=f"GRISTMILL_HOME={root.uri} " if os.environ.get("GRISTMILL_HOME") else ""),
                  markup=False)


NEXT = """
Next:
  make serve                                   server, schedules and worker until Ctrl-C; UI then at {ui}
  {home}.venv/bin/gristmill why {url}
  {home}.venv/bin/gristmill sql "SELECT stage, rule, dropped FROM funnel_rules ORDER BY dropped DESC LIMIT 10"
  {home}.venv/bin/gristmill sql tokens_by_source
  {home}.venv/bin/gristmill sql domains
  {home}.venv/bin/gristmill generate {run} --prompt "import os"
  {home}.venv/bin/gristmill build --input 'crawl/*.warc.gz' --name mine
"""


def generated(root: Root, run: str) -> str:
    """A line that the model wrote. Its text is a sample and no result: no failure here fails the run."""
    from tasks.launch import stream_text

    try:
        text = "".join(stream_text(root, run, PROMPT, max_tokens=60, temperature=0.7, top_k=40, seed=0))
    except Exception as error:
        return f"(no sample: {type(error).__name__}: {error})"
    return " ".join((text if text.startswith(PROMPT) else PROMPT + text).split())


def a_dropped_url(root: Root) -> str:
    """A page of the sample that was dropped, to ask `gristmill why` about."""
    manifest = published(root)
    for part in manifest["fates"]:
        path = f"corpora/{CORPUS}/versions/{manifest['version']:06d}/{part['path']}"
        fates = root.read_table(path, ["url", "outcome"]).to_pylist()
        dropped = sorted(row["url"] for row in fates if row["url"] and row["outcome"] == "dropped")
        if dropped:
            return dropped[len(dropped) // 2]
    return "URL"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("in", "kept", "dropped", "documents", "tokens", "epochs")
                         else "left")
    return table


if __name__ == "__main__":
    sys.exit(main())

"""A real crawl that needs no network: WARC files of this machine's Python documentation, and planted pages.

    stdlib-*.warc.gz     the standard library as pydoc renders it, some 480 pages
    packages-*.warc.gz   chosen installed packages, some 200 pages
    planted-*.warc.gz    pages made for this project, each to show one stage at work; planted/expectations.yaml says
                         what must become of each, and the tests hold the pipeline to it

All addresses are of reserved names (.invalid, .example: RFC 2606). The bytes are equal for equal installations of
Python and of the packages.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.errors import UserError
from tasks.sample_crawl import documentation, planted
from tasks.sample_crawl.archive import Exchange, archives
from tasks.sample_crawl.planted import BENCHMARK, expectations, planted_values
from tasks.storage import Root

__all__ = ["BENCHMARK", "SOURCES", "expectations", "inputs", "planted_values", "write_sample_crawl"]

SOURCES = ("stdlib", "packages", "planted")
BATCHES = (1, 2)
_FETCHED = "2024-05-01T00:00:00Z"
_ADDRESS = {"stdlib": "https://docs.python.invalid/{python}/library/{name}.html",
            "packages": "https://packages.python.invalid/{top}/{name}.html"}

log = logging.getLogger("gristmill.sample_crawl")


def inputs(folder: Path | str) -> list[str]:
    """The inputs of a build that mean the crawl in `folder`: one glob a source, NAME=GLOB."""
    return [f"{source}={folder}/{source}-*.warc.gz" for source in SOURCES]


def write_sample_crawl(folder: Path, batch: int = 1, modules: Sequence[str] | None = None) -> list[Path]:
    """Writes the crawl into `folder` and returns the files that it wrote: none when they are there already.

    Args:
        folder: made when absent.
        batch: 1 is the crawl; 2 is what a second night found, planted pages only, beside the files of 1.
        modules: of the documentation only these modules; all by default, which takes some 20 s on two cores.

    Raises UserError for another batch. Interrupted, it starts again at the next call.
    """
    if batch not in BATCHES:
        raise UserError(f"the sample crawl has no batch {batch}; there are {' and '.join(map(str, BATCHES))}")
    root, marker, digest = Root(str(folder)), f"batch-{batch}.json", _digest(modules)
    written = root.read_json(marker) if root.exists(marker) else {}
    if written.get("digest") == digest and all(root.exists(name) for name in written["files"]):
        log.info("sample crawl, batch %d: in %s already, skipped", batch, folder)
        return []
    made = []
    for name, data in _files(batch, modules):
        root.write_bytes(name, data)
        made.append(name)
    for name in set(written.get("files", ())) - set(made):  # of another installation
        root.remove(name)
    root.write_json(marker, {"digest": digest, "files": made})
    log.info("sample crawl, batch %d: %d files in %s", batch, len(made), folder)
    return [Path(folder, name) for name in made]


def _files(batch: int, modules: Sequence[str] | None) -> Iterator[tuple[str, bytes]]:
    if batch == 1:
        for source, pages in documentation.render(modules).items():
            yield from archives(_exchanges(source, pages), source)
    yield from planted.files(batch)


def _exchanges(source: str, pages: Mapping[str, bytes]) -> Iterator[Exchange]:
    for name, html in sorted(pages.items()):
        url = _ADDRESS[source].format(python=documentation.PYTHON, top=name.partition(".")[0], name=name)
        yield Exchange(url, _FETCHED, html)


def _digest(modules: Sequence[str] | None) -> str:
    """What the bytes depend on: the installation, this package, the choice of modules."""
    own = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
           for folder in (Path(__file__).parent, planted.FOLDER) for path in folder.iterdir()
           if path.suffix in (".py", ".html", ".yaml")}
    chosen = None if modules is None else sorted(modules)
    return hashlib.sha256(json.dumps([documentation.versions(), own, chosen], sort_keys=True).encode()).hexdigest()

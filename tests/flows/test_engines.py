"""The flow inside Prefect: the same bytes wherever its tasks run, and nothing personal in what Prefect keeps."""

import os
import random

import crawl
import pytest

from flows import embedded
from tasks.pool import close_shared_pool
from tasks.sample_crawl import planted_values
from tasks.storage import Root

PERSONAL = [crawl.EMAIL, *planted_values()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The small crawl, and a page with every personal value that the sample crawl has."""
    folder = tmp_path_factory.mktemp("crawl")
    said = "".join(f"<p>Whoever comes from the address {value} is welcome to this place.</p>" for value in PERSONAL)
    page = crawl.page(crawl.prose(random.Random(9), 120) + said, "Guests")
    path = folder / "personal.warc.gz"
    path.write_bytes(crawl.record("https://guests.example/book.html", page))
    return [*crawl.write_crawl(folder), path]


@pytest.fixture(scope="module", autouse=True)
def in_prefect(prefect_home):
    with embedded.in_process(str(prefect_home)):
        yield
    close_shared_pool()


def build(files, home, engine):
    from flows.build_corpus import build_corpus

    return build_corpus(
        name="test",
        recipe="gopher",
        inputs=[str(f) for f in files],
        settings=crawl.SETTINGS,
        workers=2,
        engine=engine,
        home=str(home),
    )


@pytest.fixture(scope="module")
def plain(files, tmp_path_factory):
    from flows.build_corpus import build_corpus

    home = tmp_path_factory.mktemp("plain")
    build_corpus.fn(
        name="test",
        recipe="gopher",
        inputs=[str(f) for f in files],
        settings=crawl.SETTINGS,
        workers=1,
        engine="local",
        home=str(home),
    )
    return published(home)


def published(home) -> dict[str, str]:
    root = Root(str(home))
    return {path: root.digest(path) for path in root.list("corpora/test/versions/000001")}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask", "ray"])
def test_the_same_bytes_on_every_engine(files, plain, tmp_path, engine):
    if engine == "ray":  # it keeps an authentication token in the home folder by default
        os.environ["RAY_AUTH_MODE"] = "disabled"
    summary = build(files, tmp_path, engine)
    assert summary["published"] and published(tmp_path) == plain
    again = build(files, tmp_path, engine)
    assert not again["published"] and set(again["ran"].values()) == {0}


def test_prefect_keeps_a_few_runs_a_build_and_no_personal_data(files, prefect_home, tmp_path, capfd):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    import tasks.ledger as ledger

    build(files, tmp_path, "local")
    run_id = next(e["run_id"] for e in ledger.events(Root(str(tmp_path)))[0] if e["kind"] == "run")
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        cards = client.read_artifacts()
    assert 10 <= len(runs) < 40
    assert any(card.key == "corpus-test" for card in cards)
    kept = [path for path in prefect_home.rglob("*") if path.is_file()]
    assert any(path.suffix.startswith(".db") for path in kept)
    out, err = capfd.readouterr()
    for path, data in [("what was printed", (out + err).encode()), *((path, path.read_bytes()) for path in kept)]:
        assert not [number for number, value in enumerate(PERSONAL) if value.encode() in data], path
    published = Root(str(tmp_path))
    book = [row for path in published.list("work/scrub/") if path.endswith("table.parquet")
            for row in published.read_table(path)["spans"].to_pylist() if len(row) >= len(PERSONAL)]
    assert len(book) == 1  # the page was there, and all of it was found

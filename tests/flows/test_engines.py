"""The flow inside Prefect: the same bytes wherever its tasks run, and nothing personal in what Prefect keeps."""

import os

import crawl
import pytest

from flows import embedded
from tasks.pool import close_shared_pool
from tasks.storage import Root


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return crawl.write_crawl(tmp_path_factory.mktemp("crawl"))


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


def test_prefect_keeps_a_few_runs_a_build_and_no_personal_data(files, prefect_home, tmp_path):
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
    for path in kept:
        assert crawl.EMAIL.encode() not in path.read_bytes(), path

"""The command line over a corpus that is there: what people and scripts get. Flows are called without a server."""

import contextlib
import json
import os
import subprocess
import sys

import crawl
import pytest
from typer.testing import CliRunner

from flows import embedded
from flows.build_corpus import build_corpus
from flows.cli import app
from tasks.pool import close_shared_pool
from tasks.storage import Root

runner = CliRunner()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    files = crawl.write_crawl(home / "crawl")
    build_corpus.fn(
        name="test",
        recipe="gopher",
        inputs=[str(f) for f in files],
        settings=crawl.SETTINGS,
        workers=2,
        engine="local",
        home=str(home),
    )
    yield home
    close_shared_pool()


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("GRISTMILL_HOME", str(home))


def ask(*arguments, code=0, env=None):
    result = runner.invoke(app, list(arguments), env=env)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def test_help_teaches():
    assert "gristmill build --input" in ask("build", "--help").output
    assert {
        "build",
        "refresh",
        "pretrain",
        "finetune",
        "evaluate",
        "generate",
        "stats",
        "sql",
        "why",
        "corpora",
        "stage",
        "doctor",
    } <= set(ask("--help").output.split())


def test_corpora_and_statistics_as_json():
    versions = json.loads(ask("corpora", "--json").stdout)
    assert [(row["name"], row["version"]) for row in versions] == [("test", 1)]
    tables = json.loads(ask("stats", "test", "--json").stdout)
    assert {"funnel", "mixture", "tokens_by_source"} <= set(tables) and all(tables.values())
    assert "extract" in ask("stats").output


def test_why_explains_a_page_and_exits_with_1_for_one_never_met():
    url = "https://site5.example/1/0/5.html"
    rows = json.loads(ask("why", url, "--json").stdout)
    assert [(row["outcome"], row["rule"]) for row in rows] == [("dropped", "gopher_words")]
    assert "gopher_words" in ask("why", url).output
    ask("why", "https://never.example/", code=1)


def test_sql_reads_and_does_not_write():
    assert json.loads(ask("sql", "SELECT count(*) AS n FROM fates", "--json").stdout) == [{"n": 90}]
    assert json.loads(ask("sql", "funnel", "--param", "corpus=test", "--json").stdout)
    assert "gristmill:" in ask("sql", "DROP TABLE corpora", code=2).output
    assert "gristmill:" in ask("sql", "SELECT * FROM nothing", code=2).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "-i", "x.warc.gz", "--set", "filter.gopher_word.min=3"], "did you mean filter.gopher_words?"),
        (["build", "-i", "/nowhere/*.warc.gz"], "/nowhere/*.warc.gz matches no file"),
        (["build", "-i", "x", "--recipe", "fineweeb"], "did you mean 'fineweb'"),
        (["pretrain", "test", "--set", "stepps=3"], "did you mean steps?"),
        (["stage", "extrakt", "x", "-o", "out"], "there is no stage 'extrakt'"),
        (["generate", "no-such-run"], "no run 'no-such-run'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message):
    output = " ".join(ask(*arguments, code=2).output.split())
    assert message in output and "Traceback" not in output


def test_one_stage_alone(home, tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    said = ask("stage", "extract", str(home / "crawl" / "*.warc.gz"), "-o", str(out), "--workers", "2").output
    assert "extract: 90 in" in said and "dropped by http_status" in said
    table = pq.read_table(out)
    assert {"url", "text"} <= set(table.column_names) and len(table) > 50
    assert not (out / ".work").exists()
    said = ask(
        "stage", "filter", str(out), "-o", str(tmp_path / "filtered"), "--recipe", "gopher", "--workers", "2"
    ).output
    assert "dropped by gopher_stop_words" in said
    said = ask("stage", "scrub", str(out), "-o", str(tmp_path / "spans"), "--workers", "2").output
    assert f"scrub: {len(table)} in" in said
    not_documents = tmp_path / "spans" / "scrub-00000.parquet"
    assert (
        "holds no documents" in ask("stage", "annotate", str(not_documents), "-o", str(tmp_path / "x"), code=2).output
    )


def test_what_pages_say_is_not_markup(capsys):
    from flows.present import print_tables

    print_tables({"": [{"url": "https://a.example/[/b]/[red]x"}]}, as_json=False)
    assert "https://a.example/[/b]/[red]x" in capsys.readouterr().out


def test_doctor_finds_a_sound_home(home):
    rows = {row["check"]: row["state"] for row in json.loads(ask("doctor", "--json").stdout)}
    assert rows["data root"] == rows["lineage"] == rows["settings"] == "ok"


def test_build_and_refresh_in_this_process(home, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "in_process", lambda home: contextlib.nullcontext())
    import flows.build_corpus
    import flows.refresh_corpus

    monkeypatch.setattr(flows.build_corpus, "build_corpus", flows.build_corpus.build_corpus.fn)
    monkeypatch.setattr(flows.refresh_corpus, "refresh_corpus", flows.refresh_corpus.refresh_corpus.fn)
    sets = [
        "--set",
        "ingest.split_bytes=6000",
        "--set",
        "filter.presets=[]",
        "--set",
        "filter.language.enabled=false",
        "--set",
        "filter.language_score.enabled=false",
        "--set",
        "tokenize.vocab_size=400",
    ]
    said = ask("build", "-i", f"mine={home}/crawl/*.warc.gz", "-n", "second", "--workers", "2", *sets).output
    assert "second: published version 1" in said and "mine" in said
    again = json.loads(ask("refresh", "second", "--workers", "2", "--json").stdout.splitlines()[-1])
    assert again["published"] is False and again["version"] == 1
    assert Root(str(home)).exists("corpora/second/current")


def test_the_installed_command_ends_quietly_when_its_reader_does(home):
    command = f"{sys.executable} -m flows.cli stats --json | head -c 1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | {"GRISTMILL_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command, names", [
    ("pretrain", ["preset", "zero_stage", "processes.rendezvous"]),
    ("finetune", ["epochs", "processes.grace"]),
    ("evaluate", ["few_shot"]),
    ("train-classifier", ["ngrams"]),
])
def test_help_lists_the_settings(command, names):
    said = ask(command, "--help", env={"COLUMNS": "160"}).output
    assert all(name in said.split() for name in names)
    assert "adamw | muon" in ask("pretrain", "--help", env={"COLUMNS": "160"}).output


def test_processes_are_settings_of_their_own():
    assert "processes.processes=2" in ask("pretrain", "x", "--set", "processes=2", code=2).output

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import ledger, lineage, query
from tasks.errors import UserError
from tasks.storage import Root
from tests.lineage_home import make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Root:
    root = Root(str(tmp_path_factory.mktemp("home")))
    make_home(root)
    root.write_bytes("prefect/secret.txt", b"x")
    lineage.rebuild(root)
    return root


def test_a_statement_a_file_and_a_name_are_answered(home, tmp_path):
    (tmp_path / "mine.sql").write_text("WITH params AS (SELECT\n    3::BIGINT AS n\n)\nSELECT n FROM params")
    assert query.run(home, "SELECT $x::INT + 1 AS y", {"x": "4"}).to_pylist() == [{"y": 5}]
    assert query.run(home, str(tmp_path / "mine.sql")).to_pylist() == [{"n": 3}]
    assert query.run(home, str(tmp_path / "mine.sql"), {"n": "7"}).to_pylist() == [{"n": 7}]
    assert query.run(home, "growth", {"corpus": "web"}).num_rows == 2
    assert query.run(home, "  -- a comment\nFROM corpora;").num_rows == 3
    assert query.run(home, "EXPLAIN SELECT 1").num_rows > 0 and query.run(home, "SUMMARIZE corpora").num_rows > 0


@pytest.mark.parametrize("statement", [
    "COPY (SELECT 1) TO '{home}/work/x.csv'", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{home}/work/x.csv'",
    "explain  analyze\ncopy (SELECT 1) to '{home}/work/x.csv'", "CREATE TABLE t(a INT)", "CREATE TEMP TABLE t(a INT)",
    "DROP TABLE corpora", "INSERT INTO corpora SELECT * FROM corpora", "ATTACH '{home}/other.duckdb'", "INSTALL httpfs",
    "LOAD httpfs", "SET enable_external_access = true", "PRAGMA database_list", "CALL pragma_version()",
    "EXPORT DATABASE 'x'",
    "PREPARE p AS SELECT 1", "PIVOT steps ON step USING max(loss)", "CHECKPOINT", "BEGIN", "SELECT 1; SELECT 2", "",
    "-- nothing"])
def test_whatever_does_more_than_select_is_refused(home, statement):
    before = home.list("work")
    with pytest.raises(UserError):
        query.run(home, statement.format(home=home.uri))
    assert home.list("work") == before and not home.exists("other.duckdb")


@pytest.mark.parametrize("source", [
    "read_text('/etc/hostname')", "read_csv('/etc/passwd')", "glob('/etc/*')",
    "read_blob('{home}/work/../prefect/secret.txt')",
    "read_text('{home}/prefect/secret.txt')", "'{home}/lineage.duckdb'", "read_parquet('https://example.org/x.parquet')",
    "read_text('{home}/corpora/../../secret')"])
def test_files_elsewhere_cannot_be_read(home, source):
    with pytest.raises(UserError):
        query.run(home, f"SELECT * FROM {source.format(home=home.uri)}")


def test_python_variables_are_not_tables(home):
    table = query.run(home, "SELECT 1")
    assert table.num_rows == 1
    with pytest.raises(UserError, match="does not exist"):
        query.run(home, "FROM table_of_mine")


def test_the_parquet_of_the_data_root_can_be_read(home):
    path = home.url("corpora/web/versions/000002/plan.parquet")
    assert query.run(home, f"SELECT count(*) AS n FROM '{path}'").to_pylist() == [{"n": 3}]
    assert query.run(home, "SELECT count(*) AS n FROM documents").to_pylist() == [{"n": 12}]


def test_a_long_query_is_ended(home):
    with pytest.raises(UserError, match="longer than 0.3 seconds"):
        query.run(home, "SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3",
                  timeout=0.3)
    assert query.run(home, "SELECT 1").num_rows == 1


@pytest.mark.parametrize(("text", "says"), [
    ("funel", "did you mean funnel"), ("zzz", "document_lengths, domains"),
    ("nowhere/x.sql", "cannot read nowhere/x.sql"),
    ("SELECT nothing", "nothing"), ("SELEC 1", "syntax error"), ("SELECT $a", "a")])
def test_mistakes_are_one_sentence(home, text, says):
    with pytest.raises(UserError, match=says) as caught:
        query.run(home, text)
    assert "\n" not in str(caught.value) and "LINE" not in str(caught.value)


def test_an_unknown_parameter_names_those_there_are(home):
    with pytest.raises(UserError, match="no parameter 'corpsu'; it has corpus, version"):
        query.run(home, "funnel", {"corpsu": "web"})
    with pytest.raises(UserError, match="(?i)conver"):
        query.run(home, "funnel", {"version": "newest"})


def test_nothing_built_yet_is_said(tmp_path):
    with pytest.raises(UserError, match="no lineage.duckdb under .* yet: build a corpus first"):
        query.run(Root(str(tmp_path)), "funnel")


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "lineage.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be opened"):
        query.run(Root(str(tmp_path)), "funnel")


def test_a_data_root_that_lost_its_tables_is_said(tmp_path):
    root = Root(str(tmp_path / "a"))
    make_home(root)
    lineage.rebuild(root)
    os.rename(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="cannot be read, .*rebuild") as caught:
        query.run(Root(str(tmp_path / "b")), "SELECT count(*) FROM documents")
    assert "\n" not in str(caught.value)
    lineage.rebuild(Root(str(tmp_path / "b")))
    assert query.run(Root(str(tmp_path / "b")), "SELECT count(*) AS n FROM documents").to_pylist() == [{"n": 12}]


def test_an_open_connection_and_a_rebuild_do_not_meet(tmp_path):
    root = Root(str(tmp_path))
    lineage.rebuild(root)
    with query.open_lineage(root) as old:
        ledger.record(root, "failure", "x", {})
        lineage.rebuild(root)
        with query.open_lineage(root) as new:
            assert new.execute("SELECT count(*) FROM failures").fetchone() == (1,)
            assert old.execute("SELECT count(*) FROM failures").fetchone() == (0,)


def test_a_data_root_on_an_object_store_is_queried():
    root = Root("memory://query-test")
    make_home(root)
    lineage.rebuild(root)
    assert query.run(root, "tokens_by_source", {"corpus": "web"})["tokens"].to_pylist() == [400]
    with pytest.raises(UserError):
        query.run(root, "FROM read_text('/etc/hostname')")


def test_canned_queries_have_names_of_their_own():
    files = [path for folder in query.FOLDERS for path in (query.SQL / folder).glob("*.sql")]
    assert len(query.canned()) == len(files) >= 14
    with pytest.raises(UserError):
        query._sql_of("../rules/gopher")


@given(st.lists(st.sampled_from(["a", ";", "'", '"', "--", "\n", "/*", "*/", " "]), max_size=12).map("".join))
def test_splitting_loses_nothing(text):
    parts = query._split(text)
    assert "".join(parts).replace(";", "").split() == text.replace(";", "").split() or ";" in text
    assert [character for character in "".join(parts) if character == "a"] == [c for c in text if c == "a"]


def test_splitting_heeds_quotes_and_comments():
    assert query._split("SELECT ';'; SELECT 2 -- no; end\n; /* ; */ SELECT 3") == [
        "SELECT ';'", " SELECT 2 -- no; end\n", " /* ; */ SELECT 3"]
    assert query._split("SELECT 'open; ") == ["SELECT 'open; "]


def _shell(root: Root, monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    query.shell(root)


def test_the_shell_answers_statements_names_and_commands(home, monkeypatch, capsys, tmp_path):
    (tmp_path / "two.sql").write_text("SELECT 'first' AS a; -- and\nSELECT 'second' AS b;\n")
    _shell(home, monkeypatch, "SELECT 40 +\n2 AS answer;\n.tables\n.schema funnel\nwhy url=https://b.example/1\n"
                              f".read {tmp_path / 'two.sql'}\n.queries\n.help\n")
    shown = capsys.readouterr().out
    for expected in ("42", "corpus_shards", "rows_in", "words_min", "first", "second", "Why was a URL", ".read FILE"):
        assert expected in shown


def test_without_a_terminal_an_error_ends_the_shell(home, monkeypatch, capsys):
    with pytest.raises(UserError):
        _shell(home, monkeypatch, "FROM nothing;\nSELECT 'later';\n")
    assert "later" not in capsys.readouterr().out
    with pytest.raises(UserError, match=".help says"):
        _shell(home, monkeypatch, ".nonsense\n")


def test_at_a_terminal_an_error_is_one_line_and_the_shell_goes_on(home, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("FROM nothing;\nSELECT 'later' AS a;\n.quit\nSELECT 'never';\n"))
    query.shell(home)
    shown = capsys.readouterr()
    assert len(shown.err.strip().splitlines()) == 1 and "later" in shown.out and "never" not in shown.out


def test_the_shell_can_build_what_is_missing(tmp_path, monkeypatch, capsys):
    _shell(Root(str(tmp_path)), monkeypatch, ".rebuild\nSELECT count(*) AS n FROM corpora;\n")
    assert "lineage.duckdb" in capsys.readouterr().out

"""Questions to lineage.duckdb: read-only, confined to the data root, with a time limit.

The queries of sql/stats and sql/lineage go by their names, and their parameters are bound, never pasted.
A statement may only select: DuckDB's own read-only mode would still let COPY write files.
"""

import contextlib
import difflib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from tasks import lineage
from tasks.errors import UserError
from tasks.lineage import LINEAGE
from tasks.storage import Root

SQL = Path(__file__).parents[1] / "sql"
FOLDERS = ("stats", "lineage")
READABLE = ("work", "corpora", "trainings", "tokenizers", "ledger")     # of the data root; not Prefect's database
SECONDS = 300.0
SHOWN = 200                                     # rows that the shell prints

_HEAD = re.compile(r"params AS \(SELECT\n(.*?)^\)", re.S | re.M)
_VALUE = re.compile(r"^(\s*)\S.*?::(\w+) AS (\w+)", re.M)
_EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s", re.I)


def canned() -> dict[str, Path]:
    """The queries that come with the project, by name."""
    return {path.stem: path for folder in FOLDERS for path in sorted((SQL / folder).glob("*.sql"))}


def question(path: Path) -> str:
    """The question that a canned query answers: its first line."""
    with open(path, encoding="utf-8") as file:
        return file.readline().removeprefix("--").strip()


def parameters(sql: str) -> dict[str, str]:
    """The parameters of a canned query and their SQL types."""
    head = _HEAD.search(sql)
    return {name: kind for _, kind, name in _VALUE.findall(head[1])} if head else {}


def bind(sql: str, given: Mapping[str, Any]) -> str:
    """The query with `$name` in place of the default of each parameter that is given.

    Raises UserError for one that the query does not have.
    """
    known = parameters(sql)
    for name in given:
        if name not in known:
            raise UserError(f"the query has no parameter {name!r}; it has {', '.join(known) or 'none'}")
    head = _HEAD.search(sql)
    if head is None:
        return sql

    def place(found: re.Match) -> str:
        return f"{found[1]}${found[3]}::{found[2]} AS {found[3]}" if found[3] in given else found[0]

    return sql[:head.start(1)] + _VALUE.sub(place, head[1]) + sql[head.end(1):]


@contextlib.contextmanager
def open_lineage(root: Root) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that can read lineage.duckdb and the tables below the data root, and nothing else.

    It sees the file as it is now; a rebuild puts a new one in place without disturbing it. Raises UserError when
    there is none yet.
    """
    if not root.exists(LINEAGE):
        raise UserError(f"there is no {LINEAGE} under {root.uri} yet: build a corpus first (`gristmill build`), set "
                        f"GRISTMILL_HOME to where one was built, or give `.rebuild` in the shell of `gristmill sql`")
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-"))
        # in memory, with the file attached: a connection to the file itself would be shared in this process, and stale
        con = stack.enter_context(duckdb.connect(":memory:", config={
            "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
            "python_enable_replacements": "false", "temp_directory": os.path.join(scratch, "spill")}))
        path = root.at(LINEAGE)
        if root.local is None:
            con.register_filesystem(root.fs)
            path = os.path.join(scratch, LINEAGE)
            Path(path).write_bytes(root.read_bytes(LINEAGE))
        try:
            con.execute(f"ATTACH {_text(path)} AS lineage (READ_ONLY)")
        except duckdb.Error as error:
            raise UserError(f"{root.url(LINEAGE)} cannot be opened ({_line(error)}); give `.rebuild` in the shell of "
                            f"`gristmill sql`") from None
        con.execute("USE lineage")
        folders = [_text(root.url(folder) + "/") for folder in READABLE]
        con.execute(f"SET allowed_directories = [{', '.join([*folders, _text(scratch + '/')])}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        yield con


def run(root: Root, query: str, params: Mapping[str, Any] | None = None, timeout: float = SECONDS) -> pa.Table:
    """The answer to `query`: the name of a canned query, the path of a .sql file, or one SQL statement.

    `params` are bound: to the parameters of a canned query or file, or to `$name` in a statement. UUIDs come as text.
    Raises UserError for a query that is wrong, does more than select, or takes longer than `timeout` seconds.
    """
    sql, given = _sql_of(query), dict(params or {})
    if _HEAD.search(sql):
        sql = bind(sql, given)
    with open_lineage(root) as con:
        _check(con, sql)
        late = threading.Event()

        def interrupt() -> None:
            late.set()
            con.interrupt()

        timer = threading.Timer(timeout, interrupt)
        timer.start()
        try:
            return con.sql(sql, params=given or None).to_arrow_table()
        except duckdb.InterruptException:
            if late.is_set():
                raise UserError(f"the query took longer than {timeout:g} seconds and was ended; ask about one corpus "
                                f"or version, or allow more time with --timeout") from None
            raise KeyboardInterrupt from None
        except (duckdb.IOException, duckdb.PermissionException) as error:
            raise UserError(f"a file that the query reads cannot be read, or lies outside the data root "
                            f"({_line(error)}); if the data root was moved or cleared, give `.rebuild` in the shell "
                            f"of `gristmill sql`") from None
        except (duckdb.Error, RuntimeError) as error:
            raise UserError(f"the query failed: {_line(error)}") from None
        finally:
            timer.cancel()
            timer.join()


def _sql_of(query: str) -> str:
    names = canned()
    if query in names:
        return names[query].read_text(encoding="utf-8")
    if query.strip().endswith(".sql"):
        try:
            return Path(query.strip()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {query.strip()} ({type(error).__name__}); canned queries go by their names, "
                            f"such as funnel") from None
    if re.fullmatch(r"[\w/.-]+", query.strip()):
        near = difflib.get_close_matches(query.strip(), names, 1)
        raise UserError(f"there is no canned query {query.strip()!r}"
                        + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"))
    return query


def _check(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raises UserError unless `sql` is one statement that only selects."""
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise UserError(f"the query failed: {_line(error)}") from None
    if len(statements) != 1:
        raise UserError("give one statement at a time" if statements else "give a statement, such as FROM corpora")
    kind = statements[0].type
    if kind == duckdb.StatementType.SELECT:
        return
    if kind == duckdb.StatementType.EXPLAIN and (inner := _EXPLAIN.match(sql)):
        return _check(con, sql[inner.end():])   # EXPLAIN ANALYZE would carry out a COPY
    if kind == duckdb.StatementType.MULTI:
        raise UserError("give PIVOT its values: PIVOT ... ON column IN (value, ...)")
    raise UserError(f"the lineage is read-only, so {kind.name} is refused; SELECT, DESCRIBE, SUMMARIZE and EXPLAIN run")


def _line(error: Exception) -> str:
    """What a DuckDB error says, on one line: without the excerpt of the query below it."""
    return " ".join(str(error).split("\n\nLINE", 1)[0].split("\nLINE", 1)[0].split())


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


HELP = """\
Statements end with a semicolon and may take several lines. Also:
  .queries          the canned queries; NAME or NAME key=value ... runs one
  .tables           tables and views
  .schema [NAME]    their columns
  .read FILE        runs a file
  .rebuild          builds lineage.duckdb anew from the ledger and the manifests
  .quit             ends, as Ctrl-D does"""


def shell(root: Root) -> None:
    """A small read-only shell. With a terminal, an error is one line and the shell goes on; without, it ends it."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  history and editing for input()
        print(f"{root.url(LINEAGE)}, read-only. .help says what there is.")
    waiting = ""
    while True:
        try:
            line = input("" if not terminal else "   ...> " if waiting else "gristmill> ")
            if not waiting and line.strip() in (".quit", ".exit"):
                return
            waiting = _take(root, f"{waiting}{line}\n")
        except EOFError:
            if waiting.strip():
                _show(run(root, waiting))
            elif terminal:
                print()
            return
        except KeyboardInterrupt:
            waiting = ""
            print()
        except UserError as error:
            if not terminal:
                raise
            waiting = ""
            print(error, file=sys.stderr)


def _take(root: Root, text: str) -> str:
    """Runs what is complete in `text` and returns the rest."""
    word, *rest = text.split() or [""]
    if word in canned() and all("=" in part for part in rest) and text.count("\n") == 1:
        _show(run(root, word, dict(part.rstrip(";").partition("=")[::2] for part in rest)))
        return ""
    if word.startswith("."):
        _command(root, word, rest)
        return ""
    *complete, rest = _split(text)
    for statement in complete:
        _show(run(root, statement))
    return rest if rest.strip() else ""


def _split(text: str) -> list[str]:
    """Statements that a semicolon ends, and what follows the last; quotes and comments keep their semicolons."""
    parts, start = [], 0
    for token in re.finditer(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|['\"]|/\*|;", text, re.S):
        if token[0] in ("'", '"', "/*"):
            break                               # one that is still open
        if token[0] == ";":
            parts.append(text[start:token.start()])
            start = token.end()
    return [part for part in parts if part.strip()] + [text[start:]]


def _command(root: Root, command: str, words: list[str]) -> None:
    if command == ".help":
        print(HELP)
    elif command == ".queries":
        for name, path in canned().items():
            print(f"{name:<24} {question(path)}")
    elif command == ".tables":
        _show(run(root, "SELECT table_name AS name, lower(table_type) AS kind FROM information_schema.tables "
                        "WHERE table_catalog = 'lineage' ORDER BY name"))
    elif command == ".schema":
        _show(run(root, "SELECT table_name, column_name, data_type FROM information_schema.columns "
                        "WHERE table_catalog = 'lineage' AND table_name = coalesce($name, table_name) "
                        "ORDER BY table_name, ordinal_position", {"name": words[0] if words else None}))
    elif command == ".read" and words:
        try:
            text = Path(" ".join(words)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {' '.join(words)} ({type(error).__name__})") from None
        for statement in _split(text):
            if re.sub(r"--[^\n]*", "", statement).strip():
                _show(run(root, statement))
    elif command == ".rebuild":
        print(lineage.rebuild(root))
    else:
        raise UserError(f"{command} is not a command here; .help says what there is")


def _show(answer: pa.Table) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = [{name: "" if value is None else str(value) for name, value in row.items()}
            for row in answer.slice(0, SHOWN).to_pylist()]
    widths = {name: max([len(name), *(len(row[name]) for row in rows)]) for name in answer.schema.names}
    needed = sum(widths.values()) + 3 * len(widths)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(needed, 20)
    if needed <= console.width or len(rows) > 20:
        shown = Table(show_edge=False, header_style="bold")
        for field in answer.schema:
            number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            shown.add_column(field.name, justify="right" if number else "left", overflow="fold")
        for row in rows:
            shown.add_row(*row.values())
        console.print(shown)
    else:                                       # too wide for lines, so one value a line
        for row in rows:
            for name, value in row.items():
                if value:
                    console.print(f"{name:>{max(map(len, row))}}  {value}", soft_wrap=True)
            console.print()
    if len(answer) > SHOWN:
        console.print(f"{len(answer):,} rows, the first {SHOWN} shown")

"""Proves that other DuckDB versions open lineage.duckdb and run every canned query with the same answers.

    python tests/benchmarks/duckdb_versions.py 1.0.0 1.1.3 1.4.1

makes a data root by hand (or takes GRISTMILL_HOME where it is set), asks each query of this Python's DuckDB, and then
of each version named, installed from the package index into a virtual environment of its own. Ends with status 1
when a version fails or answers differently.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# runs under the other version, with nothing but duckdb there
ASK = """
import duckdb, json, sys
con = duckdb.connect(sys.argv[1], read_only=True)
answers = {}
for path in sys.argv[2:]:
    query = open(path).read().rstrip().rstrip(";")
    try:
        columns = [name for name, kind, *_ in con.execute("DESCRIBE " + query).fetchall()]
        rows = con.execute("SELECT " + ", ".join(f'"{c}"::VARCHAR' for c in columns) + f" FROM ({query})").fetchall()
        answers[path] = [columns, sorted(map(str, rows))]
    except Exception as error:
        answers[path] = "failed: " + str(error).splitlines()[0]
views = [name for name, in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()]
for view in sorted(views):
    answers["view " + view] = con.execute(f"SELECT count(*) FROM {view}").fetchone()[0]
print(json.dumps(answers))
"""


def ask(python: str, file: str, queries: list[str]) -> dict:
    done = subprocess.run([python, "-c", ASK, file, *queries], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"opening": done.stderr.strip().splitlines()[-1]}


def main(versions: list[str]) -> int:
    sys.path.insert(0, str(PROJECT))
    from tasks import lineage, query
    from tasks.storage import Root
    from tests.lineage_home import make_home

    with tempfile.TemporaryDirectory() as scratch:
        root = Root(os.environ.get("GRISTMILL_HOME") or f"{scratch}/home")
        if "GRISTMILL_HOME" not in os.environ:
            make_home(root)
        file, queries = lineage.rebuild(root), [str(path) for path in query.canned().values()]
        ours = ask(sys.executable, file, queries)
        wrong = [f"this version: {name}: {answer}" for name, answer in ours.items() if str(answer).startswith("failed")]
        for version in versions:
            python = f"{scratch}/{version}/bin/python"
            subprocess.run([sys.executable, "-m", "venv", f"{scratch}/{version}"], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", f"duckdb=={version}"], check=True)
            theirs = ask(python, file, queries)
            different = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
            wrong += [f"{version}: {name}: {theirs.get(name)}, not {ours.get(name)}" for name in sorted(different)]
            print(f"DuckDB {version}: {len(theirs) - len(different)} of {len(ours)} answers are the same")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["1.0.0"]))

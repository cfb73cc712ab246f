"""`gristmill sizes` and `gristmill convert` as typed."""

import json

from typer.testing import CliRunner

from flows.cli import app


def test_sizes_are_a_table():
    result = CliRunner().invoke(app, ["sizes", "--json", "--gpus", "8", "--vocabulary", "50257"])
    rows = {row["preset"]: row for row in json.loads(result.stdout)}
    assert rows["gpt2-124m"]["parameters"] == "124.4M" and result.exit_code == 0
    assert float(rows["llama-7b"]["zero_3_gib"]) < float(rows["llama-7b"]["zero_1_gib"])


def test_convert_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_HOME", str(tmp_path))
    for arguments, says in ((["run"], "either --to"), (["run", "--to", "gguf", "-o", "x"], "no run 'run'"),
                            (["run", "--from", "nowhere"], "nowhere: no such folder")):
        result = CliRunner().invoke(app, ["convert", *arguments])
        assert result.exit_code == 2 and says in result.stderr

"""`gristmill sizes` and `gristmill convert` as typed."""

import json

from typer.testing import CliRunner

from flows.cli import app
from flows.present import print_mapping


def test_sizes_are_a_table():
    result = CliRunner().invoke(app, ["sizes", "--json", "--gpus", "8", "--vocabulary", "50257"])
    rows = {row["preset"]: row for row in json.loads(result.stdout)}
    assert rows["gpt2-124m"]["parameters"] == "124.4M" and result.exit_code == 0
    assert float(rows["llama-7b"]["zero_3_gib"]) < float(rows["llama-7b"]["zero_1_gib"])


def test_runs_are_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_HOME", str(tmp_path))
    assert "no rows" in CliRunner().invoke(app, ["runs"]).stdout
    for run, summary in (("first", {"step": 350, "loss_last": 3.5, "bits_per_byte": 1.25}), ("second", None)):
        (tmp_path / "trainings" / run).mkdir(parents=True)
        (tmp_path / "trainings" / run / "config.json").write_text(json.dumps({"run": run, "kind": "pretrain"}))
        if summary:
            (tmp_path / "trainings" / run / "summary.json").write_text(json.dumps(summary))
    rows = json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout)
    assert rows[0] == {"run": "first", "kind": "pretrain", "complete": True, "step": 350, "loss": 3.5,
                       "bits_per_byte": 1.25}
    assert rows[1]["run"] == "second" and not rows[1]["complete"] and rows[1]["step"] == 0
    assert "1.25" in CliRunner().invoke(app, ["runs"]).stdout


def test_convert_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_HOME", str(tmp_path))
    for arguments, says in ((["run"], "either --to"), (["run", "--to", "gguf", "-o", "x"], "no run 'run'"),
                            (["run", "--from", "nowhere"], "nowhere: no such folder")):
        result = CliRunner().invoke(app, ["convert", *arguments])
        assert result.exit_code == 2 and says in result.stderr


def test_results_of_several_kinds_are_one_table_of_what_they_share(capsys):
    """As of an evaluation: held-out text by source, and questions."""
    rows = [{"task": "held-out", "all": "all", "value": 1.5}, {"task": "held-out", "source": "web", "value": 1.75},
            {"task": "arc", "questions": 9, "value": 0.25}]
    print_mapping({"run": "r", "results": rows}, False)
    shown = capsys.readouterr().out
    assert "run: r" in shown and "arc" in shown and "1.75" in shown and "questions" not in shown
    print_mapping({"results": rows}, True)
    assert json.loads(capsys.readouterr().out)["results"] == rows

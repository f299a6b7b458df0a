"""`hub compare merge`, beside `hub compare NAME…`."""

import pytest
from helpers import studies
from typer.testing import CliRunner

from hub.cli import app
from hub.compare.result import to_json
from hub.compare.results_file import load


def hub(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def parts(tmp_path):
    """Return the folders of two studies."""
    for name, losses in (("sgd", [2.5, 2.6]), ("adamw_torch", [2.0, 2.1])):
        (tmp_path / name).mkdir()
        one = studies.study({name: losses}, machines=(f"machine of {name}",))
        (tmp_path / name / "results.json").write_text(to_json(one))
    return tmp_path / "sgd", tmp_path / "adamw_torch"


def test_merges_folders_and_files_into_a_report(parts, tmp_path):
    out = tmp_path / "both"
    done = hub("compare", "merge", parts[0], parts[1] / "results.json", "--out", out)
    assert done.exit_code == 0, done.output
    assert f"the report is {out / 'report.html'}" in done.output
    merged = load(out)
    assert merged.contenders == ("sgd", "adamw_torch")
    assert merged.machines == ("machine of sgd", "machine of adamw_torch")
    assert merged.outcomes == tuple(one for part in parts for one in load(part).outcomes)
    assert "machine of sgd" in (out / "report.html").read_text()


def test_what_does_not_belong_together_writes_nothing(parts, tmp_path):
    other = studies.study({"rmsprop": [1.0]}, tasks=(studies.task(fingerprint="other"),))
    parts[1].joinpath("results.json").write_text(to_json(other))
    refused = hub("compare", "merge", *parts, "--out", tmp_path / "both")
    assert refused.exit_code == 2
    assert "the fingerprint of task llama differs" in refused.output
    assert f"{parts[0]} and {parts[1]}" in refused.output
    assert not (tmp_path / "both").exists()


def test_help_names_the_whole_command():
    assert "hub compare merge" in hub("compare", "merge", "-h").output.replace("root", "hub")
    assert "Train the same tasks" in hub("compare", "-h").output


def test_an_optimizer_of_that_name_is_written_with_a_colon():
    refused = hub("compare", "merge:lr=1")
    assert refused.exit_code == 2
    assert "merge" in refused.output
    assert "--out" not in refused.output

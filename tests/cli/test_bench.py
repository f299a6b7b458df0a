"""`hub bench`, as a user sees it."""

import json

import pytest
from typer.testing import CliRunner

import hub
from hub.bench import process
from hub.cli import app

SMALL = ("--shape", "4x8x16", "--shape", "2x5", "--steps", "3", "--threads", "1")


def run(*arguments, status=0, **variables):
    result = CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "80", **variables})
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """One real measurement of names of each kind, one of which cannot be built, with a picture."""
    picture = tmp_path_factory.mktemp("bench") / "bench.png"
    names = ("sgd", "galore_adamw:rank=2", "muon", "lomo", "sgd:momentum=2,lr=-1")
    result = run(*names, *SMALL, "--plot", str(picture), "--json", status=1)
    return names, json.loads(result.stdout), picture


def test_every_name_has_a_row_and_the_reason_why_not(everything):
    names, report, _ = everything
    assert [row["label"] for row in report["rows"]] == list(names)
    *measured, refused = report["rows"]
    assert "momentum=2" in refused["error"] or "lr=-1" in refused["error"]
    assert not any(row["error"] for row in measured)
    assert all(row["ms"] > 0 and row["ratio"] > 0 and row["bandwidth"] > 0 for row in measured[:3])
    assert measured[1]["refresh_ms"] > 0
    assert report["settings"]["shapes"] == [[4, 8, 16], [2, 5]]
    assert report["device"].endswith("CPU, 1 thread")
    assert {"torch", "galore-torch", "python"} <= report["versions"].keys()


def test_the_picture_is_one(everything):
    assert everything[2].read_bytes().startswith(b"\x89PNG")


def test_a_table_fits_into_80_columns(everything, monkeypatch):
    _, report, _ = everything
    from hub.bench import Row

    rows = {row["label"]: row for row in report["rows"]}
    derived = ("mean_ms", "ratio", "reached")

    def stored(_, contender):
        found = rows[contender.label]
        return Row(**{key: value for key, value in found.items() if key not in derived})

    monkeypatch.setattr(process, "row_of", stored)
    output = run(*rows, *SMALL, status=1).stdout
    assert max(map(len, output.splitlines())) <= 80
    for heading in ("ms", "refresh", "×fused", "reached", "peak", "first"):
        assert heading in output
    assert "device" not in output
    assert "sgd:momentum=2,lr=-1: " in output
    monkeypatch.setattr("hub.list_optimizers", lambda: list(rows))
    assert "galore_adamw:rank=2" in run(*SMALL).stdout  # not asked for by name, so no failure


def test_a_crash_is_a_row(tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(
        "import os, torch\n"
        "class Crashing(torch.optim.SGD):\n"
        "    def step(self, closure=None): os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = json.loads(run("crashing:Crashing:lr=0.1", *SMALL, "--json", status=1).stdout)
    assert report["rows"][0]["error"] == "its process was killed by SIGABRT"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sgdd",), "did you mean sgd"),
        (("sgd", "sgd"), "an optimizer is named twice"),
        (("sgd", "--shape", "8"), "where: --shape\n  fix: 512x8x512 is 512 matrices of 8x512"),
        (("sgd", "--shape", "0x8"), "not a number of tensors and their shape"),
        (("sgd", "--shape", "2x8", "--model", "."), "both a model and shapes are given"),
        (("sgd", "--model", "no/such"), "this folder has no Transformers configuration"),
        (("sgd", "--precision", "fp8"), "fix: one of fp32"),
        (("sgd", "--device", "tpu"), "where: --device"),
        (("sgd", "--device", "cuda:99"), "torch sees"),
        (("sgd", "--threads", "0"), "where: --threads\n  fix: 1 or more"),
        (("sgd", "--steps", "0"), "where: --steps"),
        (("sgd", "--plot", "bench.txt"), "where: --plot\n  fix: end it with .png or .svg"),
    ],
)
def test_bad_input_is_explained(arguments, says):
    assert says in run(*arguments, status=2).output


def test_all_names_are_measured_if_none_is_given(monkeypatch):
    from hub.bench import Row

    seen = []

    def failed(_, contender):
        seen.append(contender.label)
        return Row(label=contender.label, error="not here")

    monkeypatch.setattr(process, "row_of", failed)
    assert "nothing was measured" in run(*SMALL, status=1).stdout
    assert seen == hub.list_optimizers()

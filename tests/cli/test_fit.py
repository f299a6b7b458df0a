"""`hub fit`, and the three numbers of `hub plan`."""

import json

import pytest
import torch
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.cli.fit import memory_bytes
from hub.experiments.model import skeleton
from hub.planning.fit import FORMS


def run(*arguments, status=0):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture(scope="module")
def data():
    names = ("adamw_torch", "sgd", "galore_adamw", "muon", "schedule_free_adamw", "prodigy")
    options = ("--memory", "12MiB", "--precision", "bf16", "--json")
    return json.loads(run("fit", *names, *options))


def test_every_number_is_that_of_estimate(data):
    model = skeleton(None, torch.bfloat16)
    for row in data["candidates"]:
        targets = (
            {"target_modules": "all-linear"} if row["name"] in {"galore_adamw", "muon"} else {}
        )
        name = row["name"] + "_layerwise" * row["layerwise"]
        found = hub.estimate(name, model, precision="bf16", **targets, **row["arguments"])
        assert found.total == row["total"]
        assert (found.parameters, found.gradients, found.state) == (
            row["parameters"],
            row["gradients"],
            row["state"],
        )
        assert row["left"] == 12 * 2**20 - found.total


def test_what_takes_least_is_first_and_no_form_is_there_for_nothing(data):
    totals = [(row["stalls"], row["total"]) for row in data["candidates"]]
    assert totals == sorted(totals)
    assert len(totals) > len({row["name"] for row in data["candidates"]}) * 2
    forms = {row["form"] for row in data["candidates"] if row["name"] == "adamw_torch"}
    assert {"", "layerwise", "rounding=split", "rounding=stochastic"} <= forms
    assert forms <= {form.label for form in FORMS}
    fp32 = json.loads(run("fit", "sgd", "--memory", "1GiB", "--json"))["candidates"]
    assert [row["form"] for row in fp32] == ["layerwise", ""]  # nothing to round


def test_a_mesh_divides(data):
    rows = json.loads(run("fit", "sgd", "--memory", "1GiB", "--mesh", "4", "--json"))["candidates"]
    whole = json.loads(run("fit", "sgd", "--memory", "1GiB", "--json"))["candidates"]
    assert rows[-1]["parameters"] < whole[-1]["parameters"] / 3


def test_the_table_has_what_fits_and_says_what_does_not():
    output = run("fit", "sgd", "adamw_torch", "--memory", "16MiB")
    assert max(map(len, output.splitlines())) <= 80
    assert "weights take 7.1 MiB of 16.0 MiB" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["sgd", "7.1", "MiB", "0", "B", "0", "B", "0", "B", "1.7", "MiB"] in lines
    assert "do not fit; the smallest, adamw_torch (layerwise), takes 6.1 MiB more" in output
    assert "takes" in run("fit", "sgd", "--memory", "1MiB", status=1)


@pytest.mark.parametrize(
    ("options", "marked", "legend"),
    [
        pytest.param(("bf16", "--lr", "2e-5"), True, "stalls: at lr=2e-05 most", id="marked"),
        pytest.param(("bf16",), False, "below lr=6.1e-05, most forms without", id="not by default"),
        pytest.param(("bf16", "--lr", "1e-3"), False, "", id="not at this rate"),
        pytest.param(("fp16",), False, "", id="all rounded"),
        pytest.param(("fp32", "--lr", "2e-5"), False, "", id="fp32"),
    ],
)
def test_the_table_says_what_stalls(options, marked, legend):
    output = run("fit", "sgd", "--memory", "1GiB", "--precision", *options)
    assert max(map(len, output.splitlines())) <= 80
    words = " ".join(output.split())
    assert ("sgd stalls" in words) == marked
    assert legend in words
    assert ("round to zero" in words) == bool(legend)


def test_json_says_what_stalls():
    options = ("--memory", "1GiB", "--json", "--precision")
    data = json.loads(run("fit", "sgd", "stable_adamw", *options, "bf16", "--lr", "2e-5"))
    stalling = {(row["name"], row["form"]) for row in data["candidates"] if row["stalls"]}
    assert stalling == {("sgd", ""), ("sgd", "layerwise")}
    assert data["stalls_below"] == 2.0**-14
    assert json.loads(run("fit", "sgd", *options, "fp32"))["stalls_below"] is None


def test_what_cannot_be_counted_is_said():
    options = ("--memory", "1GiB", "--precision", "fp16-mixed")
    output = run("fit", "lomo", "adalomo", *options, status=1)
    assert output == "not counted: lomo, adalomo: it does not train correctly in fp16-mixed\n"


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 * 2**30), ("80GB", 80 * 10**9), ("1.5 MiB", 1572864)]
)
def test_memory_has_a_unit(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--memory", "24"), "where: --memory\n  fix: a number with its unit"),
        (("--memory", "0GiB"), "not an amount of memory"),
        (("--memory", "1GiB", "sgdd"), "did you mean sgd"),
        (("--memory", "1GiB", "--lr", "0"), "not a learning rate\n  where: --lr"),
        (("--memory", "1GiB", "--mesh", "0"), "--mesh 8 is FSDP2 on 8 ranks"),
        (("--memory", "1GiB", "--model", "no/such"), "no Transformers configuration"),
    ],
)
def test_bad_input_is_explained(arguments, says):
    assert says in run("fit", *arguments, status=2)


def test_a_plan_says_what_it_takes():
    model = skeleton(None, torch.float32)
    size = hub.estimate("adafactor", model)
    assert size.state < 2**20
    assert "memory: weights 7.1 MiB, gradients 7.1 MiB, state 67.2 KiB" in run("plan", "adafactor")
    assert "memory:" not in run("plan", "adamw_torch", "--precision", "fp16", status=1)

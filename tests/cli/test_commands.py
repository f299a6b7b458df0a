"""The command line, as a user sees it."""

import json
import subprocess
import sys
import warnings

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.cli.show import example
from hub.experiments.model import skeleton
from hub.names.catalogue import EXTRA_OF

COMMANDS = get_command(app).commands


def run(*arguments, status=0, **variables):
    result = CliRunner().invoke(app, arguments, env=variables)
    assert result.exit_code == status, result.output
    return result.output


def test_list_shows_what_is_installed_and_how_to_get_the_rest(monkeypatch):
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert rows["adamw_torch"]["distribution"] == "hub"
    assert rows["adamw_torch"]["version"] == hub.__version__
    assert rows["cosine"]["kind"] == "scheduler"
    from hub.names.registry import Registry

    monkeypatch.setattr(
        "hub.names.registry._default", Registry(environ={"HUB_DISABLE_PLUGINS": "hub-galore"})
    )
    rows = {row["name"]: row for row in json.loads(run("list", "galore*", "--json"))}
    assert rows["galore_adamw"]["installed"] is False
    assert rows["galore_adamw"]["install"] == 'pip install "hub[galore]"'
    assert "galore_adamw" in run("list", "galore*")


def test_list_has_one_line_for_each_name_plugin_by_plugin():
    lines = run("list", COLUMNS="80").splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line for line in lines if not line.startswith("  ")]
    version = hub.__version__
    assert heads[0] == f"hub {version}"
    assert heads[1:-1] == sorted(heads[1:-1])
    assert heads[-1] == f"hub {version}, learning-rate schedules"
    assert [line.split()[0] for line in lines[lines.index(heads[-1]) + 1 :]] == (
        hub.list_schedulers()
    )
    names = [line.split()[0] for line in lines[: lines.index(heads[-1])] if line not in heads]
    assert sorted(names) == sorted({*hub.list_optimizers(), *EXTRA_OF})  # installed or not
    galore = lines.index(f"hub-galore {version}")
    assert lines[galore + 1].split(maxsplit=1)[0] == "galore_adafactor"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("xyz*", "nothing matches 'xyz*'\n  fix: see `hub list`"),
        ("glore_ad*", "did you mean galore_adamw or galore_adafactor"),
        ("cosin", "did you mean cosine"),
        ("[ab]damw_toch", "did you mean adamw_torch"),
    ],
)
def test_a_pattern_that_matches_nothing_is_told(pattern, says):
    assert says in run("list", pattern, status=1)
    assert run("list", pattern, "--json", status=1).startswith("[]")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_is_short_too(command):
    assert run(*command, "-h") == run(*command, "--help")
    assert "Usage" in run(*command, "-h")


@pytest.mark.parametrize("name", hub.list_optimizers())
def test_show_has_everything_and_its_example_runs(name):
    output = run("show", name)
    for key in hub.describe(name).arguments.model_fields:
        assert key in output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hub.HubWarning)  # of a tiny model in fp32
        exec(compile(example(hub.describe(name)), name, "exec"), {})


def test_every_argument_has_a_meaning():
    for name in hub.list_optimizers():
        for key, field in hub.describe(name).arguments.model_fields.items():
            assert field.description, (name, key)


def test_plan_prints_and_exits_with_1_where_build_would_refuse():
    assert "low_rank" in run("plan", "galore_adamw", "--target-modules", "attn")
    plan = json.loads(run("plan", "adamw_torch", "--optim-args", "lr=0.5", "--json"))
    assert hub.Plan.from_dict(plan).precision.devices == ("meta",)
    output = run("plan", "adamw_torch", "--precision", "fp16", status=1)
    assert "does not train correctly in fp16" in output


def test_plan_takes_a_local_model(tmp_path):
    from transformers import GPT2Config

    config = GPT2Config(
        n_layer=1, n_embd=8, n_head=2, vocab_size=300, bos_token_id=0, eos_token_id=0
    )
    config.save_pretrained(tmp_path)
    assert "transformer.wte.weight" in run("plan", "sgd", "--model", str(tmp_path), "--json")


def test_doctor_is_content():
    output = run("doctor")
    assert "hub-galore" in output
    assert "ok" in output


def test_errors_are_messages_and_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "hub", "show", "adamw_toch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "did you mean adamw_torch" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_runs_the_kit_and_exits_with_1_where_a_promise_is_broken(monkeypatch):
    assert "kept" in run("check", "sgd")
    from hub.testing import promises

    def broken(subject):
        raise AssertionError(f"{subject.name} is broken")

    check = promises.CHECKS["covers"]._replace(function=broken)
    monkeypatch.setattr(promises, "CHECKS", {**promises.CHECKS, "covers": check})
    assert "covers-sgd-bf16: sgd is broken" in run("check", "sgd", status=1)


def test_check_starts_several_processes_if_asked():
    found = run("check", "sgd", "--processes", "2")
    assert all(check in found for check in ("even_shards", "other_ranks"))
    assert "broken" not in found


def test_compare_says_where_the_report_is(tmp_path):
    arguments = ["sgd", "--steps", "2", "--batch-size", "1", "--sequence-length", "16"]
    output = run("compare", *arguments, "--out", str(tmp_path / "new"))
    assert "report.html" in output
    assert (tmp_path / "new" / "report.html").exists()


def test_estimate_counts_as_the_library_does():
    found = json.loads(run("estimate", "adafactor", "adamw_torch", "--mesh", "2x4", "--json"))
    model = skeleton(None, torch.float32)
    for name, sizes in found.items():
        size = hub.estimate(name, model, mesh=(2, 4))
        assert sizes == {**vars(size), "total": size.total}
    table = run("estimate", "adafactor", "--precision", "bf16", COLUMNS="120")
    assert "exchange" not in table
    assert "KiB" in table
    assert "exchange" in run("estimate", "adafactor", "--mesh", "8", COLUMNS="120")


@pytest.mark.parametrize("mesh", ["2x", "x", "0", "-1", "1.5", "2x2x2", "2x4\x1b"])
def test_estimate_refuses_what_is_not_a_mesh(mesh):
    said = run("estimate", "sgd", f"--mesh={mesh}", status=2)
    assert "is not a shape" in said
    assert "--mesh 2x4" in said
    assert "\x1b" not in said

"""What the page of sweeps shows is what happens."""

import json
import re

import pytest
import torch
import yaml
from typer.testing import CliRunner

import hub
from hub.cli import app
from tests.docs.conftest import DOCS, Classifier, blocks

optuna = pytest.importorskip("optuna", reason="Optuna is optional: only those who sweep have it")
TEXT = (DOCS / "sweeps.md").read_text()


def train(model, optimizer):
    features, label = torch.ones(4, 8), torch.tensor([0, 1, 2, 0])
    model(features, label).backward()
    optimizer.step()
    optimizer.zero_grad()
    return model(features, label).item()


def test_the_page_runs(capsys):
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    namespace = {"model": Classifier(), "train": train}
    for number, block in enumerate(blocks(TEXT)):
        exec(compile(block, f"sweeps.md, block {number}", "exec"), namespace)
    optuna.logging.set_verbosity(level)
    study = namespace["study"]
    assert len(study.trials) == 8
    assert capsys.readouterr().out == f"{namespace['space'].arguments(study.best_params)}\n"


def printed(*arguments):
    result = CliRunner().invoke(app, ["search-space", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("line", blocks(TEXT, "sh")[0].splitlines())
def test_commands_run(line):
    program, command, *arguments = line.split()
    assert (program, command) == ("hub", "search-space")
    assert json.loads(printed(*arguments))["dimensions"]


def test_the_study_is_one_that_hub_compare_takes():
    (line,) = blocks(TEXT, "sh")[1].splitlines()
    program, command, *arguments = line.split()
    assert (program, command) == ("hub", "compare")
    options = {word for word in arguments if word.startswith("--")}
    options |= set(re.findall(r"`?(--[a-z-]+)", TEXT)) - {"--argument", "--optim-args", "--format"}
    helped = CliRunner().invoke(app, ["compare", "-h"], env={"COLUMNS": "200"}).output
    assert {one for one in options if f"{one} " not in helped} == set()


def test_the_sweep_is_what_the_command_prints():
    (shown,) = blocks(TEXT, "yaml")
    assert shown.endswith(printed("adamw_torch", "--format", "wandb"))


@pytest.mark.parametrize("name", ["muon", "prodigy"])
def test_sweeps_are_read_back_as_numbers(name):
    space = hub.search_space(name)
    read = yaml.safe_load(printed(name, "--format", "wandb"))
    assert read == {"parameters": space.wandb()}


def test_the_command_prints_the_space():
    shown = printed("galore_adamw", "--argument", "scale", "--optim-args", "rank=8")
    assert json.loads(shown) == hub.search_space("galore_adamw", "scale").to_dict()


def test_an_empty_sweep_is_yaml():
    shown = printed("sgd", "--optim-args", "lr=1, weight_decay=0", "--format", "wandb")
    assert yaml.safe_load(shown) == {"parameters": {}}

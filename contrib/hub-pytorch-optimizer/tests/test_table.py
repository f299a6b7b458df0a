"""The table is what the package has, and the metadata and pages are what the table has."""

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
import pytorch_optimizer
import torch
from hub_pytorch_optimizer import factory
from hub_pytorch_optimizer.hooks import TABLE

import hub
from hub.testing.upstream import Wrapped, builds_quietly, equals_class, imports_nothing

ROWS = json.loads(TABLE.read_text())
FOLDER = Path(__file__).parents[1]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])


def upstream_of(row):
    return getattr(pytorch_optimizer, row["class"].partition(":")[2])


def test_the_entry_points_are_the_names():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["hub.optimizers"]
    assert points == {row["name"]: "hub_pytorch_optimizer.hooks" for row in ROWS}


def test_a_name_is_that_of_the_class():
    for row in ROWS:
        assert row["name"] == "po_" + upstream_of(row).__name__.lower()


@every_row
def test_the_arguments_and_defaults_are_upstreams(row):
    parameters = inspect.signature(upstream_of(row)).parameters
    for name, field in hub.describe(row["name"]).own_arguments.model_fields.items():
        assert field.default == parameters[name].default, name
        assert field.description


@every_row
def test_the_class_is_upstreams(row):
    model = torch.nn.Linear(4, 4)
    assert isinstance(hub.build(row["name"], model), upstream_of(row))


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_pytorch_optimizer.hooks")


def test_the_first_build_leaves_the_process_as_it_is():
    builds_quietly("po_lion")


@pytest.mark.parametrize("name", ["po_lion", "po_adabelief", "po_adagc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")
def test_it_is_the_upstream_optimizer(name, dtype):
    (row,) = (row for row in ROWS if row["name"] == name)
    arguments = {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1}
    equals_class(Wrapped(name, upstream_of(row), arguments), dtype=dtype)


def test_a_class_that_fails_is_not_offered():
    assert not {"po_adopt", "po_laprop", "po_galore"} & {row["name"] for row in ROWS}
    with pytest.raises(hub.UnknownOptimizerError):
        hub.build("po_adopt", torch.nn.Linear(2, 2))


def test_python_of_the_readme_runs():
    text = (FOLDER / "README.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})


def test_the_factory_has_only_upstreams_classes():
    assert factory.Lion is factory.Lion
    with pytest.raises(AttributeError):
        _ = factory.NoSuchClass


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"betas": (0.9, 0.9, 0.9)}, "betas"),
        ({"weight_decay": True}, "number"),
        ({"no_such": 1}, "no_such"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build("po_lion", torch.nn.Linear(2, 2), **arguments)

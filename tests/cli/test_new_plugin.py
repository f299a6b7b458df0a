"""`hub new-plugin`: what it writes, and what it refuses."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

import hub
from hub.building.build import build_prepared
from hub.cli import app
from hub.cli.scaffold.fields import fields_of
from hub.names.registry import Registry, Source
from hub.planning.call import BuildCall
from hub.planning.prepare import prepare

MODULE = '''
import math
import typing
from collections.abc import Callable, Mapping, Sequence

import torch


def peculiar(
    groups,
    lr: float | torch.Tensor = 1,
    betas: tuple[float, float, float] = (0.9, 0.99, 0.999),
    beta3=None,
    eps: tuple[float, float] = (1e-30, 1e-3),
    momentum: float = 0,
    warmup=7,
    kind: typing.Literal["a rather long value", "another of that length", "a third"] = "a third",
    mode: typing.Literal[1, 2] | None = None,
    coefficients: Sequence[float] = (3.4445, -4.775, 2.0315, 3.4445, -4.775, 2.0315, 3.44),
    names: list[str] = ["it's", 'a "name"', "with, a comma (and more)", "[brackets]", "one more"],
    growth=math.inf,
    table: Mapping[str, int] | None = None,
    callback: Callable[[], None] | None = None,
    flag: typing.Optional[bool] = None,
    either: int | float | str = 3,
    sizes=(1, 2.5),
    one=(1,),
    *,
    schema=1,
    dtype=torch.float32,
    **others,
):
    """Return SGD.

    Args:
        warmup (float, optional): Steps.
    """
    return torch.optim.SGD(groups, lr=float(lr))


def requires(groups, rate: float, count: int):
    return torch.optim.SGD(groups, lr=rate)


def unwritable(groups, _hidden):
    raise AssertionError


def takes_a_model(*, model):
    raise AssertionError


def without_arguments(groups, *others):
    return torch.optim.SGD(groups, lr=0.1, weight_decay=0.0)


class Strings(torch.optim.SGD):
    def __init__(self, params: "NoSuchName", lr: "float" = 0.5, weight_decay: float = 0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)


CONSTANT = 3
'''
METADATA = """Metadata-Version: 2.4
Name: peculiar-optim
Version: 1.2.3+local
License-Expression: MIT
Project-URL: Source, https://example.org/peculiar
"""
FIELDS = {
    "lr": ("LearningRate", "1.0"),
    "betas": ("tuple[Beta, Beta, Beta]", "(0.9, 0.99, 0.999)"),
    "beta3": ("Beta | None", "None"),
    "eps": ("tuple[float, float]", "(1e-30, 0.001)"),
    "momentum": ("float", "0.0"),
    "warmup": ("float", "7.0"),
    "kind": ('Literal["a rather long value", "another of that length", "a third"]', '"a third"'),
    "mode": ("Literal[1, 2] | None", "None"),
    "coefficients": (
        "tuple[float, ...]",
        "(3.4445, -4.775, 2.0315, 3.4445, -4.775, 2.0315, 3.44)",
    ),
    "names": (
        "tuple[str, ...]",
        """("it's", 'a "name"', "with, a comma (and more)", "[brackets]", "one more")""",
    ),
    "growth": ("float", "Field(default=math.inf, allow_inf_nan=True)"),
    "table": ("dict[str, int] | None", "None"),
    "flag": ("bool | None", "None"),
    "either": ("float | str", "3.0"),
    "sizes": ("tuple[int, float]", "(1, 2.5)"),
    "one": ("tuple[int]", "(1,)"),
}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """Install a package of peculiar optimizers."""
    folder = tmp_path / "installed"
    metadata = folder / "peculiar_optim-1.2.3.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(METADATA)
    (metadata / "top_level.txt").write_text("peculiar_optim\n")
    (folder / "peculiar_optim.py").write_text(MODULE)
    (folder / "broken_optim.py").write_text("1 / 0")
    (folder / "stray_optim.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("hub.names.registry._default", Registry())
    yield
    for name in ("peculiar_optim", "stray_optim"):
        sys.modules.pop(name, None)


def new_plugin(*arguments, status=0):
    result = CliRunner().invoke(app, ["new-plugin", *map(str, arguments)], env={"COLUMNS": "1000"})
    assert result.exit_code == status, result.output
    return result.output


def registry_of(folder):
    """Return a registry that has the plugin of a project."""
    (path,) = folder.glob("src/*/hooks.py")
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    registry = Registry()
    return registry, registry.adopt(Source("hub-new", path.parent.name), module)


def spec_of(folder):
    (spec,) = registry_of(folder)[1].optimizers.values()
    return spec


def test_a_project_is_written(tmp_path):
    folder = tmp_path / "new"
    output = new_plugin("torch.optim:NAdam", "--out", folder)
    assert f"wrote {folder}" in output
    assert f"pip install -e {folder}, and hub check nadam" in output
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "pyproject.toml",
        "src/hub_nadam/__init__.py",
        "src/hub_nadam/hooks.py",
        "tests/test_conformance.py",
    }
    requires = f'"hub>=2026.11",\n    "torch>={version("torch").partition("+")[0]}",'
    assert requires in (folder / "pyproject.toml").read_text()
    assert 'conformance("nadam")' in (folder / "tests/test_conformance.py").read_text()
    assert 'hub.build("nadam", model)' in (folder / "README.md").read_text()


def test_a_project_is_written_here_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "wrote hub-my-adam" in new_plugin("torch.optim:NAdam", "--name", "my_adam")
    assert (tmp_path / "hub-my-adam/src/hub_my_adam/hooks.py").exists()


def test_the_spec_is_that_of_the_class(tmp_path):
    new_plugin("torch.optim:NAdam", "--name", "nesterov_adam", "--out", tmp_path / "new")
    spec = spec_of(tmp_path / "new")
    assert (spec.name, spec.package) == ("nesterov_adam", "torch")
    assert spec.factory == "torch.optim:NAdam"
    assert spec.summary == "Implements NAdam algorithm."
    defaults = {key: field.default for key, field in spec.arguments.model_fields.items()}
    assert defaults == {
        "lr": 2e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "momentum_decay": 4e-3,
        "decoupled_weight_decay": False,
        "foreach": None,
        "maximize": False,
        "capturable": False,
        "differentiable": False,
        "rounding": None,
        "offload": None,
    }
    assert not spec.traits
    assert set(spec.without_effect) == {"foreach", "differentiable", "capturable"}


def test_metadata_comes_from_the_distribution(tmp_path):
    new_plugin("peculiar_optim:peculiar", "--out", tmp_path / "new")
    spec = spec_of(tmp_path / "new")
    assert (spec.package, spec.license) == ("peculiar-optim", "MIT")
    assert spec.homepage == "https://example.org/peculiar"
    assert '"peculiar-optim>=1.2.3",' in (tmp_path / "new/pyproject.toml").read_text()


def test_unusual_arguments_become_types():
    from peculiar_optim import peculiar

    fields, left_out = fields_of(peculiar, "peculiar")
    assert {field.name: (field.type, field.default) for field in fields} == FIELDS
    assert left_out == {
        "callback": "its type is not known",
        "schema": "pydantic models use the name",
        "dtype": "its default cannot be written",
        "others": "it stands for any others",
    }


def test_annotations_that_cannot_be_evaluated_leave_the_defaults():
    from peculiar_optim import Strings

    fields, _ = fields_of(Strings, "Strings")
    assert [(field.type, field.default) for field in fields] == [
        ("LearningRate", "0.5"),
        ("WeightDecay", "0.0"),
    ]


def test_a_class_with_modes_is_declared_to_have_them(tmp_path):
    new_plugin("schedulefree:AdamWScheduleFree", "--out", tmp_path / "new")
    assert spec_of(tmp_path / "new").traits == {hub.Trait.TRAIN_EVAL_MODES}


def test_what_is_left_out_is_told(tmp_path):
    output = new_plugin("peculiar_optim:peculiar", "--out", tmp_path / "new")
    assert "left out 'dtype': its default cannot be written" in output


def test_required_arguments_stay_required(tmp_path):
    new_plugin("peculiar_optim:requires", "--name", "needy", "--out", tmp_path / "new")
    fields = spec_of(tmp_path / "new").arguments.model_fields
    assert [key for key, field in fields.items() if field.is_required()] == ["rate", "count"]
    readme = (tmp_path / "new/README.md").read_text()
    assert 'hub.build("needy", model, rate=..., count=...)' in readme


TARGETS = [
    "torch.optim:NAdam",
    "torch.optim:Rprop",
    "torch.optim:ASGD",
    "peculiar_optim:peculiar",
    "peculiar_optim:requires",
    "peculiar_optim:without_arguments",
    "peculiar_optim:Strings",
    "schedulefree:AdamWScheduleFree",
    "galore_torch:GaLoreAdamW",
]


def test_what_is_written_is_formatted_and_checked(tmp_path):
    for number, target in enumerate(TARGETS):
        new_plugin(target, "--out", tmp_path / f"new{number}", "--name", f"new_{number}")
    sources = [*tmp_path.glob("new*")]
    for command in ("check", "format --check --diff"):
        ruff = [sys.executable, "-m", "ruff", *command.split(), "--isolated", *sources]
        done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_what_is_written_is_typed(tmp_path):
    new_plugin("peculiar_optim:peculiar", "--out", tmp_path / "new")
    root = Path(hub.__file__).parents[1]
    # mypy finds what is installed, and refuses a path to it.
    path = {} if root.name == "site-packages" else {"MYPYPATH": str(root)}
    (tmp_path / "mypy.ini").write_text("[mypy]\nplugins = pydantic.mypy\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", tmp_path / "new/src"],
        env={**os.environ, **path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_new_plugin_builds_its_class(tmp_path, monkeypatch):
    new_plugin("torch.optim:NAdam", "--out", tmp_path / "new")
    _, plugin = registry_of(tmp_path / "new")
    monkeypatch.setattr(Registry, "plugin", lambda *_: plugin)
    monkeypatch.setattr(Registry, "optimizer", lambda *_: plugin.optimizers["nadam"])
    optimizer = build_prepared(prepare(BuildCall("nadam", nn.Linear(2, 2), momentum_decay=0.5)))
    assert type(optimizer).__name__ == "NAdam"
    assert optimizer.param_groups[0]["momentum_decay"] == 0.5


REFUSED = [
    (["torch.optim.NAdam"], "write torch.optim:NAdam"),
    (["NAdam"], "write module:NAdam"),
    (["torch.optim:"], "does not name a class in a module"),
    (["no_such_module:Adam"], "install what it belongs to"),
    (["broken_optim:Adam"], "cannot be imported: ZeroDivisionError"),
    (["torch.optim:NAdm"], "did you mean NAdam"),
    (["peculiar_optim:CONSTANT"], "has no class or function 'CONSTANT'"),
    (["stray_optim:peculiar"], "`pip install -e` will do"),
    (["torch.optim:Optimizer"], "name an optimizer class"),
    (["torch.nn:Linear"], "name an optimizer class"),
    (["torch.optim:Muon"], "Muon only supports 2D parameters.*write a function"),
    (["torch.optim:LBFGS"], "doesn't support per-parameter options.*write a function"),
    (["torch:is_tensor"], "returned a bool.*write a function"),
    (["peculiar_optim:unwritable"], "requires '_hidden', which hub cannot give it"),
    (["peculiar_optim:takes_a_model"], "does not take parameter groups as its first argument"),
    (["torch.optim:SGD"], "hub has 'sgd' already.*such as --name my_sgd"),
    (["torch.optim:NAdam", "--name", "Bad-Name"], "where: --name"),
    (["torch.optim:NAdam", "--name", "nadam_layerwise"], "where: --name"),
    (["torch.optim:NAdam", "--out", "full"], "full exists.*with --out DIR"),
    (["torch.optim:NAdam", "--out", "full/file"], "full/file exists"),
    (["torch.optim:NAdam", "--out", "full/file/deeper"], "cannot be written"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_what_cannot_work_is_refused_and_nothing_written(arguments, says, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    (folder / "full").mkdir(parents=True)
    (folder / "full/file").touch()
    monkeypatch.chdir(folder)
    output = new_plugin(*arguments, status=2)
    assert "where: " in output
    assert re.search(says, output.replace("\n", " ")), output
    assert [path.name for path in folder.rglob("*")] == ["full", "file"]


def test_a_project_that_is_installed_editable_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    metadata = folder / "stray-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1\n")
    origin = {"url": (tmp_path / "installed").as_uri(), "dir_info": {"editable": True}}
    (metadata / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(folder)
    new_plugin("stray_optim:Strings", "--out", tmp_path / "new")
    assert '"stray>=1",' in (tmp_path / "new/pyproject.toml").read_text()

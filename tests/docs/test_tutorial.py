"""`write-a-plugin.md` shows its example as it is, and the design leaves no hook out.

`tests/installation/test_example.py` installs the example and runs it.
"""

import re
import shlex
import sys
import tomllib
import types
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, distribution, entry_points

import pytest
import torch
from helpers.shown import COMMANDS, DOCS, PAGE, assert_shown, files
from typer.testing import CliRunner

import hub
from hub import errors, hookspecs
from hub.building.build import build_prepared
from hub.cli import app
from hub.names.registry import Registry
from hub.planning.call import BuildCall
from hub.planning.prepare import prepare
from hub.testing import cases, run

EXAMPLE = DOCS / "tutorial" / "hub-signum"


def test_every_file_is_shown_once_and_as_it_is():
    expected = {
        path.relative_to(EXAMPLE).as_posix(): path.read_text(encoding="utf-8")
        for path in EXAMPLE.rglob("*")
        if path.suffix in {".py", ".toml"}
    }
    assert files("hub-signum") == expected


def test_the_example_needs_little_of_hub():
    hooks = (EXAMPLE / "src" / "hub_signum" / "hooks.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\bhub\.(\w+)", hooks))
    assert used == {"hookimpl", "OptimizerSpec", "Trait"}
    assert "hub" not in (EXAMPLE / "src" / "hub_signum" / "signum.py").read_text(encoding="utf-8")


def test_the_first_plugin_has_twelve_lines():
    hooks = files("hub-adamax")["src/hub_adamax/hooks.py"]
    assert sum(bool(line) for line in hooks.splitlines()) == 12


@pytest.fixture
def adamax(tmp_path, monkeypatch):
    """Install the first plugin, beside hub and nothing else."""
    shown = files("hub-adamax")
    project = tomllib.loads(shown["pyproject.toml"])["project"]
    metadata = tmp_path / "hub_adamax-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    for group, points in project["entry-points"].items():
        lines = [f"{name} = {value}" for name, value in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    package = tmp_path / "hub_adamax"
    package.mkdir()
    (package / "hooks.py").write_text(shown["src/hub_adamax/hooks.py"])
    monkeypatch.syspath_prepend(tmp_path)
    others = {point.dist.name for point in entry_points(group="hub.optimizers")}
    disabled = ",".join(others - {"hub", "hub-adamax"})
    registry = Registry(environ={"HUB_DISABLE_PLUGINS": disabled})
    monkeypatch.setattr("hub.names.registry._default", registry)


@pytest.mark.usefixtures("adamax")
@pytest.mark.parametrize("command", [one for one in COMMANDS if "check" not in one])
def test_what_a_command_prints_is_shown(command, tmp_path, monkeypatch):
    """`hub check` is for installed plugins, in tests/installation."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command)[1:], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert_shown(command, result.output)


@pytest.mark.usefixtures("adamax")
def test_other_commands_run():
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert [line.split()[0] for line in lines] == ["pip", "hub"]
    result = CliRunner().invoke(app, shlex.split(lines[1])[1:])
    assert result.exit_code == 0, result.output


def broken(tmp_path, monkeypatch, *, hooks=(), **changes):
    """Return a registry with the plugin `x`, and what is wrong with it."""
    spec = replace(hub.describe("sgd"), **{"name": "x", "factory": "torch.optim:SGD", **changes})

    @hub.hookimpl
    def hub_register_optimizers():
        return [spec]

    module = types.ModuleType("hub_x")
    vars(module).update({"hub_register_optimizers": hub_register_optimizers, **dict(hooks)})
    monkeypatch.setitem(sys.modules, "hub_x", module)
    return registry_of("hub-x")


def registry_of(*names, module="hub_x"):
    points = []
    for name in names:
        point = EntryPoint("x", module, "hub.optimizers")
        vars(point)["dist"] = types.SimpleNamespace(metadata={"Name": name})
        points.append(point)
    return Registry(points)


def reordered(groups, **_):
    groups[0]["params"] = groups[0]["params"][::-1]
    return torch.optim.SGD(groups)


def unmarked():
    raise AssertionError


MESSAGES = {
    "there is no optimizer 'x'": lambda _: registry_of(),
    "hub-x does not load: …": lambda _: registry_of("hub-x", module="no_such_module"),
    "hub-x contradicts itself: …": lambda make: make(name="y"),
    "… has 'momentun', which …": lambda make: make(per_group=frozenset({"momentun"})),
    "nothing builds 'x'": lambda make: make(factory=""),
    "… is not marked as a hook": lambda make: make(hooks={"hub_build_optimizer": unmarked}.items()),
    "x cannot import its package: …": lambda make: make(factory="no_such_module:X"),
    "the factory of x …": lambda make: make(factory=f"{__name__}:reordered"),
    "'x' is claimed by two distributions": lambda _: registry_of("hub-x", "hub-y"),
}
"""What the last chapter says that hub says, and what makes it."""


@pytest.mark.parametrize("message", MESSAGES)
def test_what_hub_says_of_a_broken_plugin(message, tmp_path, monkeypatch):
    monkeypatch.setattr("hub.names.registry.unmet_requirements", lambda _: [])
    registry = MESSAGES[message](partial(broken, tmp_path, monkeypatch))
    with pytest.raises(hub.HubError) as raised:
        build_prepared(
            prepare(
                BuildCall("x", torch.nn.Sequential(*map(torch.nn.Linear, (2, 2), (2, 2)))),
                registry=registry,
            )
        )
    pattern = re.escape(message).replace("…", ".*")
    assert re.search(pattern, raised.value.what)


def test_all_messages_of_the_page_are_tried():
    table = PAGE.partition("## What to do if it breaks")[2]
    assert re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE) == list(MESSAGES)


def test_the_design_has_every_hook_with_its_arguments():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    for name, hook in vars(hookspecs).items():
        if name.startswith("hub_"):
            arguments = hook.__code__.co_varnames[: hook.__code__.co_argcount]
            assert f"`{name}({', '.join(arguments)})`" in text


def test_the_design_has_every_error():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    for error in errors.HubError.__subclasses__():
        assert f"| `{error.__name__}` |" in text


def test_the_programs_of_the_design_run():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    for program in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(program, {})


def test_the_changelog_begins_with_this_version():
    text = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([^]]+)\]", text, re.MULTILINE)[0] == hub.__version__


def test_the_schedule_of_the_guide_keeps_its_promises(monkeypatch):
    """But for what it declares, as torch's own class does not keep that."""
    programs = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("guide_schedule")
    exec(next(p for p in programs if "SchedulerSpec" in p), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    point = EntryPoint("one_cycle", module.__name__, "hub.schedulers")
    vars(point)["dist"] = distribution("hub")
    registry = Registry([point])
    optimizers = entry_points(group="hub.optimizers")
    monkeypatch.setattr("hub.names.registry._default", Registry([point, *optimizers]))
    command = re.search(r"`hub (lr one_cycle .*?)`", PAGE)[1]
    assert CliRunner().invoke(app, command.split()).exit_code == 0
    failed = set()
    for case in cases(["one_cycle"], registry=registry):
        try:
            run(case.check, case.subject)
        except Exception:  # noqa: BLE001 - as the command does
            failed.add((case.check, bool(case.known)))
    assert failed == {("late_group_schedule", True)}

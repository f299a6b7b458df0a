"""Nothing from outside reaches a terminal as anything but text."""

import copy
import io
import pickle
import re
import traceback
from importlib import metadata

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.names.registry import Registry
from hub.terminal import Terminal, literal
from hub.text import clean, shown

EVIL = "\x1b[31m\x1b]8;;evil\x07\x9b5m\u202e\u200b[bold]"
"""Color, a link, the same as one 8-bit character, writing from right to left, and rich's markup."""
WRITTEN = r"\x1b[31m\x1b]8;;evil\x07\x9b5m\u202e\u200b[bold]"
NAME = "evil" + EVIL
pytestmark = pytest.mark.filterwarnings("ignore:an observer is ignored")
HOOKS = f"""
import hub
from hub.builtin.schedule_hooks import hub_register_schedulers as _schedules
from hub.builtin.hooks import hub_register_optimizers as _optimizers
from dataclasses import replace
from pydantic import BaseModel, Field
EVIL = {EVIL!r}
sgd = next(spec for spec in _optimizers() if spec.name == "sgd")
constant = next(spec for spec in _schedules() if spec.name == "constant")

class Arguments(BaseModel):
    lr: float = Field(0.1, description="rate" + EVIL)
    weight_decay: float = 0.0
    label: str = EVIL

@hub.hookimpl
def hub_register_optimizers():
    yield replace(sgd, name="evil" + EVIL, summary=EVIL, arguments=Arguments, package=EVIL,
        per_group=frozenset({{"lr", "weight_decay"}}), without_effect={{}}, contrasts={{}},
        license=EVIL, paper=EVIL, homepage=EVIL, notes=(EVIL,), example_arguments={{"label": EVIL}})

@hub.hookimpl
def hub_register_schedulers():
    yield replace(constant, name="evil" + EVIL, summary=EVIL)

@hub.hookimpl
def hub_validate_precision():
    levels = hub.Level.NOTE, hub.Level.WARN
    return [hub.Finding(level=level, what=EVIL, fix=EVIL) for level in levels]

@hub.hookimpl
def hub_build_optimizer():
    raise ValueError(EVIL)
"""


@pytest.fixture(autouse=True)
def evil(tmp_path, monkeypatch):
    """Install a distribution whose metadata and hooks are full of control characters."""
    folder = tmp_path / f"{NAME}-1.dist-info"
    folder.mkdir()
    header = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1{EVIL}\n"
    (folder / "METADATA").write_text(header, encoding="utf-8")
    groups = "".join(
        f"[hub.{kind}]\n{NAME} = evil_hooks\n" for kind in ("optimizers", "schedulers")
    )
    broken = f"[hub.plugins]\nbroken{EVIL} = evil_module{EVIL}\n"
    (folder / "entry_points.txt").write_text(groups + broken, encoding="utf-8")
    (tmp_path / "evil_hooks.py").write_text(HOOKS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    others = {point.dist.name for point in metadata.entry_points(group="hub.optimizers")}
    disabled = ",".join(others - {"hub", NAME})
    registry = Registry(environ={"HUB_DISABLE_PLUGINS": disabled})
    monkeypatch.setattr("hub.names.registry._default", registry)


def hostile(text):
    """Return what a text has that is neither printed nor a new line."""
    return sorted({char for char in text if not char.isprintable() and char != "\n"})


ASKED = {
    "list": ("list", f"{NAME[:4]}*"),
    "show": ("show", NAME),
    "doctor": ("doctor",),
    "plan": ("plan", NAME),
    "check": ("check", NAME),
    "lr": ("lr", NAME, "--steps", "3"),
    "json": ("list", "evil*", "--json"),
}


@pytest.mark.parametrize("command", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("colored", [False, True], ids=["pipe", "terminal"])
def test_a_command_prints_what_a_hostile_plugin_says_as_text(command, colored, monkeypatch):
    if colored:
        monkeypatch.setenv("FORCE_COLOR", "1")
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, SystemExit | None), result.exception
    # rich's own: colors, and what a progress bar does to its line
    own = re.compile(r"\x1b\[\??[\d;]*[A-Za-z]|\r") if colored else re.compile("(?!)")
    assert not hostile(own.sub("", result.output))
    for sign in ("\x1b[31m\x1b]8", "\x1b[5m"):
        assert sign not in result.output
    # Where columns are narrow, a text is folded or cut.
    said = re.sub(r"[\s│┃…]|\x1b\[[\d;]*m", "", result.output)
    assert re.search(r"\\x1b|\\u001b|\\x1", said)


def test_a_hostile_name_is_compared_as_text():
    result = CliRunner().invoke(app, ["compare", f"no{EVIL}"], env={"COLUMNS": "1000"})
    assert result.exit_code == 2
    assert WRITTEN in result.output
    assert not hostile(result.output)


def test_an_error_is_text_wherever_it_is_printed():
    error = hub.PluginError(EVIL, where=EVIL, fix=EVIL, plugin=EVIL)
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (one.what, one.where, one.fix, one.plugin) == (WRITTEN,) * 4
        assert not hostile("".join(traceback.format_exception(one)))
    with pytest.raises(hub.PluginError) as raised:
        hub.build(NAME, nn.Linear(2, 2))
    assert WRITTEN in str(raised.value)
    assert not hostile(str(raised.value))


def test_a_warning_is_text(recwarn):
    hub.plan("sgd", nn.Linear(2, 2))
    assert str(hub.HubWarning(EVIL)) == WRITTEN


def test_a_plan_and_groups_are_text_in_any_console():
    model = nn.ModuleDict({f"a{EVIL}".replace(".", ""): nn.Linear(2, 2)})
    plan = hub.plan(NAME, model, param_rules={rf"a{re.escape(EVIL)}.*": {"lr": 1.0}})
    groups = hub.describe_groups(hub.build("sgd", model))
    for renderable in (plan, groups):
        strangers = io.StringIO()
        Console(file=strangers, width=400, force_terminal=True, color_system=None).print(renderable)
        for text in (str(renderable), strangers.getvalue()):
            assert not hostile(re.sub(r"\x1b\[[\d;]*m", "", text))
        assert "[bold]" in strangers.getvalue()


def test_a_terminal_prints_its_own_colors_only():
    out = io.StringIO()
    console = Terminal(file=out, width=400, force_terminal=True, color_system="standard")
    table = Table("x")
    table.add_row(EVIL)
    table.add_row(literal(EVIL, "red"))
    console.print(table, EVIL, style="green")
    plain = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert not hostile(plain)
    assert plain.count(WRITTEN) == 3
    assert "\x1b[31m" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain [bold] é 漢 🙂", "plain [bold] é 漢 🙂"),
        ("two\nlines", "two\nlines"),
        ("a\tb\r", r"a\tb\r"),
        (EVIL, WRITTEN),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_not_printed_is_written_out(text, written):
    assert clean(text) == written
    assert clean(written) == written


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a\x1b", r"'a\x1b'"),
        (Unspeakable(), "<Unspeakable>"),
        (10**5000, "<int>"),
        ("x" * 200, "'" + "x" * 78 + "…"),
        (escape(EVIL), None),
    ],
    ids=["escaped", "without repr", "too many digits", "too long", "markup"],
)
def test_a_value_is_shown_in_one_line(value, written):
    assert shown(value) == (written or shown(value))
    assert not hostile(shown(value))

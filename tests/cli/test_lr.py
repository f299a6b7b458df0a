"""`hub lr`, as a user sees it."""

import io
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

import hub
from hub.cli import app, drawing
from hub.cli.lr import curve


def run(*arguments):
    return CliRunner().invoke(app, ["lr", *arguments], env={"COLUMNS": "60"})


def test_a_pipe_gets_plain_text():
    result = run("linear", "--warmup", "100", "--lr", "0.25")
    assert result.exit_code == 0
    assert result.output.isascii()
    lines = result.output.splitlines()
    assert lines[0] == "linear"
    assert lines[1].startswith("0.25  ")
    assert lines[-2].startswith("   0 *")
    assert lines[-1].endswith("step 1000")
    assert len(lines) == drawing.HEIGHT + 2
    assert max(map(len, lines)) <= 60


def test_a_terminal_gets_braille():
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    drawing.show([0.0, 1.0, 0.0], "title", console)
    drawn = console.file.getvalue()
    assert any(0x2800 < ord(letter) < 0x2900 for letter in drawn)
    assert "*" not in drawn


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, 2.0], ["  *", " * ", "*  "]),
        ([2.0, 0.0, 0.0], ["*  ", " * ", " **"]),
        ([0.0, 0.0, 0.0], ["   ", "   ", "***"]),
        ([1.0] * 9, ["***", "   ", "   "]),
    ],
)
def test_dots_are_where_the_values_are(values, expected):
    assert drawing.stars(values, 3, 3) == expected


def test_a_character_of_braille_has_two_by_four_dots():
    assert drawing.braille([0.0, 3.0], 1, 1) == ["⡸"]
    assert drawing.braille([1.0, 1.0, 0.0, 0.0], 2, 1) == ["⠉⣆"]


def test_the_curve_is_the_schedules():
    linear = curve("linear", {}, steps=10, warmup=2, lr=0.5)
    assert linear == [
        0.5 * factor for factor in (0, 0.5, 1, *(left / 8 for left in range(7, -1, -1)))
    ]
    assert curve("polynomial", {"power": "2"}, steps=10, warmup=0, lr=1.0)[5] == pytest.approx(0.25)
    assert curve("adafactor", {}, steps=3, warmup=0, lr=0.5) == [0.0, 1e-6, 2e-6, 3e-6]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_example_metric_improves_and_then_does_not(mode):
    arguments = {"patience": "0", "min_lr": "1e-9", "mode": mode, "factor": "0.5"}
    rates = curve("greedy", arguments, steps=8, warmup=0, lr=0.01)
    assert rates == [0.01 * 2.0**power for power in (0, 1, 2, 3, 4, 5, 4, 3, 2)]
    assert "improves for the first half" in run("greedy").output.replace("\n", " ")


@pytest.mark.parametrize("name", hub.list_schedulers())
def test_every_schedule_is_drawn_from_its_own_arguments(name):
    needed = {
        "cosine_with_min_lr": ["min_lr=1e-4"],
        "cosine_warmup_with_min_lr": ["min_lr=1e-4"],
        "warmup_stable_decay": ["num_decay_steps=5", "decay_type=linear"],
    }
    result = run(name, *needed.get(name, ()), "--steps", "20")
    assert result.exit_code == 0, result.exception
    assert result.output.startswith(name)


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml")], ids=["png", "svg"]
)
def test_out_is_a_picture(suffix, begins, tmp_path):
    path = tmp_path / f"curve{suffix}"
    assert str(path) in run("linear", "--out", str(path)).output.replace("\n", "")
    assert path.read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["linea"], "did you mean linear"),
        (["cosine", "num_cycle=2"], "did you mean 'num_cycles'"),
        (["cosine", "num_cycles"], "has no value"),
        (["cosine", "num_cycles=1", "num_cycles=2"], "given twice"),
        (["linear", "--warmup", "2000"], "do not fit"),
        (["linear", "--lr", "-1"], "greater than or equal to 0"),
        (["linear", "--lr", "nan"], "finite number"),
        (["warmup_stable_decay"], "field required"),
        (["linear", "--out", "curve.pdf"], "end it with .png or .svg"),
        (["linear", "--out", "no/such/folder/curve.png"], "cannot be written"),
    ],
)
def test_bad_input(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_missing_matplotlib_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("hub.experiments.extra.find_spec", lambda _: None)
    result = run("linear", "--out", str(tmp_path / "curve.png"))
    assert result.exit_code == 2
    assert 'fix: pip install "hub[compare]"' in result.output
    assert run("linear").exit_code == 0


def test_no_picture_no_matplotlib():
    for module in [name for name in sys.modules if name.startswith("matplotlib")]:
        sys.modules.pop(module)
    run("linear", "--steps", "5")
    assert "matplotlib" not in sys.modules

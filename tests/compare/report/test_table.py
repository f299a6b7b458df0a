"""The table in a terminal."""

import io

import pytest
from helpers import studies
from rich.cells import cell_len
from rich.console import Console

import hub
from hub.compare import report
from hub.compare.result import Results, Status


def printed(results: Results, width: int = 80, say=str) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    report.show(results, console, say)
    return console.file.getvalue().splitlines()


def test_short_names_and_figures_share_a_line():
    lines = printed(studies.study({"adamw": [2.1, 2.11, 2.09], "sgd": [2.4, 2.42, 2.395]}))
    assert lines == [
        "llama: held-out loss in nats a token after 40 steps",
        "                loss  step ms  host ms  bandw.     state    grads     peak",
        "adamw  2.100 ± 0.025     49.6     1.25    43 %  14.5 MiB  7.2 MiB  114 MiB",
        "sgd    2.405 ± 0.033     48.8     1.25    43 %  14.5 MiB  7.2 MiB  114 MiB",
        "adamw is better than sgd: 2.100 against 2.405 nats a token, p < 0.001 (3 seeds).",
        "",
    ]


def test_the_order_is_the_users():
    lines = printed(studies.study({"worst": [3.0, 3.1], "best": [2.0, 2.11], "fair": [2.5, 2.6]}))
    assert [line.split()[0] for line in lines[2:5]] == ["worst", "best", "fair"]


def test_many_contenders_have_a_table_of_p_values():
    losses = {name: [2.0 + n, 2.1 + n, 2.2 + 1.001 * n] for n, name in enumerate("cab")}
    results = studies.study({**losses, "noise" * 20: [0.9, 2.6, 2.8], "out": 3 * [Status.FAILED]})
    lines = printed(results)
    start = next(n for n, line in enumerate(lines) if line.startswith("p values, *"))
    assert [line.rstrip() for line in lines[start + 1 : start + 6]] == [
        "                                                   1        2        3        4",
        "1 c                                                    <0.001*  <0.001*       1",
        "2 a                                           <0.001            <0.001*    0.42",
        "3 b                                           <0.001   <0.001               0.2",
        "4 noisenoisenoisenoisenoisenoisenoisenoiseno       1     0.42      0.2",
    ]
    assert not any(line.startswith("p values") for line in printed(results, 40))


@pytest.mark.parametrize("status", Status)
def test_names_of_forty_characters_are_whole_in_80_columns(status):
    """With the widest figures that there can be, and a target."""
    longest = max(hub.list_optimizers(), key=len) + "_layerwise"
    names = [longest, "a" * 40, "muon:lr=0.02+adamw:lr=3e-3,betas=(0.9,x)", "優化器" * 6]
    wide = {
        "state_bytes": 998 * 2**20,
        "gradient_bytes": int(99.9 * 2**20),
        "peak_memory_bytes": int(99.9 * 2**30),
        "host_ms": 99.9,
    }
    made = [
        studies.outcome(name, seed, 1.23e30, status=status, **wide)
        for name in names
        for seed in range(3)
    ]
    results = studies.results(*made, tasks=(studies.task(target=2.5),))
    lines = printed(results)
    assert all(cell_len(line) <= 80 for line in lines)
    assert all(name in lines for name in names)
    figures = [line for line in lines if "998 MiB" in line]
    assert len(figures) == len(names)
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_narrow_terminals_leave_figures_out_and_break_nothing(everything, width):
    lines = printed(everything, width)
    heads = [line for line in lines if "loss" in line and line.endswith(("state", "peak"))]
    assert len(heads) == 2
    assert all(len(line) <= width for line in heads)


def test_how_a_training_ended_stands_in_for_its_loss():
    results = studies.study(
        {
            "a": [Status.DIVERGED, 2.5, 2.6],
            "b": [Status.DIVERGED],
            "c": [Status.FAILED],
            "d": [Status.NOT_STARTED],
        }
    )
    lines = printed(results)
    cells = {line.split()[0]: " ".join(line.split()[1:4]) for line in lines[2:6]}
    assert cells["a"] == "2.550 ± 0.635"
    assert "(2/3)" in next(line for line in lines if line.startswith("a "))
    assert cells["b"] == "diverged at 3"
    assert cells["c"].startswith("failed")
    assert cells["d"].startswith("not started")
    assert "a diverged in 1 of 3 seeds." in lines


def test_errors_and_warnings_are_said_once_in_their_words():
    made = [
        studies.outcome("a", seed, status=Status.FAILED, warnings=("[bold]careful",))
        for seed in range(2)
    ]
    made.append(studies.outcome("a", 9, trial=0, status=Status.DIVERGED))
    lines = printed(studies.results(*made), say=str.upper)
    assert "a: RUNTIMEERROR: <B>NO & WAY</B> (2 trainings)" in lines
    assert "a: WARNING: [BOLD]CAREFUL (2 trainings)" in lines
    assert not any("diverged at step" in line.lower() for line in lines)


def test_labels_cannot_color_the_terminal(odd):
    text = "\n".join(printed(odd))
    assert "\x1b" not in text
    assert "[red]" in text

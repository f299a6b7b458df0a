"""docs/problems.md says what was measured, of every name and every problem; docs/compare.md too."""

import json
import re
import subprocess
import sys
from importlib import import_module

import hub
from hub.compare import Task, tasks
from hub.compare.tasks import problems
from tests.compare.tasks.training import trained
from tests.docs.conftest import DOCS, blocks, generator

SCRIPT = generator("measure_problems")
TABLE = json.loads((DOCS / "problems.json").read_text())
PAGE = (DOCS / "problems.md").read_text()
COMPARE = (DOCS / "compare.md").read_text()


def test_the_page_has_what_was_measured():
    command = [sys.executable, DOCS / "generate_problems.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_name_and_problem_was_measured():
    assert sorted(TABLE) == hub.list_optimizers()
    names = [name.removeprefix(problems.PREFIX) for name in problems.NAMES]
    assert all(list(row) == names for row in TABLE.values())


def test_every_problem_tells_names_apart():
    for name in problems.NAMES:
        rates = [row[name.removeprefix(problems.PREFIX)] for row in TABLE.values()]
        assert any(rates), name
        assert None in rates, name


def test_what_was_measured_is_so_now():
    for name, problem in (("adamw_torch", "plateau"), ("sgd", "rosenbrock"), ("muon", "saddle")):
        assert SCRIPT["passes"](name, f"problems/{problem}", TABLE[name][problem])
    assert TABLE["sgd"]["plateau"] is None
    assert not SCRIPT["passes"]("sgd", "problems/plateau", SCRIPT["rates"]("sgd")[0])


def test_the_table_of_tasks_is_whole():
    section = COMPARE.partition("## Your own task")[0]
    named = re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE)
    assert named == [*tasks.BUILT_IN, tasks.ALL_PROBLEMS]
    taken = re.findall(r"^\| `--([a-z-]+).*\| (.*) \|$", COMPARE, re.MULTILINE)
    for option, text in taken:
        known = [name for name in tasks.BUILT_IN if f"`{name}`" in text]
        assert known == [
            name
            for name in tasks.BUILT_IN
            if option.replace("-", "_") in import_module(tasks.BUILT_IN[name]).TAKES
        ]


def test_its_programs_run(tmp_path):
    found = dict.fromkeys(("model", "batches", "loss", "evaluate"))
    *parts, program = blocks(COMPARE)
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "program.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1].startswith("sgd:lr=0.1 1 ")
    assert (tmp_path / "study" / "report.html").exists()
    for block in parts:
        exec(compile(block, "compare.md", "exec"), found)
    assert isinstance(found["make"](), Task)


def test_clipping_is_what_outliers_are_for():
    (shown,) = re.findall(r"`(adamw_torch:\S+)` passes `outliers`", PAGE)
    losses = trained(shown, "problems/outliers")
    assert min(losses[1:]) <= problems.find("problems/outliers").target
    assert TABLE["adamw_torch"]["outliers"] is None

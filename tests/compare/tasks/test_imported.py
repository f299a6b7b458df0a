"""A task of one's own is imported from anywhere, and every mistake in it has its message."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

from hub.compare import tasks
from hub.errors import HubError
from tests.compare.tasks.training import trained

ROOT = Path(__file__).parents[3]
TASK = """
import torch
from hub.compare import Task

def batches(seed):
    yield torch.ones(2)

def make():
    return Task(model=None, batches=batches, loss=None, evaluate=None)

def given():
    return Task(model=None, batches=batches, loss=None, evaluate=None, fingerprint="mine")

def fails():
    raise RuntimeError("no such data")

def number():
    return 3

value = 3
"""


def load(name):
    return tasks.load(name, tasks.Options())


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current folder, new for each test."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_the_current_folder_counts_while_importing(module):
    before = list(sys.path)
    task = load(f"{module}:make")
    assert task.name == f"{module}:make"
    assert sys.path == before


def test_its_text_is_its_fingerprint(module, tmp_path):
    first = load(f"{module}:make").fingerprint
    assert first == load(f"{module}:make").fingerprint
    path = tmp_path / f"{module}.py"
    path.write_text(TASK.replace("ones", "zeros"))
    del sys.modules[module]
    assert first != load(f"{module}:make").fingerprint
    assert load(f"{module}:given").fingerprint == "mine"


@pytest.mark.parametrize(
    ("path", "what", "fix"),
    [
        ("{}:none", "has no none", "name a function"),
        ("{}:value", "value is not a function but 3", "without arguments"),
        ("{}:fails", "RuntimeError: no such data", "repair the function"),
        ("{}:number", "it returned 3", "hub.compare.Task"),
        ("{}:batches", "TypeError", "without arguments"),
        ("none_{}:make", "there is no module none_", "current folder"),
        ("none_{}.part:make", "there is no module none_", "current folder"),
        ("{}:", "is not an import path", "module:function"),
        (":make", "is not an import path", "module:function"),
        ("{}:make:more", "is not an import path", "module:function"),
    ],
)
def test_mistakes_are_named(module, path, what, fix):
    with pytest.raises(HubError) as caught:
        tasks.check(path.format(module), tasks.Options())
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where


@pytest.mark.parametrize("line", ["import no_such_package", "1 / 0", "def"])
def test_a_module_that_fails_says_how(module, tmp_path, line):
    (tmp_path / f"{module}.py").write_text(line)
    with pytest.raises(HubError, match=f"{module} cannot be imported"):
        load(f"{module}:make")


def test_batches_that_end_are_an_error(module):
    batches = iter(load(f"{module}:make").batches(0))
    assert torch.equal(next(batches), torch.ones(2))
    with pytest.raises(HubError, match="ended after 1") as caught:
        next(batches)
    assert caught.value.where == f"{module}:make: batches"


def test_the_example_learns(monkeypatch):
    monkeypatch.chdir(ROOT)
    task = load("examples.task:make")
    tasks.dry_run(task)
    losses = trained("adamw_torch:lr=0.01", task.name, steps=task.steps)
    assert min(losses[1:]) <= task.target
    assert min(trained("adamw_torch:lr=1e-5", task.name, steps=task.steps)) > 10 * task.target


def test_the_example_repeats_itself(monkeypatch):
    monkeypatch.chdir(ROOT)
    task = load("examples.task:make")
    first, second = (list(itertools.islice(task.batches(seed), 3)) for seed in (0, 1))
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], first[1][0])

"""Results survive the trip through their file, and a file that is none is refused."""

import json

import pytest

from hub.compare.result import (
    Evaluation,
    Outcome,
    Point,
    Purpose,
    Results,
    Run,
    Status,
    TaskRecord,
    to_json,
)
from hub.compare.results_file import load
from hub.errors import HubError

RESULTS = Results(
    study={"contenders": [{"name": "prodigy"}], "steps": 2},
    tasks=(TaskRecord(name="llama", summary="a small one", unit="nats", steps=2, tokens=8),),
    versions={"torch": "2.13.0"},
    machines=("x86_64 CPU, 2 threads",),
    outcomes=(
        Outcome(
            run=Run(
                contender="prodigy",
                task="llama",
                seed=3,
                steps=2,
                purpose=Purpose.TUNING,
                trial=1,
                arguments={"betas": [0.9, 0.99]},
            ),
            status=Status.DIVERGED,
            error="the loss is nan",
            arguments={"betas": (0.9, 0.99), "growth_rate": float("inf"), "beta3": None},
            changed=("betas",),
            curve=(Point(1, 2.5, 0.1), Point(2, float("inf"), 0.1)),
            evaluations=(Evaluation(0, 2.4, 0.0),),
            host_ms=0.25,
        ),
    ),
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(to_json(RESULTS), encoding="utf-8")
    return path


def test_loads_what_was_written(file):
    assert load(file) == load(file.parent) == load(str(file)) == RESULTS


def test_file_is_standard_json(file):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[" * 100_000, "not JSON"),
        (b"[]", "have the format None"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_refuses_another_file(file, content, what):
    file.write_bytes(content)
    with pytest.raises(HubError, match=what) as raised:
        load(file.parent)
    assert str(file) in raised.value.where
    assert raised.value.fix


def test_refuses_a_folder_without_results(tmp_path):
    with pytest.raises(HubError, match="cannot be read: No such file") as raised:
        load(tmp_path)
    assert str(tmp_path / "results.json") in raised.value.where

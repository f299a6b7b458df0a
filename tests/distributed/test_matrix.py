"""Every installed name, eager and layerwise, in every strategy: one process's result, or a refusal.

docs/distributed.json has the outcome of each cell; each is measured here again.
"""

import json

import pytest

import hub
from hub.names.registry import default_registry
from hub.running.sharded.kinds import sharding_of
from hub.testing import Subject
from hub.testing.matrix import PRECISIONS, forms
from hub.testing.process_checks import refusal
from hub.testing.process_model import ALL
from hub.testing.promises import run
from hub.testing.strategies import Strategy
from tests.docs.conftest import DOCS, generator

TABLE = json.loads((DOCS / "distributed.json").read_text())
NAMES = forms(hub.list_optimizers(), default_registry())
SHARE = 0.9
SCRIPT = generator("measure_distributed")


def outcomes(name, strategy):
    cell = TABLE[name][strategy]
    return [cell] * len(PRECISIONS) if isinstance(cell, str) else list(cell.values())


def steps_whole_matrices(name):
    sharding = sharding_of(default_registry().optimizer(name))
    return sharding is not None and sharding.kind != "native"


def test_the_table_has_every_name_and_strategy():
    assert sorted(TABLE) == sorted(NAMES)
    assert all(list(row) == list(Strategy) for row in TABLE.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_does_what_the_table_says(name):
    assert SCRIPT["measure"](name) == TABLE[name]


def test_every_cell_is_equal_or_refused():
    cells = {(name, s): outcomes(name, s) for name in TABLE for s in Strategy}
    silent = {
        key: found
        for key, found in cells.items()
        if not all(one == "equal" or one.startswith("refused: ") for one in found)
    }
    assert not silent


def test_nine_of_ten_cells_train():
    """Not counted: FSDP1, and layerwise forms of a model that DDP has wrapped before."""
    counted = [
        outcome
        for name in TABLE
        for strategy in Strategy
        if strategy is not Strategy.FSDP1
        and not (strategy is Strategy.DDP_AFTER and Subject(name).in_backward)
        for outcome in outcomes(name, strategy)
    ]
    assert counted.count("equal") >= SHARE * len(counted)


@pytest.mark.parametrize("name", [*filter(steps_whole_matrices, hub.list_optimizers())])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_four_ranks_share_uneven_empty_and_dead_parameters(name, precision):
    assert refusal(Subject(name, precision, processes=4), ALL, Strategy.FSDP2) == ""


@pytest.mark.parametrize(
    "check", ["data_parallel", "even_shards", "uneven_shards", "empty_shards", "other_ranks"]
)
@pytest.mark.parametrize("name", ["adamw_torch", "adafactor"])
def test_three_ranks_are_checked_as_two_are(check, name):
    run(check, Subject(name, processes=3))

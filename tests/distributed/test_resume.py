"""A run resumes by every route of torch, on another number of ranks too, as if nothing had been."""

from itertools import product

import pytest

import hub
from hub.names.registry import default_registry
from hub.testing import Subject
from hub.testing.matrix import forms
from hub.testing.process_checks import TRAINED, average_of, compare, succeeded
from hub.testing.process_resumes import (
    Route,
    resume_alone,
    resume_together,
    save_alone,
    save_together,
)
from hub.testing.process_runs import Setting
from hub.testing.ranks import shared_ranks
from hub.testing.strategies import Strategy

NAMES = [
    name
    for name in forms(hub.list_optimizers(), default_registry())
    if default_registry().optimizer(name).eager_spec is None
]
UNSHARDED = [name for name in NAMES if default_registry().optimizer(name).why_not_sharded]
"""Names that FSDP2 is refused for."""
LAYERWISE = ["adamw_8bit_layerwise", "galore_adamw_layerwise", "schedule_free_adamw_layerwise"]
"""One of each kind of state: that of a layerwise form is its eager form's, bit for bit."""
EVERY = tuple(Route)
OTHERS = tuple(route for route in Route if route.reshards)
"""The routes to another number of ranks."""
DDP = {(2, 2): EVERY, (2, 1): OTHERS, (1, 2): OTHERS}
FSDP2 = {**DDP, (2, 4): OTHERS, (4, 2): OTHERS}
SHORT = {(2, 2): OTHERS, (2, 1): (Route.FULL,), (1, 2): (Route.DISK,)}


def call(ranks, in_one, in_several, name, strategy, *arguments):
    """Run a function on this number of ranks; it trains as two."""
    subject = Subject(name, processes=2)
    how = strategy if ranks > 1 else average_of(subject, strategy)
    function = in_several if ranks > 1 else in_one
    return shared_ranks(ranks).call(function, Setting.of(subject), TRAINED, how, *arguments)


CASES = [
    *product(NAMES, [(Strategy.DDP, DDP)]),
    *product([name for name in NAMES if name not in UNSHARDED], [(Strategy.FSDP2, FSDP2)]),
    *product(LAYERWISE, [(Strategy.DDP, SHORT), (Strategy.FSDP2, SHORT)]),
]


@pytest.mark.parametrize(
    ("name", "how"), CASES, ids=[f"{name}-{strategy}" for name, (strategy, _) in CASES]
)
def test_resumes_exactly(name, how, tmp_path):
    strategy, resumed = how
    subject = Subject(name, processes=2)
    for ranks in {before: None for before, _ in resumed}:
        routes = {r: None for (before, _), some in resumed.items() if before == ranks for r in some}
        own = (tmp_path / str(ranks), tuple(routes))
        saved = call(ranks, save_alone, save_together, name, strategy, *own)
        assert succeeded(saved) == [""] * ranks
    wrong = []
    for before, after, route in [(*ranks, r) for ranks, some in resumed.items() for r in some]:
        own = (tmp_path / str(before), route)
        found = call(after, resume_alone, resume_together, name, strategy, *own)
        try:
            compare(subject, TRAINED, strategy, found, f"{before} to {after}, {route}:")
        except AssertionError as error:
            wrong.append(f"{before} to {after}, {route}: {str(error).splitlines()[0]}")
    assert not wrong

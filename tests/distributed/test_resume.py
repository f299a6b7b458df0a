"""A run resumes by every route of torch, on another number of ranks too, as if nothing had been."""

from itertools import product

import pytest

import hub
from hub.names.registry import default_registry
from hub.testing import Subject
from hub.testing.matrix import forms
from hub.testing.process_checks import TRAINED, average_of, compare, succeeded
from hub.testing.process_model import EVEN
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

NAMES = forms(hub.list_optimizers(), default_registry())
OTHERS = [route for route in Route if route.reshards]
ROUTES = {
    Strategy.DDP: {(2, 2): list(Route), (2, 1): OTHERS, (1, 2): OTHERS},
    Strategy.FSDP2: {
        (2, 2): list(Route),
        (2, 1): OTHERS,
        (1, 2): OTHERS,
        (2, 4): OTHERS,
        (4, 2): OTHERS,
    },
}
"""By how many ranks save and resume. The other routes keep the number."""


def call(ranks, in_one, in_several, name, strategy, *arguments):
    """Run a function on this number of ranks; it trains as two."""
    subject = Subject(name, processes=2)
    how = strategy if ranks > 1 else average_of(subject, strategy)
    function = in_several if ranks > 1 else in_one
    shapes = shapes_of(subject)
    return shared_ranks(ranks).call(function, Setting.of(subject), shapes, how, *arguments)


def shapes_of(subject):
    """FlashOptim does not save the state of shards of unequal size."""
    return EVEN if subject.spec.package == "flashoptim" else TRAINED


@pytest.mark.parametrize(("name", "strategy"), [*product(NAMES, ROUTES)])
def test_resumes_exactly(name, strategy, tmp_path):
    for ranks in {before: None for before, _ in ROUTES[strategy]}:
        routes = tuple(Route) if ranks == 2 else tuple(OTHERS)
        saved = call(
            ranks, save_alone, save_together, name, strategy, tmp_path / str(ranks), routes
        )
        assert succeeded(saved) == [""] * ranks
    subject, wrong = Subject(name, processes=2), []
    for (before, after), routes in ROUTES[strategy].items():
        for route in routes:
            folder = tmp_path / str(before)
            found = call(after, resume_alone, resume_together, name, strategy, folder, route)
            try:
                compare(
                    subject, shapes_of(subject), strategy, found, f"{before} to {after}, {route}"
                )
            except AssertionError as error:
                wrong.append(str(error))
    assert not wrong

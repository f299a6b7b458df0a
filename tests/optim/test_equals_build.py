"""What `hub.optim.NAME` builds from parameters is what `hub.build` builds from the model."""

from functools import partial

import pytest
from helpers.every_name import NAMES, subject
from torch import nn

import hub
from hub.errors import HubWarning
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.quiet import no_warnings
from hub.testing import Subject
from hub.testing.subject import backward, differing, usual_arguments

LAYERWISE = [name + LAYERWISE_SUFFIX for name in NAMES if has_layerwise_form(hub.describe(name))]
ALL = [*NAMES, *LAYERWISE]


def from_parameters(case, params):
    """Build by the class, with the arguments that the kit builds with."""
    rest = {label: usual_arguments(spec) for label, spec in case.others.items()}
    with no_warnings(HubWarning):
        return getattr(hub.optim, case.name)(params, **usual_arguments(case.spec), **rest)


def trained(model, optimizer, steps=3):
    for step in range(steps):
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def groups_of(optimizer, model):
    """Return the groups that hub planned, as a trainer would pass them."""
    parameters = dict(model.named_parameters())
    return [
        {
            "params": [parameters[p.name] for p in group.parameters],
            "param_names": [p.name for p in group.parameters],
            **group.overrides,
        }
        for group in optimizer.hub_plan.groups
    ]


@pytest.mark.parametrize("name", ALL)
def test_every_name(name):
    """Given groups, and named parameters.

    The kit's model shows its norms, biases, embedding and head by their names and shapes.
    """
    case = Subject(name, subject(name.removesuffix(LAYERWISE_SUFFIX)).precision)
    model, expected = case.start()
    weights = trained(model, expected)
    for params in (partial(groups_of, expected), nn.Module.named_parameters):
        other = case.model()
        built = from_parameters(case, params(other))
        assert type(built) is type(expected)
        assert isinstance(built, getattr(hub.optim, name))
        assert not differing(trained(other, built), weights)
        for group, theirs in zip(built.param_groups, expected.param_groups, strict=True):
            left_out = ("params", "name", "low_rank")
            assert all(group[key] == theirs[key] for key in theirs if key not in left_out)

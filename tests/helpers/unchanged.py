"""What a build has to leave alone."""

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def _snapshot(model: nn.Module) -> dict[str, object]:
    """Everything about a model that a build must leave alone."""
    hooks = [
        {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        for module in model.modules()
    ]
    return {
        "modules": [
            (name, id(module), set(vars(module))) for name, module in model.named_modules()
        ],
        "hooks": hooks,
        "parameters": [
            (
                name,
                id(p),
                p.data_ptr(),
                p.requires_grad,
                p.grad is None,
                dict(vars(p)),
                p._post_accumulate_grad_hooks,
                p._backward_hooks,
            )
            for name, p in model.named_parameters()
        ],
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Check that the block leaves model, random numbers, warnings filters and output alone."""
    values = copy.deepcopy(model.state_dict())
    before = _snapshot(model)
    rng, python_rng, filters = torch.get_rng_state(), random.getstate(), list(warnings.filters)
    yield
    assert _snapshot(model) == before
    for name, value in model.state_dict().items():
        assert torch.equal(value, values[name]), name
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == python_rng
    assert warnings.filters == filters

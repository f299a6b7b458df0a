"""Fixtures and settings of all tests."""

from collections.abc import Callable

import pytest
import torch
from helpers.models import Model


@pytest.fixture
def make_model() -> Callable[..., Model]:
    def make(**sizes: int) -> Model:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Model(**sizes)

    return make


@pytest.fixture
def model(make_model: Callable[..., Model]) -> Model:
    return make_model()

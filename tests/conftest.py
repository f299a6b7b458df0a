"""Fixtures and settings of all tests."""

import gc
from collections.abc import Callable

import pytest
import torch
from helpers.models import Model

from hub.testing.threads import threads


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of all garbage collections, of which there are thousands."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the interpreter collect at its end, or nanobind's modules report leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(threads())


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

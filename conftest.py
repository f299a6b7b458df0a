"""What all tests share, those of the core and those of the plugins."""

import gc

import pytest
import torch

from hub.testing.thread_count import thread_count


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of all garbage collections, of which there are thousands."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the interpreter collect at its end, or nanobind's modules report leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _threads() -> None:
    """Compute on as many threads as the kit does: models are tiny, and tests share the cores."""
    torch.set_num_threads(thread_count())

"""What the tests of this plugin share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _eager(request):
    """Have torch.compile run eagerly, except where a test is about compiled steps.

    Compiling takes seconds for every shape and setting, and hub's part is the same in both.
    """
    stance = "default" if "_compiling" in request.fixturenames else "force_eager"
    with torch.compiler.set_stance(stance):
        yield


@pytest.fixture
def _compiling():
    """Ask `_eager` for the real thing."""

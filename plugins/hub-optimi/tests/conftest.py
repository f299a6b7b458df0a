"""What the tests of this plugin share."""

import pytest


@pytest.fixture
def with_triton(monkeypatch):
    """Make optimi believe that it can import triton, which makes it choose wrongly."""
    monkeypatch.setattr("optimi.utils.HAS_TRITON", True)
    monkeypatch.setattr("optimi.optimizer.HAS_TRITON", True)

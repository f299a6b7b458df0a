"""What the tests of this plugin share."""

import pytest
from bitsandbytes.optim.optimizer import GlobalOptimManager


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """A process-wide manager that no other test has written to."""
    monkeypatch.setattr(GlobalOptimManager, "_instance", None)

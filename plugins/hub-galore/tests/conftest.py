"""What the tests of this plugin share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_cuda_call(monkeypatch):
    """Upstream's 8-bit class synchronizes with a device that need not be there."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

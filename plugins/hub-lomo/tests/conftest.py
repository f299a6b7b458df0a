"""What the tests of this plugin share."""

import pytest
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture
def _fresh_accelerate():
    """Let no test see the state that Accelerate keeps for the process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()

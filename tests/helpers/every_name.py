"""Every installed optimizer, each in a precision that it trains in."""

import hub
from hub.testing import Subject

NAMES = hub.list_optimizers()
PRECISIONS = {name: "bf16" for name in NAMES if name.startswith("flash")}
"""Where fp32 parameters are not what the optimizer is for."""


def subject(name: str) -> Subject:
    """Return what the conformance kit builds for a name."""
    return Subject(name, PRECISIONS.get(name, "fp32"))

"""What the server of fresh processes imports, so that not every one of them has to.

An environment variable names it, because all that a fork server does is import modules.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hub import backend

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = "HUB_TESTING_PRELOAD"


@contextmanager
def announced(package: str) -> Iterator[None]:
    """Have a server that starts inside the block import what this process has of a package."""
    own = package == __name__.partition(".")[0]
    modules = [] if own else [m for m in sys.modules if m.partition(".")[0] == package]
    os.environ[_VARIABLE] = ",".join(modules)
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


if _VARIABLE in os.environ:  # this is the server
    for _module in (
        "torch",
        "torch._dynamo",  # every build imports it
        "hub.testing.process_checks",
        *filter(None, os.environ[_VARIABLE].split(",")),
    ):
        with suppress(ImportError):  # one that this process cannot find, it does not need
            backend.load(_module)

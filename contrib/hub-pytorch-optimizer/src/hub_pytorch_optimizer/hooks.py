"""The optimizers of pytorch_optimizer. Imports neither torch nor pytorch_optimizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hub.hookspecs import hookimpl
from hub_pytorch_optimizer.specs import spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hub.spec import OptimizerSpec

TABLE = Path(__file__).with_name("table.json")
"""Written by `generate.py`, from what was measured."""


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Return a spec for each row of the table."""
    return [spec_of(row) for row in json.loads(TABLE.read_text(encoding="utf-8"))]

"""Measure what a step of an optimizer costs, beside torch's fused AdamW and the memory's bandwidth.

The engine of the command `hub bench`. Importing it imports neither torch nor Transformers.
"""

from hub.bench.result import Report, Row
from hub.bench.running import run
from hub.bench.settings import Settings

__all__ = ["Report", "Row", "Settings", "run"]

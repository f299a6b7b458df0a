"""Train the same small model with several optimizers, and put the results side by side.

The engine of the command `hub compare`. Importing it imports neither torch nor Transformers.
"""

from hub.compare.result import Comparison, Point, Row, Status
from hub.compare.running import run
from hub.compare.settings import Contender, Settings

__all__ = ["Comparison", "Contender", "Point", "Row", "Settings", "Status", "run"]

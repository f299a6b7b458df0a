"""Train the same tasks with several optimizers, and say which is better, if one is.

The engine of the command `hub compare`. Importing it imports neither torch nor Transformers.
"""

from hub.compare.result import Evaluation, Outcome, Point, Purpose, Results, Run, Status
from hub.compare.running import run
from hub.compare.settings import Settings
from hub.compare.tasks import Task
from hub.experiments.contender import Contender

__all__ = [
    "Contender",
    "Evaluation",
    "Outcome",
    "Point",
    "Purpose",
    "Results",
    "Run",
    "Settings",
    "Status",
    "Task",
    "run",
]

"""The vocabulary of the plugin contract: what plugins declare and what they receive.

All of it is plain frozen data that does not import torch, so a plugin's `hooks.py` imports in
milliseconds.
"""

from hub.spec.context import BuildContext, ParameterGroup
from hub.spec.findings import Finding, Level
from hub.spec.optimizers import Contrast, OptimizerSpec
from hub.spec.precision import MODES, Precision, dtype_name
from hub.spec.schedulers import SchedulerSpec
from hub.spec.sharding import Kind, Sharding
from hub.spec.traits import Trait

__all__ = [
    "MODES",
    "BuildContext",
    "Contrast",
    "Finding",
    "Kind",
    "Level",
    "OptimizerSpec",
    "ParameterGroup",
    "Precision",
    "SchedulerSpec",
    "Sharding",
    "Trait",
    "dtype_name",
]

"""Name an optimizer, get a `torch.optim.Optimizer` that behaves.

Importing this package imports neither torch nor any plugin: each name loads on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.building import build
    from hub.builtin.adafactor import Adafactor
    from hub.conduct import detach
    from hub.configuration import TrainingConfig
    from hub.creation import (
        create_optimizer,
        create_optimizer_and_scheduler,
        create_scheduler,
    )
    from hub.errors import (
        CheckpointError,
        HubError,
        HubWarning,
        OptimArgsError,
        PluginError,
        PrecisionError,
        TargetModulesError,
        UnknownOptimizerError,
        UnsupportedError,
    )
    from hub.hookspecs import hookimpl
    from hub.inspection import describe_groups
    from hub.layerwise import grad_norm
    from hub.memory import Estimate, estimate
    from hub.modes import eval_mode
    from hub.names import describe, list_optimizers, list_schedulers
    from hub.planning import Plan, plan
    from hub.schedulers import build_scheduler
    from hub.spec import BuildContext, Contrast, Finding, Level, OptimizerSpec, SchedulerSpec, Trait

__version__ = "2026.11.0"

__all__ = [
    "Adafactor",
    "BuildContext",
    "CheckpointError",
    "Contrast",
    "Estimate",
    "Finding",
    "HubError",
    "HubWarning",
    "Level",
    "OptimArgsError",
    "OptimizerSpec",
    "Plan",
    "PluginError",
    "PrecisionError",
    "SchedulerSpec",
    "TargetModulesError",
    "TrainingConfig",
    "Trait",
    "UnknownOptimizerError",
    "UnsupportedError",
    "build",
    "build_scheduler",
    "create_optimizer",
    "create_optimizer_and_scheduler",
    "create_scheduler",
    "describe",
    "describe_groups",
    "detach",
    "estimate",
    "eval_mode",
    "grad_norm",
    "hookimpl",
    "list_optimizers",
    "list_schedulers",
    "plan",
]

# Modules are named so that none shadows a public function (`hub.plan` lives in `hub.planning`):
# importing a submodule sets it as an attribute of the package.
_HOMES = {
    "building": ("build",),
    "builtin.adafactor": ("Adafactor",),
    "conduct": ("detach",),
    "configuration": ("TrainingConfig",),
    "creation": ("create_optimizer", "create_optimizer_and_scheduler", "create_scheduler"),
    "hookspecs": ("hookimpl",),
    "inspection": ("describe_groups",),
    "layerwise": ("grad_norm",),
    "memory": ("Estimate", "estimate"),
    "modes": ("eval_mode",),
    "names": ("describe", "list_optimizers", "list_schedulers"),
    "planning": ("Plan", "plan"),
    "schedulers": ("build_scheduler",),
    "spec": (
        "BuildContext",
        "Contrast",
        "Finding",
        "Level",
        "OptimizerSpec",
        "SchedulerSpec",
        "Trait",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'hub' has no attribute '{name}'")
    value = getattr(import_module(f"hub.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]

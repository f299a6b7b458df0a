"""Name an optimizer, get a `torch.optim.Optimizer` that behaves.

Importing this package imports neither torch nor any plugin: each name loads on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hub.version import __version__ as __version__

if TYPE_CHECKING:
    from hub import optim as optim
    from hub.building.build import build
    from hub.building.config import TrainingConfig
    from hub.building.create import (
        create_optimizer,
        create_optimizer_and_scheduler,
        create_scheduler,
    )
    from hub.building.schedule import build_scheduler
    from hub.builtin.adafactor import Adafactor
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
    from hub.names import describe, list_optimizers, list_schedulers
    from hub.names.searching import SearchSpace, search_space
    from hub.planning.describe_groups import describe_groups
    from hub.planning.estimate import Estimate, estimate
    from hub.planning.prepare import plan
    from hub.plans import Plan
    from hub.running.attach import detach
    from hub.running.layerwise.subclass import grad_norm
    from hub.running.train_eval.attach import eval_mode
    from hub.spec import BuildContext, Contrast, Finding, Level, OptimizerSpec, SchedulerSpec, Trait

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
    "SearchSpace",
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
    "search_space",
]

# Modules are named so that none shadows a public function (`hub.plan` lives below `hub.planning`):
# importing a submodule sets it as an attribute of the package.
_HOMES = {
    "building.build": ("build",),
    "building.config": ("TrainingConfig",),
    "building.create": (
        "create_optimizer",
        "create_optimizer_and_scheduler",
        "create_scheduler",
    ),
    "building.schedule": ("build_scheduler",),
    "builtin.adafactor": ("Adafactor",),
    "hookspecs": ("hookimpl",),
    "names": ("describe", "list_optimizers", "list_schedulers"),
    "names.searching": ("SearchSpace", "search_space"),
    "planning.describe_groups": ("describe_groups",),
    "planning.estimate": ("Estimate", "estimate"),
    "planning.prepare": ("plan",),
    "plans": ("Plan",),
    "running.attach": ("detach",),
    "running.layerwise.subclass": ("grad_norm",),
    "running.train_eval.attach": ("eval_mode",),
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
    if name == "optim":  # a module, which importing sets as an attribute
        return import_module("hub.optim")
    if name not in __all__:
        raise AttributeError(f"module 'hub' has no attribute '{name}'")
    value = getattr(import_module(f"hub.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__, "optim"]

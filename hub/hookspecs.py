"""The hooks of a hub plugin. Mark implementations with `hub.hookimpl`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.plans import Plan
    from hub.spec import BuildContext, Finding, OptimizerSpec, SchedulerSpec

hookspec = pluggy.HookspecMarker("hub")
hookimpl = pluggy.HookimplMarker("hub")


@hookspec
def hub_register_optimizers() -> Iterable[OptimizerSpec]:  # type: ignore[empty-body]
    """Return the specs of the optimizers that this plugin offers."""


@hookspec
def hub_register_schedulers() -> Iterable[SchedulerSpec]:  # type: ignore[empty-body]
    """Return the specs of the learning-rate schedules that this plugin offers."""


@hookspec(firstresult=True)
def hub_build_optimizer(  # type: ignore[empty-body]
    name: str,
    optim_args: BaseModel,
    target_modules: Mapping[str, Module],
    context: BuildContext,
) -> Optimizer:
    """Build the optimizer `name` from validated arguments and the planned groups.

    Called if the spec names no `factory`.
    """


@hookspec(firstresult=True)
def hub_parse_optim_args(name: str, text: str) -> Mapping[str, object] | None:
    """Parse an `optim_args` string, if hub's own syntax does not fit."""


@hookspec
def hub_validate_precision(  # type: ignore[empty-body]
    name: str, optim_args: BaseModel, context: BuildContext
) -> Iterable[Finding]:
    """Return findings that refuse, warn about or adjust this build, before anything is built.

    Called for every plan, and for a layerwise form with the eager name and arguments. Everything
    that would make the factory refuse belongs here: dtypes, devices, target weights. See `Finding`.
    """


@hookspec(firstresult=True)
def hub_convert_state(
    name: str, state: Mapping[str, Any], group: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Return the upstream class's state of one parameter as tensors and plain data."""


@hookspec
def hub_optimizer_built(optimizer: Optimizer, plan: Plan) -> None:
    """Observe a finished optimizer; called once per `hub.build`."""

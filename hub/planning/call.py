"""The arguments of `hub.build`, `hub.plan` and `hub.estimate`: the same for all three."""

from __future__ import annotations

from functools import WRAPPER_ASSIGNMENTS, wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel
    from torch.nn import Module

    from hub.groups.split import Rules
    from hub.names.by_class import OptimizerClass

    OptimArgs = str | Mapping[str, Any] | None

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Call = TypeVar("Call", bound="BuildCall")


class BuildCall:
    """The arguments of one call; `hub.build` describes them."""

    def __init__(
        self,
        name: str | OptimizerClass,
        model: Module,
        *,
        optim_args: OptimArgs = None,
        target_modules: str | Sequence[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        param_rules: Rules | None = None,
        precision: str | None = None,
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float | None = None,
        **hyperparameters: Any,
    ) -> None:
        self.name = name
        self.model = model
        self.optim_args = optim_args
        self.target_modules = target_modules
        self.defaults = defaults
        self.param_rules = param_rules
        self.precision = precision
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.max_grad_norm = max_grad_norm
        self.hyperparameters = hyperparameters

    def defaults_for(self, arguments: type[BaseModel]) -> Mapping[str, Any] | None:  # noqa: ARG002
        """Return the defaults for an optimizer with these arguments."""
        return self.defaults


class EstimateCall(BuildCall):
    """The arguments of one call of `hub.estimate`."""

    def __init__(
        self,
        name: str | OptimizerClass,
        model: Module,
        *,
        mesh: Sequence[int] | None = None,
        optim_args: OptimArgs = None,
        target_modules: str | Sequence[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        param_rules: Rules | None = None,
        precision: str | None = None,
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float | None = None,
        **hyperparameters: Any,
    ) -> None:
        super().__init__(
            name,
            model,
            optim_args=optim_args,
            target_modules=target_modules,
            defaults=defaults,
            param_rules=param_rules,
            precision=precision,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_grad_norm=max_grad_norm,
            **hyperparameters,
        )
        self.mesh = mesh


def _decorator_for(
    make_call: Callable[Parameters, Call],
) -> Callable[[Callable[[Call], Result]], Callable[Parameters, Result]]:
    """Return a decorator; type checkers learn the signature from `make_call`."""
    arguments = signature(make_call)

    def decorator(function: Callable[[Call], Result]) -> Callable[Parameters, Result]:
        @wraps(function, assigned=[key for key in WRAPPER_ASSIGNMENTS if key != "__annotations__"])
        def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            arguments.bind(*args, **kwargs)  # a TypeError that does not name this class
            return function(make_call(*args, **kwargs))

        returned = signature(function).return_annotation
        called.__signature__ = arguments.replace(return_annotation=returned)  # type: ignore[attr-defined]
        called.__annotations__ = {**make_call.__init__.__annotations__, "return": returned}
        return called

    return decorator


takes_build_arguments = _decorator_for(BuildCall)
"""Decorate a function of a `BuildCall` to take the arguments that make one."""
takes_estimate_arguments = _decorator_for(EstimateCall)
"""Likewise for an `EstimateCall`."""

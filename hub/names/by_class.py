"""Optimizers and schedules without a plugin: a class or factory, with arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hub.errors import OptimArgsError
from hub.hookspecs import hookimpl
from hub.names.signatures import (
    IMPLEMENTATION,
    arguments_from_signature,
    qualified_name,
    types_of_texts,
)
from hub.spec import MODES, Finding, OptimizerSpec, Sharding
from hub.text import shown

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch.optim import Optimizer

    from hub.spec import BuildContext

OptimizerClass = tuple[Callable[..., Any], Mapping[str, Any]]
"""A class or factory, and its arguments after the first one."""


class Adopted:
    """The hooks of a plugin that offers one class or factory, of which only the signature is known.

    It has no traits, any precision and device is allowed, and it steps the DTensors of FSDP2
    itself.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        name: str,
        arguments: type[BaseModel],
        findings: tuple[Finding, ...] = (),
    ) -> None:
        self.factory, self.findings = factory, findings
        self.spec = OptimizerSpec(
            name=name,
            summary=f"{name}, with the arguments of its signature",
            arguments=arguments,
            precisions=frozenset(MODES),
            devices=frozenset({"cpu", "cuda", "mps", "xpu"}),
            per_group=frozenset({"lr", "weight_decay"} & set(arguments.model_fields)),
            without_effect={
                key: why for key, why in IMPLEMENTATION.items() if key in arguments.model_fields
            },
            sharding=Sharding(kind="native"),
            package=re.split("[.:]", name)[0],
            license="license not known",
            homepage="",
        )

    @classmethod
    def from_pair(cls, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Adopted:
        """Adopt a class or factory that comes with its arguments.

        Raises:
            OptimArgsError: Its signature cannot be read.
        """
        model = arguments_from_signature(factory, arguments)
        return cls(factory, qualified_name(factory), model)

    @classmethod
    def from_path(cls, path: str, factory: Callable[..., Any]) -> Adopted:
        """Adopt what an import path leads to.

        Raises:
            OptimArgsError: Its signature cannot be read.
        """
        model = arguments_from_signature(factory, types=types_of_texts(factory))
        unchecked = Finding.note(
            f"{path} is not an installed name: hub promises nothing about it",
            f"`hub check {path}` shows which promises it keeps",
        )
        return cls(factory, path, model, (unchecked,))

    @hookimpl
    def hub_register_optimizers(self) -> list[OptimizerSpec]:
        """Return the one spec."""
        return [self.spec]

    @hookimpl
    def hub_validate_precision(self) -> tuple[Finding, ...]:
        """Return the findings of every build."""
        return self.findings

    @hookimpl
    def hub_build_optimizer(self, optim_args: BaseModel, context: BuildContext) -> Optimizer:
        """Call the class or factory."""
        optimizer: Optimizer = self.factory(context.param_groups(), **dict(optim_args))
        return optimizer


def checked_pair(given: object, where: str) -> OptimizerClass:
    """Check that a value is a class or factory with its arguments, and return both.

    Raises:
        OptimArgsError: It is anything else.
    """
    if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004
        factory, arguments = given
        if callable(factory) and isinstance(arguments, Mapping):
            return factory, arguments
    raise OptimArgsError(
        f"{shown(given)} is not a valid {where}",
        where=where,
        fix="pass (class_or_factory, {argument: value})",
    )

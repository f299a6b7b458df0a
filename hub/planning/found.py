"""What a build asks for by a name, or by a class or factory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hub.errors import OptimArgsError

if TYPE_CHECKING:
    from hub.names.by_class import OptimizerClass
    from hub.names.registry import Plugin, Registry
    from hub.planning.call import OptimArgs
    from hub.spec import OptimizerSpec


class Found(NamedTuple):
    """An optimizer, and its arguments as they were given."""

    plugin: Plugin
    spec: OptimizerSpec
    optim_args: OptimArgs


def find_optimizer(name: str | OptimizerClass, optim_args: OptimArgs, registry: Registry) -> Found:
    """Return the plugin, spec and `optim_args` of a name or import path, or of a class or factory.

    Raises:
        HubError: As `hub.build` does for a name; or a class comes with `optim_args` as well.
    """
    if not (isinstance(name, tuple) or callable(name)):
        return Found(registry.plugin("optimizer", name), registry.optimizer(name), optim_args)
    plugin, arguments = registry.adopt_class(name)
    (spec,) = plugin.optimizers.values()
    if optim_args is not None:
        raise OptimArgsError(
            f"{spec.name} already has its arguments, but optim_args are given too",
            where="optim_args",
            fix="pass all of them with the class",
        )
    return Found(plugin, spec, arguments)

"""Every optimizer as a class that takes parameters: `hub.optim.stable_adamw(params, lr=1e-3)`.

For trainers whose extension point is `Class(params, **arguments)`. Where the model is at hand, use
`hub.build`, which also knows the kinds of its layers. Importing this module imports neither torch
nor a plugin.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer


def __getattr__(name: str) -> "type[Optimizer]":
    if name.startswith("_") or not name.isidentifier():
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from hub.building.named_class import class_of

    found: type[Optimizer] = class_of(name, __name__)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    from hub.errors import HubError
    from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
    from hub.names.registry import default_registry

    registry = default_registry()
    found = [name for name in globals() if name.startswith("__")]
    for name in registry.names("optimizer"):
        found.append(name)
        try:
            spec = registry.optimizer(name)
        except HubError:  # a broken plugin, which is an error when its name is used
            continue
        if has_layerwise_form(spec):
            found.append(name + LAYERWISE_SUFFIX)
    return found

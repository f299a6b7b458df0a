"""A plugin that offers one class, of which a file has the row; only for measuring."""

from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, distribution
from typing import Any

from hub_pytorch_optimizer.specs import spec_of
from pydantic import BaseModel
from torch.optim import Optimizer

import hub
from hub.backend import load_object
from hub.names.registry import Registry
from hub.saving import layout
from hub.spec import BuildContext, OptimizerSpec

# What hub takes for the state of another model, because the shapes in a file without its record do
# not follow from those of the parameters, says nothing about a class.
layout._check_related = lambda pairs: None  # noqa: ARG005, SLF001
layout._check_low_rank = lambda pair: None  # noqa: ARG005, SLF001

_row: dict[str, Any] = {}
"""What `registry_of` was last given, in this process or in the one that started it."""


class _Carrier(Distribution):
    """The distribution of a class, which takes the row into the fresh processes of the kit."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.__setstate__(row)

    def __getstate__(self) -> dict[str, Any]:
        return self.row

    def __setstate__(self, row: dict[str, Any]) -> None:
        self.row = row
        _row.clear()
        _row.update(row)

    @property
    def metadata(self) -> Any:
        """Only what the registry reads in every look-up, which parsing would make slow."""
        return {"Name": self.row["package"]}

    def read_text(self, filename: str) -> str | None:
        return distribution(self.row["package"]).read_text(filename)

    def locate_file(self, path: Any) -> Any:
        return distribution(self.row["package"]).locate_file(path)


@hub.hookimpl
def hub_register_optimizers() -> list[OptimizerSpec]:
    """Return the spec of the row in the file."""
    return [_like(_row) if "like" in _row else spec_of(_row)]


@hub.hookimpl
def hub_build_optimizer(optim_args: BaseModel, context: BuildContext) -> Optimizer:
    """Call the class itself with what it takes."""
    cls = load_object(_row["class"])
    values = {k: v for k, v in dict(optim_args).items() if k not in _row["of_hub"]}
    optimizer: Optimizer = cls(context.param_groups(), **values)
    return optimizer


def _like(row: dict[str, Any]) -> OptimizerSpec:
    """Return the spec of one of hub's own names, for the class that it wraps."""
    spec = hub.describe(row["like"])
    return replace(
        spec,
        name=row["name"],
        factory="",
        known_failures={},
        without_effect={**dict.fromkeys(row["of_hub"], "hub's"), **spec.without_effect},
    )


def registry_of(row: dict[str, Any]) -> Registry:
    """Return where only this row's optimizer is found."""
    point = EntryPoint(row["name"], __name__, "hub.optimizers")
    vars(point)["dist"] = _Carrier(row)
    return Registry([point])

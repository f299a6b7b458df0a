"""The space in which an optimizer's arguments are tuned, for hub's own studies and for others'."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hub.arguments.values import is_number
from hub.errors import HubError, OptimArgsError
from hub.names.registry import default_registry
from hub.names.rest import REST, without_rest
from hub.spec import Trait
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hub.arguments.search import Scale
    from hub.spec import OptimizerSpec

USUAL = ("lr", "weight_decay", "betas")
"""What is tuned unless somebody says what."""
_DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One number to choose: an argument, or an element of one that is a tuple."""

    name: str
    """Such as "lr", "betas[0]" or "rest.lr"."""
    argument: str
    """As in `optim_args`: "betas"."""
    index: int | None = None
    """Of the element."""
    low: float
    high: float
    scale: Scale
    """"log" or "linear"."""
    default: Any = None
    """The argument's, of which elements that are not tuned are taken."""

    def at(self, share: float) -> float:
        """Return the value at a share of the way from `low`, at 0, to `high`, at 1."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return self.rounded(min(max(value, self.low), self.high))

    def rounded(self, value: float) -> float:
        """Return a value with the digits that matter, so that reports can be read and repeated.

        One in the range stays there.
        """
        if self.scale == "log":
            found = float(f"{value:.{_DIGITS}g}")
        else:
            found = round(value, _DIGITS - 1 - math.floor(math.log10(self.high - self.low)))
        return min(max(found, self.low), self.high) if value in self else found

    def __contains__(self, value: object) -> bool:
        """Whether a value is a number in the range."""
        return is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class SearchSpace:
    """The numbers to choose for one optimizer, each with its range."""

    optimizer: str
    dimensions: tuple[Dimension, ...]

    def at(self, point: Sequence[float]) -> dict[str, Any]:
        """Return the `optim_args` at a point of the unit cube.

        Args:
            point: A number from 0 to 1 for each dimension, in their order.

        Raises:
            OptimArgsError: It has another length, or a number is outside.
        """
        names = [one.name for one in self.dimensions]
        if len(point) != len(names) or not all(0 <= share <= 1 for share in point):
            raise OptimArgsError(
                f"{shown(list(point))} is not a point of this space",
                where=f"search space of {self.optimizer}",
                fix=f"a number from 0 to 1 for each of {', '.join(names) or 'no dimensions'}",
            )
        pairs = zip(self.dimensions, point, strict=True)
        return self.arguments({one.name: one.at(float(share)) for one, share in pairs})

    def arguments(self, values: Mapping[str, float]) -> dict[str, Any]:
        """Return the `optim_args` of values by dimension, as Optuna and W&B give them.

        They are plain data for JSON, of three digits. Elements of a tuple without a value have
        the default's.

        Raises:
            OptimArgsError: A name is not one of the dimensions'.
        """
        known = {one.name: one for one in self.dimensions}
        found: dict[str, Any] = {}
        for name, value in values.items():
            one = known.get(name)
            if one is None:
                raise OptimArgsError(
                    f"'{name}' is not a dimension of this space",
                    where=f"search space of {self.optimizer}",
                    fix=f"it has {', '.join(known) or 'none'}",
                )
            if one.index is None:
                found[one.argument] = one.rounded(float(value))
            else:
                whole = found.setdefault(one.argument, list(one.default))
                whole[one.index] = one.rounded(float(value))
        return found

    def values(self, arguments: Mapping[str, Any]) -> dict[str, float]:
        """Return the values by dimension that `optim_args` or else defaults have in the range."""
        found = {}
        for one in self.dimensions:
            whole = arguments.get(one.argument, one.default)
            value = whole if one.index is None else whole[one.index]
            if value in one:
                found[one.name] = float(value)
        return found

    def without(self, arguments: Iterable[str]) -> SearchSpace:
        """Return the space without the dimensions of some arguments, which stay as they are.

        Args:
            arguments: Such as "lr" or "rest.lr"; "rest" is all that begin so.
        """
        left = frozenset(arguments)
        kept = (
            one
            for one in self.dimensions
            if left.isdisjoint({one.name, one.argument, one.argument.partition(".")[0]})
        )
        return replace(self, dimensions=tuple(kept))

    def optuna(self) -> dict[str, Any]:
        """Return Optuna's distributions by name, for `study.ask`.

        Raises:
            HubError: Optuna is not installed.
        """
        try:
            from optuna.distributions import FloatDistribution
        except ImportError as error:
            raise HubError(
                "Optuna is not installed", where="optuna", fix="pip install optuna"
            ) from error
        return {
            one.name: FloatDistribution(one.low, one.high, log=one.scale == "log")
            for one in self.dimensions
        }

    def wandb(self) -> dict[str, dict[str, Any]]:
        """Return what belongs under `parameters` in a sweep of Weights & Biases."""
        kinds = {"log": "log_uniform_values", "linear": "uniform"}
        return {
            one.name: {"distribution": kinds[one.scale], "min": one.low, "max": one.high}
            for one in self.dimensions
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        own = ("name", "argument", "low", "high", "scale")
        dimensions = [{key: asdict(one)[key] for key in own} for one in self.dimensions]
        return {"optimizer": self.optimizer, "dimensions": dimensions}


def search_space(
    name: str,
    arguments: str | Iterable[str] | None = None,
    *,
    optim_args: str | Mapping[str, Any] | None = None,
    strict: bool = True,
) -> SearchSpace:
    """Return the space in which to tune an optimizer's arguments.

    Each range is part of the argument's type, which the plugin declares; `hub schema` shows it as
    "x-search". An optimizer of matrices only has its own arguments and those of its `rest`.

    Args:
        name: As for `hub.build`.
        arguments: What to tune, such as ("lr", "scale"). "lr" is also that of `rest`, "rest.lr"
            that alone. By default lr, weight_decay and betas, as far as it has ranges for them.
        optim_args: What is set already: that is not tuned, and neither is what it rules out.
        strict: Whether an argument that cannot be tuned is an error; otherwise it is left out.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        OptimArgsError: It has no range for one of the arguments.
    """
    from hub.arguments.grammar import parse_arguments
    from hub.arguments.resolve import as_mapping

    read = parse_arguments(optim_args) if isinstance(optim_args, str) else optim_args
    given = as_mapping(name, "optim_args", read)
    dimensions = list(_dimensions(default_registry().optimizer(name), given))
    arguments = (arguments,) if isinstance(arguments, str) else arguments
    asked = frozenset(USUAL if arguments is None else arguments)
    if strict and arguments is not None:
        _check_asked(name, asked, dimensions)
    open_to_choice = (
        one
        for one in dimensions
        if not asked.isdisjoint({one.argument, one.argument.removeprefix(f"{REST}.")})
    )
    return SearchSpace(name, tuple(open_to_choice)).without(given.keys() - {REST})


def _dimensions(spec: OptimizerSpec, given: Mapping[str, Any]) -> Iterator[Dimension]:
    """Yield what can be tuned beside what is given, whether or not it is given itself."""
    if Trait.MATRICES_ONLY not in spec.traits:
        yield from _own(spec, given)
        return
    registry = default_registry()
    own, of_rest = without_rest(spec.name, given)
    yield from _own(spec, own)
    other = of_rest.pop("optimizer", registry.rest_of(spec).name)
    for one in _own(registry.optimizer(other), of_rest):
        if one.argument not in of_rest:
            yield replace(one, name=f"{REST}.{one.name}", argument=f"{REST}.{one.argument}")


def _own(spec: OptimizerSpec, given: Mapping[str, Any]) -> Iterator[Dimension]:
    from hub.arguments.resolve import contradicts
    from hub.arguments.search import ranges_of

    for argument, field in spec.arguments.model_fields.items():
        found = [
            Dimension(
                name=argument if index is None else f"{argument}[{index}]",
                argument=argument,
                index=index,
                low=one.low,
                high=one.high,
                scale=one.scale,
                default=field.default,
            )
            for index, one in ranges_of(field).items()
        ]
        middle = SearchSpace(spec.name, tuple(found)).at([0.5] * len(found))
        beside = {key: value for key, value in given.items() if key != argument}
        if found and not contradicts(spec.arguments, middle, beside):
            yield from found


def _check_asked(name: str, asked: frozenset[str], known: Sequence[Dimension]) -> None:
    names = dict.fromkeys(one.argument for one in known)
    both = {*names, *(argument.removeprefix(f"{REST}.") for argument in names)}
    missing = sorted(asked - both)
    if missing:
        raise OptimArgsError(
            f"{name} has no range in which to tune '{missing[0]}'",
            where="arguments",
            fix=f"it has ranges for {', '.join(names) or 'nothing'}",
        )

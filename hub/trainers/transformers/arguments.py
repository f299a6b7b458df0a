"""Argument classes for Transformers and TRL whose `optim` may be any name."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from hub.errors import OptimArgsError, UnknownOptimizerError
from hub.names.registry import default_registry
from hub.text import shown
from hub.trainers.transformers import trainer_patch

if TYPE_CHECKING:
    from typing import Self

A = TypeVar("A", bound=TrainingArguments)

_ACCEPTED = "adamw_torch"
"""The name passed to Transformers' classes instead of a name that they refuse."""
_PARAMETERS = {"adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "epsilon"}
"""Fields, and their names as parameters of `TrainingArguments.set_optimizer` (5.23)."""


def hub_arguments(cls: type[A]) -> type[A]:
    """Return a subclass, with the same name and fields, whose `optim` accepts hub's names.

    hub builds every name that it knows, including those that Transformers has too; names that only
    Transformers has are left to Transformers. The class works with `HfArgumentParser`, whose
    `--optim` then has no list of choices, and whose YAML files may contain `optim_args` in hub's
    grammar.

    This replaces the Trainer's `get_optimizer_cls_and_kwargs` with a function that passes these
    arguments to hub and all others to Transformers; see `trainer_patch`. Pickles, including
    `training_args.bin`, contain an instance of `cls` with the name, and load without hub.

    Raises:
        OptimArgsError: `cls` is not a class of training arguments.
    """
    if not (isinstance(cls, type) and issubclass(cls, TrainingArguments)):
        raise OptimArgsError(
            f"{shown(cls)} is not a subclass of transformers.TrainingArguments",
            where="hub_arguments",
            fix="pass TrainingArguments, SFTConfig or another subclass",
        )
    if issubclass(cls, _AnyName):
        return cls
    trainer_patch.install("hub_arguments")
    theirs = next(one for one in fields(cls) if one.name == "optim")
    about = {"help": "The optimizer to use, one of `hub list`."}
    # repr=False, because the inherited repr hides tokens.
    return make_dataclass(
        cls.__name__,
        [("optim", str, field(default=_plain(theirs.default), metadata=about))],
        bases=(_AnyName, cls),
        namespace={"__doc__": cls.__doc__, "__module__": __name__},
        repr=False,
    )


class _AnyName:
    """The mixin placed before a trainer's argument class."""

    optim: Any

    def __setattr__(self, key: str, value: Any) -> None:
        """Record which numbers the user has set, even to the default's value.

        A number is the default if it is the same object. It is when `HfArgumentParser` passes the
        values of all fields, but not if it was written in code, a file or a command line.
        """
        super().__setattr__(key, value)
        known = self.__dataclass_fields__.get(key)  # type: ignore[attr-defined]  # it is a dataclass
        if known is not None and isinstance(value, int | float):
            given: set[str] = self.__dict__.setdefault("hub_given", set())
            (given.discard if value is known.default else given.add)(key)

    def __post_init__(self) -> None:
        name = _checked(self.optim)
        self.optim = _ACCEPTED
        super().__post_init__()  # type: ignore[misc]  # of the next class
        self.optim = name

    def set_optimizer(self, name: str = _ACCEPTED, *arguments: Any, **more: Any) -> Self:
        """Set the optimizer and its common arguments, as in Transformers (5.23)."""
        theirs = super().set_optimizer  # type: ignore[misc]  # of the next class
        theirs(_ACCEPTED, *arguments, **more)
        self.optim = _checked(name)
        passed = signature(theirs).bind(_ACCEPTED, *arguments, **more).arguments
        for key, parameter in _PARAMETERS.items():
            if parameter not in passed:
                self.__dict__["hub_given"].discard(key)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an instance of the class in Transformers or TRL."""
        order = type(self).__mro__
        theirs = order[order.index(_AnyName) + 1]
        return object.__new__, (theirs,), self.__dict__


def _plain(name: Any) -> Any:
    return getattr(name, "value", name)


def _checked(name: Any) -> str:
    """Return hub's names as plain strings, and names that only Transformers has as its members."""
    plain = str(_plain(name))
    try:
        default_registry().optimizer(plain)
    except UnknownOptimizerError:
        if plain in {member.value for member in OptimizerNames}:
            return OptimizerNames(plain)  # type: ignore[no-any-return]
        raise
    return plain

"""Arguments classes of Transformers and TRL whose `optim` is any name."""

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
"""What the classes of Transformers are given in place of a name that they refuse."""
_PARAMETERS = {"adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "epsilon"}
"""Fields, and what `TrainingArguments.set_optimizer` (5.23) calls them."""


def hub_arguments(cls: type[A]) -> type[A]:
    """Return a subclass, of the same name and fields, that takes `optim` as hub does.

    Every name that hub has is built by hub, those included that Transformers has too; names that
    only Transformers has are left to it. Works for `HfArgumentParser`, whose `--optim` then has no
    list of choices, and whose YAML files may hold `optim_args` in hub's grammar.

    The Trainer's `get_optimizer_cls_and_kwargs` is replaced by one that hands these arguments to
    hub and all others to Transformers; see `trainer_patch`. What is pickled, `training_args.bin`
    too, is an instance of `cls` that holds the name, and loads without hub.

    Raises:
        OptimArgsError: `cls` is no class of training arguments.
    """
    if not (isinstance(cls, type) and issubclass(cls, TrainingArguments)):
        raise OptimArgsError(
            f"{shown(cls)} is no subclass of transformers.TrainingArguments",
            where="hub_arguments",
            fix="give TrainingArguments, SFTConfig or another class of arguments",
        )
    if issubclass(cls, _AnyName):
        return cls
    trainer_patch.install("hub_arguments")
    theirs = next(one for one in fields(cls) if one.name == "optim")
    about = {"help": "The optimizer to use, one of `hub list`."}
    # Without a repr of its own: theirs hides tokens.
    return make_dataclass(
        cls.__name__,
        [("optim", str, field(default=_plain(theirs.default), metadata=about))],
        bases=(_AnyName, cls),
        namespace={"__doc__": cls.__doc__, "__module__": __name__},
        repr=False,
    )


class _AnyName:
    """What comes before the arguments class of a trainer."""

    optim: Any

    def __setattr__(self, key: str, value: Any) -> None:
        """Remember which numbers were given, though they may equal the default.

        A number is the default if it is that very object: so it is where `HfArgumentParser` passes
        the values of all fields, and not where one was written in code, a file or a command line.
        """
        super().__setattr__(key, value)
        known = self.__dataclass_fields__.get(key)  # type: ignore[attr-defined]  # it is a dataclass
        if known is not None and isinstance(value, int | float):
            given: set[str] = self.__dict__.setdefault("hub_given", set())
            (given.discard if value is known.default else given.add)(key)

    def __post_init__(self) -> None:
        name = _checked(self.optim)
        self.optim = _ACCEPTED
        super().__post_init__()  # type: ignore[misc]  # of the class that comes after this one
        self.optim = name

    def set_optimizer(self, name: str = _ACCEPTED, *arguments: Any, **more: Any) -> Self:
        """Set the optimizer and its usual arguments, as theirs does (Transformers 5.23)."""
        theirs = super().set_optimizer  # type: ignore[misc]  # of the class that comes after
        theirs(_ACCEPTED, *arguments, **more)
        self.optim = _checked(name)
        passed = signature(theirs).bind(_ACCEPTED, *arguments, **more).arguments
        for key, parameter in _PARAMETERS.items():
            if parameter not in passed:
                self.__dict__["hub_given"].discard(key)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle an instance of the class of Transformers or TRL."""
        order = type(self).__mro__
        theirs = order[order.index(_AnyName) + 1]
        return object.__new__, (theirs,), self.__dict__


def _plain(name: Any) -> Any:
    return getattr(name, "value", name)


def _checked(name: Any) -> str:
    """Return a name of hub as a plain string, and one that only Transformers has as its member."""
    plain = str(_plain(name))
    try:
        default_registry().optimizer(plain)
    except UnknownOptimizerError:
        if plain in {member.value for member in OptimizerNames}:
            return OptimizerNames(plain)  # type: ignore[no-any-return]
        raise
    return plain

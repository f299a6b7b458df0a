"""An optimizer where a Trainer creates one: after it has got its model and its arguments."""

from __future__ import annotations

import sys
import warnings
import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn import Module
from transformers import Trainer, TrainerCallback, TrainingArguments

from hub.arguments.checks import check_model
from hub.building.config import TrainingConfig
from hub.building.create import create_from_settings
from hub.building.pairing import Pairing
from hub.building.schedule import check_pairing
from hub.errors import HubWarning, OptimArgsError, UnsupportedError
from hub.groups.given import read_given_groups
from hub.names import list_schedulers
from hub.names.registry import default_registry
from hub.planning.processes import refuse_deepspeed
from hub.trainers.transformers import foreign, reporting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from torch.optim import Optimizer

    from hub.groups.split import Rules

ForTrainer = tuple["Chosen", dict[str, Any]]
"""What the Trainer's `optimizer_cls_and_kwargs` takes: a class or factory, and its keywords."""


def optimizer(
    name: str,
    *,
    optim_args: str | Mapping[str, Any] | None = None,
    target_modules: str | Sequence[str] | None = None,
    param_rules: Rules | None = None,
    args: TrainingArguments | None = None,
) -> ForTrainer:
    """Return what to give as `Trainer(..., optimizer_cls_and_kwargs=...)`.

    The trainer's `optim` is not read then, as Transformers documents it.

    Args:
        name: One of `hub.list_optimizers()`, with `_layerwise` after it or not.
        optim_args: As for `hub.build`; None: the trainer's own `optim_args`.
        target_modules: As for `hub.build`; None: the trainer's own `optim_target_modules`.
        param_rules: As for `hub.build`.
        args: Where all the rest is read from when the trainer creates its optimizer; None: from
            the Trainer that calls, which is found in the frames of the call.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        OptimArgsError: It is no name.
        PluginError: The plugin cannot be used.
    """
    return Chosen(checked_name(name), optim_args, target_modules, param_rules, args), {}


def checked_name(name: object) -> str:
    """Return the name of an optimizer.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        OptimArgsError: It is no name.
        PluginError: The plugin cannot be used.
    """
    if not isinstance(name, str):
        raise OptimArgsError(
            f"a {type(name).__name__} is no optimizer's name",
            where="name",
            fix="give one of `hub list`; a class goes to the trainer as it is: "
            "Trainer(optimizer_cls_and_kwargs=(cls, kwargs))",
        )
    default_registry().optimizer(name)
    return name


def attach(
    trainer: Trainer,
    name: str,
    *,
    optim_args: str | Mapping[str, Any] | None = None,
    target_modules: str | Sequence[str] | None = None,
    param_rules: Rules | None = None,
) -> None:
    """Let a trainer train with an optimizer of hub.

    For trainers whose constructor takes no `optimizer_cls_and_kwargs`, such as TRL's for DPO and
    GRPO (trl 1.16). See `optimizer` for the arguments and for what it raises.

    Raises:
        UnsupportedError: The trainer has been given an optimizer, or has created one.
        OptimArgsError: It is no Trainer of Transformers.
    """
    if not isinstance(trainer, Trainer):
        raise OptimArgsError(
            f"a {type(trainer).__name__} is no transformers.Trainer",
            where="trainer",
            fix="build with hub.build, and give the optimizer to it",
        )
    if trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None:
        raise UnsupportedError(
            "the trainer has an optimizer already",
            where=type(trainer).__name__,
            fix="attach before train(), and give the trainer no optimizer",
        )
    trainer.optimizer_cls_and_kwargs = (
        Chosen(
            checked_name(name),
            optim_args,
            target_modules,
            param_rules,
            trainer=weakref.ref(trainer),
        ),
        {},
    )


@dataclass(frozen=True, eq=False)
class Chosen:
    """An optimizer by name, in the place of an optimizer class or factory.

    The Trainer calls a factory without arguments, and then what that returns with the model
    (trainer.py 5.23, `create_optimizer`). Subclasses call what they take for a class with groups.
    """

    name: str
    optim_args: str | Mapping[str, Any] | None = None
    target_modules: str | Sequence[str] | None = None
    param_rules: Rules | None = None
    args: TrainingArguments | None = field(default=None, repr=False)
    model: Module | None = field(default=None, repr=False)
    """Where the names of parameters in groups are looked up; None: in the Trainer's."""
    trainer: Callable[[], Trainer | None] = field(default=lambda: None, repr=False)

    @property
    def __name__(self) -> str:
        """The name, for those who ask a class, such as PEFT (0.21, `create_loraplus_optimizer`)."""
        return self.name

    def __call__(self, *given: Any, **keywords: Any) -> Any:
        """Build for a model or for groups of parameters; without either, return what builds.

        Args:
            given: A model, or what `torch.optim.Optimizer` takes as `params`; and training
                arguments after it, which are read where there are none yet.
            keywords: Arguments of the optimizer, and what takes the place of the groups.

        Raises:
            HubError: As for `hub.create_optimizer`; for groups see
                `hub.groups.given.read_given_groups`.
        """
        trainer = self.trainer() or _calling(sys._getframe(1))  # noqa: SLF001 - documented
        if given or keywords:
            return _create(self, trainer, *given, **keywords)
        return partial(_create, self, trainer)


def _calling(frame: FrameType | None) -> Trainer | None:
    """Return the Trainer whose method calls, also by way of a function, as LLaMA-Factory's does."""
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer):
            return caller
        frame = frame.f_back
    return None


def _create(chosen: Chosen, trainer: Trainer | None, /, *given: Any, **keywords: Any) -> Optimizer:
    args = _arguments(chosen, trainer, given[1:])
    deepspeed = getattr(args, "deepspeed", None) or getattr(trainer, "is_deepspeed_enabled", False)
    if deepspeed:
        refuse_deepspeed(default_registry().optimizer(chosen.name), where="deepspeed")
    what = next((keywords.pop(key) for key in foreign.GROUPS if key in keywords), None)
    model, groups = _model_and_groups(chosen, trainer, given[0] if given else None, what)
    if groups is None and trainer is not None:
        groups = foreign.groups_of(trainer, args, model)
    config = _config(chosen, args)
    if keywords.get("lr") == args.learning_rate:  # which is the trainer's, not the caller's
        del keywords["lr"]
    built = _build(chosen, config, model, groups, keywords)
    _check_clipping(built, config)
    if trainer is None or _builds_its_schedule(trainer):
        _check_schedule(built, config)
    if trainer is not None:
        engine = getattr(built, "hub_engine", None)
        if engine is not None and engine.settings.self_ending:
            trainer.add_callback(_EndStep(built))
        reporting.report(trainer, built)
    return built


def _build(
    chosen: Chosen,
    config: TrainingConfig,
    model: Module | None,
    groups: object,
    keywords: dict[str, Any],
) -> Optimizer:
    if groups is not None and chosen.param_rules:
        raise OptimArgsError(
            "the trainer makes the parameter groups itself",
            where="param_rules",
            fix="leave them out, and change the trainer's groups",
        )
    given = None
    if groups is not None:
        given = read_given_groups(groups, default_registry().optimizer(chosen.name), model)
    built_for: Any = model if given is None else given.model
    check_model(built_for)
    return create_from_settings(
        chosen.name,
        config,
        built_for,
        given=given,
        hyperparameters=keywords,
        param_rules=chosen.param_rules,
        trainer_clips=True,
    )


def _arguments(chosen: Chosen, trainer: Trainer | None, more: tuple[Any, ...]) -> TrainingArguments:
    """Return the training arguments: those given first, the trainer's, or the call's."""
    for extra in more:
        if not isinstance(extra, TrainingArguments):
            raise OptimArgsError(
                f"a {type(extra).__name__} is no argument of an optimizer",
                where=chosen.name,
                fix="give the model or groups, and keywords",
            )
    candidates = (chosen.args, trainer and trainer.args, *more)
    arguments: TrainingArguments | None = next((one for one in candidates if one), None)
    if arguments is None:
        raise OptimArgsError(
            "no Trainer calls, whose arguments could be read",
            where="hub.trainers.transformers.optimizer",
            fix="give it the arguments: optimizer(..., args=training_args)",
        )
    return arguments


def _model_and_groups(
    chosen: Chosen, trainer: Trainer | None, first: object, instead: object
) -> tuple[Module | None, object]:
    """Return where names come from, and what was given to train, if not all of that."""
    model = first if isinstance(first, Module) else None
    groups = None if isinstance(first, Module) else first
    if isinstance(instead, Module):
        return instead, None
    if instead is not None:
        groups = instead
    if model is None:
        model = chosen.model if trainer is None else chosen.model or trainer.model
    return model, groups


def _config(chosen: Chosen, args: TrainingArguments) -> TrainingConfig:
    """Return the trainer's arguments, with what was chosen in place of its own."""
    loaded = TrainingConfig.load(reporting.as_asked(args))
    values = {key: getattr(loaded, key) for key in loaded.model_fields_set}
    asked = {"optim_args": chosen.optim_args, "optim_target_modules": chosen.target_modules}
    asked = {key: value for key, value in asked.items() if value is not None}
    theirs = {key: value for key, value in values.items() if key not in asked}
    own = foreign.own_arguments(chosen.name, theirs)
    return TrainingConfig(**{**theirs, **own, **asked, "optim": chosen.name})


class _EndStep(TrainerCallback):  # type: ignore[misc]  # untyped
    """Ends the steps of LOMO, whose `step()` Accelerate never calls (1.15, `AcceleratedOptimizer`).

    The engine sees by itself when a step is over, but not when an epoch ends with fewer
    micro-batches than a step accumulates.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = weakref.ref(optimizer)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Do what the Trainer believes it has just done."""
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer.step()


def _check_clipping(built: Any, config: TrainingConfig) -> None:
    """Report where the trainer's clipping comes after the updates, and hub does not clip."""
    engine = getattr(built, "hub_engine", None)
    if engine is not None and config.max_grad_norm and engine.settings.max_grad_norm is None:
        warnings.warn(
            f"{engine.settings.name}: the trainer's max_grad_norm={config.max_grad_norm} has no "
            "effect on updates in the backward pass; set max_grad_norm=0, or "
            "'clipping=previous_norm' or 'clipping=per_parameter' in optim_args",
            HubWarning,
            stacklevel=2,
        )


def _builds_its_schedule(trainer: Trainer) -> bool:
    """Whether the schedule is going to be that of the trainer's arguments."""
    own = type(trainer).create_scheduler is Trainer.create_scheduler
    return own and trainer.lr_scheduler is None


def _check_schedule(built: Optimizer, config: TrainingConfig) -> None:
    """Hold the optimizer to the schedule that the trainer is going to build itself."""
    if config.lr_scheduler_type not in list_schedulers():  # a later Transformers may have more
        return
    steps = config.max_steps
    # How long an epoch is, is not known here; that there is a warm-up, is.
    warmup = config.resolved_warmup_steps(steps if steps > 0 else 1)
    schedule = default_registry().scheduler(config.lr_scheduler_type)
    check_pairing(Pairing(built, schedule, warmup))

"""Create an optimizer when a Trainer does: after it has received its model and arguments."""

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
from hub.running.steps import members_of
from hub.trainers.transformers import foreign, reporting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from torch.optim import Optimizer

    from hub.groups.split import Rules

ForTrainer = tuple["Chosen", dict[str, Any]]
"""The value of the Trainer's `optimizer_cls_and_kwargs`: a class or factory, and its keywords."""


def optimizer(
    name: str,
    *,
    optim_args: str | Mapping[str, Any] | None = None,
    target_modules: str | Sequence[str] | None = None,
    param_rules: Rules | None = None,
    args: TrainingArguments | None = None,
) -> ForTrainer:
    """Return the value for `Trainer(..., optimizer_cls_and_kwargs=...)`.

    The trainer then ignores its `optim` argument, as Transformers documents.

    Args:
        name: One of `hub.list_optimizers()`, with or without the suffix `_layerwise`.
        optim_args: As for `hub.build`; None uses the trainer's `optim_args`.
        target_modules: As for `hub.build`; None uses the trainer's `optim_target_modules`.
        param_rules: As for `hub.build`.
        args: The training arguments from which everything else is read when the trainer creates its
            optimizer; None uses those of the calling Trainer, which is found in the call's frames.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        OptimArgsError: The name is not a string.
        PluginError: The plugin cannot be used.
    """
    return Chosen(checked_name(name), optim_args, target_modules, param_rules, args), {}


def checked_name(name: object) -> str:
    """Return the name of an optimizer, after checking it.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        OptimArgsError: The name is not a string.
        PluginError: The plugin cannot be used.
    """
    if not isinstance(name, str):
        raise OptimArgsError(
            f"a {type(name).__name__} is not the name of an optimizer",
            where="name",
            fix="use a name from `hub list`; pass a class to the trainer directly: "
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
    """Make a trainer use one of hub's optimizers.

    For trainers whose constructor does not take `optimizer_cls_and_kwargs`, such as TRL's for DPO
    and GRPO (trl 1.16). See `optimizer` for the arguments and for the errors about the name.

    Raises:
        UnsupportedError: The trainer already has an optimizer.
        OptimArgsError: `trainer` is not a Trainer of Transformers.
    """
    if not isinstance(trainer, Trainer):
        raise OptimArgsError(
            f"a {type(trainer).__name__} is not a transformers.Trainer",
            where="trainer",
            fix="build with hub.build, and pass the optimizer to your trainer",
        )
    if trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None:
        raise UnsupportedError(
            "the trainer already has an optimizer",
            where=type(trainer).__name__,
            fix="call attach before train(), and do not pass an optimizer to the trainer",
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
    """An optimizer by name, in place of an optimizer class or factory.

    The Trainer calls a factory without arguments, and then calls the result with the model
    (trainer.py 5.23, `create_optimizer`). Subclasses call it with groups, as if it were a class.
    """

    name: str
    optim_args: str | Mapping[str, Any] | None = None
    target_modules: str | Sequence[str] | None = None
    param_rules: Rules | None = None
    args: TrainingArguments | None = field(default=None, repr=False)
    model: Module | None = field(default=None, repr=False)
    """The model in which parameters of groups are looked up by name; None uses the Trainer's."""
    trainer: Callable[[], Trainer | None] = field(default=lambda: None, repr=False)

    @property
    def __name__(self) -> str:
        """The name, for code that expects a class: PEFT (0.21, `create_loraplus_optimizer`)."""
        return self.name

    def __call__(self, *given: Any, **keywords: Any) -> Any:
        """Build for a model or for groups of parameters; without either, return a builder.

        Args:
            given: A model, or `params` as for `torch.optim.Optimizer`. Training arguments may
                follow, and are used if none are known yet.
            keywords: Arguments of the optimizer, and keywords that stand for the groups.

        Raises:
            HubError: As for `hub.create_optimizer`; for groups see
                `hub.groups.given.read_given_groups`.
        """
        trainer = self.trainer() or _calling(sys._getframe(1))  # noqa: SLF001 - documented
        if given or keywords:
            return _create(self, trainer, *given, **keywords)
        return partial(_create, self, trainer)


def _calling(frame: FrameType | None) -> Trainer | None:
    """Return the Trainer whose method calls, possibly through a function as in LLaMA-Factory."""
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
    if keywords.get("lr") == args.learning_rate:  # set by the trainer, not by the caller
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
            "this trainer creates its own parameter groups",
            where="param_rules",
            fix="omit param_rules, and change the trainer's groups",
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
    """Return the training arguments: those of `chosen`, the trainer's, or the call's."""
    for extra in more:
        if not isinstance(extra, TrainingArguments):
            raise OptimArgsError(
                f"unexpected positional argument of type {type(extra).__name__}",
                where=chosen.name,
                fix="pass the model or groups, and arguments of the optimizer as keywords",
            )
    candidates = (chosen.args, trainer and trainer.args, *more)
    arguments: TrainingArguments | None = next((one for one in candidates if one), None)
    if arguments is None:
        raise OptimArgsError(
            "not called from a Trainer, so there are no training arguments to read",
            where="hub.trainers.transformers.optimizer",
            fix="pass them: optimizer(..., args=training_args)",
        )
    return arguments


def _model_and_groups(
    chosen: Chosen, trainer: Trainer | None, first: object, instead: object
) -> tuple[Module | None, object]:
    """Return the model that names parameters, and the groups to train, or None for all of it."""
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
    """Return the trainer's arguments, overridden by those of `chosen`."""
    loaded = TrainingConfig.load(reporting.as_asked(args))
    values = {key: getattr(loaded, key) for key in loaded.model_fields_set}
    asked = {"optim_args": chosen.optim_args, "optim_target_modules": chosen.target_modules}
    asked = {key: value for key, value in asked.items() if value is not None}
    theirs = {key: value for key, value in values.items() if key not in asked}
    own = foreign.own_arguments(chosen.name, theirs)
    return TrainingConfig(**{**theirs, **own, **asked, "optim": chosen.name})


class _EndStep(TrainerCallback):  # type: ignore[misc]  # untyped
    """Ends the steps of LOMO, whose `step()` Accelerate never calls (1.15, `AcceleratedOptimizer`).

    The engine detects the end of a step, except where an epoch ends with fewer micro-batches than a
    step accumulates.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = weakref.ref(optimizer)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Call `step()`, as the Trainer believes it has just done."""
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer.step()


def _engines(built: Any) -> list[Any]:
    """Return the engines of those optimizers that step inside the backward pass."""
    return [m.hub_engine for m in members_of(built) if hasattr(m, "hub_engine")]


def _check_clipping(built: Any, config: TrainingConfig) -> None:
    """Warn if the trainer clips after the updates and hub does not clip."""
    for engine in _engines(built):
        if not config.max_grad_norm or engine.settings.max_grad_norm is not None:
            continue
        warnings.warn(
            f"{engine.settings.name} updates during the backward pass, so the trainer's "
            f"max_grad_norm={config.max_grad_norm} has no effect; set max_grad_norm=0, or "
            "'clipping=previous_norm' or 'clipping=per_parameter' in optim_args",
            HubWarning,
            stacklevel=2,
        )


def _builds_its_schedule(trainer: Trainer) -> bool:
    """Return whether the trainer will build the schedule from its arguments."""
    own = type(trainer).create_scheduler is Trainer.create_scheduler
    return own and trainer.lr_scheduler is None


def _check_schedule(built: Optimizer, config: TrainingConfig) -> None:
    """Check that the optimizer works with the schedule that the trainer will build."""
    if config.lr_scheduler_type not in list_schedulers():  # a later Transformers may have more
        return
    steps = config.max_steps
    # The length of an epoch is unknown here, but whether there is a warm-up is known.
    warmup = config.resolved_warmup_steps(steps if steps > 0 else 1)
    schedule = default_registry().scheduler(config.lr_scheduler_type)
    check_pairing(Pairing(built, schedule, warmup))

"""An optimizer where a Trainer creates one: after it has got its model and its arguments."""

from __future__ import annotations

import sys
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainingArguments

from hub.compatibility import Pairing
from hub.configuration import TrainingConfig
from hub.creation import create_optimizer
from hub.errors import HubWarning, OptimArgsError, UnsupportedError
from hub.names import list_schedulers
from hub.registry import default_registry
from hub.schedulers import check_pairing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.groups import Rules

ForTrainer = tuple["Callable[[], Callable[..., Optimizer]]", dict[str, Any]]
"""What the Trainer's `optimizer_cls_and_kwargs` takes: a factory's factory, and its keywords."""


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
            the Trainer that calls, which is found in the frame of its `create_optimizer`.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        PluginError: The plugin cannot be used.
    """
    default_registry().optimizer(name)
    keywords = {
        "name": name,
        "optim_args": optim_args,
        "target_modules": target_modules,
        "param_rules": param_rules,
        "args": args,
    }
    return _factory, keywords


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
    trainer.optimizer_cls_and_kwargs = optimizer(
        name,
        optim_args=optim_args,
        target_modules=target_modules,
        param_rules=param_rules,
        args=trainer.args,
    )


def _factory() -> Callable[..., Optimizer]:
    """Return what the Trainer then calls with its model (trainer.py 5.23, `create_optimizer`)."""
    return partial(_create, caller=sys._getframe(1).f_locals.get("self"))  # noqa: SLF001 - documented


def _create(
    model: Module,
    *,
    name: str,
    optim_args: str | Mapping[str, Any] | None,
    target_modules: str | Sequence[str] | None,
    param_rules: Rules | None,
    args: TrainingArguments | None,
    caller: object,
) -> Optimizer:
    if args is None:
        args = _arguments_of(caller)
    given = TrainingConfig.load(args)
    asked = {
        "optim": name,
        **({} if optim_args is None else {"optim_args": optim_args}),
        **({} if target_modules is None else {"optim_target_modules": target_modules}),
    }
    kept = {key: getattr(given, key) for key in given.model_fields_set}
    config = TrainingConfig(**{**kept, **asked})
    built = create_optimizer(model, config, param_rules=param_rules, trainer_clips=True)
    _check_clipping(built, config)
    _check_schedule(built, config)
    engine = getattr(built, "hub_engine", None)
    if engine is not None and engine.settings.ends_itself and isinstance(caller, Trainer):
        caller.add_callback(_EndStep(built))
    return built


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


def _arguments_of(caller: object) -> TrainingArguments:
    if not isinstance(caller, Trainer):
        raise OptimArgsError(
            "no Trainer calls, whose arguments could be read",
            where="hub.trainers.transformers.optimizer",
            fix="give it the arguments: optimizer(..., args=training_args)",
        )
    arguments: TrainingArguments = caller.args
    return arguments


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


def _check_schedule(built: Optimizer, config: TrainingConfig) -> None:
    """Hold the optimizer to the schedule that the trainer is going to build itself."""
    if config.lr_scheduler_type not in list_schedulers():  # a later Transformers may have more
        return
    steps = config.max_steps
    # How long an epoch is, is not known here; that there is a warm-up, is.
    warmup = config.warmup(steps if steps > 0 else 1)
    schedule = default_registry().scheduler(config.lr_scheduler_type)
    check_pairing(Pairing(built, schedule, warmup))

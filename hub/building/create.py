"""An optimizer and a schedule from a trainer's arguments, as Transformers' Trainer creates them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from hub.arguments.checks import check_model
from hub.arguments.resolve import resolve_arguments
from hub.building.build import build_prepared
from hub.building.config import TrainingConfig, is_adam_like
from hub.building.schedule import build_scheduler_from
from hub.errors import HubWarning, OptimArgsError
from hub.groups.modules import trainable_parameters
from hub.names.by_class import checked_pair
from hub.names.registry import default_registry
from hub.names.signatures import arguments_from_signature, qualified_name
from hub.planning.call import BuildCall
from hub.planning.found import find_optimizer
from hub.planning.precision import detect_precision
from hub.planning.prepare import prepare
from hub.planning.processes import refuse_deepspeed
from hub.planning.requests import own_arguments
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from torch.nn import Module
    from torch.optim.lr_scheduler import LRScheduler

    from hub.building.config import Source
    from hub.groups.given import GivenGroups
    from hub.groups.split import Rules
    from hub.names.by_class import OptimizerClass
    from hub.planning.found import Found
    from hub.planning.single import Prepared


def create_optimizer(
    model: Module,
    config: TrainingConfig | Source,
    *,
    optimizer: Optimizer | OptimizerClass | None = None,
    param_rules: Rules | None = None,
    trainer_clips: bool = False,
) -> Optimizer:
    """Build the optimizer that a trainer's arguments ask for, by `hub.build`.

    `learning_rate` and `weight_decay` go to every optimizer that takes them. `adam_beta1`,
    `adam_beta2` and `adam_epsilon` go to those with both `betas` and `eps`, and only if they
    were given: otherwise the optimizer's own defaults apply, which differ (StableAdamW's second
    beta is 0.99). A given `adam_beta1` is the `momentum` of optimizers with `nesterov`, as
    Transformers documents for SGD, although its Trainer (5.23) does not pass it. hub warns if one
    of the three is given but not used. `max_grad_norm` clips before each step; an optimizer that
    steps inside the backward pass gets it only if it was given, or if `clipping` is set.

    Args:
        model: The model, on its device and in the dtype it will be trained in.
        config: A `TrainingConfig`, or whatever its `load` takes.
        optimizer: Replaces `optim`: a finished optimizer, used as it is; or
            `(class_or_factory, arguments)`, called as `class_or_factory(param_groups, **arguments)`
            with the same groups, and the trainer's learning rate if the arguments have none.
        param_rules: As for `hub.build`.
        trainer_clips: Whether the trainer itself clips gradients between backward pass and step.

    Raises:
        UnsupportedError: The arguments ask for DeepSpeed, under which the optimizer cannot train.
        HubError: As for `hub.build`, and for an invalid configuration.
    """
    if isinstance(optimizer, Optimizer):
        if param_rules:
            raise OptimArgsError(
                "param_rules cannot regroup a finished optimizer",
                where="param_rules",
                fix="pass its class and arguments instead, or leave out the rules",
            )
        return optimizer
    check_model(model)
    settings = TrainingConfig.load(config)
    what = _optimizer_or_name(settings, optimizer)
    _, spec, _ = find_optimizer(what, settings.optim_args, default_registry())
    if getattr(config, "deepspeed", None):
        refuse_deepspeed(spec, where="deepspeed")
    return create_from_settings(
        what, settings, model, param_rules=param_rules, trainer_clips=trainer_clips, stacklevel=3
    )


def create_from_settings(
    what: str | OptimizerClass,
    settings: TrainingConfig,
    model: Module,
    *,
    given: GivenGroups | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    param_rules: Rules | None = None,
    trainer_clips: bool = False,
    stacklevel: int = 2,
) -> Optimizer:
    """Build an optimizer under a trainer's arguments; see `create_optimizer`.

    Args:
        what: A name, or a class or factory with its arguments.
        settings: The trainer's arguments.
        model: The model.
        given: Groups made by the trainer. They define what decays: `weight_decay` of the settings
            is not used, and a group without one gets the optimizer's default, as with torch's
            optimizer classes.
        hyperparameters: Further arguments of the optimizer.
        param_rules: As for `hub.build`.
        trainer_clips: As for `create_optimizer`.
        stacklevel: As for `warnings.warn`.
    """
    found = find_optimizer(what, settings.optim_args, default_registry())
    call = _TrainerCall(
        what,
        model,
        optim_args=settings.optim_args,
        target_modules=settings.optim_target_modules,
        param_rules=param_rules,
        precision=_precision(settings, model),
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_grad_norm=_clipping(settings, found, trainer_clips=trainer_clips),
        **(hyperparameters or {}),
    )
    call.settings, call.makes_groups = settings, given is None
    prepared = prepare(call, given=given)
    _warn_of_unused(settings, prepared, stacklevel + 1)
    return build_prepared(prepared, default_registry().observers(), stacklevel=stacklevel + 1)


def create_scheduler(
    optimizer: Optimizer,
    config: TrainingConfig | Source,
    num_training_steps: int,
    *,
    scheduler: LRScheduler | OptimizerClass | None = None,
) -> LRScheduler:
    """Build the learning-rate schedule that a trainer's arguments ask for.

    Args:
        optimizer: Its groups' current learning rates are the peaks.
        config: A `TrainingConfig`, or whatever its `load` takes.
        num_training_steps: Optimizer steps, not batches: `config.training_steps(len(dataset))`.
        scheduler: Replaces `lr_scheduler_type`: a finished schedule, used as it is; or
            `(class_or_factory, arguments)`, called as `class_or_factory(optimizer, **arguments)`.

    Raises:
        HubError: As for `hub.build_scheduler`, and for an invalid configuration.
    """
    if hasattr(scheduler, "step"):
        return scheduler  # type: ignore[return-value]  # Transformers' GreedyLR is not one
    if scheduler is not None:
        factory, arguments = checked_pair(scheduler, "schedule")
        resolve_arguments(
            qualified_name(factory),
            arguments_from_signature(factory, arguments),
            hyperparameters=arguments,
        )
        built: LRScheduler = factory(optimizer, **arguments)
        return built
    settings = TrainingConfig.load(config)
    return build_scheduler_from(
        settings.lr_scheduler_type,
        optimizer,
        settings.resolved_warmup_steps(num_training_steps),
        num_training_steps,
        settings.lr_scheduler_kwargs or {},
        evaluates=settings.eval_strategy != "no",
    )


def create_optimizer_and_scheduler(
    model: Module,
    config: TrainingConfig | Source,
    num_training_steps: int,
    *,
    optimizer: Optimizer | OptimizerClass | None = None,
    scheduler: LRScheduler | OptimizerClass | None = None,
    param_rules: Rules | None = None,
) -> tuple[Optimizer, LRScheduler]:
    """Return what `create_optimizer` and `create_scheduler` build, in one call."""
    settings = TrainingConfig.load(config)
    built = create_optimizer(model, settings, optimizer=optimizer, param_rules=param_rules)
    return built, create_scheduler(built, settings, num_training_steps, scheduler=scheduler)


class _TrainerCall(BuildCall):
    """A call whose defaults are a trainer's arguments, as each optimizer takes them."""

    settings: TrainingConfig
    makes_groups: bool
    """Whether hub decides what decays, and not the trainer."""

    def defaults_for(self, arguments: type[BaseModel]) -> Mapping[str, Any]:
        defaults, _ = _trainer_defaults(self.settings, arguments)
        if not self.makes_groups:
            del defaults["weight_decay"]
        return defaults


def _warn_of_unused(settings: TrainingConfig, prepared: Prepared, stacklevel: int) -> None:
    """Warn of given arguments that none of the optimizers takes."""
    lists = [_trainer_defaults(settings, part.spec.arguments)[1] for part in prepared.parts]
    unused = [key for key in lists[0] if all(key in others for others in lists)]
    if unused:
        warnings.warn(
            f"{prepared.spec.name} does not take {', '.join(unused)}; pass its own arguments in "
            "optim_args",
            HubWarning,
            stacklevel=stacklevel,
        )


def _optimizer_or_name(config: TrainingConfig, given: OptimizerClass | None) -> Any:
    """Return the name, or the class or factory with its arguments, to build."""
    if given is None:
        return config.optim
    if config.optim_args is not None or config.optim_target_modules is not None:
        raise OptimArgsError(
            f"optim_args and optim_target_modules are for '{config.optim}', but another optimizer "
            "is given",
            where="argument 'optim_args' of TrainingConfig",
            fix="leave them out, and pass the arguments with the class",
        )
    return given


def _trainer_defaults(
    config: TrainingConfig, arguments: type[BaseModel]
) -> tuple[dict[str, Any], list[str]]:
    """Return the defaults for an optimizer, and the given arguments that it does not use."""
    fields = arguments.model_fields
    given = {
        key: getattr(config, key)
        for key in ("adam_beta1", "adam_beta2", "adam_epsilon")
        if key in config.model_fields_set
    }
    defaults: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if is_adam_like({key: field.default for key, field in fields.items()}):
        first, second, *more = fields["betas"].default
        betas = (given.pop("adam_beta1", first), given.pop("adam_beta2", second), *more)
        if betas != (first, second, *more):
            defaults["betas"] = betas
        if "adam_epsilon" in given:
            defaults["eps"] = given.pop("adam_epsilon")
    elif "nesterov" in fields and "adam_beta1" in given:
        defaults["momentum"] = given.pop("adam_beta1")
    return defaults, list(given)


def _clipping(config: TrainingConfig, found: Found, *, trainer_clips: bool) -> float | None:
    limit, spec = config.max_grad_norm or None, found.spec
    if Trait.STEPS_IN_BACKWARD not in spec.traits:
        return None if trainer_clips else limit
    asked = own_arguments(found)
    own: Any = resolve_arguments(spec.name, spec.arguments, optim_args=asked).model
    given = own.clipping is not None or "max_grad_norm" in config.model_fields_set
    return limit if given else None


def _precision(config: TrainingConfig, model: Module) -> str | None:
    """Return "bf16-mixed" or "fp16-mixed" if the parameters have another dtype than that."""
    if not (config.bf16 or config.fp16):
        return None
    asked = "bf16" if config.bf16 else "fp16"
    found = detect_precision(trainable_parameters(model)).dtypes[0]
    return f"{asked}-mixed" if asked != found else None

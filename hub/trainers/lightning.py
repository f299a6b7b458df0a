"""Optimizers and schedules for PyTorch Lightning (2.6), for `configure_optimizers` in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.building.build import build
from hub.building.schedule import build_scheduler
from hub.errors import OptimArgsError, UnsupportedError
from hub.names.registry import default_registry
from hub.planning.found import find_optimizer
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.nn import Module
    from torch.optim import Optimizer as TorchOptimizer

_SET_ON_TRAINER = {
    "max_grad_norm": "Trainer(gradient_clip_val=…)",
    "precision": "Trainer(precision=…)",
    "defaults": "keyword arguments",
}
"""The arguments of `hub.build` that are not accepted here, and what to use instead."""


class Optimizer:
    """Describes the optimizer and schedule that `configure_optimizers` returns.

    `Optimizer("adamw_torch", lr=1e-3, schedule="cosine")(self)` builds them for a module. The
    precision, gradient accumulation, clipping and number of steps come from the module's trainer.
    LightningCLI accepts this class too, because its arguments are typed.

    Args:
        name: As for `hub.build`.
        lr: The peak learning rate.
        optim_args: As for `hub.build`.
        target_modules: As for `hub.build`.
        param_rules: As for `hub.build`.
        schedule: One of `hub.list_schedulers()`; None keeps the learning rate constant.
        num_warmup_steps: Optimizer steps of warm-up.
        num_training_steps: Optimizer steps of the whole run; None uses the trainer's estimate.
        schedule_args: The schedule's arguments.
        monitor: Name of the logged metric for metric-driven schedules, which read it after each
            epoch that validates.
        gradient_accumulation_steps: Only for manual optimization, where the trainer does not know
            it.
        hyperparameters: The optimizer's arguments, as keywords.
    """

    def __init__(
        self,
        name: str,
        *,
        lr: float | None = None,
        optim_args: str | dict[str, Any] | None = None,
        target_modules: str | list[str] | None = None,
        param_rules: dict[str, dict[str, Any]] | None = None,
        schedule: str | None = None,
        num_warmup_steps: int = 0,
        num_training_steps: int | None = None,
        schedule_args: dict[str, Any] | None = None,
        monitor: str | None = None,
        gradient_accumulation_steps: int | None = None,
        **hyperparameters: Any,
    ) -> None:
        for key in hyperparameters.keys() & _SET_ON_TRAINER.keys():
            raise OptimArgsError(
                f"{key} is not an argument of the optimizer in Lightning",
                where=f"argument '{key}'",
                fix=f"use {_SET_ON_TRAINER[key]}",
            )
        self.name = name
        self.optim_args = optim_args
        self.target_modules: str | Sequence[str] | None = target_modules
        self.param_rules = param_rules
        self.schedule = schedule
        self.num_warmup_steps = num_warmup_steps
        self.num_training_steps = num_training_steps
        self.schedule_args = schedule_args or {}
        self.monitor = monitor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.hyperparameters = {**hyperparameters, **({} if lr is None else {"lr": lr})}

    def __call__(self, module: Module) -> dict[str, Any]:
        """Build the optimizer and the schedule for a `LightningModule`, in `configure_optimizers`.

        Raises:
            HubError: As for `hub.build` and `hub.build_scheduler`; also if the trainer clips, the
                optimizer steps inside the backward pass, and `clipping` is not set, see
                docs/layerwise.md.
        """
        trainer: Any = module.trainer
        optimizer = build(
            self.name,
            module,
            optim_args=self.optim_args,
            target_modules=self.target_modules,
            param_rules=self.param_rules,
            precision=_autocast(trainer),
            gradient_accumulation_steps=self.gradient_accumulation_steps or _accumulation(trainer),
            max_grad_norm=self._clipping(trainer),
            **self.hyperparameters,
        )
        if self.schedule is None:
            return {"optimizer": optimizer}
        return {
            "optimizer": optimizer,
            "lr_scheduler": self._scheduling(self.schedule, optimizer, trainer),
        }

    def _clipping(self, trainer: Any) -> float | None:
        """Return the trainer's maximum norm for optimizers that update before the trainer can clip.

        The trainer clips for all others, in the closure that it passes to `step`.
        """
        _, spec, _ = find_optimizer(self.name, self.optim_args, default_registry())
        if Trait.STEPS_IN_BACKWARD not in spec.traits or not trainer.gradient_clip_val:
            return None
        if trainer.gradient_clip_algorithm == "value":
            raise UnsupportedError(
                f"Lightning clips values after the backward pass; {spec.name} updates during it",
                where="Trainer(gradient_clip_algorithm='value')",
                fix=f"use Trainer(gradient_clip_val=None), and pass clip_grad_value="
                f"{trainer.gradient_clip_val} to the optimizer",
            )
        norm: float = trainer.gradient_clip_val
        return norm

    def _scheduling(self, name: str, optimizer: TorchOptimizer, trainer: Any) -> dict[str, Any]:
        """Return the schedule, with when the trainer has to step it."""
        scheduler = build_scheduler(
            name,
            optimizer,
            num_warmup_steps=self.num_warmup_steps,
            num_training_steps=self.num_training_steps or _steps(trainer),
            **self.schedule_args,
        )
        if not default_registry().scheduler(name).needs_metric:
            return {"scheduler": scheduler, "interval": "step"}
        by_epochs = {"interval": "epoch", "frequency": trainer.check_val_every_n_epoch or 1}
        # Lightning requires a monitor, except in manual optimization, where it warns about one.
        monitor = {} if self.monitor is None else {"monitor": self.monitor}
        return {"scheduler": scheduler, **by_epochs, **monitor}


def _autocast(trainer: Any) -> str | None:
    """Return the trainer's precision if it cannot be detected from the parameters."""
    return trainer.precision if trainer.precision.endswith("-mixed") else None


def _accumulation(trainer: Any) -> int:
    """Return the maximum number of micro-batches in a step of this training.

    Parameters that received fewer are updated at the end of the step: the last step of an epoch may
    be shorter, and so are all steps in some epochs of Lightning's GradientAccumulationScheduler.
    """
    schedules = [getattr(callback, "scheduling", {}) for callback in trainer.callbacks]
    counts = [trainer.accumulate_grad_batches, *(k for s in schedules for k in s.values())]
    return int(max(counts))


def _steps(trainer: Any) -> int | None:
    """Return how many optimizer steps the trainer expects; None if the training has no end."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < float("inf") else None

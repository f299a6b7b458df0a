"""Optimizers and schedules for PyTorch Lightning (2.6): `configure_optimizers` in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.building.build import build
from hub.building.schedule import build_scheduler
from hub.errors import OptimArgsError, UnsupportedError
from hub.names.registry import default_registry
from hub.planning.prepare import find_optimizer
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.nn import Module
    from torch.optim import Optimizer as TorchOptimizer

_THE_TRAINERS = {
    "max_grad_norm": "Trainer(gradient_clip_val=…)",
    "precision": "Trainer(precision=…)",
    "defaults": "the arguments themselves",
}
"""What `hub.build` takes and this does not, and where it comes from instead."""


class Optimizer:
    """What `configure_optimizers` returns, by names.

    A description: `Optimizer("adamw_torch", lr=1e-3, schedule="cosine")(self)` builds it for a
    module and its trainer, who says the precision, the accumulation, the clipping and how many
    steps there are. Being a class with typed arguments, it is what LightningCLI can be given.

    Args:
        name: As for `hub.build`.
        lr: The peak of the schedule.
        optim_args: As for `hub.build`.
        target_modules: As for `hub.build`.
        param_rules: As for `hub.build`.
        schedule: One of `hub.list_schedulers()`; None: the learning rate stays.
        num_warmup_steps: Optimizer steps of warm-up.
        num_training_steps: Of the whole run; None: as the trainer estimates.
        schedule_args: The schedule's own arguments.
        monitor: What is logged as this is the metric of a schedule that follows one; it is read
            after each epoch that validates.
        gradient_accumulation_steps: Only for manual optimization, where the trainer does not know.
        hyperparameters: The optimizer's own arguments, as keywords.
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
        for key in hyperparameters.keys() & _THE_TRAINERS.keys():
            raise OptimArgsError(
                f"{key} is not given to the optimizer here",
                where=f"argument '{key}'",
                fix=f"use {_THE_TRAINERS[key]}",
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
            HubError: As for `hub.build` and `hub.build_scheduler`; for one that steps inside the
                backward pass also where the trainer clips and nothing says how, see `clipping` in
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
        """Return the trainer's norm for who updates before the trainer gets to clip.

        All others it clips itself, in the closure that it gives to `step`.
        """
        _, spec, _ = find_optimizer(self.name, self.optim_args, default_registry())
        if Trait.STEPS_IN_BACKWARD not in spec.traits or not trainer.gradient_clip_val:
            return None
        if trainer.gradient_clip_algorithm == "value":
            raise UnsupportedError(
                f"Lightning clips values after the backward pass, in which {spec.name} updates",
                where="Trainer(gradient_clip_algorithm='value')",
                fix=f"Trainer(gradient_clip_val=None), and clip_grad_value="
                f"{trainer.gradient_clip_val} for the optimizer",
            )
        norm: float = trainer.gradient_clip_val
        return norm

    def _scheduling(self, name: str, optimizer: TorchOptimizer, trainer: Any) -> dict[str, Any]:
        """Return the schedule, and when the trainer has to step it."""
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
        # Lightning warns of a monitor in manual optimization, and wants one otherwise.
        monitor = {} if self.monitor is None else {"monitor": self.monitor}
        return {"scheduler": scheduler, **by_epochs, **monitor}


def _autocast(trainer: Any) -> str | None:
    """Return the trainer's precision where the parameters do not show it."""
    return trainer.precision if trainer.precision.endswith("-mixed") else None


def _accumulation(trainer: Any) -> int:
    """Return the most micro-batches that a step of this training has.

    What has got fewer at the end of a step is updated there: at the end of an epoch, or where
    Lightning's GradientAccumulationScheduler has another number for other epochs.
    """
    schedules = [getattr(callback, "scheduling", {}) for callback in trainer.callbacks]
    counts = [trainer.accumulate_grad_batches, *(k for s in schedules for k in s.values())]
    return int(max(counts))


def _steps(trainer: Any) -> int | None:
    """Return how many optimizer steps the trainer expects; None if it has no end."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < float("inf") else None

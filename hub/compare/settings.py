"""What a study is asked to do: plain frozen data, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from hub.compare.tasks import Options
from hub.errors import HubError
from hub.experiments.contender import Contender, check_labels
from hub.experiments.devices import check_words

EVALUATIONS = 20
"""How many times a training is evaluated that has a target."""
LEAST = {
    "steps": 1,
    "batch_size": 1,
    "sequence_length": 2,
    "warmup_steps": 0,
    "seed": 0,
    "seeds": 1,
    "tune": 0,
    "evaluate_every": 1,
    "jobs": 1,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a study depends on. A file of a study has these keys.

    Raises:
        HubError: A value makes no sense.
        PrecisionError: The precision is unknown, or the device cannot train in it.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    contenders: tuple[Contender, ...]
    tasks: tuple[str, ...] = ("llama",)
    """Names of built-in tasks, or `module:function`, a function that returns a `Task`."""
    steps: int | None = None
    """None: as many as the task says."""
    seeds: int = 1
    """How many trainings each contender is judged by."""
    seed: int = 0
    """The first seed."""
    tune: int = 0
    """How many trials choose each contender's settings, before the trainings that count."""
    tune_arguments: tuple[str, ...] = ("lr", "weight_decay", "betas")
    """Which arguments, of those that an optimizer has and a contender does not set."""
    sampler: Literal["sobol", "optuna"] = "sobol"
    target: float | None = None
    """A held-out loss: how many steps, seconds and tokens lead to it?"""
    evaluate_every: int | None = None
    """In steps. None: twenty times a training if there is a target, else only at its end."""
    batch_size: int | None = None
    """In sequences or images; None: as the task says."""
    sequence_length: int | None = None
    """In tokens, which are bytes; None: as the task says."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """For low-rank optimizers only; the others train every parameter alike."""
    lr_scheduler: str | None = None
    """As long as the training."""
    warmup_steps: int = 0
    """Warm-up of the learning rate; needs a scheduler."""
    max_grad_norm: float | None = None
    precision: str = "fp32"
    device: str = "cpu"
    """"cpu", "cuda" or "cuda:N"."""
    data: Path | None = None
    """A UTF-8 text; None is the help text that comes with Python."""
    model: Path | None = None
    """A folder with a Transformers configuration and perhaps weights; None is the task's own."""
    jobs: int = 1
    """How many trainings run at the same time."""
    out: Path | None = None
    """The folder of the report, and of each training that is done: a study goes on from there."""

    def __post_init__(self) -> None:
        if not self.contenders:
            raise HubError(
                "there is nothing to compare", where="contenders", fix="name an optimizer"
            )
        check_labels(self.contenders)
        if not self.tasks:
            raise HubError("there is no task", where="tasks", fix="name one, such as llama")
        for key, least in LEAST.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise HubError(f"{key} is {value}", where=key, fix=f"{least} or more")
        for contender in (None, *self.contenders):
            self._check_training(contender)
        check_words(self.precision, self.device)

    def _check_training(self, contender: Contender | None) -> None:
        """Check clipping and the schedule, of the study or of one contender in it."""
        where = f" of {contender.label}" if contender else ""
        max_grad_norm = self.of(contender, "max_grad_norm")
        warmup_steps = self.of(contender, "warmup_steps")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise HubError(
                f"max_grad_norm{where} is {max_grad_norm}",
                where="max_grad_norm",
                fix="a number above 0, or leave it out to train without clipping",
            )
        if warmup_steps and self.of(contender, "lr_scheduler") is None:
            raise HubError(
                f"warmup_steps{where} needs a learning-rate schedule",
                where="warmup_steps",
                fix="name an lr_scheduler, such as constant_with_warmup",
            )
        if self.steps is not None:
            self.check_steps(contender, self.steps)

    def check_steps(self, contender: Contender | None, steps: int) -> None:
        """Check that a contender's warm-up fits into a training.

        Raises:
            HubError: It does not.
        """
        warmup_steps = self.of(contender, "warmup_steps")
        if warmup_steps > steps:
            of = f" of {contender.label}" if contender else ""
            raise HubError(
                f"{warmup_steps} warm-up steps{of} do not fit into {steps} steps",
                where="warmup_steps",
                fix="fewer warm-up steps, or more steps",
            )

    @property
    def task_options(self) -> Options:
        """What the study says about its tasks."""
        return Options(
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            data=self.data,
            model=self.model,
        )

    def evaluated_after(self, steps: int, target: float | None = None) -> range:
        """Return the steps after which a training is evaluated, besides its last one.

        Args:
            steps: How many it has.
            target: Of its task, which counts if the study has none.
        """
        every = self.evaluate_every
        if every is None and (self.target is not None or target is not None):
            every = max(1, steps // EVALUATIONS)
        return range(every, steps, every) if every else range(0)

    def of(self, contender: Contender | None, key: str) -> Any:
        """Return a setting as it is for a contender: its own one, or the study's."""
        own = getattr(contender, key, None)
        return getattr(self, key) if own is None else own

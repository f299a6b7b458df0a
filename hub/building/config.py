"""`hub.TrainingConfig`: what a trainer's arguments say about its optimizer and schedule."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from packaging.version import Version
from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from hub.arguments import Arguments, Beta, Eps
from hub.arguments.checks import check_whole_number
from hub.arguments.grammar import parse_arguments
from hub.arguments.resolve import resolve_arguments
from hub.arguments.values import as_tuples
from hub.errors import OptimArgsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Source = Mapping[str, Any] | str | PathLike[str] | DataclassInstance
    """Sources of a configuration, besides a `TrainingConfig`."""

NonNegative = Annotated[float, Field(ge=0)]


def _default_optimizer() -> str:
    """Return Transformers' default (5.23), which is fused from torch 2.8 on."""
    fused = Version(metadata.version("torch")) >= Version("2.8")
    return "adamw_torch_fused" if fused else "adamw_torch"


def _read_arguments(value: Any) -> Any:
    """Return the mapping that a text such as "num_cycles=2" stands for."""
    if not isinstance(value, str):
        return value
    try:
        return parse_arguments(value)
    except OptimArgsError as error:  # for pydantic, which adds the place
        raise ValueError(error.what) from error


class _Fields(Arguments):
    """Names, meanings and defaults of `transformers.TrainingArguments` (5.23)."""

    optim: str = Field(default_factory=_default_optimizer)
    """One of `hub.list_optimizers()`."""
    optim_args: str | dict[str, Any] | None = None
    """The optimizer's own arguments, `"key=value, key=value"` or a mapping."""
    optim_target_modules: str | tuple[str, ...] | None = None
    """For low-rank optimizers: which linear layers; see `hub.build`."""
    learning_rate: NonNegative = 5e-5
    """The peak of the schedule."""
    weight_decay: NonNegative = 0.0
    """For all parameters except biases, norms and others that are never decayed."""
    adam_beta1: Beta = 0.9
    """First decay rate of Adam-like optimizers; if given, the momentum of SGD-like ones."""
    adam_beta2: Beta = 0.999
    """Second decay rate of Adam-like optimizers."""
    adam_epsilon: Eps = 1e-8
    """`eps` of Adam-like optimizers."""
    lr_scheduler_type: str = "linear"
    """One of `hub.list_schedulers()`."""
    lr_scheduler_kwargs: Annotated[dict[str, Any] | None, BeforeValidator(_read_arguments)] = None
    """The schedule's own arguments, a mapping or `"key=value, key=value"`."""
    warmup_steps: NonNegative = 0.0
    """Optimizer steps of warm-up; below 1, a share of the whole training."""
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    """Warm-up as a share of the whole training, as before Transformers 5; `warmup_steps` wins."""
    max_grad_norm: NonNegative | None = 1.0
    """The norm that gradients are clipped to; 0 or None: no clipping."""
    gradient_accumulation_steps: PositiveInt = 1
    """Micro-batches per optimizer step."""
    bf16: bool = False
    """Train in bf16: under autocast if the parameters are fp32."""
    fp16: bool = False
    """Train in fp16: under autocast, with a gradient scaler."""
    num_train_epochs: float = Field(default=3.0, gt=0)
    """Passes over the data, if `max_steps` is not given."""
    max_steps: int = -1
    """Optimizer steps in all; below 0: as many as the epochs take."""
    per_device_train_batch_size: PositiveInt = 8
    """Samples per micro-batch on one device."""
    dataloader_drop_last: bool = False
    """Drop the last micro-batch if it is incomplete."""
    # YAML 1.1 reads a bare `no` as False.
    eval_strategy: Annotated[
        Literal["no", "steps", "epoch"], BeforeValidator(lambda v: "no" if v is False else v)
    ] = "no"
    """When a metric is measured, which some schedules need."""

    @model_validator(mode="after")
    def _one_half_precision(self) -> Self:
        if self.bf16 and self.fp16:
            raise ValueError("at most one of bf16 and fp16 can be True")
        return self


class TrainingConfig(_Fields):
    """A trainer's arguments, as far as the optimizer and the schedule depend on them.

    Strings are read like `optim_args`, so "5e-5", which YAML takes for text, is a number. All steps
    are optimizer steps. None counts as not given, except for `max_grad_norm`: there it means no
    clipping.

    Raises:
        OptimArgsError: A key is unknown, or a value is of the wrong type or out of range.
    """

    def __init__(self, /, **values: Any) -> None:
        plain = {key: _plain(value) for key, value in values.items() if _is_given(key, value)}
        checked = resolve_arguments("TrainingConfig", _Fields, hyperparameters=plain).model
        super().__init__(**{key: getattr(checked, key) for key in plain})

    @classmethod
    def load(cls, source: TrainingConfig | Source) -> TrainingConfig:
        """Return a configuration from a mapping, a file or a dataclass.

        Args:
            source: A mapping; the path of a JSON or YAML file; a `TrainingConfig`; or an instance
                of a dataclass, such as `transformers.TrainingArguments`. Other fields of a
                dataclass are ignored, and a value that equals the default counts as not given,
                unless its `hub_given` names the field, as that of `hub_arguments` does.

        Raises:
            OptimArgsError: As for the constructor; or the file cannot be read.
        """
        if isinstance(source, TrainingConfig):
            return source
        if isinstance(source, Mapping):
            return cls(**{str(key): value for key, value in source.items()})
        if isinstance(source, str | PathLike):
            return _from_file(Path(source))
        if is_dataclass(source) and not isinstance(source, type):
            return cls(**_non_defaults(source))
        raise OptimArgsError(
            f"a {type(source).__name__} is not a training configuration",
            where="TrainingConfig.load",
            fix="pass a mapping, the path of a JSON or YAML file, or TrainingArguments",
        )

    def training_steps(self, dataset_length: int | None, world_size: int = 1) -> int:
        """Return how many optimizer steps the training takes, as Transformers' Trainer counts them.

        As in its `set_initial_training_values` (trainer.py, 5.23), the rest of an epoch after the
        last full accumulation is a separate step.

        Args:
            dataset_length: Samples in the data set; None for a stream, which needs `max_steps`.
            world_size: Devices that share each epoch.

        Raises:
            OptimArgsError: A number is out of range, or the data do not fill a batch.
        """
        check_whole_number("world_size", world_size, "devices", lowest=1)
        if dataset_length is not None:
            check_whole_number("dataset_length", dataset_length, "samples", lowest=1)
        if self.max_steps >= 0:
            return self.max_steps
        if dataset_length is None:
            raise OptimArgsError(
                "the number of steps per epoch is unknown for data of unknown length",
                where="argument 'max_steps' of TrainingConfig",
                fix="set max_steps",
            )
        samples = self.per_device_train_batch_size * world_size
        full, rest = divmod(dataset_length, samples)
        batches = full + (rest > 0 and not self.dataloader_drop_last)
        if not batches:
            raise OptimArgsError(
                f"{dataset_length} samples do not fill a batch of {samples}, and "
                "dataloader_drop_last drops incomplete batches",
                where="argument 'dataloader_drop_last' of TrainingConfig",
                fix="use a smaller per_device_train_batch_size, or dataloader_drop_last=False",
            )
        return math.ceil(
            self.num_train_epochs * math.ceil(batches / self.gradient_accumulation_steps)
        )

    def resolved_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of warm-up steps in a training of this many optimizer steps."""
        check_whole_number("num_training_steps", num_training_steps, "steps", lowest=1)
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        share = self.warmup_steps or self.warmup_ratio
        return math.ceil(num_training_steps * share) if share else 0


def is_adam_like(arguments: Mapping[str, Any]) -> bool:
    """Whether `adam_beta1`, `adam_beta2` and `adam_epsilon` are for an optimizer's arguments.

    They are if it has betas and one eps: Lion has no eps, CAME has two.
    """
    betas, eps = arguments.get("betas"), arguments.get("eps")
    return isinstance(betas, tuple) and len(betas) > 1 and isinstance(eps, float)


def _is_given(key: str, value: Any) -> bool:
    """Whether a value counts as given; None does only if the argument can be None."""
    field = _Fields.model_fields.get(key)
    return value is not None or field is None or type(None) in get_args(field.annotation)


def _plain(value: Any) -> Any:
    """Return an enum member's value, and a list as a tuple, in which "0" stays a string."""
    return value.value if isinstance(value, Enum) else as_tuples(value)


def _non_defaults(source: object) -> dict[str, Any]:
    """Return the fields of a dataclass instance that are given, or differ from the defaults."""
    defaults, given = TrainingConfig(), getattr(source, "hub_given", ())
    found = {
        name: _plain(getattr(source, name))
        for name in _Fields.model_fields
        if hasattr(source, name)
    }
    return {
        name: value
        for name, value in found.items()
        if name in given or value != getattr(defaults, name)
    }


def _from_file(path: Path) -> TrainingConfig:
    readers: dict[str, Callable[[str], Any]] = {".json": json.loads, ".yaml": _yaml, ".yml": _yaml}
    try:
        values = readers[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, RecursionError) as error:
        unknown = isinstance(error, KeyError)
        raise OptimArgsError(
            f"the configuration cannot be read: {'neither .json nor .yaml' if unknown else error}",
            where=str(path),
            fix="pass the path of a JSON or YAML file",
        ) from error
    if not isinstance(values, Mapping):
        raise OptimArgsError(
            f"the file contains a {type(values).__name__}, not a mapping", where=str(path)
        )
    try:
        return TrainingConfig.load(values)
    except OptimArgsError as error:
        raise OptimArgsError(error.what, where=f"{path}, {error.where}", fix=error.fix) from error


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise OptimArgsError(
            "YAML files need PyYAML, which is not installed",
            where="TrainingConfig.load",
            fix='pip install "hub[yaml]", or use a JSON file',
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error

"""Transformers' Trainer around the problem, and what it logs."""

from pathlib import Path
from typing import Any

from helpers.problem import (
    BATCH,
    LR,
    STEPS,
    arguments,
    evaluation_rows,
    rows,
    schedule_of,
    targets,
)
from torch import nn
from transformers import Trainer, TrainingArguments

from hub.trainers.transformers import optimizer

WEIGHT_DECAY = 0.1


def settings(
    folder: Path, cls: type[TrainingArguments] = TrainingArguments, **values: Any
) -> TrainingArguments:
    """Return arguments under which the Trainer does what the loop by hand does."""
    return cls(
        **{
            "output_dir": str(folder),
            "learning_rate": LR,
            "weight_decay": WEIGHT_DECAY,
            "max_grad_norm": 0.0,
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "train_sampling_strategy": "sequential",
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
            **values,
        }
    )


def trainer(
    model: nn.Module, config: TrainingArguments, name: str | None = None, **more: Any
) -> Trainer:
    """Return a Trainer, with the optimizer of that name through `optimizer_cls_and_kwargs`."""
    samples = config.max_steps * config.gradient_accumulation_steps * config.world_size
    chosen = {"optimizer_cls_and_kwargs": by_name(name)} if name else {}
    return Trainer(
        model,
        config,
        train_dataset=rows(samples * config.per_device_train_batch_size),
        eval_dataset=evaluation_rows(),
        **{**chosen, **more},
    )


def by_name(name: str, **more: Any) -> Any:
    """Return `optimizer(name)` with what it needs to train a tiny model."""
    return optimizer(
        name, **{"optim_args": arguments(name), "target_modules": targets(name), **more}
    )


def train(name: str, model: nn.Module, folder: Path, **values: Any) -> Trainer:
    """Train a model with the optimizer of that name."""
    config = settings(folder, **{"lr_scheduler_type": schedule_of(name), **values})
    running = trainer(model, config, name)
    running.train()
    return running


def logged(running: Trainer, key: str) -> list[Any]:
    """Return what has been logged under a key, in order."""
    return [entry[key] for entry in running.state.log_history if key in entry]


def resume(name: str, model: nn.Module, folder: Path | str) -> Trainer:
    """Train on from the checkpoint in a folder, with everything else as it was."""
    config = settings(Path(folder), lr_scheduler_type=schedule_of(name))
    running = trainer(model, config, name)
    running.train(resume_from_checkpoint=True)
    return running

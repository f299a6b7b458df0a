"""Lightning's Trainer around the problem, unmodified."""

import lightning.pytorch as pl
from helpers.problem import (
    BATCH,
    LR,
    STEPS,
    arguments,
    batch,
    evaluation_rows,
    make_model,
    plain,
    rows,
    schedule_of,
    targets,
)
from torch import nn
from torch.utils.data import DataLoader

from hub.trainers.lightning import Optimizer

# Warnings of Lightning 2.6 about itself: torch's tree utilities, data loaders without workers, and
# resuming in the middle of an epoch, for which `fit` has `start`, without the callback that saved.
ITS_OWN_WARNINGS = (
    r"ignore:`isinstance\(treespec, LeafSpec\)`:FutureWarning",
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    "ignore:You're resuming from a checkpoint that ended before the epoch",
)


PROJECTION = {"apollo_adamw": {"proj": "svd"}}
"""APOLLO's random projections come from the parameters' names, which are longer in a module."""


class Module(pl.LightningModule):
    """Remembers the learning rate of each step, and the loss of each evaluation."""

    def __init__(self, optimizer: Optimizer, model: nn.Module | None = None):
        super().__init__()
        self.model = make_model() if model is None else model
        self.optimizer = optimizer
        self.rates = []
        self.losses = []

    def training_step(self, samples):
        return self.model(**samples).loss

    def validation_step(self, samples):
        loss = self.model(**samples).loss
        self.losses.append(loss.item())
        self.log("val_loss", loss)

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(float(optimizer.param_groups[0]["lr"]))

    def configure_optimizers(self):
        return self.optimizer(self)


def by_hand(name, **given):
    """Return what the loop by hand arrives at."""
    return plain(name, **PROJECTION.get(name, {}), **given)


def described(name, **given):
    """Return the same optimizer as `by_hand` trains with."""
    return Optimizer(
        name,
        **{
            "lr": LR,
            "target_modules": targets(name),
            "schedule": schedule_of(name),
            **arguments(name),
            **PROJECTION.get(name, {}),
            **given,
        },
    )


def trainer(folder, **settings):
    return pl.Trainer(
        **{
            "accelerator": "cpu",
            "default_root_dir": folder,
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            **settings,
        }
    )


def fit(module, folder, *, steps=STEPS, start=0, ckpt_path=None, **settings):
    """Train an epoch of so many batches, or as `settings` say; return the module.

    `start` is the number of the first batch: where an epoch is resumed in its middle, Lightning
    2.6 reads a data loader from its beginning again.
    """
    evaluations = DataLoader(evaluation_rows(), batch_size=4, collate_fn=batch)
    samples = rows(BATCH * (start + steps))[BATCH * start :]
    data = DataLoader(samples, batch_size=BATCH, collate_fn=batch)
    running = trainer(folder, **settings)
    running.fit(module, data, evaluations, ckpt_path=ckpt_path, weights_only=True)
    return module

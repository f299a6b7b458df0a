"""Ultralytics' loop (8.4.190, engine/trainer.py), with hub in its `build_optimizer`.

The package imports torchvision, of which there is no build for this torch. So what its loop does
with an optimizer is written down here: warm-up of rates and momentum group by group, accumulation,
a gradient scaler, clipping, and checkpoints with half of the state in fp16.
"""

import copy
import warnings

import numpy as np
import pytest
import torch
from helpers.problem import difference, weights_of
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import hub

EPOCHS, BATCHES, WARM_UP, ACCUMULATE = 3, 4, 5, 2
LR, FINAL, MOMENTUM, DECAY = 1e-2, 0.01, 0.937, 5e-4
FP32 = {"step", "exp_avg", "exp_avg_sq", "square_avg"}


class BaseTrainer:
    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 5)
        )
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.optimizer = self.build_optimizer(
            model=self.model, name="auto", lr=LR, momentum=MOMENTUM, decay=DECAY, iterations=12
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lr_lambda=self.lf)

    @staticmethod
    def lf(epoch):
        return max(1 - epoch / EPOCHS, 0) * (1.0 - FINAL) + FINAL

    def train(self, epochs=range(EPOCHS)):
        self.scheduler.last_epoch = epochs.start - 1
        self.optimizer.zero_grad()
        last = BATCHES * epochs.start - 1  # theirs is -1, so a resumed run steps one batch early
        for epoch in epochs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it steps before the optimizer
                self.scheduler.step()
            self.model.train()
            for i in range(BATCHES):
                ni = i + BATCHES * epoch
                if ni <= WARM_UP:
                    self.warm_up(ni, epoch)
                images = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(ni))
                nn.functional.cross_entropy(self.model(images), torch.arange(6) % 5).backward()
                if ni - last >= ACCUMULATE:
                    self.optimizer_step()
                    last = ni
        return weights_of(self.model)

    def warm_up(self, ni, epoch):
        for group in self.optimizer.param_groups:
            low = 0.1 if group.get("param_group") == "bias" else 0.0
            peak = group["initial_lr"] * self.lf(epoch)
            group["lr"] = float(np.interp(ni, [0, WARM_UP], [low, peak]))
            if "momentum" in group:
                group["momentum"] = float(np.interp(ni, [0, WARM_UP], [0.8, MOMENTUM]))

    def optimizer_step(self):
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=10.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update_parameters(self.model)

    def saved(self):
        state = copy.deepcopy(self.optimizer.state_dict())
        for entries in state["state"].values():
            for key, value in entries.items():
                if key not in FP32 and torch.is_tensor(value) and value.dtype is torch.float32:
                    entries[key] = value.half()
        return {"optimizer": state, "model": copy.deepcopy(self.model.state_dict())}

    def resume(self, checkpoint):
        self.model.load_state_dict(checkpoint["model"])
        groups = checkpoint["optimizer"]["param_groups"]
        for saved, group in zip(groups, self.optimizer.param_groups, strict=True):
            saved["fused"] = group.get("fused")
        self.optimizer.load_state_dict(checkpoint["optimizer"])


def with_hub(name, **arguments):
    class Trainer(BaseTrainer):
        """What docs/trainers.md shows."""

        def build_optimizer(self, model, lr, decay, **_):
            return hub.build(name, model, lr=lr, weight_decay=decay, **arguments)

    return Trainer()


class Native(BaseTrainer):
    """The groups that its own method makes; without their key "param_group"."""

    def __init__(self, cls, **arguments):
        self.cls, self.arguments = cls, arguments
        super().__init__()

    def build_optimizer(self, model, lr, decay, **_):
        weights = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        groups = [
            {"params": weights, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return self.cls(groups, lr=lr, **self.arguments)


@pytest.mark.parametrize(
    ("name", "cls", "arguments"),
    [
        ("adamw_torch", torch.optim.AdamW, {"betas": (MOMENTUM, 0.999)}),
        ("sgd", torch.optim.SGD, {"momentum": MOMENTUM, "nesterov": True}),
    ],
)
def test_equals_its_own_groups(name, cls, arguments):
    ours, theirs = with_hub(name, **arguments), Native(cls, **arguments)
    assert difference(ours.train(), theirs.train()) == 0
    assert difference(weights_of(ours.ema), weights_of(theirs.ema)) == 0
    assert ours.optimizer.hub_plan.optimizer == name


@pytest.mark.parametrize("name", ["adamw_torch", "stable_adamw", "lion_8bit", "adamw_8bit"])
def test_resumes(name):
    """Exactly, where all state is among what it keeps in fp32, or is not in fp32."""
    whole, half = with_hub(name), with_hub(name)
    expected = whole.train()
    half.train(range(2))
    fresh = with_hub(name)
    fresh.resume(half.saved())
    assert difference(fresh.train(range(2, EPOCHS)), expected) == 0

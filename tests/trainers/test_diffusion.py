"""Diffusion loops in plain torch and Accelerate, as in the scripts of diffusers.

The model predicts noise; a text encoder trains beside it at a rate of its own; an average of the
weights is kept. kohya's "fused backward pass" (sd-scripts) and OneTrainer's are layerwise forms.
"""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from helpers.problem import difference, weights_of
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import hub

LR, DECAY, SCALE, STEPS, ACCUMULATE = 1e-2, 1e-2, 0.1, 6, 2


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.to_k, self.conv_out = nn.Linear(6, 8), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, noisy, text):
        hidden = self.norm(self.conv_in(noisy)) + self.to_k(text)[:, :, None, None]
        return self.conv_out(nn.functional.silu(hidden))


def parts():
    torch.manual_seed(0)
    text_encoder = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 6))
    return nn.ModuleDict({"unet": Denoiser(), "text_encoder": text_encoder})


def loss_of(unet, text_encoder, step):
    generator = torch.Generator().manual_seed(step)
    latents, noise = (torch.randn(3, 4, 5, 5, generator=generator) for _ in range(2))
    share = torch.rand(3, 1, 1, 1, generator=generator)
    tokens = torch.randint(10, (3,), generator=generator)
    noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
    return nn.functional.mse_loss(unet(noisy, text_encoder(tokens)), noise)


def train(models, optimizer, *, clip=1.0, steps=range(STEPS * ACCUMULATE)):
    """Train as diffusers' scripts do, and return the average of the weights."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    unet, text, optimizer, schedule = accelerator.prepare(
        models["unet"], models["text_encoder"], optimizer, schedule
    )
    average = AveragedModel(models, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in steps:
        with accelerator.accumulate(unet, text):
            accelerator.backward(loss_of(unet, text, step))
            if accelerator.sync_gradients and clip:
                accelerator.clip_grad_norm_(models.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            average.update_parameters(models)
    return weights_of(average.module)


def grouped(models):
    """Return the groups of such a script, each split by what is decayed."""
    undecayed = {p for p in models.parameters() if p.ndim < 2}
    return [
        {
            "params": [p for p in models[part].parameters() if (p in undecayed) is not decayed],
            "lr": LR * (SCALE if part == "text_encoder" else 1),
            "weight_decay": DECAY * decayed,
        }
        for part in models
        for decayed in (True, False)
    ]


def test_two_models_at_two_rates():
    ours, theirs = parts(), parts()
    rules = {"text_encoder": {"lr_scale": SCALE}}
    built = hub.build("adamw_torch", ours, lr=LR, weight_decay=DECAY, param_rules=rules)
    averages = [train(ours, built), train(theirs, torch.optim.AdamW(grouped(theirs)))]
    assert difference(weights_of(ours), weights_of(theirs)) == 0
    assert difference(*averages) == 0


@pytest.mark.parametrize("name", ["adafactor", "adamw_torch", "stable_adamw"])
def test_the_fused_backward_pass(name):
    """It accumulates too, which kohya's and OneTrainer's do not."""
    ours, theirs = parts(), parts()
    fused = hub.build(f"{name}_layerwise", ours, lr=LR, gradient_accumulation_steps=ACCUMULATE)
    averages = [train(ours, fused, clip=0), train(theirs, hub.build(name, theirs, lr=LR), clip=0)]
    assert difference(weights_of(ours), weights_of(theirs)) == 0
    assert difference(*averages) == 0


def test_only_adapters_train():
    """A LoRA's weights alone, as most such trainings; the rest is in no group."""
    models = parts().requires_grad_(requires_grad=False)
    models["unet"].to_k.requires_grad_()
    before = copy.deepcopy(weights_of(models))
    built = hub.build("adamw_torch", models, lr=LR)
    train(models, built)
    moved = {key for key, weight in weights_of(models).items() if not weight.equal(before[key])}
    assert moved == {"unet.to_k.weight", "unet.to_k.bias"}
    assert sorted(name for g in built.param_groups for name in g["param_names"]) == sorted(moved)

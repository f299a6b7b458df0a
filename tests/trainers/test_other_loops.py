"""Loops of torchtitan's and timm's form, with hub in the place where they create an optimizer.

Neither package is here: torchtitan needs GPUs, and timm 1.0 imports torchvision, of which there is
no build for this torch. What each loop does with an optimizer is written down from their sources.
"""

import copy
from dataclasses import dataclass

import pytest
import torch
from problem import BATCH, LR, STEPS, batch, difference, make_model, plain, rows, weights_of
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub


@dataclass
class OptimizerConfig:
    """torchtitan's `[optimizer]` section (torchtitan/config/job_config.py, 0.2)."""

    name: str = "AdamW"
    lr: float = 8e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    early_step_in_backward: bool = False


class Container:
    """What torchtitan's `OptimizersContainer` (components/optimizer.py, 0.2) does with its own."""

    flat = StateDictOptions(flatten_optimizer_state_dict=True)

    def __init__(self, parts, optimizers):
        self.pairs = list(zip(parts, optimizers, strict=True))

    def step(self):
        for _, optimizer in self.pairs:
            optimizer.step()

    def zero_grad(self):
        for _, optimizer in self.pairs:
            optimizer.zero_grad()

    def state_dict(self):
        found = {}
        for part, optimizer in self.pairs:
            found |= get_optimizer_state_dict(part, optimizer, options=self.flat)
        return found

    def load_state_dict(self, state):
        for part, optimizer in self.pairs:
            set_optimizer_state_dict(part, optimizer, state, options=self.flat)


def build_optimizers(model_parts, config):
    """Return what docs/trainers.md shows."""
    given = {"betas": (config.beta1, config.beta2), "eps": config.eps}
    given |= {"lr": config.lr, "weight_decay": config.weight_decay}
    name = config.name + "_layerwise" * config.early_step_in_backward
    return [hub.build(name, part, defaults=given) for part in model_parts]


def titan(config, *, model=None, state=None, steps=range(STEPS), save_at=None):
    """Train, and return the weights and what was saved."""
    model = make_model().train() if model is None else model
    container = Container([model], build_optimizers([model], config))
    if state is not None:
        container.load_state_dict(state)
    samples, saved = rows(STEPS * BATCH), None
    for step in steps:
        model(**batch(samples[BATCH * step : BATCH * (step + 1)])).loss.backward()
        container.step()
        container.zero_grad()
        if step + 1 == save_at:
            saved = copy.deepcopy((model, container.state_dict()))
    return weights_of(model), saved


TITAN = [
    OptimizerConfig("adamw_torch", lr=LR),
    OptimizerConfig("adamw_torch", lr=LR, early_step_in_backward=True),
    OptimizerConfig("adafactor", lr=LR),
    OptimizerConfig("grokadamw", lr=LR),
]
named = pytest.mark.parametrize(
    "config", TITAN, ids=lambda c: c.name + "_layerwise" * c.early_step_in_backward
)


@named
def test_torchtitan_trains_and_resumes(config):
    trained, (model, state) = titan(config, save_at=3)
    given = {"betas": (config.beta1, config.beta2), "eps": config.eps}
    known = hub.describe(config.name).arguments.model_fields
    own = {} if config.name == "adafactor" else {k: v for k, v in given.items() if k in known}
    expected = plain(config.name, schedule="constant", weight_decay=config.weight_decay, **own)
    assert difference(trained, expected.weights) == 0
    resumed, _ = titan(config, model=model, state=state, steps=range(3, STEPS))
    assert difference(resumed, expected.weights) == 0


def test_torchtitan_with_several_parts():
    """Pipeline stages are models of their own."""
    parts = [nn.Linear(4, 4), nn.Linear(4, 4)]
    container = Container(parts, build_optimizers(parts, OptimizerConfig("adamw_torch", lr=LR)))
    twins = copy.deepcopy(parts)
    others = [
        hub.build("adamw_torch", t, lr=LR, betas=(0.9, 0.95), weight_decay=0.1) for t in twins
    ]
    for model, step in ((parts, container.step), (twins, lambda: [one.step() for one in others])):
        model[1](model[0](torch.ones(2, 4))).sum().backward()
        step()
    for part, twin in zip(parts, twins, strict=True):
        assert torch.equal(part.weight, twin.weight)


class Vision(nn.Module):
    """The names of timm's VisionTransformer (1.0), and what it never decays."""

    DEPTH = 11

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 8))
        self.patch_embed = nn.Linear(4, 8)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(self.DEPTH))
        )
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def no_weight_decay(self):
        return {"pos_embed", "cls_token"}

    def forward(self, patches):
        tokens = self.patch_embed(patches)
        first = self.cls_token.expand(len(patches), -1, -1)
        tokens = torch.cat([first, tokens], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


LAYER_DECAY, WEIGHT_DECAY = 0.75, 0.05


def layer_of(name):
    """Return the layer as timm counts it: the embeddings are 0, the head is the last."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return Vision.DEPTH + 1 if name.startswith(("head.", "norm.")) else 0


def rules():
    depth = Vision.DEPTH
    found = {f"blocks.{i}": {"lr_scale": LAYER_DECAY ** (depth - i)} for i in range(depth)}
    return {**found, r".*(embed|token).*": {"lr_scale": LAYER_DECAY ** (depth + 1)}}


def timms_groups(model):
    """Return what timm's `param_groups_layer_decay` does (optim/_param_groups.py, 1.0)."""
    for name, parameter in model.named_parameters():
        scale = LAYER_DECAY ** (Vision.DEPTH + 1 - layer_of(name))
        undecayed = parameter.ndim < 2 or name in model.no_weight_decay()
        decay = 0.0 if undecayed else WEIGHT_DECAY
        yield {"params": [parameter], "lr": LR * scale, "weight_decay": decay}


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_layerwise"])
def test_timms_loop(name):
    """As its train.py has it: `zero_grad` first, and a schedule that scales each group's peak."""
    ours, theirs = Vision(), Vision()
    named = hub.build(name, ours, lr=LR, weight_decay=WEIGHT_DECAY, param_rules=rules())
    by_hand = torch.optim.AdamW(timms_groups(theirs))
    for model, optimizer in ((ours, named), (theirs, by_hand)):
        peaks = [group["lr"] for group in optimizer.param_groups]
        for update in range(5):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * (1 - update / 5)
            optimizer.zero_grad()
            patches = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(update))
            nn.functional.cross_entropy(model(patches), torch.arange(8) % 3).backward()
            optimizer.step()
    assert difference(weights_of(ours), weights_of(theirs)) == 0

"""Loops of torchtitan's and timm's form, with hub in the place where they create an optimizer.

Neither package is here: torchtitan needs GPUs, and timm 1.0 imports torchvision, of which there is
no build for this torch. What each loop does with an optimizer is written down from their sources.
"""

import copy
from dataclasses import dataclass, field, make_dataclass

import pytest
import torch
from helpers.problem import BATCH, LR, STEPS, batch, difference, make_model, plain, rows, weights_of
from torch import nn

import hub


class OptimizersContainer(torch.optim.Optimizer):
    """What torchtitan's (components/optimizer/optimizer.py, 058df67) does with its optimizers.

    Its state dict has a key for each parameter's name and each entry of its state and group, and
    loading needs that all have state: they take a step without gradients at a rate of 0 before.
    """

    @dataclass(kw_only=True, slots=True)
    class Config:
        optimizers: list = field(default_factory=list)

    def _post_init(self, parameters):
        super().__init__(parameters, {})

    def step(self, closure=None):
        assert closure is None
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none=True):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self):
        flat = {}
        for optimizer in self.optimizers:
            state = optimizer.state_dict()
            for group in state["param_groups"]:
                for key, name in zip(group["params"], group["param_names"], strict=True):
                    found = state["state"].get(key, {})
                    flat |= {f"state.{name}.{what}": value for what, value in found.items()}
                    flat |= {f"param_groups.{name}.{k}": group[k] for k in group}
        return flat

    def load_state_dict(self, state_dict):
        for optimizer in self.optimizers:
            materialize(optimizer)
            groups, states, count = [], {}, 0
            for group in optimizer.param_groups:
                first = f"param_groups.{group['param_names'][0]}."
                kept = [key for key in group if key not in ("params", "param_names")]
                places = list(range(count, count + len(group["params"])))
                groups.append({key: state_dict[first + key] for key in kept} | {"params": places})
                for place, name, parameter in zip(
                    places, group["param_names"], group["params"], strict=True
                ):
                    keys = optimizer.state[parameter]
                    states[place] = {key: state_dict[f"state.{name}.{key}"] for key in keys}
                count += len(places)
            optimizer.load_state_dict({"state": states, "param_groups": groups})


def materialize(optimizer):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad()
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr


class HubOptimizers(OptimizersContainer):
    """What docs/trainers.md shows."""

    Config = make_dataclass(
        "Config",
        [("name", str), ("lr", float)],
        bases=(OptimizersContainer.Config,),
        kw_only=True,
        slots=True,
    )

    def __init__(self, config, *, model_parts):
        self.model_parts = model_parts
        self.optimizers = [hub.build(config.name, part, lr=config.lr) for part in model_parts]
        self._post_init([p for part in model_parts for p in part.parameters()])


def titan(name, *, model=None, state=None, steps=range(STEPS), save_at=None):
    """Train, and return the weights and what was saved."""
    model = make_model().train() if model is None else model
    container = HubOptimizers(HubOptimizers.Config(name=name, lr=LR), model_parts=[model])
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


@pytest.mark.parametrize("name", ["adamw_torch", "adafactor", "grokadamw", "stable_adamw"])
def test_torchtitan_trains_and_resumes(name):
    trained, (model, state) = titan(name, save_at=3)
    expected = plain(name, schedule="constant")
    assert difference(trained, expected.weights) == 0
    resumed, _ = titan(name, model=model, state=state, steps=range(3, STEPS))
    assert difference(resumed, expected.weights) == 0


def test_torchtitan_with_several_parts():
    """Pipeline stages are models of their own."""
    parts = [nn.Linear(4, 4), nn.Linear(4, 4)]
    config = HubOptimizers.Config(name="adamw_torch", lr=LR)
    container = HubOptimizers(config, model_parts=parts)
    twins = copy.deepcopy(parts)
    others = [hub.build("adamw_torch", twin, lr=LR) for twin in twins]
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

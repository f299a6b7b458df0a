"""What a plan of `muon` says before anything is trained."""

import types

import pytest
import torch
from torch import nn

import hub
from hub import Level
from hub.backend import load_object

from .wrapped import Experts, matrices


def wide(rows=1024, columns=256):
    return nn.Sequential(nn.Linear(columns, rows, bias=False))


def findings(model, level=None, **arguments):
    plan = hub.plan("muon", model, **arguments)
    return [f for f in plan.findings if level in (None, f.level)]


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ({}, Level.NOTE),
        ({"adjust_lr_fn": "original"}, Level.NOTE),
        ({"lr": 5e-5}, Level.WARN),
        ({"defaults": {"lr": 5e-5}}, Level.WARN),
        ({"lr": 0.02}, None),
        ({"adjust_lr_fn": "match_rms_adamw", "lr": 5e-5}, None),
        ({"lr": 0.02, "param_rules": {"0": {"lr": 1e-4}}}, Level.WARN),
        ({"lr": 0.02, "param_rules": {"0": {"lr_scale": 0.0}}}, None),
    ],
    ids=str,
)
def test_a_rate_that_suits_adamw_is_told_where_updates_are_smaller(arguments, level):
    told = [f for f in findings(wide(), **arguments) if "match_rms_adamw" in str(f)]
    assert [f.level for f in told] == ([level] if level else [])


def test_it_says_which_rate_of_adamw_that_is():
    (told,) = findings(wide(1024, 1024), Level.WARN, lr=5e-4)
    assert "lr=0.0005 moves 0.weight (1024×1024) as AdamW does with lr=8e-05" in told.what


def test_the_rate_of_adamw_is_that_of_equal_updates():
    """AdamW's update is about 0.2 of its rate in each element (arXiv 2502.16982, section 2.2)."""
    weight = nn.Parameter(torch.zeros(256, 256))
    optimizer = torch.optim.Muon([weight], lr=1e-3, weight_decay=0.0)
    weight.grad = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    rate = load_object("hub_muon.findings:_like_adamw")
    planned = load_object("hub_muon.findings:Planned")("", (256, 256), (1, 256, 256))
    found = weight.detach().square().mean().sqrt().item() / 0.2
    assert found == pytest.approx(rate(1e-3, planned), rel=0.2)


def test_small_matrices_are_no_reason_to_tell():
    assert not findings(matrices(), lr=5e-5)


def pretrained(model, source):
    model.config = types.SimpleNamespace(_name_or_path=source)
    return model


class Lora(nn.Module):
    """A frozen layer, and what LoRA adds to it, as PEFT names it."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 8, bias=False).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 8, bias=False)})


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: pretrained(matrices(), "gpt2"), True),
        (lambda: nn.ModuleDict({"student": pretrained(matrices(), "gpt2")}), True),
        (lambda: pretrained(matrices(), ""), False),
        (lambda: pretrained(Lora(), "gpt2"), False),
        (lambda: pretrained(Lora().requires_grad_(), "gpt2"), True),
    ],
    ids=["full", "inside of a wrapper", "from nowhere", "LoRA", "LoRA and all else"],
)
def test_full_fine_tuning_of_pretrained_weights_is_warned_of(model, told):
    found = [str(f) for f in findings(model(), Level.WARN) if "2605.10468" in str(f)]
    assert len(found) == told
    assert all("'gpt2'" in text for text in found)


@pytest.mark.parametrize(
    ("shape", "arguments", "share"),
    [
        ((512, 512), {"tokens_per_step": 512 * 50}, "10.0%"),
        ((512, 512), {"tokens_per_step": 512 * 50, "ns_steps": 10}, "20.0%"),
        ((1024, 256), {"tokens_per_step": 25600}, "3.8%"),
        ((256, 1024), {"tokens_per_step": 25600}, "3.8%"),
        ((1024, 256), {"tokens_per_step": 25600, "blocks": {"0": 256}}, "5.0%"),
    ],
    ids=str,
)
def test_what_newton_schulz_costs_is_told(shape, arguments, share):
    (told,) = findings(wide(*shape), lr=0.02, **arguments)
    assert told.level is Level.NOTE
    assert told.what.startswith(f"Newton-Schulz adds {share} to the operations")
    assert "experts" not in told.what


def test_the_cost_is_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = wide(96, 64), 128
    inputs = torch.randn(tokens, 64, requires_grad=True)
    with FlopCounterMode(display=False) as passes:
        model(inputs).sum().backward()
    optimizer = torch.optim.Muon(model.parameters())
    with FlopCounterMode(display=False) as step:
        optimizer.step()
    share = step.get_total_flops() / passes.get_total_flops()
    (told,) = findings(model, lr=0.02, tokens_per_step=tokens)
    assert f"adds {share:.1%} to" in told.what


def test_experts_see_fewer_tokens_than_there_are():
    model = nn.ModuleDict({"experts": Experts(8, 64, 64)})
    (told,) = findings(model, lr=0.02, tokens_per_step=1024)
    assert "and more as experts see only some" in told.what


def test_an_older_torch_is_refused(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    with pytest.raises(hub.UnsupportedError, match=r"which torch 2\.8\.0 does not have") as refused:
        hub.build("muon", matrices())
    assert refused.value.fix == "install torch 2.9 or newer"

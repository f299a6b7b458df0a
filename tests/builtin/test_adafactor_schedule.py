"""The schedule `adafactor` reports what Adafactor computes, as Transformers' does."""

import pytest
import torch
from torch import nn

import hub

RELATIVE = {"relative_step": True, "lr": None}
SHAPES = [(6, 4), (5,), (2, 3, 4)]


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def through_a_file(state, tmp_path):
    torch.save(state, tmp_path / "file.pt")
    return torch.load(tmp_path / "file.pt", weights_only=True)


def built(of, **arguments):
    return hub.build("adafactor", nn.ParameterList(of), **arguments)  # weights decay, biases not


def galore(of, **arguments):
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight.copy_(of[0])
        model[0].bias.copy_(of[0][:, 0])
    return hub.build("galore_adafactor", model, target_modules=["0"], rank=2, **arguments)


def layerwise(of, **arguments):
    return hub.build("adafactor_layerwise", nn.ParameterList(of), **arguments)


def transformers(of, **arguments):
    from transformers import Adafactor

    return Adafactor([{"params": of[:2]}, {"params": of[2:]}], **arguments)


def train(of, schedule, step):
    """One step; gradients are freed first, which must not matter to what is reported."""
    generator = torch.Generator().manual_seed(step)
    every = [p for group in of.param_groups for p in group["params"]]
    loss = sum((p * torch.randn(p.shape, generator=generator)).sum() for p in every)
    loss.backward()
    of.step()
    of.zero_grad()
    schedule.step()


@pytest.mark.parametrize("scale_parameter", [False, True])
@pytest.mark.parametrize("warmup_init", [False, True])
@pytest.mark.parametrize("initial_lr", [0.0, 0.25])
def test_equal_to_transformers_also_after_resuming(
    scale_parameter, warmup_init, initial_lr, tmp_path
):
    from transformers import Adafactor
    from transformers.optimization import AdafactorSchedule

    arguments = {**RELATIVE, "scale_parameter": scale_parameter, "warmup_init": warmup_init}
    of = built(parameters(), **arguments)
    copies = [[p.detach().clone() for p in group["params"]] for group in of.param_groups]
    theirs = Adafactor([{"params": map(nn.Parameter, copy)} for copy in copies], **arguments)
    schedule = hub.build_scheduler("adafactor", of, initial_lr=initial_lr)
    reference = AdafactorSchedule(theirs, initial_lr)
    for step in range(200):
        assert schedule.get_last_lr() == [float(rate) for rate in reference.get_last_lr()]
        assert [g["lr"] for g in of.param_groups] == [float(g["lr"]) for g in theirs.param_groups]
        for optimizer in (of, theirs):
            generator = torch.Generator().manual_seed(step)
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        if step == 77:
            states = through_a_file((of.state_dict(), schedule.state_dict()), tmp_path)
            weights = {
                name: parameter.detach().clone()
                for group in of.param_groups
                for name, parameter in zip(group["param_names"], group["params"], strict=True)
            }
            of = built([nn.Parameter(weights[name]) for name in sorted(weights)], **arguments)
            schedule = hub.build_scheduler("adafactor", of, initial_lr=initial_lr)
            of.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        schedule.step()
        reference.step()


def test_state_dicts_go_both_ways(tmp_path):
    from transformers.optimization import AdafactorSchedule

    ours, theirs = transformers(parameters(), **RELATIVE), transformers(parameters(), **RELATIVE)
    schedule, reference = hub.build_scheduler("adafactor", ours), AdafactorSchedule(theirs)
    states = [through_a_file(each.state_dict(), tmp_path) for each in (schedule, reference)]
    schedule.load_state_dict(states[1])
    reference.load_state_dict(states[0])
    assert schedule.get_last_lr() == reference.get_last_lr()


@pytest.mark.parametrize("build", [built, galore, layerwise, transformers])
def test_every_group_of_every_adafactor_reports_its_first_parameter(build):
    of = build(parameters(), **RELATIVE, scale_parameter=True)
    schedule = hub.build_scheduler("adafactor", of, initial_lr=0.5)
    assert schedule.get_last_lr() == [0.5] * len(of.param_groups)
    for step in range(5):
        train(of, schedule, step)
        assert schedule.get_last_lr() == [
            float(of._get_lr(group, of.state[group["params"][0]])) for group in of.param_groups
        ]
    assert all(type(rate) is float for rate in schedule.get_last_lr())


def test_a_group_without_gradients_keeps_the_first_rate():
    of = transformers(parameters(), **RELATIVE)
    schedule = hub.build_scheduler("adafactor", of, initial_lr=0.5)
    for parameter in of.param_groups[1]["params"]:
        parameter.grad = torch.ones_like(parameter)
    of.step()
    schedule.step()
    assert schedule.get_last_lr()[0] == 0.5
    assert schedule.get_last_lr()[1] < 0.5
    assert of.param_groups[0]["params"][0] not in of.state


def test_a_late_group_reports_once_it_has_been_stepped():
    of = transformers(parameters(), **RELATIVE, scale_parameter=False)
    schedule = hub.build_scheduler("adafactor", of, initial_lr=0.5)
    train(of, schedule, 0)
    of.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    schedule.step()
    assert schedule.get_last_lr()[-1] == 0.5
    train(of, schedule, 1)
    assert schedule.get_last_lr()[-1] == 1e-2


def test_accelerates_wrapper_is_seen_through():
    from accelerate import Accelerator

    of = Accelerator(cpu=True).prepare(built(parameters(), **RELATIVE))
    schedule = hub.build_scheduler("adafactor", of)
    train(of, schedule, 0)
    assert set(schedule.get_last_lr()) == {1e-2}


def test_leaves_no_peak_for_the_next_schedule():
    of = built(parameters(), **RELATIVE)
    hub.build_scheduler("adafactor", of)
    assert not any("initial_lr" in group for group in of.param_groups)


@pytest.mark.parametrize(
    "of",
    [
        torch.optim.SGD(parameters(), lr=0.1),
        torch.optim.Adafactor(parameters()),
        hub.build("adafactor", nn.ParameterList(parameters()), lr=1e-3),
    ],
    ids=["SGD", "torch's Adafactor", "relative_step=False"],
)
def test_what_computes_no_learning_rate_is_refused(of):
    before = [dict(group) for group in of.param_groups]
    with pytest.raises(hub.OptimArgsError, match="build 'adafactor' with relative_step=True"):
        hub.build_scheduler("adafactor", of)
    assert repr([dict(group) for group in of.param_groups]) == repr(before)


@pytest.mark.parametrize("value", [-1.0, "x", None])
def test_bad_input(value):
    with pytest.raises(hub.OptimArgsError, match="initial_lr"):
        hub.build_scheduler("adafactor", built(parameters(), **RELATIVE), initial_lr=value)

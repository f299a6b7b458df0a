"""`offload`: state is elsewhere between steps, whatever it is made of, and nothing else changes.

A CPU has no other memory, so the kit's stands in for it, which poisons whatever is left behind.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import hub
from hub.measuring import plain_tensors
from hub.running.buckets import sizes
from hub.running.buckets.offload import Host
from hub.testing import Subject, cases
from hub.testing.comparing import assert_same
from hub.testing.promises import run
from hub.testing.separate_memory import SeparateMemory
from hub.testing.subject import give_gradients, train

OFFLOAD = (("offload", "cpu"),)
SAMPLE = [
    ("adamw_torch", "fp32", OFFLOAD),
    ("galore_adamw_layerwise", "bf16", (*OFFLOAD, ("rounding", "split"))),
    ("schedule_free_adamw_layerwise", "fp32", OFFLOAD),
    ("adagrad", "bf16", (*OFFLOAD, ("rounding", "stochastic"))),
]
ABOUT_STATE = {
    *("late_group", "resume", "plain_state", "distributed_state", "other_checkpoint"),
    *("shares_nothing", "closures", "modes", "evaluates", "clips", "accumulates", "detaches"),
}
KINDS = {"native": "adamw_torch", "rows": "adamw_8bit", "whole": "galore_adamw"}
CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "precision", "options"), SAMPLE)
def test_the_kit_holds(name, precision, options, monkeypatch):
    monkeypatch.setattr(sizes, "ELEMENTS", 2000)
    for case in cases([name.removesuffix("_layerwise")]):
        subject = case.subject
        is_meant = (subject.name, subject.precision) == (name, precision)
        if is_meant and case.check in ABOUT_STATE and not case.known:
            run(case.check, replace(subject, options=options))


@pytest.mark.parametrize("check", ["uneven_shards", "other_ranks"])
@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
def test_sharded_parameters(name, check):
    run(check, Subject(name, processes=2, options=OFFLOAD))


def test_replicated_parameters():
    run("data_parallel", Subject("adamw_torch", processes=2, options=OFFLOAD))


def memory_of(optimizer):
    return optimizer.hub_stepping.host.memories[CPU]


def test_memory_of_the_host_is_allocated_once():
    model, optimizer = Subject("adamw_torch", options=OFFLOAD).start()
    train(model, optimizer, 2)  # the detour takes part in every other step
    first = memory_of(optimizer).allocated
    assert first == 2 * sum(p.requires_grad for p in model.parameters())
    train(model, optimizer, 3, start=2)
    assert memory_of(optimizer).allocated == first
    assert memory_of(optimizer).here == 0


@pytest.mark.parametrize(
    ("name", "at_once"), [("adamw_torch", 3), ("adamw_torch_layerwise", 3), ("prodigy", None)]
)
def test_only_some_buckets_are_on_the_device(name, at_once, monkeypatch):
    monkeypatch.setattr(sizes, "ELEMENTS", 1)
    model, optimizer = Subject(name, options=OFFLOAD).start()
    train(model, optimizer, 3)
    held = [sum(t.nbytes for t in plain_tensors(s) if t.ndim) for s in optimizer.state.values()]
    limit = sum(sorted(held)[-at_once:]) if at_once else sum(held)
    assert 0 < memory_of(optimizer).most_here <= limit
    assert at_once or memory_of(optimizer).most_here > sum(held) / 2


def test_the_state_of_parameters_without_gradients_stays_away():
    model, optimizer = Subject("adamw_torch", options=OFFLOAD).start()
    train(model, optimizer, 2)
    memory = memory_of(optimizer)
    memory.most_here = 0
    model.gain.grad = torch.ones_like(model.gain)
    optimizer.step()
    assert memory.most_here == 2 * model.gain.nbytes


def test_after_a_failing_step_all_is_as_before(monkeypatch):
    monkeypatch.setattr(sizes, "ELEMENTS", 1)
    plain = Subject("adamw_torch")
    runs = [plain.start(), replace(plain, options=OFFLOAD).start()]
    for model, optimizer in runs:
        train(model, optimizer, 2)
        give_gradients(model, 2)
        betas = [group["betas"] for group in optimizer.param_groups]
        optimizer.param_groups[1]["betas"] = "nonsense"
        with pytest.raises((TypeError, ValueError)):
            optimizer.step()
        for group, kept in zip(optimizer.param_groups, betas, strict=True):
            group["betas"] = kept
    _, optimizer = runs[1]
    assert memory_of(optimizer).here == 0
    for state in optimizer.state.values():
        assert not any(tensor.isnan().any() for tensor in plain_tensors(state))
    for model, optimizer in runs:
        for parameter, state in optimizer.state.items():
            parameter.data.fill_(0.1)  # some were updated: in a plain step none, or a group
            state["step"].fill_(2)
            for key in ("exp_avg", "exp_avg_sq"):
                state[key].fill_(0.5)
        train(model, optimizer, 2, start=2)
    assert_same(runs[0][0], runs[1][0])


def test_a_state_dict_holds_what_the_state_is_then():
    """As in torch, steps in place change it; what a class replaces stays as it was."""
    model, optimizer = Subject("adamw_torch", options=OFFLOAD).start()
    train(model, optimizer, 1)
    saved = optimizer.state_dict()
    moment = saved["state"][0]["exp_avg"]
    assert moment.any()
    before = moment.clone()
    parameter = optimizer.param_groups[0]["params"][0]
    optimizer.state[parameter]["exp_avg"] = moment.clone()  # as classes that replace state
    train(model, optimizer, 2, start=1)
    assert torch.equal(saved["state"][0]["exp_avg"], before)
    assert memory_of(optimizer).is_away(optimizer.state[parameter]["exp_avg"].untyped_storage())


@pytest.mark.parametrize("name", ["galore_adamw", "adamw_8bit"])
def test_checkpoints_load_with_and_without(name):
    plain = Subject(name)
    whole, optimizer = plain.start()
    train(whole, optimizer, 4)
    for before, after in ((OFFLOAD, ()), ((), OFFLOAD)):
        model, optimizer = replace(plain, options=before).start()
        train(model, optimizer, 2)
        resumed, other = replace(plain, options=after).start()
        resumed.load_state_dict(model.state_dict())
        with pytest.warns(hub.HubWarning, match="offload"):
            other.load_state_dict(optimizer.state_dict())
        train(resumed, other, 2, start=2)
        assert_same(whole, resumed)


def test_detaching_goes_on_to_offload():
    runs = [Subject("adamw_torch").start(), Subject("adamw_torch", options=OFFLOAD).start()]
    for model, optimizer in runs:
        train(model, optimizer, 2)
        hub.detach(optimizer)
        train(model, optimizer, 2, start=2)
    assert_same(runs[0][0], runs[1][0])
    assert memory_of(runs[1][1]).here == 0
    with pytest.raises(hub.UnsupportedError):
        copy.deepcopy(runs[1][1])


class Projector:
    def __init__(self, matrix):
        self.matrix = matrix


def keeper(state, **attributes):
    """Return an optimizer with this state for its only parameter, and its host."""
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter])
    optimizer.state[parameter] = state
    vars(optimizer).update(attributes)
    host, memory = Host(), SeparateMemory()
    host.memories[CPU] = memory
    host.store_all(optimizer)
    return optimizer, parameter, host, memory


def test_tensors_are_found_wherever_they_are():
    base = torch.arange(12.0).view(3, 4)
    state = {
        "moment": torch.arange(5.0),
        "list": [torch.arange(3), {"inside": torch.arange(4.0).bfloat16()}],
        "projector": Projector(torch.arange(6.0).view(2, 3).T),
        "whole": base,
        "row": base[1],
        "slice": torch.arange(100.0).view(10, 10)[:, :2],
        "again": None,
        "empty": torch.empty(0),
        "count": torch.tensor(3.0),
        "number": 7,
    }
    state["again"] = state["moment"]
    expected = copy.deepcopy(state)
    tensors = list(plain_tensors(state))
    turned = state["projector"].matrix
    optimizer, parameter, host, memory = keeper(state)
    away = [t for t in plain_tensors(state) if memory.is_away(t.untyped_storage())]
    assert len(away) == len([t for t in tensors if t.ndim and t.numel()])
    host.fetch(optimizer, [parameter])
    host.await_arrival(optimizer, [parameter])
    assert all(one is other for one, other in zip(plain_tensors(state), tensors, strict=True))
    assert turned.stride() == (1, 3)
    for one, other in zip(tensors, plain_tensors(expected), strict=True):
        assert torch.equal(one, other)
    state["row"].add_(1)
    assert torch.equal(state["whole"][1], expected["row"] + 1)
    host.store(optimizer, [parameter])
    host.end()
    assert torch.equal(state["whole"][1], expected["row"] + 1)
    assert state["slice"].untyped_storage().nbytes() == state["slice"].nbytes


def test_what_the_optimizer_has_as_an_attribute_stays():
    shared = torch.arange(256.0)
    optimizer, _, _, memory = keeper({"map": shared, "m": torch.ones(3)}, maps={"map": shared})
    (state,) = optimizer.state.values()
    assert not memory.is_away(state["map"].untyped_storage())
    assert memory.is_away(state["m"].untyped_storage())
    assert torch.equal(optimizer.maps["map"], torch.arange(256.0))


def test_what_two_parameters_share_moves_once():
    shared = torch.arange(8.0)
    optimizer, parameter, host, memory = keeper({"map": shared})
    other = nn.Parameter(torch.zeros(2))
    optimizer.add_param_group({"params": [other]})
    optimizer.state[other] = {"map": shared}
    assert memory.allocated == 1
    for bucket in ([parameter], [other], [parameter, other]):
        host.fetch(optimizer, bucket)
        host.fetch(optimizer, [other])
        host.await_arrival(optimizer, bucket)
        assert torch.equal(shared, torch.arange(8.0))
        host.store(optimizer, bucket)
        host.end()
        assert torch.equal(shared, torch.arange(8.0))
    assert memory.allocated == 1


def test_parameters_whose_state_shares_memory_come_and_go_alone():
    optimizer, first, host, _ = keeper({})
    others = [nn.Parameter(torch.zeros(3)) for _ in range(3)]
    optimizer.add_param_group({"params": others})
    every = [first, *others]
    for parameter, moment in zip(every, torch.arange(8.0).split(2), strict=True):
        optimizer.state[parameter] = {"moment": moment}
    for step in range(3):
        buckets = [every[:2], every[2:]] if step else [every]
        for bucket in buckets:  # the second one comes before the first one leaves
            host.fetch(optimizer, bucket)
            host.await_arrival(optimizer, bucket)
        for bucket in buckets:
            for parameter in bucket:
                optimizer.state[parameter]["moment"].add_(1)
            host.store(optimizer, bucket)
        host.end()
    found = [optimizer.state[parameter]["moment"] for parameter in every]
    assert torch.equal(torch.cat(found), torch.arange(8.0) + 3)

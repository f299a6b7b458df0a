"""`offload` inside the backward pass: state is on its way before its parameter's gradient is."""

import random
from collections import Counter

import pytest
import torch
from torch import nn

import hub
from hub.measuring import plain_tensors
from hub.planning import offload
from hub.running.buckets import sizes
from hub.running.buckets.order import Order
from hub.testing import Subject
from hub.testing.comparing import assert_same
from hub.testing.promises import run
from hub.testing.separate_memory import keep_apart

CPU = torch.device("cpu")
WIDTHS = (3, 40, 5, 5, 24, 4, 4, 4)
BUCKET = 40


class Layers(nn.Module):
    """Square matrices of different sizes, used in any order, or not at all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.matrices = nn.ParameterList(torch.randn(width, width) for width in WIDTHS)

    def forward(self, order):
        total = torch.ones(())
        for index in order:
            matrix = self.matrices[index]
            total = total + (matrix * total.tanh()).square().mean()
        return total


def start(name="adamw_torch_layerwise", **arguments):
    model = Layers()
    optimizer = hub.build(name, model, lr=0.1, **arguments)
    if "offload" in arguments:
        keep_apart(optimizer)
    return model, optimizer


def take_step(model, optimizer, order):
    loss = model(order)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def memory_of(optimizer):
    return optimizer.hub_stepping.host.memories[CPU]


def is_away(optimizer, parameter):
    tensors = [t for t in plain_tensors(optimizer.state.get(parameter, {})) if t.ndim]
    return all(memory_of(optimizer).is_away(t.untyped_storage()) for t in tensors)


@pytest.fixture
def small_buckets(monkeypatch):
    for module in (sizes, offload):
        monkeypatch.setattr(module, "ELEMENTS", BUCKET)


def random_orders(steps):
    """Return the usual order most of the time, and others with layers missing or exchanged."""
    chosen = random.Random(0)
    for _ in range(steps):
        order = [*range(len(WIDTHS))]
        if chosen.random() < 0.5:
            chosen.shuffle(order)
            order = order[: chosen.randint(1, len(order))]
        yield order


@pytest.mark.parametrize("arguments", [{}, {"gradient_accumulation_steps": 2}])
def test_any_order_equals_the_run_without(arguments, small_buckets):
    runs = [start(**arguments), start(**arguments, offload="cpu")]
    limit = hub.estimate("adamw_torch_layerwise", Layers(), offload="cpu").state
    assert limit < hub.estimate("adamw_torch_layerwise", Layers()).state
    for order in random_orders(30):
        for model, optimizer in runs:
            if arguments:
                model(order[::-1]).backward()
            take_step(model, optimizer, order)
        _, optimizer = runs[1]
        assert memory_of(optimizer).here == 0
        assert all(is_away(optimizer, parameter) for parameter in optimizer.state)
    assert_same(runs[0][0], runs[1][0])
    # Counts without dimensions are in the estimate, and stay on the device.
    assert 0 < memory_of(runs[1][1]).most_here <= limit


def test_state_comes_before_the_gradient(small_buckets):
    """In the first step after a resume in the order of the groups, then in that of the last one."""
    model, optimizer = start(offload="cpu")
    usual, other = [*range(len(WIDTHS))], [3, 6, 0, 2, 7, 5, 1, 4]
    take_step(model, optimizer, usual)
    resumed = Layers()
    seen = {}
    for index, matrix in enumerate(resumed.matrices):
        # Before the engine's, which the build adds.
        matrix.register_post_accumulate_grad_hook(
            lambda matrix, index=index: seen.update({index: not is_away(again, matrix)})
        )
    again = hub.build("adamw_torch_layerwise", resumed, lr=0.1, offload="cpu")
    keep_apart(again)
    again.load_state_dict(optimizer.state_dict())
    there = Counter()
    for order in (usual, usual, other, other):
        take_step(resumed, again, order)
        first = order[-1]
        assert not seen[first]
        there[tuple(order)] += sum(seen.values())
    everything_but_the_first = len(WIDTHS) - 1
    assert there[tuple(usual)] == 2 * everything_but_the_first
    assert everything_but_the_first < there[tuple(other)] < 2 * everything_but_the_first


def test_what_gets_no_gradient_goes_back_at_the_end_of_the_step(small_buckets):
    model, optimizer = start(offload="cpu")
    usual = [*range(len(WIDTHS))]
    take_step(model, optimizer, usual)
    model(usual[2:]).backward()
    dead = model.matrices[1]
    assert not is_away(optimizer, dead)
    optimizer.step()
    assert memory_of(optimizer).here == 0
    assert is_away(optimizer, dead)
    assert not any(tensor.isnan().any() for tensor in plain_tensors(optimizer.state[dead]))


def test_after_a_failing_update_everything_is_back(small_buckets):
    model, optimizer = start(offload="cpu")
    usual = [*range(len(WIDTHS))]
    take_step(model, optimizer, usual)
    state = optimizer.state[model.matrices[4]]
    state["exp_avg"], kept = torch.zeros(1, 2, 3), state["exp_avg"]
    with pytest.raises(hub.HubError, match=r"matrices\.4"):
        model(usual).backward()
    assert memory_of(optimizer).here == 0
    assert all(is_away(optimizer, parameter) for parameter in optimizer.state)
    state["exp_avg"] = kept
    optimizer.step()
    take_step(model, optimizer, usual)
    for own in optimizer.state.values():
        assert not any(tensor.isnan().any() for tensor in plain_tensors(own))


@pytest.mark.parametrize("check", ["uneven_shards", "dead_layers"])
def test_sharded_parameters(check):
    """Of GaLore some are stepped whole, by one rank each, and some in rows."""
    subject = Subject("galore_adamw_layerwise", processes=2, options=(("offload", "cpu"),))
    run(check, subject)


def test_an_order_announces_about_a_bucket_ahead(small_buckets):
    parameters = {
        key: nn.Parameter(torch.zeros(size))
        for key, size in zip("abcd", (10, 20, 20, 90), strict=True)
    }
    names = {id(parameter): key for key, parameter in parameters.items()}
    optimizer, order = torch.optim.SGD([*parameters.values()]), Order()

    def shown(found):
        return "".join(names[id(parameter)] for parameter in found)

    def follow(key):
        return tuple(map(shown, order.follow(optimizer, [parameters[key]])))

    order.begin()
    assert [follow(key) for key in "dba"] == [("cb", ""), ("a", "c"), ("", "")]
    assert shown(order.withdraw()) == ""
    order.end()
    order.begin()  # where d, b, a are expected
    assert [follow(key) for key in "dcba"] == [("ba", ""), ("", ""), ("", ""), ("", "")]
    order.end()
    order.begin()
    assert [follow(key) for key in "acb"] == [("", ""), ("", ""), ("", "")]
    order.end()
    order.begin()
    assert follow("a") == ("cb", "")
    assert shown(order.withdraw()) == "cb"


def test_leaving_state_is_waited_for(small_buckets):
    """A program that is ahead of its GPU does not bring everything before anything has left."""
    model, optimizer = start("adamw_torch", offload="cpu")
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    estimated = hub.estimate("adamw_torch", model, offload="cpu")
    assert 0 < memory_of(optimizer).most_here <= estimated.state < estimated.host

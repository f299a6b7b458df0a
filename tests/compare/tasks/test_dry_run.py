"""Every mistake in one of a task's four functions is found, and that function named."""

import itertools
from collections import UserDict
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import nn

from hub.compare import Task, tasks
from hub.errors import HubError


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield {"inputs": torch.randn(4, 3, generator=generator), "name": "kept"}


GOOD = Task(
    name="good",
    model=lambda _: nn.Linear(3, 1),
    batches=batches,
    loss=lambda module, batch: module(batch["inputs"]).square().mean(),
    evaluate=lambda module: module.weight.square().sum().item(),
)
SHARED = nn.Linear(3, 1)
COUNT = itertools.count()


def fails(*_):
    raise ValueError("oh no")


def frozen(_):
    return nn.Linear(3, 1).requires_grad_(requires_grad=False)


def other_weights(_):
    torch.manual_seed(next(COUNT))
    return nn.Linear(3, 1)


def other_batches(_):
    return batches(next(COUNT))


def test_a_good_one_passes_and_draws_nothing():
    before = torch.get_rng_state()
    tasks.dry_run(GOOD)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("function", "wrong", "what"),
    [
        ("model", fails, "ValueError: oh no"),
        ("model", None, "TypeError"),
        ("model", lambda _: 3, "it returned 3"),
        ("model", frozen, "nothing in it requires a gradient"),
        ("model", lambda _: nn.Linear(3, 1).bfloat16(), "torch.bfloat16 on cpu"),
        ("model", lambda _: nn.Linear(3, 1, device="meta"), "torch.float32 on meta"),
        ("model", other_weights, "are different"),
        ("model", lambda _: SHARED, "one and the same"),
        ("batches", fails, "ValueError: oh no"),
        ("batches", lambda _: 3, "it returned 3"),
        ("batches", lambda _: [], "there are none"),
        ("batches", lambda _: (1 / zero for zero in [0]), "ZeroDivisionError"),
        ("batches", other_batches, "are different"),
        ("loss", fails, "ValueError: oh no"),
        ("loss", lambda *_: 3.0, "it returned 3.0"),
        ("loss", lambda module, batch: module(batch["inputs"]), "of shape (4, 1)"),
        ("loss", lambda module, _: module.weight.sum() / 0, "before training it is"),
        ("loss", lambda module, _: module.weight.detach().sum(), "it has no gradient"),
        ("loss", lambda *_: torch.ones((), requires_grad=True), "no parameter got a gradient"),
        ("evaluate", fails, "ValueError: oh no"),
        ("evaluate", lambda _: None, "it returned None"),
        ("evaluate", lambda module: module.weight.sum(), "it returned tensor("),
        ("evaluate", lambda _: True, "it returned True"),
        ("evaluate", lambda _: float("nan"), "before training it is nan"),
    ],
)
def test_mistakes_are_named(function, wrong, what):
    with pytest.raises(HubError) as caught:
        tasks.dry_run(replace(GOOD, **{function: wrong}))
    assert what in caught.value.what
    assert caught.value.where == f"good: {function}"
    assert caught.value.fix


def test_errors_of_hub_pass_through():
    def refused(_):
        raise HubError("not now")

    with pytest.raises(HubError, match=r"^not now$"):
        tasks.dry_run(replace(GOOD, model=refused))


class Pair(NamedTuple):
    first: torch.Tensor
    second: list[torch.Tensor]


class Encoding(UserDict):
    """As those of Transformers: it moves itself."""

    def to(self, device):
        return Encoding({key: value.to(device) for key, value in self.items()})


def test_batches_move_in_all_their_forms():
    one = torch.ones(2)
    moved = tasks.to_device(
        {"a": Pair(one, [one]), "b": (one, "text"), "c": Encoding(x=one)}, "meta"
    )
    assert type(moved["a"]) is Pair
    assert type(moved["a"].second) is list
    assert moved["b"][1] == "text"
    assert type(moved["c"]) is Encoding
    tensors = [moved["a"].first, moved["a"].second[0], moved["b"][0], moved["c"]["x"]]
    assert {tensor.device.type for tensor in tensors} == {"meta"}

"""The Schedule-Free names train and evaluate as schedulefree's classes do."""

import pytest
import schedulefree
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import equals_class, gradients, small_model, train

from .wrapped import WRAPPED, build, by_hand, every_dtype, every_name

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@every_dtype
@every_name
def test_it_is_the_upstream_optimizer(name, dtype):
    (ours, optimizer), (theirs, reference) = equals_class(WRAPPED[name], dtype=dtype)
    assert type(optimizer) is WRAPPED[name].cls
    trained = weights(theirs)
    with hub.eval_mode(optimizer):
        reference.eval()
        assert_same(ours, theirs)
    reference.train()
    theirs.load_state_dict(trained)  # the way back rounds in upstream's class, and not in hub's
    assert_same(train(ours, optimizer, range(8, 10)), train(theirs, reference, range(8, 10)))


@every_name
def test_it_starts_in_train_mode_and_without_state(name):
    model = small_model()
    before = weights(model)
    optimizer = build(name, model)
    assert all(group["train_mode"] for group in optimizer.param_groups)
    assert not optimizer.state  # torch's distributed checkpoints look at this
    optimizer.eval()
    optimizer.train()
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())


@every_name
def test_a_group_added_later_joins_in_train_mode(name):
    model, extra = small_model(), nn.Linear(16, 8)
    optimizer = build(name, model)
    train(model, optimizer, range(2))
    optimizer.add_param_group(
        {"params": list(extra.parameters()), "param_names": ["extra.weight", "extra.bias"]}
    )
    for step in range(2, 6):
        gradients(model, step)
        extra(torch.ones(1, 16)).sum().backward()
        optimizer.step()
    after = weights(extra)
    optimizer.train()
    assert all(torch.equal(p, after[key]) for key, p in extra.named_parameters())
    with hub.eval_mode(optimizer):
        assert not torch.equal(extra.weight, after["weight"])


def test_the_upstream_class_steps_a_late_group_out_of_mode():
    """When this fails, `factory.build` need not set the default any more."""
    model, extra = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = schedulefree.SGDScheduleFree(model.parameters())
    optimizer.train()
    optimizer.add_param_group({"params": extra.parameters()})
    assert optimizer.param_groups[1]["train_mode"] is False


def test_sgd_trains_fp16_weights():
    model = small_model(torch.float16)
    before = weights(model)
    train(model, hub.build("schedule_free_sgd", model, lr=0.1), range(20))
    assert moved(model, before) == set(before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@every_name
def test_a_tensor_learning_rate_of_zero_keeps_the_weights_finite(name):
    finite = {}
    for kind, make in (("hub", build), ("upstream", by_hand)):
        model = small_model()
        optimizer = make(name, model)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(0.0)
        train(model, optimizer, [0])
        finite[kind] = all(p.isfinite().all() for p in model.parameters())
    assert finite["hub"]
    assert not finite["upstream"]

"""The torchao names train as torchao's classes do."""

import pytest
import torch

import hub
from hub.testing.comparing import assert_same, through_a_file, weights
from hub.testing.upstream import equals_class, gradients, train

from .wrapped import (
    ARGUMENTS,
    QUANTIZED,
    WRAPPED,
    bf16_weights,
    both_dtypes,
    build,
    by_hand,
    every_name,
    make_model,
    trained,
)

pytestmark = bf16_weights


@both_dtypes
@every_name
def test_it_is_the_upstream_optimizer(name, dtype):
    (ours, optimizer), _ = equals_class(WRAPPED[name], dtype=dtype)
    assert isinstance(optimizer, WRAPPED[name].cls)
    assert type(optimizer.state[ours[0].weight]["exp_avg"]) is QUANTIZED[name]


@every_name
def test_arguments_reach_upstream_from_text(name):
    arguments = {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.5, "lr": 0.02}
    text = "block_size=64, " + ", ".join(f"{key}={value}" for key, value in arguments.items())
    model, other = make_model(), make_model()
    reference = by_hand(name, other, block_size=64, **arguments)
    train(model, hub.build(name, model, optim_args=text), range(4))
    assert_same(model, train(other, reference, range(4)))


@every_name
def test_groups_may_have_their_own_arguments(name):
    settings = {"weight_decay": 0.3, "betas": (0.6, 0.9), "eps": 1e-3}
    ours = {"param_rules": {"2.weight": {**settings, "lr_scale": 0.5}}}
    equals_class(WRAPPED[name], own=[(["2.weight"], {**settings, "lr": 0.005})], ours=ours)


@every_name
def test_a_number_as_learning_rate_is_used_and_read_back(name):
    ours, theirs = make_model(), make_model()
    optimizer, reference = build(name, ours), by_hand(name, theirs)
    for step, rate in enumerate([0.01, 0.003, 0.05]):
        for group, other in zip(optimizer.param_groups, reference.param_groups, strict=True):
            group["lr"] = rate
            other["lr"].fill_(rate)
        train(ours, optimizer, [step])
        train(theirs, reference, [step])
        assert all(group["lr"] == rate for group in optimizer.param_groups)
    assert_same(ours, theirs)
    reference.param_groups[0]["lr"] = 0.01
    with pytest.raises(RuntimeError, match="non-Tensor"):
        reference.step()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9, cycle_momentum=False),
        lambda o: hub.build_scheduler("cosine", o, num_warmup_steps=2, num_training_steps=8),
    ],
    ids=["lambda", "onecycle", "hub"],
)
@every_name
def test_schedules_are_followed_and_resume(name, schedule):
    def run(model, optimizer, following, steps):
        rates = []
        for step in steps:
            train(model, optimizer, [step])
            following.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates

    straight, optimizer = trained(name, 0)
    rates = run(straight, optimizer, schedule(optimizer), range(8))
    assert len(set(rates)) > 4
    model, optimizer = trained(name, 0)
    following = schedule(optimizer)
    assert run(model, optimizer, following, range(4)) == rates[:4]
    saved = through_a_file([model.state_dict(), optimizer.state_dict(), following.state_dict()])
    fresh, follower = trained(name, 0)
    following = schedule(follower)
    fresh.load_state_dict(saved[0])
    follower.load_state_dict(saved[1])
    following.load_state_dict(saved[2])
    assert run(fresh, follower, following, range(4, 8)) == rates[4:]
    assert_same(fresh, straight)


@every_name
def test_gradients_may_be_missing_and_parameters_join_late(name):
    ours, theirs = make_model(), make_model()
    for model in (ours, theirs):
        model[2].requires_grad_(False)
    optimizer = build(name, ours)
    reference = WRAPPED[name].cls(
        [
            {"params": [theirs[0].weight, theirs[3].weight]},
            {"params": [theirs[0].bias, *theirs[1].parameters(), theirs[3].bias]}
            | {"weight_decay": 0.0},
        ],
        **ARGUMENTS,
    )
    before = weights(ours)
    for step in range(6):
        for model, each in ((ours, optimizer), (theirs, reference)):
            if step == 3:
                model[2].requires_grad_()
                late = model[2].named_parameters() if model is ours else model[2].parameters()
                each.add_param_group({"params": [*late], "lr": 0.02})
            gradients(model, step)
            if step % 2:
                model[0].weight.grad = None
            each.step()
        if step == 2:
            assert torch.equal(ours[2].weight, before["2.weight"])
    assert_same(ours, theirs)
    assert not torch.equal(ours[2].weight, before["2.weight"])

"""The Schedule-Free names against schedulefree's own classes, built by hand."""

import inspect
import io
import subprocess
import sys
from copy import deepcopy

import pytest
import schedulefree
import torch
from hub_schedulefree.hooks import SPECS
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.testing.comparing import assert_same, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

SPEC = {spec.name: spec for spec in SPECS}
CLASSES = {
    "schedule_free_adamw": schedulefree.AdamWScheduleFree,
    "schedule_free_radam": schedulefree.RAdamScheduleFree,
    "schedule_free_sgd": schedulefree.SGDScheduleFree,
}
ARGUMENTS = {
    "schedule_free_adamw": {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "warmup_steps": 3},
    "schedule_free_radam": {"lr": 0.01, "betas": (0.8, 0.95), "silent_sgd_phase": False, "r": 0.5},
    "schedule_free_sgd": {"lr": 0.1, "momentum": 0.8, "foreach": False, "weight_lr_power": 1.0},
}
every_name = pytest.mark.parametrize("name", CLASSES)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)


def make_model(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8)).to(dtype)


def gradients(model, step):
    """Fill in the gradients of one deterministic batch."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(4, 16, generator=generator).to(next(model.parameters()).dtype)
    model.zero_grad()
    model(inputs).float().square().mean().backward()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def build(name, model):
    return hub.build(name, model, weight_decay=0.1, **ARGUMENTS[name])


def by_hand(name, model):
    """Upstream's class over the same groups."""
    optimizer = CLASSES[name](
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        **ARGUMENTS[name],
    )
    optimizer.train()
    return optimizer


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    signature = inspect.signature(CLASSES[name]).parameters
    ours = {key: field.default for key, field in SPEC[name].arguments.model_fields.items()}
    assert ours == {key: p.default for key, p in signature.items() if key != "params"}


@every_name
def test_every_argument_has_a_help_text(name):
    for key, field in SPEC[name].arguments.model_fields.items():
        assert field.description, key


@every_dtype
@every_name
def test_it_is_the_upstream_optimizer(name, dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer = build(name, ours)
    reference = by_hand(name, theirs)
    assert type(optimizer) is CLASSES[name]
    assert_same(train(ours, optimizer, range(8)), train(theirs, reference, range(8)))
    trained = weights(theirs)
    with hub.eval_mode(optimizer):
        reference.eval()
        assert_same(ours, theirs)
    reference.train()
    theirs.load_state_dict(trained)  # the way back rounds in upstream's class, and not in hub's
    assert_same(train(ours, optimizer, range(8, 10)), train(theirs, reference, range(8, 10)))


@every_name
def test_it_starts_in_train_mode_and_without_state(name):
    model = make_model()
    before = weights(model)
    optimizer = build(name, model)
    assert all(group["train_mode"] for group in optimizer.param_groups)
    assert not optimizer.state  # torch's distributed checkpoints look at this
    optimizer.eval()
    optimizer.train()
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())


@every_name
def test_a_group_added_later_joins_in_train_mode(name):
    model, extra = make_model(), nn.Linear(16, 8)
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


def test_the_bare_class_steps_a_late_group_out_of_mode():
    """When this fails, `factory.build` need not set the default any more."""
    model, extra = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = schedulefree.SGDScheduleFree(model.parameters())
    optimizer.train()
    optimizer.add_param_group({"params": extra.parameters()})
    assert optimizer.param_groups[1]["train_mode"] is False


@every_dtype
@every_name
def test_it_resumes_exactly(name, dtype):
    straight = make_model(dtype)
    train(straight, build(name, straight), range(9))
    model = make_model(dtype)
    optimizer = build(name, model)
    train(model, optimizer, range(5))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    fresh = make_model(dtype)
    fresh.load_state_dict(loaded["model"])
    resumed = build(name, fresh)
    resumed.load_state_dict(loaded["optimizer"])
    assert_same(train(fresh, resumed, range(5, 9)), straight)


@every_name
def test_a_distributed_checkpoint_resumes_exactly(name):
    straight = make_model()
    train(straight, build(name, straight), range(9))
    model = make_model()
    optimizer = build(name, model)
    train(model, optimizer, range(5))
    saved = deepcopy(get_optimizer_state_dict(model, optimizer))
    fresh = make_model()
    fresh.load_state_dict(model.state_dict())
    resumed = build(name, fresh)
    set_optimizer_state_dict(fresh, resumed, saved)
    assert_same(train(fresh, resumed, range(5, 9)), straight)


@every_name
def test_decay_reaches_exactly_the_decayed_parameters(name):
    model = make_model()
    before = weights(model)
    optimizer = build(name, model)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert moved == {"0.weight", "2.weight"}


@every_name
def test_arguments_reach_every_group(name):
    optimizer = build(name, make_model())
    assert len(optimizer.param_groups) == 2
    for group in optimizer.param_groups:
        assert {key: group[key] for key in ARGUMENTS[name]} == ARGUMENTS[name]
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]


@every_name
def test_the_next_update_uses_the_learning_rate_of_the_group(name):
    model = make_model()
    optimizer = build(name, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    train(model, optimizer, range(6))
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())


@every_name
def test_a_closure_may_call_backward(name):
    model, other = make_model(), make_model()
    optimizer = build(name, model)

    def closure():
        gradients(model, 0)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert_same(model, train(other, build(name, other), [0]))


def test_sgd_trains_fp16_weights():
    model = make_model(torch.float16)
    before = weights(model)
    train(model, hub.build("schedule_free_sgd", model, lr=0.1), range(20))
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name])


@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_radam"])
def test_the_adaptive_ones_refuse_fp16_weights(name):
    with pytest.raises(hub.PrecisionError, match="fp16"):
        hub.build(name, make_model(torch.float16))


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("schedule_free_adamw", {"warmup_steps": 0.1}, "a number of optimizer steps"),
        ("schedule_free_sgd", {"warmup_steps": 100.5}, "a number of optimizer steps"),
        ("schedule_free_adamw", {"warmup_steps": -1}, "greater than or equal to 0"),
        ("schedule_free_radam", {"warmup_steps": 5}, "no argument 'warmup_steps'"),
        ("schedule_free_adamw", {"betas": (0.0, 0.9)}, "greater than 0"),
        ("schedule_free_radam", {"betas": (0.9, 0.6)}, "nothing would be trained"),
        ("schedule_free_sgd", {"momentum": 0}, "greater than 0"),
        ("schedule_free_sgd", {"momentum": 1.0}, "less than 1"),
        ("schedule_free_adamw", {"weight_lr_power": -1.0}, "greater than or equal to 0"),
        ("schedule_free_adamw", {"lr": -1.0}, "greater than or equal to 0"),
        ("schedule_free_adamw", {"foreach": "perhaps"}, "boolean"),
        ("schedule_free_adamw", {"optim_args": "warmup_steps=0.1"}, "a number of optimizer steps"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build(name, make_model(), **arguments)


def test_radam_with_its_sgd_phase_takes_any_betas():
    model = make_model()
    arguments = {"betas": (0.9, 0.5), "silent_sgd_phase": False}
    train(model, hub.build("schedule_free_radam", model, **arguments), range(3))


def test_the_hooks_import_neither_torch_nor_schedulefree():
    code = (
        "import sys, hub_schedulefree.hooks\n"
        "assert not {'torch', 'schedulefree', 'hub_schedulefree.factory'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def saved_in_evaluation_mode(name, dtype=torch.float32):
    model = make_model(dtype)
    optimizer = build(name, model)
    train(model, optimizer, range(4))
    with hub.eval_mode(optimizer):
        return deepcopy((model.state_dict(), optimizer.state_dict()))


@every_dtype
@every_name
def test_a_checkpoint_of_evaluation_mode_resumes_exactly(name, dtype):
    whole = make_model(dtype)
    train(whole, build(name, whole), range(8))
    state, state_dict = saved_in_evaluation_mode(name, dtype)
    model = make_model(dtype)
    optimizer = build(name, model)
    model.load_state_dict(state)
    optimizer.load_state_dict(state_dict)
    train(model, optimizer, range(4, 8))
    assert_same(model, whole)


@every_name
def test_the_bare_class_refuses_the_first_step_after_it(name):
    state, state_dict = saved_in_evaluation_mode(name)
    model = make_model()
    optimizer = by_hand(name, model)
    model.load_state_dict(state)
    optimizer.load_state_dict(state_dict)
    with pytest.raises(Exception, match=r"(?i)train mode"):
        train(model, optimizer, [4])


@every_name
def test_a_tensor_learning_rate_of_zero_keeps_the_weights_finite(name):
    finite = {}
    for kind, make in (("hub", build), ("bare", by_hand)):
        model = make_model()
        optimizer = make(name, model)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(0.0)
        train(model, optimizer, [0])
        finite[kind] = all(p.isfinite().all() for p in model.parameters())
    assert finite["hub"]
    assert not finite["bare"]


def test_a_whole_number_of_steps_may_be_a_float():
    optimizer = hub.build("schedule_free_adamw", make_model(), defaults={"warmup_steps": 3.0})
    assert {type(group["warmup_steps"]) for group in optimizer.param_groups} == {int}

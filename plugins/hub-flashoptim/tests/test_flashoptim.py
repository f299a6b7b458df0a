"""The FlashOptim names against flashoptim's own classes, built by hand."""

import copy
import inspect
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import flashoptim
import pytest
import torch
from hub_flashoptim import hooks
from hub_flashoptim.hooks import SPECS
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import LambdaLR

import hub
from hub.backend import load_object
from hub.spec import Level, ParameterGroup, Precision
from hub.testing.comparing import assert_same, moved, through_a_file, weights

# What a build on CPU turns off is tested where `pytest.warns` says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*master_weight_bits=:hub.HubWarning")

SPEC = {spec.name: spec for spec in SPECS}
CLASSES = {
    "flash_adamw": flashoptim.FlashAdamW,
    "flash_adam": flashoptim.FlashAdam,
    "flash_sgd": flashoptim.FlashSGD,
    "flash_sgdw": flashoptim.FlashSGDW,
    "flash_lion": flashoptim.FlashLion,
}
OWN = {
    "flash_adamw": {"betas": (0.8, 0.95), "eps": 1e-6},
    "flash_adam": {"betas": (0.8, 0.95), "eps": 1e-6},
    "flash_sgd": {"momentum": 0.8, "dampening": 0.1},
    "flash_sgdw": {"momentum": 0.8, "nesterov": True},
    "flash_lion": {"betas": (0.8, 0.95)},
}
ON_CPU = {"quantize": False, "fused": False, "master_weight_bits": None}
DECOUPLED = ["flash_adamw", "flash_sgdw", "flash_lion"]
every_name = pytest.mark.parametrize("name", CLASSES)
decoupled_names = pytest.mark.parametrize("name", DECOUPLED)
l2_names = pytest.mark.parametrize("name", ["flash_adam", "flash_sgd"])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def make_model(dtype=torch.float32, device="cpu"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 8))
    return model.to(device, dtype)


def gradients(model, step):
    """Fill in the gradients of one deterministic batch, and return its loss."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 16, generator=generator).to(next(model.parameters()))
    model.zero_grad()
    loss = (model(inputs) - inputs[:, :8]).float().square().mean()
    loss.backward()
    return loss.item()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def build(name, model, **arguments):
    return hub.build(name, model, **{"lr": 0.01, "weight_decay": 0.1, **OWN[name], **arguments})


def by_hand(name, model, **arguments):
    """Upstream's class over the same groups, as it runs on CPU."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    arguments = {"lr": 0.01, "weight_decay": 0.1, **OWN[name], **ON_CPU, **arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CLASSES[name](groups, **arguments)


def resumed(name, model, optimizer, **arguments):
    """Return a new model and optimizer that go on from a file."""
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = make_model(next(model.parameters()).dtype, next(model.parameters()).device)
    fresh.load_state_dict(saved[0])
    other = build(name, fresh, **arguments)
    other.load_state_dict(saved[1])
    return fresh, other


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    ours = {key: field.default for key, field in SPEC[name].arguments.model_fields.items()}
    theirs = inspect.signature(CLASSES[name]).parameters
    assert ours == {key: p.default for key, p in theirs.items() if key != "params"}


@every_name
def test_every_argument_has_a_help_text(name):
    for key, field in SPEC[name].arguments.model_fields.items():
        assert field.description, key


@both_dtypes
@every_name
def test_it_is_the_upstream_optimizer(name, dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer = build(name, ours)
    assert isinstance(optimizer, CLASSES[name])
    assert type(optimizer).__name__ == CLASSES[name].__name__
    assert_same(train(ours, optimizer, range(6)), train(theirs, by_hand(name, theirs), range(6)))


def test_stateless_sgd_is_the_upstream_optimizer():
    ours, theirs = make_model(), make_model()
    plain = {"momentum": 0.0, "dampening": 0.0}
    optimizer = build("flash_sgd", ours, **plain)
    train(ours, optimizer, range(4))
    assert_same(ours, train(theirs, by_hand("flash_sgd", theirs, **plain), range(4)))
    fresh, other = resumed("flash_sgd", ours, optimizer, **plain)
    assert_same(train(fresh, other, range(4, 6)), train(ours, optimizer, range(4, 6)))


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (torch.float32, "fp32"),
        (torch.float32, "bf16-mixed"),
        (torch.float32, "fp16-mixed"),
        (torch.bfloat16, "bf16"),
        (torch.float16, "fp16"),
    ],
    ids=str,
)
@every_name
def test_every_weight_trains_and_the_loss_falls(name, dtype, precision):
    model = make_model(dtype)
    if precision == "fp16" and "adam" in name:
        with pytest.raises(hub.PrecisionError, match="without quantized state"):
            build(name, model, precision=precision)
        return
    optimizer = build(name, model, precision=precision)
    before, first = weights(model), gradients(model, 0)
    train(model, optimizer, range(20))
    assert moved(model, before) == set(before)
    assert gradients(model, 0) < 0.9 * first


def test_the_bare_adam_makes_fp16_weights_jump():
    """When this fails, `hooks._fp16_findings` may not be needed any more."""
    weight = nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = by_hand("flash_adamw", nn.ParameterList([weight]), eps=1e-8)
    for gradient in (1e-4, 0.0):  # the square of the first rounds to 0 in the state
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    assert weight.abs().max() > 10


@both_dtypes
@every_name
def test_it_resumes_exactly(name, dtype):
    straight, model = make_model(dtype), make_model(dtype)
    train(straight, build(name, straight), range(8))
    optimizer = build(name, model)
    train(model, optimizer, range(4))
    fresh, other = resumed(name, model, optimizer)
    assert_same(train(fresh, other, range(4, 8)), straight)


@every_name
def test_state_dicts_hold_tensors_only(name):
    model = make_model()
    optimizer = build(name, model)
    train(model, optimizer, [0])
    for state in optimizer.state_dict()["state"].values():
        assert state
        assert all(isinstance(value, torch.Tensor) for value in state.values())


@every_name
def test_a_distributed_checkpoint_resumes_exactly(name):
    straight, model, fresh = make_model(), make_model(), make_model()
    train(straight, build(name, straight), range(6))
    optimizer = build(name, model)
    train(model, optimizer, range(3))
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    fresh.load_state_dict(model.state_dict())
    other = build(name, fresh)
    set_optimizer_state_dict(fresh, other, saved)
    assert_same(train(fresh, other, range(3, 6)), straight)


@every_name
def test_a_checkpoint_of_the_bare_class_is_loaded(name):
    straight, model, fresh = make_model(), make_model(), make_model()
    train(straight, by_hand(name, straight), range(6))
    reference = by_hand(name, model)
    train(model, reference, range(3))
    fresh.load_state_dict(model.state_dict())
    optimizer = build(name, fresh)
    optimizer.load_state_dict(through_a_file(reference.state_dict()))
    assert_same(train(fresh, optimizer, range(3, 6)), straight)


@pytest.mark.parametrize("argument", ["quantize", "master_weight_bits"])
def test_a_checkpoint_from_the_gpu_is_refused_on_cpu(argument):
    optimizer = build("flash_adamw", make_model())
    saved = optimizer.state_dict()
    saved["hub"]["arguments"][argument] = {"quantize": True, "master_weight_bits": 24}[argument]
    with pytest.raises(hub.CheckpointError, match=argument):
        optimizer.load_state_dict(saved)


def test_a_bare_checkpoint_from_the_gpu_is_refused_on_cpu():
    model = make_model()
    reference = by_hand("flash_adamw", model)
    train(model, reference, [0])
    saved = reference.state_dict()
    saved["param_groups"][0]["quantize"] = True
    optimizer = build("flash_adamw", model)
    with pytest.raises(hub.CheckpointError, match="'quantize': True"):
        optimizer.load_state_dict(saved)


@every_name
def test_decay_reaches_exactly_the_decayed_parameters(name):
    model = make_model()
    before = weights(model)
    optimizer = build(name, model, eps=1.0) if "adam" in name else build(name, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert moved(model, before) == {"0.weight", "3.weight"}
    if name in DECOUPLED:
        torch.testing.assert_close(model[0].weight, before["0.weight"] * (1 - 0.01 * 0.1))


@every_name
def test_arguments_reach_every_group(name):
    optimizer = build(name, make_model())
    assert len(optimizer.param_groups) == 2
    for group in optimizer.param_groups:
        assert {key: group[key] for key in OWN[name] if key in SPEC[name].per_group} == {
            key: value for key, value in OWN[name].items() if key in SPEC[name].per_group
        }
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, {"lr": 0.1, "weight_decay": 0.5, "betas": (0.5, 0.6), "eps": 0.1}.get(key, 0.5))
        for name in CLASSES
        for key in sorted(SPEC[name].per_group)
    ],
)
def test_a_rule_changes_the_updates_of_its_parameters_only(name, key, value):
    settings = {"nesterov": False} if name == "flash_sgdw" else {}
    models = []
    for rules in (None, {"3.weight": {key: value}}):
        models.append(make_model())
        optimizer = build(name, models[-1], param_rules=rules, **settings)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in models[-1].parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    assert moved(models[1], weights(models[0])) == {"3.weight"}


@every_name
def test_the_next_update_uses_the_learning_rate_of_the_group(name):
    model, other = make_model(), make_model()
    optimizer = build(name, model, lr=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    assert_same(train(model, optimizer, range(3)), train(other, build(name, other), range(3)))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    train(model, optimizer, range(3))
    assert not moved(model, before)


def halving(optimizer):
    return LambdaLR(optimizer, lambda step: 0.5**step)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@every_name
def test_schedules_start_from_each_groups_own_rate(name):
    model = make_model()
    optimizer = build(name, model, lr=0.01, param_rules={"3": {"lr": 1e-3}})
    assert rates(optimizer) == [0.01, 0.01, 1e-3, 1e-3]
    scheduler = halving(optimizer)
    assert rates(optimizer) == [0.01, 0.01, 1e-3, 1e-3]
    train(model, optimizer, [0])
    scheduler.step()
    assert rates(optimizer) == [0.005, 0.005, 5e-4, 5e-4]


@every_name
def test_schedules_start_from_a_rate_that_was_edited(name):
    model = make_model()
    optimizer = build(name, model)
    fresh, other = resumed(name, model, optimizer)  # loading must leave no rate behind either
    for late in (optimizer, other):
        for group in late.param_groups:
            group["lr"] = 0.3
        halving(late)
        assert rates(late) == [0.3, 0.3]
    assert fresh is not model


def test_the_bare_class_resets_every_rate_to_the_constructors():
    """When this fails, `_Mended.add_param_group` is not needed any more."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = flashoptim.FlashAdamW([{"params": [weight], "lr": 1e-5}], lr=1e-2, **ON_CPU)
    halving(optimizer)
    assert rates(optimizer) == [1e-2]


class Shrinking:
    """What share a step without gradients takes off each of two weights."""

    def __init__(self, name, **arguments):
        self.weights = nn.ParameterDict({"a": torch.ones(2, 2), "b": torch.ones(2, 2)})
        self.optimizer = hub.build(
            name, self.weights, weight_decay=0.01, decouple_lr=True, **arguments
        )

    def step(self):
        before = [weight.detach().clone() for weight in self.weights.values()]
        for weight in self.weights.values():
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()
        pairs = zip(before, self.weights.values(), strict=True)
        return [round(1 - (after / earlier)[0, 0].item(), 5) for earlier, after in pairs]


@decoupled_names
def test_decoupled_decay_follows_a_schedule_by_hand(name):
    shrinking = Shrinking(name, lr=0.1)
    for rate, share in ((0.1, 0.01), (0.05, 0.005), (0.0, 0.0), (0.1, 0.01)):
        for group in shrinking.optimizer.param_groups:
            group["lr"] = rate
        assert shrinking.step() == [share, share]


@decoupled_names
def test_decoupled_decay_is_relative_to_each_groups_own_rate(name):
    shrinking = Shrinking(name, lr=0.1, param_rules={"b": {"lr": 0.001}})
    assert shrinking.step() == [0.01, 0.01]
    shrinking.optimizer.param_groups[1]["lr"] = 0.0005
    assert shrinking.step() == [0.01, 0.005]


@decoupled_names
def test_decoupled_decay_follows_a_scheduler_from_an_edited_rate(name):
    shrinking = Shrinking(name, lr=0.1)
    shrinking.optimizer.param_groups[0]["lr"] = 0.02
    scheduler = halving(shrinking.optimizer)
    assert rates(shrinking.optimizer) == [0.02]
    assert shrinking.step() == [0.01, 0.01]
    scheduler.step()
    assert shrinking.step() == [0.005, 0.005]


@decoupled_names
def test_decoupled_decay_resumes_relative_to_the_same_rate(name):
    straight, model = make_model(), make_model()
    arguments = {"decouple_lr": True, "weight_decay": 0.01}
    first = build(name, straight, **arguments)
    optimizer = build(name, model, **arguments)
    for late in (first, optimizer):
        for group in late.param_groups:
            group["lr"] = 0.004
    train(straight, first, range(6))
    train(model, optimizer, range(3))
    fresh, other = resumed(name, model, optimizer, **arguments)
    assert_same(train(fresh, other, range(3, 6)), straight)


@decoupled_names
def test_a_late_group_decays_relative_to_its_own_rate(name):
    shrinking = Shrinking(name, lr=0.1)
    late = nn.Parameter(torch.ones(2, 2))
    shrinking.optimizer.add_param_group({"params": [late], "param_names": ["late"], "lr": 0.5})
    late.grad = torch.zeros_like(late)
    shrinking.step()
    torch.testing.assert_close(late.detach(), torch.full((2, 2), 0.99))


@every_name
def test_a_group_added_later_trains(name):
    model, extra = make_model(), nn.Linear(16, 8)
    optimizer = build(name, model)
    train(model, optimizer, range(2))
    names = ["extra.weight", "extra.bias"]
    optimizer.add_param_group({"params": list(extra.parameters()), "param_names": names, "lr": 0.5})
    before = weights(extra)
    extra(torch.ones(1, 16)).sum().backward()
    train(model, optimizer, [2])
    assert moved(extra, before) == set(before)
    assert halving(optimizer).base_lrs == [0.01, 0.01, 0.5]


@every_name
def test_parameters_without_a_gradient_or_frozen_stay(name):
    model = make_model()
    model[3].requires_grad_(False)
    optimizer = build(name, model)
    before = weights(model)
    for step in range(2):
        gradients(model, step)
        model[1].weight.grad = None
        optimizer.step()
    assert moved(model, before) == {"0.weight", "0.bias", "1.bias"}


@every_name
def test_a_closure_may_call_backward(name):
    model, other = make_model(), make_model()
    optimizer = build(name, model)
    loss = optimizer.step(lambda: gradients(model, 0))
    assert loss == gradients(other, 0)
    assert_same(model, train(other, build(name, other), [0]))


@l2_names
def test_a_step_leaves_gradients_alone(name):
    model = make_model()
    optimizer = build(name, model)
    gradients(model, 0)
    kept = {key: p.grad.clone() for key, p in model.named_parameters()}
    optimizer.step()
    assert all(torch.equal(p.grad, kept[key]) for key, p in model.named_parameters())


@l2_names
def test_the_bare_classes_add_the_penalty_to_the_gradient(name):
    """When this fails, `_Mended._would_write_into` is not needed any more."""
    model = make_model()
    gradients(model, 0)
    kept = model[0].weight.grad.clone()
    by_hand(name, model).step()
    assert not torch.equal(model[0].weight.grad, kept)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["copy", "pickle"],
)
@every_name
def test_copies_go_on_like_the_original(name, duplicate, steps):
    def bare_build(model):
        groups = [{"params": list(model.parameters())}]
        return load_object(hub.describe(name).factory)(groups, lr=0.01, **OWN[name], **ON_CPU)

    model, third = make_model(), make_model()
    optimizer = bare_build(model)
    train(model, optimizer, range(steps))
    other, copied = duplicate([model, optimizer])
    assert_same(train(model, optimizer, range(3, 6)), train(other, copied, range(3, 6)))
    third.load_state_dict(other.state_dict())
    reloaded = bare_build(third)
    reloaded.load_state_dict(through_a_file(copied.state_dict()))
    assert_same(train(third, reloaded, [6]), train(other, copied, [6]))


def test_the_bare_class_cannot_be_copied():
    """When this fails, `_Mended.__getstate__` may not be needed any more."""
    with pytest.raises(AttributeError, match="_master_bytewidth"):
        copy.deepcopy(by_hand("flash_adamw", make_model()))


def test_momentum_of_a_checkpoint_is_taken_over_where_there_was_none():
    straight, model = make_model(), make_model()
    train(straight, build("flash_sgd", straight), range(6))
    optimizer = build("flash_sgd", model)
    train(model, optimizer, range(3))
    with pytest.warns(hub.HubWarning, match="momentum 0.8 → 0.0"):
        fresh, other = resumed("flash_sgd", model, optimizer, momentum=0.0)
    assert_same(train(fresh, other, range(3, 6)), straight)


def test_the_bare_class_fails_with_the_momentum_of_a_checkpoint():
    """When this fails, `_Mended.__setstate__` need not replace the groups."""
    model = make_model()
    optimizer = by_hand("flash_sgd", model)
    train(model, optimizer, [0])
    other = by_hand("flash_sgd", model, momentum=0.0)
    other.load_state_dict(optimizer.state_dict())
    with pytest.raises(AttributeError):
        other.step()


BF16, FP32 = torch.bfloat16, torch.float32
LOUD, QUIET = Level.ADJUST, Level.NOTE


@pytest.mark.parametrize(
    ("device", "dtype", "asked", "expected"),
    [
        ("cpu", FP32, {}, {"master_weight_bits": LOUD, "quantize": QUIET, "fused": QUIET}),
        ("cpu", BF16, {}, {"master_weight_bits": LOUD, "quantize": QUIET, "fused": QUIET}),
        ("cpu", FP32, {"master_weight_bits": None}, {"quantize": QUIET, "fused": QUIET}),
        ("cpu", FP32, {"optim_args": "master_weight_bits=None, fused=false"}, {"quantize": QUIET}),
        (
            "cpu",
            FP32,
            {"quantize": True, "fused": True, "master_weight_bits": 32},
            {"master_weight_bits": LOUD, "quantize": LOUD, "fused": LOUD},
        ),
        ("cpu", FP32, ON_CPU, {}),
        ("meta", FP32, {}, {"master_weight_bits": LOUD}),
        ("meta", BF16, {}, {}),
        ("meta", BF16, {"quantize": True, "fused": True, "master_weight_bits": 24}, {}),
    ],
)
@every_name
def test_what_the_parameters_cannot_have_is_turned_off(name, device, dtype, asked, expected):
    plan = hub.plan(name, make_model(dtype, device), **asked)
    turned_off = {key: finding.level for finding in plan.findings for key in finding.instead}
    assert turned_off == expected
    values = {argument.name: argument.value for argument in plan.arguments}
    for key in expected:
        assert values[key] == ON_CPU[key]


@every_name
def test_the_device_of_the_parameters_decides_not_the_machine(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = make_model()
    train(model, build(name, model), range(2))


@pytest.mark.parametrize(
    ("dtype", "says"),
    [(FP32, "fp32 parameters have 32 bits already"), (BF16, "half the spacing of bf16 weights")],
)
def test_turning_master_weights_off_is_warned_about(dtype, says):
    with pytest.warns(hub.HubWarning, match=says) as caught:
        hub.build("flash_adamw", make_model(dtype))
    assert len(caught) == 1


def test_narrow_weights_without_master_weights_are_warned_about_by_hub_alone():
    """Where the learning rate is too small for them, and nowhere else."""
    with pytest.warns(hub.HubWarning, match="round to nothing") as caught:
        hub.build("flash_adamw", make_model(BF16), lr=1e-6, master_weight_bits=None)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub.build("flash_adamw", make_model(BF16), lr=1e-2, master_weight_bits=None)


def test_fp32_weights_without_master_weights_are_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub.build("flash_adamw", make_model(), optim_args="master_weight_bits=None")


def test_weights_that_are_not_contiguous_turn_the_fused_kernel_off():
    model = nn.Conv2d(3, 4, 3).to("meta", BF16).to(memory_format=torch.channels_last)
    for asked, level in (({}, QUIET), ({"fused": True}, LOUD)):
        (finding,) = hub.plan("flash_adamw", model, **asked).materialized().findings
        assert (finding.level, finding.instead) == (level, {"fused": False})
        assert "'weight' is not contiguous" in finding.what


@every_name
def test_fp64_is_refused(name):
    with pytest.raises(hub.PrecisionError, match="fp64"):
        hub.build(name, make_model(torch.float64))


def test_uneven_shards_are_refused():
    model = make_model()
    for parameter in model.parameters():
        parameter.device_mesh = SimpleNamespace(size=lambda _: 16)
        parameter.placements = [SimpleNamespace(dim=0)]
    with pytest.raises(hub.UnsupportedError, match="8 rows or columns that is sharded") as refused:
        build("flash_adamw", model)
    assert refused.value.where == "3.weight"


def test_another_gpu_than_the_current_one_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    elsewhere = SimpleNamespace(
        device=torch.device("cuda", 1), is_contiguous=lambda: True, shape=(2, 2)
    )
    context = hub.BuildContext(
        model=nn.Module(),
        groups=(ParameterGroup(name="all", parameters=(("weight", elsewhere),), overrides={}),),
        precision=Precision(mode="bf16", dtypes=("bf16",), devices=("cuda",)),
    )

    def found(**arguments):
        optim_args = hub.describe("flash_adamw").arguments(**arguments)
        return hooks.hub_validate_precision("flash_adamw", optim_args, context)

    (refused,) = found(quantize=False, fused=False)
    assert refused.error is hub.UnsupportedError
    assert "current GPU, 0, and the model has parameters on cuda:1" in refused.what
    assert [f.level for f in found(**ON_CPU)] == [hub.Level.NOTE]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("flash_adamw", {"master_weight_bits": 16}, "24"),
        ("flash_adamw", {"optim_args": "master_weight_bits=true"}, "24"),
        ("flash_adamw", {"quantize": "8bit"}, "boolean"),
        ("flash_adamw", {"betas": (0.9, 1.0)}, "less than 1"),
        ("flash_adamw", {"lr": -1.0}, "greater than or equal to 0"),
        ("flash_adamw", {"lr": 0.0, "decouple_lr": True}, "above 0"),
        ("flash_adam", {"decouple_lr": True}, "no argument 'decouple_lr'"),
        ("flash_lion", {"eps": 1e-8}, "no argument 'eps'"),
        ("flash_sgd", {"momentum": -0.1}, "greater than or equal to 0"),
        ("flash_sgd", {"nesterov": True, "momentum": 0.0, "dampening": 0.0}, "needs momentum"),
        ("flash_sgdw", {"dampening": 0.1}, "dampening=0"),
        ("flash_sgd", {"decouple_lr": True}, "no argument 'decouple_lr'"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(name, make_model(), **arguments)


def test_check_numerics_stops_a_rate_that_changes_nothing():
    model = make_model(BF16)
    with pytest.warns(hub.HubWarning, match="round to nothing"):
        optimizer = hub.build(
            "flash_adamw", model, lr=1e-6, check_numerics=True, master_weight_bits=None
        )
    with pytest.raises(flashoptim.NumericsError, match="too small"):
        train(model, optimizer, [0])


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_platform_without_triton_is_told_so():
    code = """
import sys
sys.modules["triton"] = None
import hub, torch
try:
    hub.build("flash_adamw", torch.nn.Linear(2, 2), master_weight_bits=None)
except hub.PluginError as error:
    sys.stdout.write(str(error))
"""
    said = run(code).stdout
    assert "flashoptim needs triton, which is not installed" in said
    assert "plugin: hub-flashoptim" in said
    assert "adamw_torch" in said


def test_the_hooks_import_neither_torch_nor_flashoptim():
    run(
        "import sys, hub_flashoptim.hooks\n"
        "assert not {'torch', 'triton', 'flashoptim', 'hub_flashoptim.factory'} & set(sys.modules)"
    )


EMULATED = Path(__file__).with_name("emulated.py")
CASES = [
    line[4:].split("(")[0] for line in EMULATED.read_text().splitlines() if "def case_" in line
]


@pytest.fixture(scope="module")
def emulated():
    """The tracebacks of the cases that triton's interpreter ran, by name."""
    command = [sys.executable, str(EMULATED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_with_emulated_kernels(case, emulated):
    assert not emulated[case], emulated[case]


@pytest.mark.gpu
@gpu
@every_name
def test_the_defaults_train_and_resume_exactly_on_cuda(name):
    straight, model = make_model(BF16, "cuda"), make_model(BF16, "cuda")
    before = weights(straight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = build(name, model)
    train(straight, build(name, straight), range(8))
    assert moved(straight, before) == set(before)
    train(model, optimizer, range(4))
    keys = {key for state in optimizer.state_dict()["state"].values() for key in state}
    assert any(key.endswith("::quantized") for key in keys)
    assert "error_bits" in keys
    fresh, other = resumed(name, model, optimizer)
    assert_same(train(fresh, other, range(4, 8)), straight)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(
    ("dtype", "arguments"),
    [
        (BF16, {"master_weight_bits": 32}),
        (BF16, {"compress_state_dict": False}),
        (BF16, {"fused": False}),
        (torch.float16, {}),
        (FP32, {}),
        (FP32, {"compress_state_dict": False, "fused": False}),
    ],
)
@every_name
def test_quantized_state_resumes_exactly_on_cuda(name, dtype, arguments):
    straight, model = make_model(dtype, "cuda"), make_model(dtype, "cuda")
    train(straight, build(name, straight, **arguments), range(6))
    optimizer = build(name, model, **arguments)
    train(model, optimizer, range(3))
    fresh, other = resumed(name, model, optimizer, **arguments)
    assert_same(train(fresh, other, range(3, 6)), straight)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("dtype", [BF16, torch.float16, FP32], ids=str)
@every_name
def test_every_weight_trains_on_cuda(name, dtype):
    model = make_model(dtype, "cuda")
    before, first = weights(model), gradients(model, 0)
    train(model, build(name, model), range(20))
    assert moved(model, before) == set(before)
    assert gradients(model, 0) < 0.9 * first


@pytest.mark.gpu
@gpu
def test_small_updates_of_bf16_weights_add_up_on_cuda():
    weight = nn.ParameterList([torch.ones(4, 8, dtype=BF16, device="cuda")])
    optimizer = hub.build("flash_adamw", weight, lr=1e-3, weight_decay=0.0)
    for _ in range(20):
        weight[0].grad = torch.ones_like(weight[0])
        optimizer.step()
    exact = optimizer.get_fp32_model_state_dict(weight)["0"]
    torch.testing.assert_close(exact, torch.full_like(exact, 0.98), atol=5e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two CUDA devices")
def test_parameters_on_the_second_gpu_are_refused_until_it_is_the_current_one():
    model = make_model(BF16, "cuda:1")
    with pytest.raises(hub.UnsupportedError, match=r"set_device\(1\)"):
        build("flash_adamw", model)
    with torch.cuda.device(1):
        train(model, build("flash_adamw", model), range(2))

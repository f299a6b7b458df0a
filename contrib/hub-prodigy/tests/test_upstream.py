"""`prodigy` trains as prodigyopt's class does, and mends what fails there."""

import contextlib
import copy
import io

import prodigyopt
import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.testing.upstream import (
    Wrapped,
    arguments_match,
    builds_quietly,
    by_distributed,
    by_file,
    continues,
    equals_class,
    gradients,
    imports_nothing,
    small_model,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


def quiet(groups, **arguments):
    """Build upstream's class, which prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return prodigyopt.Prodigy(groups, **arguments)


OWN = {"lr": 1.0, "betas": (0.8, 0.95), "weight_decay": 0.1, "d0": 1e-3, "d_coef": 2.0}
WRAPPED = Wrapped("prodigy", prodigyopt.Prodigy, OWN, make=quiet)
DEFAULTS = Wrapped("prodigy", prodigyopt.Prodigy, make=quiet)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)


def test_the_arguments_are_upstreams():
    arguments_match("prodigy", prodigyopt.Prodigy, left_out={"fsdp_in_use"})


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_prodigy.hooks")


def test_the_first_build_leaves_the_process_as_it_is():
    builds_quietly("prodigy")


@every_dtype
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"decouple": False},
        {"decouple": False, "betas": (0.0, 0.9)},
        {"use_bias_correction": True, "growth_rate": 1.02},
        {"safeguard_warmup": True, "slice_p": 3, "beta3": 0.5},
    ],
    ids=str,
)
def test_it_is_the_upstream_optimizer(arguments, dtype):
    (_, ours), (_, theirs) = equals_class(WRAPPED, dtype=dtype, steps=20, **arguments)
    assert ours.param_groups[0]["d"] == theirs.param_groups[0]["d"] != 1e-3


@every_dtype
def test_its_defaults_are_the_upstream_optimizer(dtype):
    equals_class(DEFAULTS, dtype=dtype, steps=30)


def test_the_estimate_continues():
    """It is in the groups, and with it every number that the next step needs."""
    for hand_over in (by_file, by_distributed):
        _, optimizer = continues(WRAPPED.build, WRAPPED.build, hand_over=hand_over, steps=10)
        assert optimizer.param_groups[0]["d"] > 1e-3
        assert optimizer.param_groups[0]["k"] == 20


@pytest.mark.parametrize("slice_p", [1, 3, 11])
def test_a_checkpoint_of_upstream_is_continued(slice_p):
    continues(WRAPPED.by_hand, WRAPPED.build, slice_p=slice_p)


def by_full_state_dict(saved, fresh):
    options = StateDictOptions(full_state_dict=True)
    fresh[0].load_state_dict(saved[0].state_dict())
    states = copy.deepcopy(get_optimizer_state_dict(*saved, options=options))
    set_optimizer_state_dict(*fresh, states, options=options)


def test_upstream_does_not_load_a_full_state_dict():
    """When this fails, the keys need not be there before the first step."""
    continues(WRAPPED.build, WRAPPED.build, hand_over=by_full_state_dict)
    with pytest.raises(KeyError, match="d_denom"):
        continues(WRAPPED.by_hand, WRAPPED.by_hand, hand_over=by_full_state_dict)


def late(optimizer, model):
    """Lower the rate as a schedule does, add a parameter, and take a step with it."""
    train(model, optimizer, range(3))
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    model[0].bias.requires_grad_()
    optimizer.add_param_group({"params": [model[0].bias]})
    train(model, optimizer, [3])


def test_parameters_join_at_the_rate_of_the_others():
    model = small_model()
    model[0].bias.requires_grad_(False)
    optimizer = WRAPPED.build(model)
    before = model[0].bias.clone()
    late(optimizer, model)
    assert optimizer.param_groups[-1]["lr"] == 0.5
    assert optimizer.param_groups[-1]["k"] == 4
    assert not torch.equal(model[0].bias, before)


def test_upstream_fails_when_parameters_join():
    """When this fails, `add_param_group` is not needed any more."""
    model = small_model()
    model[0].bias.requires_grad_(False)
    optimizer = quiet([p for p in model.parameters() if p.requires_grad], **OWN)
    with pytest.raises(RuntimeError, match="different lr values"):
        late(optimizer, model)


def gradients_are_kept(build):
    model = small_model()
    optimizer = build(model, decouple=False, weight_decay=0.5)
    gradients(model, 0)
    before = model[0].weight.grad.clone()
    optimizer.step()
    return torch.equal(model[0].weight.grad, before)


def test_coupled_decay_leaves_the_gradients():
    """When the second fails, `_gradients_kept` is not needed any more."""
    assert gradients_are_kept(WRAPPED.build)
    assert not gradients_are_kept(WRAPPED.by_hand)


@pytest.mark.parametrize("rule", [{"lr": 0.5}, {"lr_scale": 0.5}], ids=str)
def test_a_rule_cannot_set_a_rate(rule):
    with pytest.raises(hub.OptimArgsError, match="per parameter group"):
        hub.build("prodigy", small_model(), param_rules={"2.weight": rule})


def test_the_upstream_class_refuses_two_rates_in_its_step():
    """When this fails, `own_lr` may pass."""
    model = small_model()
    optimizer = quiet(
        [{"params": [p], "lr": 1 / (i + 1)} for i, p in enumerate(model.parameters())]
    )
    with pytest.raises(RuntimeError, match="different lr values"):
        train(model, optimizer, [0])


def test_there_is_no_layerwise_form():
    with pytest.raises(hub.UnsupportedError, match="one step size from all parameters"):
        hub.build("prodigy_layerwise", small_model())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": 0.0}, "greater than 0"),
        ({"d0": 0.0}, "greater than 0"),
        ({"eps": 0.0}, "greater than 0"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"growth_rate": 0.5}, "greater than or equal to 1"),
        ({"slice_p": 0}, "greater than or equal to 1"),
        ({"fsdp_in_use": True}, "fsdp_in_use"),
        ({"precision": "fp16"}, "fp16"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.HubError, match=says):
        hub.build("prodigy", small_model(), **arguments)


def test_text_reaches_every_argument():
    text = "d_coef=2, growth_rate=inf, beta3=none, slice_p=2, safeguard_warmup=true"
    optimizer = hub.build("prodigy", small_model(), optim_args=text)
    assert optimizer.param_groups[0]["growth_rate"] == float("inf")
    assert optimizer.hub_plan.to_dict()

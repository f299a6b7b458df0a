"""`grokadamw` against grokadamw's own class, built by hand."""

import copy
import inspect
import io
import json
import logging
import math
import subprocess
import sys
import warnings

import grokadamw
import pytest
import torch
from hub_grokadamw.hooks import SPEC
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.testing.comparing import assert_same, moved, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

OWN = {
    "lr": 0.01,
    "betas": (0.8, 0.95),
    "eps": 1e-7,
    "weight_decay": 0.1,
    "alpha_init": 0.9,
    "lamb": 1.7,
    "gamma": 0.2,
    "grokking_signal_decay_rate": 0.3,
    "gradient_clipping": 0.5,
}
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


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


def build(model, **arguments):
    return hub.build("grokadamw", model, **{**OWN, **arguments})


class Quiet(grokadamw.GrokAdamW):
    """Upstream's class, but for the warnings of its step on a CPU."""

    def step(self, closure=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().step(closure)


def by_hand(model, **arguments):
    """Upstream's class over the same groups."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return Quiet(groups, **{**OWN, **arguments})


def saved_bytes(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def through_a_file(value):
    return torch.load(io.BytesIO(saved_bytes(value)), weights_only=True)


def resumed(model, optimizer, **arguments):
    """A fresh model and optimizer, loaded from a file that the given ones were saved to."""
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = make_model(next(model.parameters()).dtype)
    fresh.load_state_dict(saved[0])
    again = build(fresh, **arguments)
    again.load_state_dict(saved[1])
    return fresh, again


# The arguments.


def test_the_arguments_and_their_defaults_are_upstreams():
    theirs = inspect.signature(grokadamw.GrokAdamW).parameters
    ours = {key: field.default for key, field in SPEC.arguments.model_fields.items()}
    assert ours == {key: p.default for key, p in theirs.items() if key != "params"}
    assert all(field.description for field in SPEC.arguments.model_fields.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"eps": -1e-8}, "greater than or equal to 0"),
        ({"weight_decay": -0.1}, "greater than or equal to 0"),
        ({"alpha_init": 1.5}, "less than or equal to 1"),
        ({"lamb": -1.0}, "greater than or equal to 0"),
        ({"gamma": 1.5}, "less than or equal to 1"),
        ({"grokking_signal_decay_rate": -1.0}, "greater than or equal to 0"),
        ({"gradient_clipping": -1.0}, "greater than or equal to 0"),
        ({"gradient_clipping": None}, "valid number"),
        ({"alpha": 0.9}, "did you mean 'alpha_init'"),
        ({"grokking_signal_fns": math.pi}, "a list of functions"),
        ({"grokking_signal_fns": max}, "a list of functions"),
        ({"grokking_signal_fns": ["max"]}, "a list of functions"),
        ({"grokking_signal_fns": []}, "at least 1 item"),
        ({"optim_args": "grokking_signal_fns=max"}, "cannot be written as text"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(make_model(), **arguments)


def test_there_is_no_layerwise_form():
    with pytest.raises(hub.HubError):
        hub.build("grokadamw_layerwise", make_model())


def test_building_leaves_nothing_behind():
    model = make_model()
    before, state, filters = weights(model), torch.get_rng_state(), list(warnings.filters)
    optimizer = build(model)
    assert not moved(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert warnings.filters == filters
    assert not optimizer.state


def test_the_hooks_import_neither_torch_nor_grokadamw():
    code = (
        "import sys, hub_grokadamw.hooks\n"
        "assert not {'torch', 'grokadamw', 'hub_grokadamw.factory'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def root_logger_after(statement):
    code = (
        f"import logging\n{statement}\n"
        "print(logging.root.handlers, logging.root.level == logging.WARNING)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_root_logger_stays_as_it_is():
    load = "from hub import backend; backend.load('hub_grokadamw.factory')"
    assert root_logger_after(load) == "[] True"
    assert root_logger_after(f"{load}; logging.basicConfig(level=logging.DEBUG)").endswith(
        "(NOTSET)>] False"
    )


def test_the_bare_package_sets_the_root_logger_up():
    """When this fails, `hub.backend` has one reason less."""
    assert root_logger_after("import grokadamw").endswith("(NOTSET)>] False")


# The same optimizer.


@every_dtype
@pytest.mark.parametrize(
    "arguments",
    [{}, {"gradient_clipping": 0.0}, {"gradient_clipping": 1e-3}, {"gamma": 0.0}, {"lamb": 0.0}],
    ids=str,
)
def test_it_is_the_upstream_optimizer(arguments, dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer = build(ours, **arguments)
    assert isinstance(optimizer, grokadamw.GrokAdamW)
    reference = by_hand(theirs, **arguments)
    assert_same(train(ours, optimizer, range(15)), train(theirs, reference, range(15)))


@every_dtype
def test_its_defaults_are_the_upstream_optimizer(dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer = hub.build("grokadamw", ours)
    groups = [group["params"] for group in by_hand(theirs).param_groups]
    reference = Quiet([{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}])
    assert_same(train(ours, optimizer, range(15)), train(theirs, reference, range(15)))


@every_dtype
def test_its_state_is_upstreams(dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer, reference = build(ours), by_hand(theirs)
    train(ours, optimizer, range(3))
    train(theirs, reference, range(3))
    for mine, other in zip(optimizer.param_groups, reference.param_groups, strict=True):
        assert "state" not in mine
        for p, q in zip(mine["params"], other["params"], strict=True):
            assert optimizer.state[p].keys() - {"place"} == other["state"][q].keys()
            for key, value in other["state"][q].items():
                assert torch.equal(torch.as_tensor(optimizer.state[p][key]), torch.as_tensor(value))


@every_dtype
def test_it_learns(dtype):
    # The fp16 modes train fp32 weights; for fp16 weights see below.
    model = make_model(dtype)
    inputs = torch.randn(32, 16, dtype=dtype, generator=torch.Generator().manual_seed(1))
    target = inputs[:, :8]
    optimizer = hub.build("grokadamw", model, lr=0.01)

    def loss():
        optimizer.zero_grad()
        value = (model(inputs) - target).square().mean()
        value.backward()
        return value

    first = loss().item()
    for _ in range(40):
        optimizer.step(loss)
    assert loss().item() < first / 5


def test_fp16_weights_are_refused():
    with pytest.raises(hub.PrecisionError, match="fp16"):
        build(make_model(torch.float16))


def test_the_bare_class_does_not_train_fp16_weights():
    """When this fails, fp16 may be declared."""
    model = make_model(torch.float16)
    train(model, Quiet(model.parameters()), range(20))
    assert not all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_step_warns_of_nothing():
    train(make_model(), build(make_model()), [0])  # warnings are errors here
    model = make_model()
    train(model, build(model), [0])


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_the_bare_class_warns_in_every_step():
    """When this fails, upstream's step is quiet."""
    model = make_model()
    optimizer = grokadamw.GrokAdamW(model.parameters())
    gradients(model, 0)
    with pytest.warns(FutureWarning, match="autocast"):
        optimizer.step()


def test_gradients_stay_as_they_are():
    model = make_model()
    optimizer = build(model, gradient_clipping=1e-3)
    gradients(model, 0)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.step()
    for parameter, grad in zip(model.parameters(), before, strict=True):
        assert grad.norm() > 1e-3
        assert torch.equal(parameter.grad, grad)


# Checkpoints.


@every_dtype
def test_it_resumes_exactly(dtype):
    straight, model = make_model(dtype), make_model(dtype)
    train(straight, build(straight), range(10))
    optimizer = build(model)
    train(model, optimizer, range(5))
    fresh, again = resumed(model, optimizer)
    assert_same(train(fresh, again, range(5, 10)), straight)


class Parts(nn.Module):
    """Layers that are registered in an order of choice; the last one gets gradients late."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        layers = {"a": nn.Linear(16, 16), "b": nn.Linear(16, 16), "late": nn.Linear(16, 16)}
        for name in order:
            self.add_module(name, layers[name])

    def forward(self, x, late):
        x = self.b(self.a(x).tanh())
        return self.late(x) if late else x


def train_parts(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(4, 16, generator=generator), late=step > 3).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("rules", [None, {"b": {"lr_scale": 1.0}}], ids=["order", "groups"])
def test_another_order_of_parameters_resumes_exactly(rules):
    straight, half = Parts(["a", "b", "late"]), Parts(["a", "b", "late"])
    train_parts(straight, build(straight), range(8))
    optimizer = build(half)
    train_parts(half, optimizer, range(3))
    fresh = Parts(["late", "b", "a"])
    fresh.load_state_dict(half.state_dict())
    again = build(fresh, param_rules=rules)
    assert [g["param_names"] for g in again.param_groups] != [
        g["param_names"] for g in optimizer.param_groups
    ]
    again.load_state_dict(optimizer.state_dict())
    train_parts(fresh, again, range(3, 8))
    for name, expected in straight.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], expected), name


def test_the_bare_class_starts_again_when_it_resumes():
    """When this fails, upstream's state may be where torch looks for it."""
    straight, model = make_model(), make_model()
    train(straight, by_hand(straight), range(10))
    optimizer = by_hand(model)
    train(model, optimizer, range(5))
    fresh = make_model()
    fresh.load_state_dict(model.state_dict())
    again = by_hand(fresh)
    again.load_state_dict(pickled(optimizer.state_dict()))
    with pytest.raises(AssertionError):
        assert_same(train(fresh, again, range(5, 10)), straight)


def pickled(value):
    return torch.load(io.BytesIO(saved_bytes(value)), weights_only=False)


@both_dtypes
def test_a_distributed_checkpoint_resumes_exactly(dtype):
    straight, model, fresh = make_model(dtype), make_model(dtype), make_model(dtype)
    train(straight, build(straight), range(10))
    optimizer = build(model)
    train(model, optimizer, range(5))
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    fresh.load_state_dict(model.state_dict())
    again = build(fresh)
    set_optimizer_state_dict(fresh, again, saved)
    assert_same(train(fresh, again, range(5, 10)), straight)


def test_checkpoints_do_not_grow():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    size = len(saved_bytes(optimizer.state_dict()))
    for step in range(1, 5):
        model, optimizer = resumed(model, optimizer)
        train(model, optimizer, [step])
        assert len(saved_bytes(optimizer.state_dict())) == size
    assert len(optimizer.state) == len(list(model.parameters()))


def test_state_dicts_hold_tensors_and_plain_data():
    model = make_model()
    optimizer = build(model, grokking_signal_fns=[lambda: 0.5])
    train(model, optimizer, [0])
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        assert state.pop("step") == 1
        assert isinstance(state.pop("place"), int)
        assert set(state) == {"exp_avg", "exp_avg_sq", "grok_ema"}
        assert all(isinstance(value, torch.Tensor) for value in state.values())
    json.dumps(saved["param_groups"])


def test_a_checkpoint_of_the_bare_class_is_refused():
    model = make_model()
    reference = by_hand(model)
    train(model, reference, [0])
    optimizer = build(model)
    with pytest.raises(hub.CheckpointError, match="parameters that are gone"):
        optimizer.load_state_dict(reference.state_dict())
    assert not optimizer.state


def test_a_copy_goes_on_like_the_original():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, range(3))
    hub.detach(optimizer)
    other, copied = copy.deepcopy([model, optimizer])
    assert_same(train(model, optimizer, range(3, 6)), train(other, copied, range(3, 6)))


# Groups, and places in them.


def first_updates(optimizer, parameters, missing=()):
    before = [parameter.detach().clone() for parameter in parameters]
    for index, parameter in enumerate(parameters):
        parameter.grad = None if index in missing else torch.ones_like(parameter)
    optimizer.step()
    return [
        (old - p.detach()).abs().max().item() for p, old in zip(parameters, before, strict=True)
    ]


class Places(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(5))

    @property
    def all(self):
        return [layer.weight for layer in self.layers]


def test_a_missing_gradient_leaves_the_betas_of_others_alone():
    model, other = Places(), Places()
    own = {"weight_decay": 0.0, "lr": 0.01}
    everything = first_updates(hub.build("grokadamw", model, **own), model.all)
    partly = first_updates(hub.build("grokadamw", other, **own), other.all, missing={1})
    assert everything == sorted(everything)
    assert everything[4] > 2 * everything[0]
    assert partly[1] == 0.0
    # Different weights round the same updates differently.
    assert [u for i, u in enumerate(partly) if i != 1] == pytest.approx(
        [u for i, u in enumerate(everything) if i != 1], rel=1e-5
    )


def test_the_bare_class_shifts_the_betas_of_all_that_follow():
    """When this fails, upstream counts as `factory.GrokAdamW` does."""
    model, other = Places(), Places()
    everything = first_updates(Quiet(model.all, weight_decay=0.0), model.all)
    partly = first_updates(Quiet(other.all, weight_decay=0.0), other.all, missing={1})
    assert partly[2:] == pytest.approx(everything[1:4], rel=1e-2)


def test_gamma_0_treats_all_parameters_alike():
    model = Places()
    updates = first_updates(hub.build("grokadamw", model, weight_decay=0.0, gamma=0), model.all)
    assert updates == pytest.approx([updates[0]] * 5, rel=1e-3)


def test_decay_reaches_exactly_the_decayed_parameters():
    model = make_model()
    before = weights(model)
    optimizer = build(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert moved(model, before) == {"0.weight", "2.weight"}
    torch.testing.assert_close(model[0].weight, before["0.weight"] * (1 - 0.01 * 0.1))


def test_arguments_reach_every_group():
    optimizer = build(make_model())
    assert len(optimizer.param_groups) == 2
    own = {key: value for key, value in OWN.items() if key != "weight_decay"}
    for group in optimizer.param_groups:
        assert {key: group[key] for key in own} == own
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]


@both_dtypes
def test_groups_may_have_arguments_of_their_own(dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    own = {
        "lr": 0.1,
        "betas": (0.5, 0.6),
        "eps": 1e-5,
        "weight_decay": 0.3,
        "alpha_init": 0.7,
        "lamb": 0.5,
        "gamma": 0.5,
        "grokking_signal_decay_rate": 0.9,
        "gradient_clipping": 0.1,
    }
    assert set(own) == SPEC.per_group
    signals = {"grokking_signal_fns": [lambda: 0.4]}
    optimizer = build(ours, param_rules={r"2\.weight": own}, **signals)
    groups = [
        {"params": [theirs[0].weight]},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        {"params": [theirs[2].weight], **own},
    ]
    reference = Quiet(groups, **OWN, **signals)
    assert_same(train(ours, optimizer, range(5)), train(theirs, reference, range(5)))


def test_the_next_update_uses_the_learning_rate_of_the_group():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    train(model, optimizer, range(2))
    assert not moved(model, before)


@both_dtypes
def test_frozen_parameters_stay_and_late_ones_join(dtype):
    model, extra = make_model(dtype), nn.Linear(16, 8).to(dtype)
    model[0].requires_grad_(False)
    before = weights(model)
    optimizer = build(model)
    train(model, optimizer, range(3))
    assert moved(model, before) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    model[0].requires_grad_(True)
    late = {**dict(model[0].named_parameters()), **dict(extra.named_parameters(prefix="extra"))}
    optimizer.add_param_group({"params": list(late.values()), "param_names": list(late), "lr": 0.1})
    before = weights(model) | weights(extra)
    for step in range(3, 6):
        gradients(model, step)
        extra(torch.ones(1, 16, dtype=dtype)).sum().backward()
        optimizer.step()
    assert moved(model, before) == {name for name, _ in model.named_parameters()}
    assert moved(extra, before) == {"weight", "bias"}
    assert optimizer.state[extra.weight]["step"] == 3


def test_a_closure_may_call_backward():
    model, other = make_model(), make_model()
    optimizer = build(model)

    def closure():
        gradients(model, 0)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert_same(model, train(other, build(other), [0]))


# Signals.


def counting():
    """A signal that is another one in every step."""
    calls = iter(range(1000))
    return lambda: next(calls) / 10


@both_dtypes
def test_signal_functions_decide_as_upstreams(dtype):
    ours, theirs, without = make_model(dtype), make_model(dtype), make_model(dtype)
    optimizer = build(ours, grokking_signal_fns=(counting(), lambda: None, lambda: 0.2))
    reference = by_hand(theirs)
    for group in reference.param_groups:  # upstream calls the functions for every group
        group["grokking_signal_fns"] = [counting(), lambda: None, lambda: 0.2]
    assert_same(train(ours, optimizer, range(12)), train(theirs, reference, range(12)))
    assert moved(train(without, build(without), range(12)), weights(ours))


def test_functions_that_abstain_leave_the_rate_alone():
    ours, theirs = make_model(), make_model()
    train(ours, build(ours, grokking_signal_fns=[lambda: None]), range(5))
    assert_same(ours, train(theirs, build(theirs), range(5)))


def test_losses_in_the_groups_decide_as_upstreams_and_are_saved():
    ours, theirs = make_model(), make_model()
    optimizer, reference = build(ours), by_hand(theirs)
    for group in optimizer.param_groups + reference.param_groups:
        group.update(train_loss=0.5, eval_loss=2.0)
    assert_same(train(ours, optimizer, range(5)), train(theirs, reference, range(5)))
    fresh, again = resumed(ours, optimizer)
    assert_same(train(fresh, again, range(5, 9)), train(theirs, reference, range(5, 9)))


@pytest.mark.parametrize("dropped", [False, True], ids=["built with them", "set later"])
def test_signal_functions_outlive_loading(dropped):
    straight, model, fresh = make_model(), make_model(), make_model()
    signals = {"grokking_signal_fns": [lambda: 0.7]}
    train(straight, build(straight, **signals), range(8))
    optimizer = build(model, **signals)
    train(model, optimizer, range(4))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh.load_state_dict(saved[0])
    again = build(fresh, **({} if dropped else signals))
    for group in again.param_groups:
        group.update(signals)
    again.load_state_dict(saved[1])
    assert_same(train(fresh, again, range(4, 8)), straight)


def signal_of_the_model():
    return 0.1


def test_a_plan_with_functions_is_plain_data():
    plan = hub.plan("grokadamw", make_model(), grokking_signal_fns=[signal_of_the_model])
    arguments = {a["name"]: a["value"] for a in json.loads(json.dumps(plan.to_dict()))["arguments"]}
    (name,) = arguments["grokking_signal_fns"]
    assert name.endswith(".signal_of_the_model")
    assert "<function" not in str(plan)


def test_an_exception_in_a_signal_function_moves_nothing():
    model = make_model()

    def broken():
        raise KeyError("eval_loss")

    optimizer = build(model, grokking_signal_fns=[broken])
    optimizer.param_groups[0]["grokking_signal_fns"] = None
    before = weights(model)
    with pytest.raises(KeyError, match="eval_loss"):
        train(model, optimizer, [0])
    assert not moved(model, before)
    assert not optimizer.state


def test_the_bare_class_logs_such_an_exception(caplog):
    """When this fails, upstream raises too."""
    model = make_model()
    with caplog.at_level(logging.WARNING):
        train(model, by_hand(model, grokking_signal_fns=[lambda: 1 / 0]), [0])
    assert "Ignoring this function" in caplog.text


def test_a_signal_that_is_not_a_number_moves_nothing():
    model = make_model()
    before = weights(model)
    optimizer = build(model, grokking_signal_fns=[lambda: math.nan])
    with pytest.raises(hub.HubError, match="not a number"):
        train(model, optimizer, [0])
    assert not moved(model, before)


def growth(optimizer, weight):
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return weight.abs().max().item()


def test_a_negative_signal_does_not_diverge():
    model = nn.Linear(2, 2, bias=False)
    optimizer = hub.build("grokadamw", model, grokking_signal_fns=[lambda: -2.0])
    assert growth(optimizer, model.weight) < 2
    assert optimizer.state[model.weight]["grok_ema"].abs().max() == 0


def test_the_bare_class_diverges_at_a_negative_signal():
    """When this fails, `factory._slow_rate` need not end at 1."""
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Quiet([weight], grokking_signal_fns=[lambda: -2.0])
    growth(optimizer, weight)
    (state,) = optimizer.param_groups[0]["state"].values()
    assert state["grok_ema"].abs().max() > 1e10

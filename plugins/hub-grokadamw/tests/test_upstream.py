"""`grokadamw` trains as grokadamw's class does."""

import copy
from dataclasses import replace
from functools import partial

import grokadamw
import pytest
import torch
from hub_grokadamw.hooks import SPEC
from torch import nn
from torch.profiler import profile

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import Wrapped, equals_class, gradients, small_model, train

from .wrapped import WRAPPED, Quiet, both_dtypes, build, by_hand, every_dtype

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

DEFAULTS = Wrapped("grokadamw", grokadamw.GrokAdamW, make=Quiet)


@every_dtype
@pytest.mark.parametrize(
    "arguments",
    [{}, {"gradient_clipping": 0.0}, {"gradient_clipping": 1e-3}, {"gamma": 0.0}, {"lamb": 0.0}],
    ids=str,
)
def test_it_is_the_upstream_optimizer(arguments, dtype):
    equals_class(WRAPPED, dtype=dtype, steps=15, **arguments)


@every_dtype
@pytest.mark.parametrize("clipping", [0.0, 0.1])
def test_small_tensors_of_one_shape_are_the_upstream_optimizer_too(clipping, dtype):
    alike = replace(WRAPPED, model=partial(small_model, widths=(16,) * 7))
    equals_class(alike, dtype=dtype, steps=12, gradient_clipping=clipping)


def test_large_tensors_are_the_upstream_optimizer_too():
    equals_class(replace(WRAPPED, model=lambda dtype: small_model(dtype, (256, 256, 256))))


class Uneven(nn.Module):
    """Tensors that are alike in shape, and unlike in memory and in their number of gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shapes = [(), (), (7, 13), (7, 13), (7, 13), (200, 200), (200, 200), (0, 3)]
        self.all = nn.ParameterList(torch.randn(shape) for shape in shapes)
        self.all.append(torch.randn(13, 7).T)
        self.all.append(torch.randn(7, 13))


def test_tensors_that_are_alike_in_some_ways_are_the_upstream_optimizer():
    ours, theirs = Uneven(), Uneven()
    optimizer, reference = build(ours), by_hand(theirs)
    for step in range(6):
        for model in (ours, theirs):
            torch.manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape) * 10 ** torch.randn(()).item()
            if step < 3:
                model.all[-1].grad = None  # the last, as upstream counts gradients
        optimizer.step()
        reference.step()
    assert_same(ours, theirs)


def test_many_small_tensors_take_few_operations():
    model = small_model(widths=(16,) * 33)
    optimizer = build(model)
    train(model, optimizer, [0])
    with profile() as seen:
        optimizer.step()
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts["aten::sqrt"] == 2
    assert counts["aten::linalg_vector_norm"] == 2


def test_some_parameters_of_a_group_may_be_stepped_at_a_time():
    whole = Places()
    parts = copy.deepcopy(whole)
    expected = first_updates(hub.build("grokadamw", whole, lr=0.01), whole.all)
    optimizer = hub.build("grokadamw", parts, lr=0.01)
    group = optimizer.param_groups[0]
    kept = dict(group)
    found = []
    for part in (slice(0, 2), slice(2, 5)):
        group.update(params=kept["params"][part], param_names=kept["param_names"][part])
        found += first_updates(optimizer, group["params"])
    assert found == expected


@every_dtype
def test_its_defaults_are_the_upstream_optimizer(dtype):
    equals_class(DEFAULTS, dtype=dtype, steps=15)


@every_dtype
def test_its_state_is_upstreams(dtype):
    (_, optimizer), (_, reference) = equals_class(WRAPPED, dtype=dtype, steps=3)
    for mine, other in zip(optimizer.param_groups, reference.param_groups, strict=True):
        assert "state" not in mine
        for p, q in zip(mine["params"], other["params"], strict=True):
            assert optimizer.state[p].keys() - {"place"} == other["state"][q].keys()
            for key, value in other["state"][q].items():
                assert torch.equal(torch.as_tensor(optimizer.state[p][key]), torch.as_tensor(value))


@both_dtypes
def test_groups_may_have_their_own_arguments(dtype):
    settings = {
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
    assert set(settings) == SPEC.per_group
    own, ours = [(["2.weight"], settings)], {"param_rules": {r"2\.weight": settings}}
    equals_class(WRAPPED, dtype=dtype, own=own, ours=ours, grokking_signal_fns=[lambda: 0.4])


def test_the_upstream_class_does_not_train_fp16_weights():
    """When this fails, fp16 may be declared."""
    model = small_model(torch.float16)
    train(model, Quiet(model.parameters()), range(20))
    assert not all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_step_warns_of_nothing():
    train(small_model(), build(small_model()), [0])  # warnings are errors here
    model = small_model()
    train(model, build(model), [0])


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_the_upstream_class_warns_in_every_step():
    """When this fails, upstream's step is quiet."""
    model = small_model()
    optimizer = grokadamw.GrokAdamW(model.parameters())
    gradients(model, 0)
    with pytest.warns(FutureWarning, match="autocast"):
        optimizer.step()


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


def test_the_upstream_class_shifts_the_betas_of_all_that_follow():
    """When this fails, upstream counts as `factory.GrokAdamW` does."""
    model, other = Places(), Places()
    everything = first_updates(Quiet(model.all, weight_decay=0.0), model.all)
    partly = first_updates(Quiet(other.all, weight_decay=0.0), other.all, missing={1})
    assert partly[2:] == pytest.approx(everything[1:4], rel=1e-2)


def test_gamma_0_treats_all_parameters_alike():
    model = Places()
    updates = first_updates(hub.build("grokadamw", model, weight_decay=0.0, gamma=0), model.all)
    assert updates == pytest.approx([updates[0]] * 5, rel=1e-3)

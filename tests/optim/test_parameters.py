"""What hub reads from parameters, named parameters and groups."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hub
from hub.errors import HubError, OptimArgsError, TargetModulesError
from hub.groups.stand_in import stand_in_of
from hub.groups.targets import select_targets
from hub.quiet import no_warnings
from hub.testing.comparing import weights
from hub.testing.kit_model import make_model
from hub.testing.subject import backward, differing


def net():
    return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))


def texts(optimizer):
    return [str(finding) for finding in optimizer.hub_plan.findings]


def values(optimizer, key):
    return [group[key] for group in optimizer.param_groups]


class TestDecay:
    def test_by_shape_without_names(self):
        optimizer = hub.optim.adamw_torch(net().parameters(), weight_decay=0.1)
        assert values(optimizer, "weight_decay") == [0.1, 0.0]
        assert [p.ndim for p in optimizer.param_groups[1]["params"]] == [1] * 4
        assert any("have no names" in text for text in texts(optimizer))

    def test_by_name_and_shape(self):
        named = [
            ("norm.weight", nn.Parameter(torch.ones(2, 2))),
            ("w", nn.Parameter(torch.ones(2, 2))),
        ]
        optimizer = hub.optim.adamw_torch(named, weight_decay=0.1)
        assert values(optimizer, "param_names") == [["w"], ["norm.weight"]]
        assert not any("have no names" in text for text in texts(optimizer))

    @pytest.mark.parametrize("own", [0.0, 0.3])
    def test_groups_keep_their_own(self, own):
        model = net()
        groups = [
            {"params": model[1].parameters(), "weight_decay": own, "lr": 0.5},
            {"params": list(model[3].parameters())},
        ]
        optimizer = hub.optim.adamw_torch(groups, weight_decay=0.1)
        assert values(optimizer, "weight_decay") == [own, 0.1]
        assert values(optimizer, "lr") == [0.5, 1e-3]
        (note,) = [text for text in texts(optimizer) if "has no weight_decay" in text]
        assert "'given.1'" in note
        assert "1 that hub.build would not decay" in note

    @pytest.mark.parametrize("name", ["grokadamw", "lomo"])
    def test_no_note_without_decay(self, name):
        optimizer = getattr(hub.optim, name)(net().parameters(), lr=1e-3, weight_decay=0.0)
        assert not any("decay" in text for text in texts(optimizer))


class TestTargets:
    @pytest.mark.parametrize("targets", ["all-linear", "attn", [r"blocks\.\d\.(up|down)"]])
    def test_by_name_are_those_of_the_model(self, targets):
        model = make_model()
        stand_in = stand_in_of([pair for pair in model.named_parameters() if pair[1].requires_grad])
        found = select_targets(stand_in, targets).modules
        assert list(found) == list(select_targets(model, targets).modules)

    def test_the_plan_says_what_went_by_name(self):
        named = nn.ModuleDict(
            {"wte": nn.Embedding(9, 8), "up": nn.Linear(8, 8), "lm_head": nn.Linear(8, 9)}
        ).named_parameters()
        optimizer = hub.optim.galore_adamw(named, target_modules="all-linear", rank=2)
        assert optimizer.hub_plan.target_modules == ("up",)
        (note,) = [text for text in texts(optimizer) if "by name and shape" in text]
        assert "wte, lm_head" in note

    def test_a_head_can_be_named(self):
        named = nn.ModuleDict({"up": nn.Linear(8, 8), "head": nn.Linear(8, 8)}).named_parameters()
        optimizer = hub.optim.galore_adamw(named, target_modules=["head"], rank=2)
        assert optimizer.hub_plan.target_modules == ("head",)

    @pytest.mark.parametrize("name", ["galore_adamw", "apollo_adamw", "galore_adamw_layerwise"])
    @pytest.mark.parametrize("grouped", [False, True])
    def test_without_names_is_refused(self, name, grouped):
        params = list(net().parameters())
        with pytest.raises(TargetModulesError, match="have no names") as raised:
            getattr(hub.optim, name)(
                [{"params": params}] if grouped else params, target_modules="all-linear", rank=2
            )
        assert "call hub.build with the model" in raised.value.fix

    def test_the_names_of_wrappers_are_left_out(self):
        named = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"up": nn.Linear(8, 8)})})
        for params in (named.named_parameters(), [{"params": named.named_parameters()}]):
            optimizer = hub.optim.adamw_torch(params)
            assert {n for names in values(optimizer, "param_names") for n in names} == {
                "up.weight",
                "up.bias",
            }


class TestEvaluationWeights:
    def build(self, params):
        with pytest.warns(hub.HubWarning, match="no model whose train"):
            return hub.optim.schedule_free_adamw(params, lr=0.1)

    def trained(self, model, optimizer, steps, start=0):
        for step in range(start, start + steps):
            backward(model, step)
            optimizer.step()
            optimizer.zero_grad()
        return weights(model)

    def test_its_own_methods_switch(self):
        """As `model.train()` and `model.eval()` do where hub has the model."""
        model, followed = make_model(), make_model()
        optimizer = self.build(model.named_parameters())
        with no_warnings(hub.HubWarning):
            expected = hub.build("schedule_free_adamw", followed, lr=0.1)
        assert not differing(self.trained(model, optimizer, 3), self.trained(followed, expected, 3))
        optimizer.eval()
        followed.eval()
        assert not differing(weights(model), weights(followed))
        optimizer.train()
        followed.train()
        expected_weights = self.trained(followed, expected, 2, start=3)
        assert not differing(self.trained(model, optimizer, 2, start=3), expected_weights)
        with hub.eval_mode(optimizer):
            followed.eval()
            assert not differing(weights(model), weights(followed))
        assert not differing(weights(model), expected_weights)

    @pytest.mark.parametrize("saved_in_eval", [False, True])
    def test_resumes_to_the_bit(self, saved_in_eval, tmp_path):
        model = make_model()
        optimizer = self.build(model.named_parameters())
        self.trained(model, optimizer, 2)
        if saved_in_eval:
            optimizer.eval()
        torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "file")
        optimizer.train()
        expected = self.trained(model, optimizer, 2, start=2)
        model = make_model()
        optimizer = self.build(model.named_parameters())
        state, own = torch.load(tmp_path / "file", weights_only=True)
        model.load_state_dict(state)
        optimizer.load_state_dict(own)
        optimizer.train()
        assert not differing(self.trained(model, optimizer, 2, start=2), expected)


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
def test_inside_the_backward_pass(name):
    model, other = make_model(), make_model()
    optimizer = getattr(hub.optim, name)(
        model.parameters(), lr=0.1, max_grad_norm=1.0, clipping="previous_norm"
    )
    expected = hub.build(name, other, lr=0.1, max_grad_norm=1.0, clipping="previous_norm")
    for step in range(3):
        for one, own in ((model, optimizer), (other, expected)):
            backward(one, step)
            assert not step or all(p.grad is None for p in one.parameters())
            own.step()
            own.zero_grad()
    assert not differing(weights(model), weights(other))


def test_param_rules_match_names():
    rules = {"head": {"lr": 0.5}}
    named = nn.ModuleDict({"up": nn.Linear(8, 8), "head": nn.Linear(8, 8)}).named_parameters()
    optimizer = hub.optim.adamw_torch(named, lr=0.1, param_rules=rules)
    assert values(optimizer, "lr") == [0.1, 0.1, 0.5, 0.5]


def test_draws_no_random_number_and_leaves_parameters_alone():
    model = net()
    before = torch.get_rng_state(), [vars(p).copy() for p in model.parameters()]
    hub.optim.galore_adamw(model.named_parameters(), target_modules="all-linear", rank=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == [vars(p) for p in model.parameters()]


def test_frozen_parameters_are_in_no_group():
    model = net()
    model[1].requires_grad_(False)
    optimizer = hub.optim.sgd(model.named_parameters())
    assert [n for names in values(optimizer, "param_names") for n in names] == [
        "0.weight",
        "3.weight",
        "2.weight",
        "2.bias",
        "3.bias",
    ]


WEIGHT = nn.Linear(2, 2).weight
BAD = {
    "a model": nn.Linear(2, 2),
    "a parameter": WEIGHT,
    "a tensor": [torch.ones(2)],
    "a text": "weights",
    "a number": 3,
    "nothing": [],
    "no group": [{"lr": 1.0}],
    "an empty group": [{"params": []}],
    "frozen": [nn.Parameter(torch.ones(2), requires_grad=False)],
    "twice": [WEIGHT, WEIGHT],
    "twice in groups": [{"params": [WEIGHT]}, {"params": [WEIGHT]}],
    "a name twice": [("a", WEIGHT), ("a", nn.Parameter(torch.ones(2)))],
    "some names": [("a", WEIGHT), nn.Parameter(torch.ones(2))],
    "an empty name": [("", WEIGHT)],
    "an empty part": [("a..b", WEIGHT)],
    "no name": [(1, WEIGHT)],
    "an unknown key": [{"params": [WEIGHT], "learning_rate": 1.0}],
    "a wrong value": [{"params": [WEIGHT], "lr": -1.0}],
}


@pytest.mark.parametrize("params", BAD.values(), ids=BAD.keys())
def test_bad_parameters(params):
    with pytest.raises(HubError) as raised:
        hub.optim.adamw_torch(params)
    assert raised.value.where
    assert raised.value.fix


@pytest.mark.parametrize(
    "params", [[WEIGHT], [{"params": [("a", WEIGHT)]}]], ids=["bare", "groups"]
)
def test_rules_without_names_are_refused(params):
    with pytest.raises(OptimArgsError, match="param_rules"):
        hub.optim.adamw_torch(params, param_rules={"a": {"lr": 1.0}})


NAME = st.text(st.sampled_from("ab.é_0 \n"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAME, max_size=4))
def test_any_names_build_or_are_refused(names):
    named = [(name, nn.Parameter(torch.ones(2, 2))) for name in names]
    try:
        optimizer = hub.optim.sgd(named)
    except HubError:
        bad = not names or len(set(names)) < len(names)
        assert bad or not all(all(name.split(".")) for name in names)
    else:
        held = dict(
            pair
            for group in optimizer.param_groups
            for pair in zip(group["param_names"], group["params"], strict=True)
        )
        assert held.keys() == set(names)
        assert all(held[name] is parameter for name, parameter in named)

"""A ScheduleFree optimizer that is replaced, detached or gone leaves the model to others."""

import copy
import gc
import pickle
import threading

import pytest
import torch
from helpers.train_eval import evaluated
from torch import nn

import hub
from hub.testing.comparing import assert_same, weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import backward, train


def built(model=None, name="schedule_free_adamw", **arguments):
    model = make_model() if model is None else model
    return model, hub.build(name, model, lr=1e-2, **arguments)


def attributes(model):
    """Return what an optimizer may leave on a model."""
    return {
        name: {key: len(value) if "_hooks" in key else None for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("name", ["schedule_free_adamw", "adamw_torch", "adamw_torch_layerwise"])
def test_another_optimizer_for_the_same_model_is_refused(name):
    model, optimizer = built()
    train(model, optimizer, 3)
    before = weights(model)
    assert hub.plan(name, model).refused
    with pytest.raises(hub.UnsupportedError, match="schedule_free_adamw still switches") as raised:
        hub.build(name, model)
    assert "hub.detach(model)" in raised.value.fix
    assert not [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    train(model, optimizer, 1, start=3)


@pytest.mark.parametrize("evaluating", [False, True])
def test_detached_it_leaves_the_weights_in_place_to_the_next_one(evaluating):
    model, optimizer = built()
    train(model, optimizer, 3)
    model.train(not evaluating)
    before = weights(model)
    hub.detach(model)
    after = hub.build("adamw_torch", model, lr=1e-2)
    other = make_model()
    other.load_state_dict(before, strict=False)
    reference = torch.optim.AdamW(
        [
            {"params": [q for q, p in pairs(other, group)], "weight_decay": group["weight_decay"]}
            for group in after.param_groups
            for pairs in [lambda new, g: [(new.get_parameter(n), n) for n in g["param_names"]]]
        ],
        lr=1e-2,
    )
    for step in range(3):
        for m, o in ((model, after), (other, reference)):
            train(m, o, 1, start=step)
            evaluated(m)
    assert_same(model, other)
    del optimizer


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=1e-2),
        lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
        lambda p: torch.optim.SGD(p, lr=1e-2, foreach=False),
    ],
    ids=["AdamW", "fused AdamW", "SGD"],
)
def test_it_lets_go_where_a_bare_optimizer_takes_over(make, evaluating):
    model, optimizer = built()
    train(model, optimizer, 3)
    model.train(not evaluating)
    other = copy.deepcopy(model)
    bare, reference = (make(m.parameters()) for m in (model, other))
    backward(model, 3)
    backward(other, 3)
    with pytest.warns(hub.HubWarning, match=r"has released the model.*hub\.detach\(model\)"):
        bare.step()
    reference.step()
    for step in range(4, 7):
        for m, o in ((model, bare), (other, reference)):
            evaluated(m)
            m.state_dict()
            train(m, o, 1, start=step)
    assert_same(model, other)
    assert optimizer.param_groups


def test_a_wrapper_that_steps_it_is_no_other_optimizer():
    """As SAM is: an optimizer over the same parameters that calls the one it holds."""

    class Wrapper(torch.optim.Optimizer):
        def __init__(self, base):
            super().__init__(base.param_groups, {})
            self.base = base

        def step(self):
            self.base.step()

    model, optimizer = built()
    other, reference = built()
    wrapper = Wrapper(optimizer)
    for step in range(4):
        train(model, wrapper, 1, start=step)
        evaluated(model)
    train(other, reference, 4)
    assert_same(model, other)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_nothing_stays_on_the_model_when_the_optimizer_goes():
    model = make_model()
    before = attributes(model)
    for _ in range(5):
        optimizer = built(model)[1]
        train(model, optimizer, 2)
        assert attributes(model) != before
        del optimizer
        gc.collect()
        assert attributes(model) == before
    torch.jit.script(nn.Sequential(model.blocks[0].norm, model.blocks[0].up))


def test_its_global_hook_goes_with_it():
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    before = len(_global_optimizer_pre_hooks)
    model, optimizer = built()
    assert len(_global_optimizer_pre_hooks) == before + 1
    hub.detach(optimizer)
    assert len(_global_optimizer_pre_hooks) == before
    del model


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize("by", ["optimizer", "model"])
def test_detach_is_the_reverse_of_attaching(by, evaluating):
    model = make_model()
    before = attributes(model)
    optimizer = built(model)[1]
    train(model, optimizer, 3)
    model.train(not evaluating)
    weights_then = weights(model)
    hub.detach({"optimizer": optimizer, "model": model}[by])
    assert attributes(model) == before
    assert not {"train", "eval", "add_param_group", "hub_modes"} & vars(optimizer).keys()
    assert not [n for n, p in model.named_parameters() if not torch.equal(p, weights_then[n])]
    hub.detach(model)
    # It goes on as upstream's class, whose own methods switch.
    optimizer.state_dict()
    model.state_dict()
    optimizer.train()
    train(model, optimizer, 2, start=3)
    assert not [group for group in optimizer.param_groups if not group["train_mode"]]


@pytest.mark.parametrize("given", [None, 3, "model", [], torch.zeros(1)])
@pytest.mark.parametrize("call", [hub.detach, hub.eval_mode])
def test_what_is_not_an_optimizer_is_refused_at_once(call, given):
    with pytest.raises(hub.HubError, match="is not an optimizer"):
        call(given)


def test_two_optimizers_over_halves_of_a_model():
    def run(disturb):
        model = make_model()
        halves = [model.blocks[0], model.blocks[1]]
        optimizers = []
        for half in halves:
            model.requires_grad_(False)
            half.requires_grad_(True)
            optimizers.append(hub.build("schedule_free_adamw", model, lr=1e-2))
        for half in halves:
            half.requires_grad_(True)
        for step in range(4):
            backward(model, step)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if disturb:
                evaluated(model)
                model.state_dict()
        return model, optimizers

    (model, optimizers), (other, others) = run(True), run(False)
    assert_same(model, other)
    hub.detach(optimizers[0])  # the first that wrapped `model.train`
    model.eval()
    with hub.eval_mode(others[1]):
        for name, p in other.blocks[1].named_parameters():
            assert torch.equal(p, model.blocks[1].get_parameter(name))
    with hub.eval_mode(others[0]):
        assert not torch.equal(model.blocks[0].up.weight, other.blocks[0].up.weight)
    hub.detach(optimizers[1])
    assert "train" not in vars(model)


def test_copies_are_models_of_their_own():
    model, optimizer = built()
    train(model, optimizer, 3)
    before = weights(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.eval()
        assert not twin.training
        assert model.training
        twin.state_dict()
        twin.load_state_dict(model.state_dict())
        train(twin, built(twin)[1], 1)
    assert not [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]


def test_a_pickled_model_needs_no_hub():
    model, optimizer = built()
    assert b"hub.running.train_eval" not in pickle.dumps(model)
    assert optimizer


def test_weights_that_somebody_changed_are_not_overwritten():
    model, optimizer = built()
    train(model, optimizer, 3)
    model.eval()
    with torch.no_grad():
        model.gain.fill_(3.0)
    shown = weights(model)
    model.train()
    model.eval()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), shown[name], rtol=1e-5, atol=1e-5)


def test_a_thread_that_saves_does_not_disturb_a_step():
    model, optimizer = built()
    other, reference = built()
    train(model, optimizer, 2)
    stop = threading.Event()

    def save():
        while not stop.is_set():
            model.state_dict()

    thread = threading.Thread(target=save)
    thread.start()
    train(model, optimizer, 20, start=2)
    stop.set()
    thread.join()
    train(other, reference, 22)
    assert_same(model, other)


def test_the_parts_of_a_container_decide_for_themselves():
    def parts():
        torch.manual_seed(0)
        return nn.ModuleList([nn.Linear(4, 4), nn.ModuleDict({"b": nn.Linear(4, 4)})])

    def run(disturb):
        model = parts()
        optimizer = hub.build("schedule_free_adamw", model, lr=0.1)
        a, b = model[0], model[1]["b"]
        for step in range(5):
            x = torch.full((2, 4), float(step + 1))
            b(a(x)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if disturb:
                a.eval()
                shown = a(x)
                with hub.eval_mode(optimizer):
                    assert torch.equal(shown, nn.functional.linear(x, a.weight, a.bias))
                b(x)  # which is in training mode
                a.train()
        return model

    assert_same(run(True), run(False))


def test_eval_mode_holds_whatever_happens_inside():
    model, optimizer = built()
    train(model, optimizer, 4)
    with hub.eval_mode(optimizer):
        expected = loss_of(model, batch(99)).item()
    trained = weights(model)
    states = [
        lambda: None,
        model.state_dict,
        lambda: evaluated(model),
        lambda: optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict())),
    ]
    for happen in states:
        happen()
        with hub.eval_mode(optimizer):
            assert loss_of(model, batch(99)).item() == expected
            model.eval()
            model.train()
            assert loss_of(model, batch(99)).item() == expected
            with hub.eval_mode(optimizer):
                pass
            assert loss_of(model, batch(99)).item() == expected
        assert not [n for n, p in model.named_parameters() if not torch.equal(p, trained[n])]
        with hub.eval_mode(optimizer):
            model.eval()
        assert loss_of(model, batch(99)).item() == expected
        model.train()


def test_its_own_eval_holds_until_somebody_says_otherwise():
    model, optimizer = built()
    train(model, optimizer, 4)
    with hub.eval_mode(optimizer):
        expected = loss_of(model, batch(99)).item()
    optimizer.eval()
    assert loss_of(model, batch(99)).item() == expected
    optimizer.train()
    assert loss_of(model, batch(99)).item() != expected
    optimizer.eval()
    model.train()
    assert loss_of(model, batch(99)).item() != expected


def test_parameters_that_join_late_follow_too():
    model, optimizer = built()
    train(model, optimizer, 2)
    late = {f"frozen.{name}": p.requires_grad_(True) for name, p in model.frozen.named_parameters()}
    optimizer.add_param_group({"params": late.values()})
    with torch.no_grad():
        model.gain.add_(0.1)
    train(model, optimizer, 3, start=2)
    saved = model.state_dict()
    before = weights(model)
    model.eval()
    for name in ("frozen.weight", "embed.weight"):
        assert torch.equal(saved[name], model.get_parameter(name))
        assert not torch.equal(saved[name], before[name])


def test_shared_weights_are_shared_in_a_state_dict():
    model, optimizer = built()
    train(model, optimizer, 3)
    saved = model.state_dict()
    assert saved["head.weight"].data_ptr() == saved["embed.weight"].data_ptr()
    assert saved["head.weight"].data_ptr() != model.head.weight.data_ptr()
    assert model.state_dict()["head.weight"].data_ptr() != saved["head.weight"].data_ptr()


@pytest.mark.parametrize(
    "name", ["schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"]
)
@pytest.mark.parametrize("order", ["model first", "optimizer first"])
@pytest.mark.parametrize("evaluating", [False, True])
def test_a_running_optimizer_goes_back_to_a_checkpoint_exactly(name, order, evaluating):
    model, optimizer = built(name=name)
    train(model, optimizer, 4)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, 3, start=4)
    model.train(not evaluating)
    loads = [(model, saved[0]), (optimizer, saved[1])]
    for one, state in loads if order == "model first" else loads[::-1]:
        one.load_state_dict(copy.deepcopy(state))
    model.train()
    train(model, optimizer, 3, start=4)
    other, reference = built(name=name)
    train(other, reference, 7)
    assert_same(model, other)


def test_weights_are_those_of_their_groups_wherever_the_groups_are():
    def evaluation(change):
        rules = {"embed": {"betas": (0.5, 0.9)}, "blocks.1": {"betas": (0.7, 0.9)}}
        model, optimizer = built(param_rules=rules)
        train(model, optimizer, 4)
        model.state_dict()
        change(optimizer.param_groups)
        model.eval()
        return weights(model)

    expected = evaluation(lambda _: None)
    reordered = evaluation(lambda groups: groups.reverse())
    assert not [name for name in reordered if not torch.equal(reordered[name], expected[name])]
    fewer = evaluation(lambda groups: groups.pop())
    assert any(torch.equal(fewer[name], expected[name]) for name in fewer)


def test_what_hub_clips_in_a_step_is_no_backward_pass():
    model, optimizer = built(max_grad_norm=0.01)
    for step in range(3):
        backward(model, step)
        model.eval()
        optimizer.step()
        optimizer.zero_grad()
        model.train()

"""The engine's life: accumulation, second passes, failures, hooks that come and go."""

import gc
import warnings

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import backward, train

NAME = "adamw_torch_layerwise"


def built(name=NAME, **arguments):
    model = make_model()
    return model, hub.build(name, model, lr=1e-2, **arguments)


def hooks(model):
    return sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())


def test_the_optimizer_is_the_real_one():
    model, optimizer = built()
    train(model, optimizer, 2)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert set(optimizer.state[model.embed.weight]) == {"step", "exp_avg", "exp_avg_sq"}
    assert len(optimizer.state) == sum(p.requires_grad for p in model.parameters())


def test_weights_move_in_the_backward_pass_and_not_in_step():
    model, optimizer = built()
    before = weights(model)
    backward(model, 0)
    inside = weights(model)
    assert not torch.equal(before["embed.weight"], inside["embed.weight"])
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, inside[name])
        assert p.grad is None


@pytest.mark.parametrize(("parts", "given"), [(4, 4), (3, 4), (1, 4)])
def test_an_incomplete_accumulation_is_applied_by_step(parts, given):
    """The last micro-batches of an epoch may be fewer; parameters may miss some of them."""
    inside, optimizer = built(gradient_accumulation_steps=given)
    eager, other = built("adamw_torch")
    for step in range(3):
        for model in (inside, eager):
            for part, tokens in enumerate(batch(step, 4 * given).chunk(parts)):
                model.take_detour = part != 0  # not in the first, which the last may be
                loss_of(model, tokens).backward()
        for one in (optimizer, other):
            one.step()
            one.zero_grad()
    assert_same(eager, inside)


def test_zero_grad_drops_what_has_accumulated():
    inside, optimizer = built(gradient_accumulation_steps=2)
    backward(inside, 7)
    optimizer.zero_grad()
    eager, other = built("adamw_torch")
    for model, one in ((inside, optimizer), (eager, other)):
        backward(model, 0, 2)
        one.step()
    assert_same(eager, inside)


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "adafactor", "stable_adamw"])
@pytest.mark.parametrize("parts", [1, 2])
def test_zeros_in_the_place_of_gradients_are_gradients(name, parts):
    """What an unused layer gets from `zero_grad(set_to_none=False)`: it decays, and goes on."""
    arguments = {"momentum": 0.9} if name == "sgd" else {}
    arguments["weight_decay"] = 0.1
    eager, other = built(name, **arguments)
    inside, optimizer = built(f"{name}_layerwise", gradient_accumulation_steps=parts, **arguments)
    for step in range(6):
        for model, one in ((eager, other), (inside, optimizer)):
            backward(model, step, parts)  # the detour in even steps only
            one.step()
            one.zero_grad(set_to_none=step == 3)
    assert_same(eager, inside)


def test_zeros_take_no_memory():
    model, optimizer = built()
    train(model, optimizer, 1)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("accumulation", [2, 3])
def test_gradients_that_the_model_clears_do_not_count(accumulation):
    inside, optimizer = built(gradient_accumulation_steps=accumulation)
    eager, other = built("adamw_torch")
    backward(inside, 7)
    for model, one in ((inside, optimizer), (eager, other)):
        model.zero_grad()
        backward(model, 0, accumulation)
        one.step()
    assert_same(eager, inside)


def test_losses_that_share_no_parameter_may_have_a_backward_pass_each():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    optimizer = hub.build(NAME, model, lr=0.1)
    for layer in model:
        layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert len(optimizer.state) == 4


def test_step_without_gradients_and_on_gradients_set_by_hand():
    model, optimizer = built()
    before = weights(model)
    optimizer.step()
    assert torch.equal(model.embed.weight, before["embed.weight"])
    model.embed.weight.grad = torch.ones_like(model.embed.weight)
    optimizer.step()
    assert not torch.equal(model.embed.weight, before["embed.weight"])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_closure_is_a_backward_pass_before_the_step(accumulation):
    inside, optimizer = built(gradient_accumulation_steps=accumulation)
    eager, other = built("adamw_torch")
    for step in range(3):
        for model, one in ((inside, optimizer), (eager, other)):

            def closure(model=model, step=step):
                return [backward(model, 10 * step + part) for part in range(accumulation)]

            with torch.no_grad():  # as `step` of torch's optimizers may be called
                assert len(one.step(closure)) == accumulation
            one.zero_grad()
    assert_same(eager, inside)


def test_a_closure_that_goes_back_twice_is_two_steps_in_one():
    model, optimizer = built()
    with pytest.raises(hub.UnsupportedError, match="got another gradient"):
        optimizer.step(lambda: [backward(model, part) for part in range(2)])


def test_step_hooks_of_others_are_called_once_a_step():
    model, optimizer = built()
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    train(model, optimizer, 2)
    assert calls == ["pre", "post"] * 2


def test_an_exception_in_the_backward_pass_says_what_was_updated():
    model, optimizer = built()
    train(model, optimizer, 1)

    def fail(_):
        raise ValueError("out of memory, say")

    handle = model.blocks[0].down.weight.register_hook(fail)
    with pytest.raises(ValueError, match="out of memory"):
        backward(model, 1)
    handle.remove()
    with pytest.raises(hub.UnsupportedError, match=r"\d+ of 21 parameters are updated, the last"):
        backward(model, 1)
    optimizer.step()
    train(model, optimizer, 1, start=2)  # goes on


def test_a_failing_update_says_which_and_the_next_step_works():
    """GaLore's SVD raises on a gradient that is not finite."""
    model = make_model()
    optimizer = hub.build("galore_adamw_layerwise", model, lr=1e-2, target_modules="all-linear")
    handle = model.blocks[1].up.weight.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(hub.HubError, match=r"the update of blocks.1.up.weight failed") as raised:
        backward(model, 0)
    assert "parameters are updated" in raised.value.fix
    handle.remove()
    optimizer.step()
    before = weights(model)
    train(model, optimizer, 1, start=1)
    assert not torch.equal(before["blocks.1.up.weight"], model.blocks[1].up.weight)


def test_another_optimizer_on_the_model_is_refused_while_the_first_lives():
    model, first = built()
    for name in ("sgd", "sgd_layerwise"):
        with pytest.raises(hub.UnsupportedError, match="adamw_torch_layerwise still updates"):
            hub.build(name, model)
    hub.detach(first)
    assert hooks(model) == 0
    hub.build("sgd_layerwise", model)


def test_hooks_go_with_the_optimizer():
    model, optimizer = built()
    backward(model, 0)  # in the middle of a step
    schedule = hub.build_scheduler("constant", optimizer)
    assert hooks(model) == 21
    del optimizer, schedule
    gc.collect()
    assert hooks(model) == 0
    hub.build(NAME, model)


def test_detached_it_is_the_eager_optimizer_and_goes_on():
    model, optimizer = built()
    train(model, optimizer, 2)
    hub.detach(optimizer)
    assert type(optimizer) is torch.optim.AdamW
    train(model, optimizer, 2, start=2)
    eager, other = built("adamw_torch")
    train(eager, other, 4)
    assert_same(eager, model)


@pytest.mark.parametrize("name", ["adamw_torch", "galore_adamw", "schedule_free_adamw"])
def test_detached_it_steps_on_under_its_schedule(name):
    """torch's schedules keep a wrapper of the bound `step` that they found in the optimizer."""
    target = {"target_modules": "all-linear"} if "galore" in name else {}
    (model, optimizer), (eager, other) = built(name + "_layerwise", **target), built(name, **target)
    for one in (optimizer, other):
        hub.detach(one)
    for twin, one in ((eager, other), (model, optimizer)):
        following = torch.optim.lr_scheduler.LinearLR(one, 0.1, total_iters=6)
        train(twin, one, 2, after_step=following.step)
    model, optimizer = built(name + "_layerwise", **target)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=6)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    hub.detach(optimizer)
    assert type(optimizer) is type(other)
    assert "hub_engine" not in vars(optimizer)
    train(model, optimizer, 2, after_step=schedule.step)
    assert_same(eager, model)
    assert optimizer.step(lambda: backward(model, 2)) > 0
    assert calls == ["post"] * 3


def test_detached_in_the_middle_of_a_step():
    model, optimizer = built()
    schedule = hub.build_scheduler("linear", optimizer, num_training_steps=6)
    train(model, optimizer, 1, after_step=schedule.step)
    backward(model, 1)
    hub.detach(optimizer)
    assert hooks(model) == 0
    assert all(p.grad is None for p in model.parameters())
    train(model, optimizer, 1, start=2, after_step=schedule.step)


def test_a_class_that_somebody_else_has_put_before_it_stays():
    model, optimizer = built()
    optimizer.__class__ = type("Theirs", (type(optimizer),), {})
    hub.detach(optimizer)
    assert type(optimizer).__name__ == "Theirs"
    train(model, optimizer, 2)
    eager, other = built("adamw_torch")
    train(eager, other, 2)
    assert_same(eager, model)


def test_eager_and_layerwise_exchange_checkpoints():
    whole, optimizer = built("adamw_torch")
    train(whole, optimizer, 6)
    model, optimizer = built("adamw_torch")
    for start, name in ((0, NAME), (2, "adamw_torch"), (4, NAME)):
        saved = model.state_dict(), optimizer.state_dict()
        model, optimizer = built(name)
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        train(model, optimizer, 2, start=start)
    assert_same(whole, model)


def test_parameters_frozen_for_a_while():
    pairs = [built(), built("adamw_torch")]
    for model, optimizer in pairs:
        for step in range(6):
            model.blocks[0].requires_grad_(step not in (2, 3))
            train(model, optimizer, 1, start=step)
    assert_same(pairs[0][0], pairs[1][0])


def test_a_late_group_steps_inside_too_unless_its_parameters_are_taken():
    model, optimizer = built()
    model.frozen.requires_grad_(True)
    late = {"params": list(model.frozen.parameters()), "param_names": ["a", "b"], "lr": 0.1}
    optimizer.add_param_group(late)
    assert hooks(model) == 23
    other = nn.Linear(2, 2)
    owner = hub.build("sgd_layerwise", other)
    with pytest.raises(hub.UnsupportedError, match="sgd_layerwise still updates"):
        optimizer.add_param_group({"params": list(other.parameters()), "param_names": ["c", "d"]})
    assert len(optimizer.param_groups) == 3
    assert owner


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("grokadamw_layerwise", "depends on how many parameters"),
        ("adamw_torch_layerwise_layerwise", "no optimizer 'adamw_torch_layerwise_layerwise'"),
        ("nothing_layerwise", "no optimizer 'nothing"),
    ],
)
def test_names_without_a_layerwise_form(name, says):
    with pytest.raises(hub.HubError, match=says):
        hub.build(name, make_model())


def test_a_gradient_scaler_is_refused():
    model = make_model()
    with pytest.raises(hub.PrecisionError, match="fp16-mixed"):
        hub.build(NAME, model, precision="fp16-mixed")
    optimizer = hub.build(NAME, model)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, batch(0))).backward()
    with pytest.raises(hub.UnsupportedError, match="applied and released during"):
        scaler.step(optimizer)


def test_processes_that_come_after_the_build_are_refused_before_a_weight_changes():
    model, _ = built()
    before = weights(model)
    torch.distributed.init_process_group(
        "fake", rank=0, world_size=2, store=torch.distributed.HashStore()
    )
    try:
        with pytest.raises(hub.UnsupportedError, match=r"initialized after hub\.build"):
            backward(model, 0)
        assert_same_weights(model, before)
    finally:
        torch.distributed.destroy_process_group()


def test_without_a_forward_pass_nobody_knows_who_averages():
    torch.distributed.init_process_group(
        "fake", rank=0, world_size=2, store=torch.distributed.HashStore()
    )
    try:
        model, _ = built()
        before = weights(model)
        with pytest.raises(hub.UnsupportedError, match="saw no forward pass"):
            model.gain.sum().backward()
        assert_same_weights(model, before)
    finally:
        torch.distributed.destroy_process_group()


def test_parameters_that_fsdp1_flattened_are_refused():
    model = make_model()
    model.gain._fsdp_flattened = True  # as FSDP1 marks them
    plan = hub.plan(NAME, model, lr=1e-2)
    assert "FSDP1 reduces one flat gradient" in str(plan.refusal)
    with pytest.raises(hub.UnsupportedError, match="FSDP1 reduces one flat gradient"):
        hub.build(NAME, model, lr=1e-2)
    with pytest.raises(hub.UnsupportedError, match="FSDP1 wraps the model from outside"):
        hub.build("adamw_torch", model, lr=1e-2)


def assert_same_weights(model, before):
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_evaluation_changes_nothing():
    model, optimizer = built()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        before = weights(model)
        loss_of(model, batch(0))
    assert torch.equal(before["embed.weight"], model.embed.weight)
    assert not optimizer.state

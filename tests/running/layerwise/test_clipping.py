"""Norms are the true ones, and clipping does what it says or is reported."""

import warnings

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm

import hub
from hub.testing.comparing import assert_same, weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import backward, train

NAME = "adamw_torch_layerwise"
CLIP = 0.05


def built(name=NAME, **arguments):
    model = make_model()
    return model, hub.build(name, model, lr=1e-2, **arguments)


def gradients(model):
    return [p.grad for p in model.parameters() if p.grad is not None]


def in_group_order(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("foreach", [True, False])
def test_a_trainer_reads_the_true_norm_and_is_told_once_that_it_cannot_clip(foreach):
    model, optimizer = built()
    eager, other = built("adamw_torch")
    warned = []
    for step in range(3):
        backward(model, step)
        backward(eager, step)
        truth = hub.grad_norm(other)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            seen = clip_grad_norm_(in_group_order(optimizer), CLIP, foreach=foreach)
        warned += [w for w in caught if w.category is hub.HubWarning]
        assert torch.equal(seen, truth)
        for one in (optimizer, other):
            one.step()
            one.zero_grad()
        assert torch.equal(hub.grad_norm(optimizer), truth)
    assert_same(eager, model)
    assert len(warned) == 1
    assert "clipping='exact'" in str(warned[0].message)


def test_the_norms_that_people_log():
    model, optimizer = built()
    eager, _ = built("adamw_torch")
    backward(model, 0)
    backward(eager, 0)
    for ours, theirs in zip(gradients(model), gradients(eager), strict=True):
        assert ours.norm() == theirs.norm() == ours.detach().norm(2)
        assert ours.shape == theirs.shape
        assert "norm=" in repr(ours)
    for operation in (torch.isfinite, torch.abs, torch.clone, lambda grad: grad == 0):
        with pytest.raises(hub.UnsupportedError, match="applied and released during"):
            operation(model.embed.weight.grad)
    with pytest.raises(hub.UnsupportedError, match="applied and released during"):
        torch.linalg.vector_norm(model.embed.weight.grad, torch.inf)
    optimizer.step()
    assert not gradients(model)


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "adafactor"])
def test_exact_clipping_is_that_of_the_eager_form(name):
    model, optimizer = built(name + "_layerwise", max_grad_norm=CLIP, clipping="exact")
    eager, other = built(name, max_grad_norm=CLIP)
    for step in range(5):
        model.take_detour = step % 2 == 0
        loss = loss_of(model, batch(step))
        norm = hub.grad_norm(optimizer, loss)
        assert not gradients(model)
        loss.backward()
        backward(eager, step)
        assert norm == hub.grad_norm(other)
        for one in (optimizer, other):
            one.step()
            one.zero_grad()
    assert_same(eager, model)


def test_exact_clipping_needs_the_measurement():
    model, optimizer = built(max_grad_norm=CLIP, clipping="exact")
    before = weights(model)
    with pytest.raises(hub.HubError, match="norm of all gradients has not been measured") as raised:
        backward(model, 0)
    assert "hub.grad_norm(optimizer, loss)" in str(raised.value)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
    optimizer.zero_grad()
    loss = loss_of(model, batch(0))
    hub.grad_norm(optimizer, loss)
    loss.backward()
    with pytest.raises(hub.UnsupportedError, match="already updated"):
        hub.grad_norm(optimizer, loss_of(model, batch(0)))


def test_clipping_by_the_norm_of_the_step_before():
    """By hand: the coefficient of each step is that of the norm one step earlier."""
    model, optimizer = built("sgd_layerwise", max_grad_norm=CLIP, clipping="previous_norm")
    eager, other = built("sgd")
    previous = None
    for step in range(6):
        if step == 3:  # and through a checkpoint
            saved = model.state_dict(), optimizer.state_dict()
            model, optimizer = built("sgd_layerwise", max_grad_norm=CLIP, clipping="previous_norm")
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        backward(model, step)
        backward(eager, step)
        parameters = [p for p in in_group_order(other) if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        for p in parameters:
            known = p.grad.norm() if previous is None else torch.tensor(previous)
            p.grad.mul_(torch.clamp(CLIP / (known + 1e-6), max=1.0))
        previous = norm.item()
        for one in (optimizer, other):
            one.step()
            one.zero_grad()
        assert hub.grad_norm(optimizer).item() == previous
        assert optimizer.param_groups[0]["previous_grad_norm"] == previous
    assert_same(eager, model)


def test_clipping_each_parameter_by_itself_and_each_element():
    model, optimizer = built(
        "sgd_layerwise", max_grad_norm=CLIP, clipping="per_parameter", clip_grad_value=1e-3
    )
    eager, other = built("sgd")
    for step in range(3):
        backward(model, step)
        backward(eager, step)
        for p in in_group_order(other):
            if p.grad is not None:
                torch.nn.utils.clip_grad_value_([p], 1e-3)
                clip_grad_norm_([p], CLIP)
        for one in (optimizer, other):
            one.step()
            one.zero_grad()
    assert_same(eager, model)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_grad_norm": 1.0}, "before the norm of all gradients is known"),
        ({"clipping": "exact"}, "has no norm to clip to"),
        ({"optim_args": "clipping=global", "max_grad_norm": 1.0}, "'exact', 'previous_norm'"),
        ({"optim_args": "clip_grad_value=0"}, "greater than 0"),
        (
            {"max_grad_norm": 1.0, "clipping": "exact", "gradient_accumulation_steps": 2},
            "last micro-batch",
        ),
    ],
)
def test_clipping_that_cannot_be_is_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build(NAME, make_model(), **arguments)


def test_the_norm_of_an_eager_optimizer_is_that_of_the_gradients_there():
    model, optimizer = built("adamw_torch")
    assert hub.grad_norm(optimizer) == 0
    loss = loss_of(model, batch(0))
    with pytest.raises(hub.UnsupportedError, match="does not step inside"):
        hub.grad_norm(optimizer, loss)
    loss.backward()
    assert torch.equal(
        hub.grad_norm(optimizer), get_total_norm([p.grad for p in in_group_order(optimizer)])
    )


@pytest.mark.parametrize("parts", [1, 3])
def test_the_norm_between_backward_and_step_is_that_of_this_step(parts):
    model, optimizer = built(gradient_accumulation_steps=parts)
    eager, other = built("adamw_torch")
    norms = []
    for step in range(3):
        for tokens in batch(step, 2 * parts).chunk(parts):
            for twin in (model, eager):
                loss_of(twin, tokens).backward()
            assert torch.equal(hub.grad_norm(optimizer), hub.grad_norm(other))
        norms.append(hub.grad_norm(optimizer))
        for one in (optimizer, other):
            one.step()
        assert torch.equal(hub.grad_norm(optimizer), hub.grad_norm(other))
        for one in (optimizer, other):
            one.zero_grad()
        assert torch.equal(hub.grad_norm(optimizer), norms[-1])
        assert hub.grad_norm(other) == 0
    assert len(set(norms)) == 3


def test_the_norm_of_sharded_gradients_is_a_plain_tensor():
    from torch.distributed.fsdp import fully_shard

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    try:
        model, whole = make_model(), make_model()
        fully_shard(model)
        optimizer, other = (hub.build("adamw_torch", one) for one in (model, whole))
        for one in (model, whole):
            backward(one, 0)
        assert type(model.gain.grad) is not torch.Tensor
        found = hub.grad_norm(optimizer)
        assert type(found) is torch.Tensor
        torch.testing.assert_close(found, hub.grad_norm(other))
    finally:
        torch.distributed.destroy_process_group()


def test_accelerate_sees_the_true_norm():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer = built()
    model, optimizer = accelerator.prepare(model, optimizer)
    eager, other = built("adamw_torch")
    accelerator.backward(loss_of(model, batch(0)))
    backward(eager, 0)
    truth = get_total_norm(gradients(eager))
    with pytest.warns(hub.HubWarning, match="after it has no effect"):
        seen = accelerator.clip_grad_norm_(model.parameters(), CLIP)
    assert torch.equal(seen, truth)
    optimizer.step()
    other.step()
    assert_same(eager, model)
    assert hub.grad_norm(optimizer) > 0


def test_training_goes_on_with_clipping():
    model, optimizer = built(max_grad_norm=1.0, clipping="previous_norm")
    losses = train(model, optimizer, 20)
    assert losses[-1] < losses[0]

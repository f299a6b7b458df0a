"""One norm over all optimizers of a model."""

import pytest
import torch

import hub
from hub.running.layerwise.clipping import PREVIOUS_NORM
from hub.testing.comparing import weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import backward, train

LIMIT = 0.05
INSIDE = {"blocks.0": {"optimizer": "sgd_layerwise", "lr": 0.1}}
AFTER = {"blocks.0": {"optimizer": "sgd", "lr": 0.1}}


def clipped_by_hand(steps):
    """Return the weights after steps of the eager forms, clipped as a trainer does."""
    model = make_model()
    optimizer = hub.build("adamw_torch", model, param_rules=AFTER)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norms = []
    for step in range(steps):
        backward(model, step)
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, LIMIT).item())
        optimizer.step()
        optimizer.zero_grad()
    return weights(model), norms


def test_before_the_step():
    model = make_model()
    optimizer = hub.build("adamw_torch", model, param_rules=AFTER, max_grad_norm=LIMIT)
    train(model, optimizer, 3)
    expected, _ = clipped_by_hand(3)
    assert all(weight.equal(expected[name]) for name, weight in weights(model).items())


def test_exactly_inside_the_backward_pass():
    model = make_model()
    optimizer = hub.build(
        "adamw_torch_layerwise",
        model,
        param_rules=INSIDE,
        max_grad_norm=LIMIT,
        clipping="exact",
    )
    expected, norms = clipped_by_hand(3)
    for step in range(3):
        model.take_detour = step % 2 == 0
        loss = loss_of(model, batch(step))
        assert hub.grad_norm(optimizer, loss).item() == pytest.approx(norms[step], rel=1e-6)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-7)


def test_the_previous_norm_is_that_of_all():
    model = make_model()
    optimizer = hub.build(
        "adamw_torch_layerwise",
        model,
        param_rules=INSIDE,
        max_grad_norm=1e6,
        clipping="previous_norm",
    )
    plain = make_model()
    backward(plain, 0)
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    backward(model, 0)
    assert hub.grad_norm(optimizer).item() == pytest.approx(norm.item(), rel=1e-6)
    optimizer.step()
    for member in optimizer.hub_members:
        found = member.param_groups[0][PREVIOUS_NORM]
        assert found == pytest.approx(norm.item(), rel=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"clipping": "exact"}])
def test_forms_that_need_the_norm_at_different_times(arguments):
    with pytest.raises(hub.OptimArgsError, match="norm"):
        hub.build(
            "adamw_torch_layerwise",
            make_model(),
            param_rules=AFTER,
            max_grad_norm=LIMIT,
            **arguments,
        )


def test_measuring_needs_all_inside_the_backward_pass():
    model = make_model()
    optimizer = hub.build("adamw_torch_layerwise", model, param_rules=AFTER)
    with pytest.raises(hub.UnsupportedError, match="SGD does not step inside"):
        hub.grad_norm(optimizer, loss_of(model, batch(0)))

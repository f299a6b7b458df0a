"""The FlashOptim names train as flashoptim's classes do."""

import flashoptim
import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import moved, weights
from hub.testing.upstream import continues, equals_class, gradients, small_model, train

from .wrapped import (
    BF16,
    WRAPPED,
    both_dtypes,
    build,
    by_hand,
    every_name,
    no_master_weights,
)

pytestmark = no_master_weights


@both_dtypes
@every_name
def test_it_is_the_upstream_optimizer(name, dtype):
    (_, optimizer), _ = equals_class(WRAPPED[name], dtype=dtype)
    assert type(optimizer).__name__ == WRAPPED[name].cls.__name__


def test_stateless_sgd_is_the_upstream_optimizer():
    plain = {"momentum": 0.0, "dampening": 0.0}
    equals_class(WRAPPED["flash_sgd"], **plain)
    make = WRAPPED["flash_sgd"].build
    continues(make, make, **plain)


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
    model = small_model(dtype)
    if precision == "fp16" and "adam" in name:
        with pytest.raises(hub.PrecisionError, match="without quantized state"):
            build(name, model, precision=precision)
        return
    optimizer = build(name, model, precision=precision)
    before, first = weights(model), gradients(model, 0)
    train(model, optimizer, range(20))
    assert moved(model, before) == set(before)
    assert gradients(model, 0) < 0.9 * first


def test_the_upstream_adam_makes_fp16_weights_jump():
    """When this fails, `hooks._fp16_findings` may not be needed any more."""
    weight = nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = by_hand("flash_adamw", nn.ParameterList([weight]), eps=1e-8)
    for gradient in (1e-4, 0.0):  # the square of the first rounds to 0 in the state
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    assert weight.abs().max() > 10


@pytest.mark.parametrize("name", ["flash_adam", "flash_sgd"])
def test_the_upstream_classes_add_the_penalty_to_the_gradient(name):
    """When this fails, `_Fixes._would_write_into` is not needed any more."""
    model = small_model()
    gradients(model, 0)
    kept = model[0].weight.grad.clone()
    by_hand(name, model).step()
    assert not torch.equal(model[0].weight.grad, kept)


def test_check_numerics_stops_a_rate_that_changes_nothing():
    model = small_model(BF16)
    with pytest.warns(hub.HubWarning, match="round to zero"):
        optimizer = hub.build(
            "flash_adamw", model, lr=1e-6, check_numerics=True, master_weight_bits=None
        )
    with pytest.raises(flashoptim.NumericsError, match="too small"):
        train(model, optimizer, [0])

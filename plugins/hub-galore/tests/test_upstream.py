"""The GaLore names train as galore_torch's classes do."""

import pytest
import torch
from galore_torch.galore_projector import GaLoreProjector
from hub_galore.hooks import SPECS
from torch import nn

from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import equals_class, gradients, train

from .wrapped import (
    LOW_RANK,
    WRAPPED,
    both_dtypes,
    build,
    by_hand,
    every_name,
    every_projection,
    make_model,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*(bf16|fp16):hub.HubWarning")

PRECISIONS = {spec.name: spec.precisions for spec in SPECS}


@pytest.mark.parametrize("scale", [0.25, 0.3])
@both_dtypes
@every_projection
@every_name
def test_it_is_the_upstream_optimizer(name, proj_type, dtype, scale):
    equals_class(WRAPPED[name], dtype=dtype, proj_type=proj_type, scale=scale)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("galore_adafactor", {"relative_step": True, "lr": None, "warmup_init": True}),
        ("galore_adafactor", {"scale_parameter": True, "clip_threshold": 0.5, "beta1": None}),
        ("galore_adamw", {"correct_bias": False}),
    ],
    ids=["relative_step", "scale_parameter", "correct_bias"],
)
@both_dtypes
def test_its_switches_are_upstreams(name, arguments, dtype):
    equals_class(WRAPPED[name], dtype=dtype, steps=5, **arguments)


@pytest.mark.parametrize("rank", [4, 40], ids=["32-bit state", "8-bit state"])
def test_the_8bit_optimizer_is_upstreams_above_and_below_4096_elements(rank):
    (ours, optimizer), _ = equals_class(WRAPPED["galore_adamw_8bit"], steps=5, rank=rank)
    is_8bit = optimizer.state[ours[0].weight]["state1"].dtype == torch.uint8
    assert is_8bit == (rank == 40)


@every_projection
@pytest.mark.parametrize("name", [name for name in WRAPPED if "fp16" in PRECISIONS[name]])
def test_it_is_the_upstream_optimizer_in_fp16(name, proj_type):
    """Here updates are so small that a multiplication by `scale` rounds."""
    equals_class(WRAPPED[name], dtype=torch.float16, proj_type=proj_type, lr=1e-4, scale=0.25)


@every_name
def test_a_rank_above_the_smaller_side_keeps_everything(name):
    model, other = make_model(), make_model()
    train(model, build(name, model, rank=64), range(4))
    assert_same(train(other, build(name, other, rank=1000), range(4)), model)


def test_a_compiled_step_equals_the_plain_step_of_the_upstream_class():
    """Upstream's own compiled step (torch 2.13) is off by some 1e-8 from the first one on."""
    models = make_model(), make_model()
    optimizers = build("galore_adamw", models[0]), by_hand("galore_adamw", models[1])
    compiled = torch.compile(optimizers[0].step, backend="eager")
    for number in range(5):
        for model in models:
            gradients(model, number)
        compiled()
        optimizers[1].step()
    assert_same(*models)


@every_projection
@every_name
def test_the_projection_takes_only_the_memory_of_its_rank(name, proj_type):
    model = make_model()
    optimizer = build(name, model, proj_type=proj_type)
    train(model, optimizer, [0])
    matrices = optimizer.state[model[0].weight]["projector"]
    for matrix in matrices if isinstance(matrices, list) else [matrices]:
        assert min(matrix.shape) == LOW_RANK["rank"]
        assert matrix.untyped_storage().nbytes() == matrix.nbytes


def test_the_upstream_projector_keeps_the_whole_factor():
    """When this fails, `hub.updates.low_rank._dense` is not needed any more."""
    projector = GaLoreProjector(4)
    projector.project(torch.randn(128, 64), 0)
    assert projector.ortho_matrix.untyped_storage().nbytes() == 64 * 64 * 4


@pytest.mark.parametrize("rank", [4, 40], ids=["small state", "large state"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in WRAPPED
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        if dtype != torch.float16 or "fp16" in PRECISIONS[name]
    ],
    ids=str,
)
def test_every_weight_trains(name, rank, dtype):
    model = make_model(dtype)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
    nn.init.ones_(model[1].weight)
    before = weights(model)
    train(model, build(name, model, rank=rank, scale=1.0, weight_decay=0.0), range(20))
    assert moved(model, before) == set(before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def loss_after_training(name, dtype):
    model = make_model(dtype)
    train(model, build(name, model), range(20))
    return gradients(model, 99)


@pytest.mark.parametrize("name", ["galore_adafactor", "galore_adamw_8bit"])
def test_fp16_weights_learn_as_fp32_ones_do(name):
    expected = loss_after_training(name, torch.float32)
    assert expected < 0.3 * gradients(make_model(), 99)
    assert loss_after_training(name, torch.float16) == pytest.approx(expected, rel=0.2)


def test_the_upstream_adamw_does_not_train_fp16_weights():
    """When this fails, `galore_adamw` may declare fp16."""
    model = make_model(torch.float16)
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: grad * 0.01)  # the squares of some round to zero
    with pytest.raises(torch.linalg.LinAlgError, match="non-finite"):
        train(model, by_hand("galore_adamw", model), range(20))


@pytest.mark.parametrize("name", ["galore_adamw", "galore_adafactor"])
def test_the_upstream_classes_cannot_take_a_closure(name):
    """When this fails, `stepping._InBuckets.step` is not needed any more."""
    model = make_model()
    with pytest.raises(RuntimeError, match="does not require grad"):
        by_hand(name, model).step(lambda: gradients(model, 0))

"""The kernels of flashoptim: in triton's interpreter everywhere, and on CUDA where there is one."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import continues, gradients, small_model, train

from .wrapped import (
    BF16,
    FP32,
    WRAPPED,
    build,
    every_name,
    no_master_weights,
    resumed,
)

pytestmark = no_master_weights
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def test_with_emulated_kernels():
    """One process for all cases, whose tracebacks it prints by name."""
    script = Path(__file__).with_name("emulated.py")
    command = [sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tracebacks = json.loads(done.stdout)
    assert "case_it_resumes_exactly" in tracebacks
    assert not any(tracebacks.values()), "\n".join(tracebacks.values())


@pytest.mark.gpu
@gpu
@every_name
def test_the_defaults_train_and_resume_exactly_on_cuda(name):
    straight, model = small_model(BF16).to("cuda"), small_model(BF16).to("cuda")
    before = weights(straight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = build(name, model)
    train(straight, build(name, straight), range(8))
    assert moved(straight, before) == set(before)
    train(model, optimizer, range(4))
    keys = {key for state in optimizer.state_dict()["state"].values() for key in state}
    assert any(key.endswith("::quantized") for key in keys)
    assert "error_bits" in keys
    fresh, other = resumed(name, model, optimizer)
    assert_same(train(fresh, other, range(4, 8)), straight)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(
    ("dtype", "arguments"),
    [
        (BF16, {"master_weight_bits": 32}),
        (BF16, {"compress_state_dict": False}),
        (BF16, {"fused": False}),
        (torch.float16, {}),
        (FP32, {}),
        (FP32, {"compress_state_dict": False, "fused": False}),
    ],
)
@every_name
def test_quantized_state_resumes_exactly_on_cuda(name, dtype, arguments):
    make = WRAPPED[name].build
    continues(make, make, model=lambda: small_model(dtype).to("cuda"), **arguments)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("dtype", [BF16, torch.float16, FP32], ids=str)
@every_name
def test_every_weight_trains_on_cuda(name, dtype):
    model = small_model(dtype).to("cuda")
    before, first = weights(model), gradients(model, 0)
    train(model, build(name, model), range(20))
    assert moved(model, before) == set(before)
    assert gradients(model, 0) < 0.9 * first


@pytest.mark.gpu
@gpu
def test_small_updates_of_bf16_weights_add_up_on_cuda():
    weight = nn.ParameterList([torch.ones(4, 8, dtype=BF16, device="cuda")])
    optimizer = hub.build("flash_adamw", weight, lr=1e-3, weight_decay=0.0)
    for _ in range(20):
        weight[0].grad = torch.ones_like(weight[0])
        optimizer.step()
    exact = optimizer.get_fp32_model_state_dict(weight)["0"]
    torch.testing.assert_close(exact, torch.full_like(exact, 0.98), atol=5e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two CUDA devices")
def test_parameters_on_the_second_gpu_are_refused_until_it_is_the_current_one():
    model = small_model(BF16).to("cuda:1")
    with pytest.raises(hub.UnsupportedError, match=r"set_device\(1\)"):
        build("flash_adamw", model)
    with torch.cuda.device(1):
        train(model, build("flash_adamw", model), range(2))

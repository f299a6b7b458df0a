"""What needs flashoptim's kernels, run on CPU by triton's interpreter. No test module itself.

`test_flashoptim.py` runs this file once in a process of its own, because the interpreter is chosen
when the kernels are imported, and reads one line of JSON: the traceback of every failed case.
Kernel arithmetic is numpy's here, and conversion to bf16 truncates: compare only like with like.
"""

import copy
import dataclasses
import json
import os
import sys
import traceback
import types
import warnings

os.environ["TRITON_INTERPRET"] = "1"

import flashoptim
import flashoptim.optimizers as upstream
import pytest
import torch
import triton.language as tl
from torch import nn

import hub
import hub.planning.single
from hub.testing.upstream import by_file, groups_of


def emulate():
    """Have CPU tensors pass for CUDA ones, and give the interpreter what it lacks."""
    torch.set_num_threads(1)
    torch.cuda.is_available = lambda: True
    torch.cuda.current_device = lambda: None
    torch.Tensor.is_cuda = property(lambda _: True)
    upstream._get_sm_count = lambda: 4
    upstream.libdevice = types.SimpleNamespace(
        pow=lambda base, exponent: base ** int(exponent),
        copysign=lambda size, sign: tl.where(sign < 0, -size, size),
    )
    for kernel in (upstream._triton_quantize_kernel, upstream._triton_dequantize_kernel):
        kernel.configs = kernel.configs[:1]  # no benchmarks
    detect = hub.planning.single.detect_precision
    hub.planning.single.detect_precision = lambda *args: dataclasses.replace(
        detect(*args), devices=("cuda",)
    )


CLASSES = {
    "flash_adamw": flashoptim.FlashAdamW,
    "flash_adam": flashoptim.FlashAdam,
    "flash_sgd": flashoptim.FlashSGD,
    "flash_sgdw": flashoptim.FlashSGDW,
    "flash_lion": flashoptim.FlashLion,
}
OWN = {"flash_sgd": {"momentum": 0.9}, "flash_sgdw": {"momentum": 0.9}}
FP32 = {"master_weight_bits": None}


def make_model(dtype=torch.bfloat16, norm=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 5, bias=False), nn.LayerNorm(5, bias=False)).to(dtype)
    model[1].to(norm or dtype)
    return model


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
    return model


def build(name, model, **arguments):
    return hub.build(name, model, lr=1e-2, weight_decay=0.1, **OWN.get(name, {}), **arguments)


def by_hand(name, model, **arguments):
    return CLASSES[name](
        groups_of(model), lr=1e-2, weight_decay=0.1, **OWN.get(name, {}), **arguments
    )


def same(model, other):
    return all(map(torch.equal, model.parameters(), other.parameters()))


def resumes_exactly(maker, *models, **arguments):
    """Return whether 3 steps equal 2, a file, and 1 more, for (dtype of all, dtype of norms)."""
    straight, model, fresh = (make_model(*models) for _ in range(3))
    train(straight, maker(straight, **arguments), range(3))
    optimizer = maker(model, **arguments)
    train(model, optimizer, range(2))
    resumed = maker(fresh, **arguments)
    by_file((model, optimizer), (fresh, resumed))
    return same(train(fresh, resumed, range(2, 3)), straight)


def maker(name, make=build):
    return lambda model, **arguments: make(name, model, **arguments)


MODELS = [
    ((torch.bfloat16,), {}),
    ((torch.bfloat16,), {"master_weight_bits": 32, "fused": False}),
    ((torch.float16,), {"compress_state_dict": False}),
    ((torch.float32,), FP32),
    ((torch.bfloat16, torch.float32), {"compress_state_dict": False}),
]
COMBINATIONS = [
    *(("flash_adamw", *settings) for settings in MODELS),
    *((name, *MODELS[index]) for name in CLASSES for index in (0, -1) if name != "flash_adamw"),
]


def case_it_is_the_upstream_optimizer():
    for name, dtypes, arguments in COMBINATIONS:
        ours, theirs = make_model(*dtypes), make_model(*dtypes)
        train(ours, build(name, ours, **arguments), range(2))
        assert same(ours, train(theirs, by_hand(name, theirs, **arguments), range(2))), name


def case_it_resumes_exactly():
    for name, dtypes, arguments in COMBINATIONS:
        assert resumes_exactly(maker(name), *dtypes, **arguments), (name, dtypes)


def case_the_upstream_class_destroys_fp32_state_beside_bf16_weights():
    """When this fails, `_Fixes._quantized` is not needed any more."""
    dtypes, arguments = MODELS[-1]
    assert not resumes_exactly(maker("flash_adamw", by_hand), *dtypes, **arguments)


def case_state_is_quantized_and_saved_so():
    for name in CLASSES:
        model = make_model()
        optimizer = build(name, model)
        train(model, optimizer, range(1))
        saved = optimizer.state_dict()["state"][0]
        dtypes = {key: value.dtype for key, value in saved.items() if key.endswith("::quantized")}
        assert set(dtypes.values()) <= {torch.int8, torch.uint8}, dtypes
        assert dtypes, saved
        assert "error_bits" in saved


def case_loading_leaves_the_callers_dictionary_alone():
    for make, changed in ((by_hand, True), (build, False)):
        model = make_model()
        optimizer = make("flash_adamw", model, compress_state_dict=False)
        train(model, optimizer, range(1))
        saved = optimizer.state_dict()
        keys = set(saved["state"][0])
        other = make("flash_adamw", make_model(), compress_state_dict=False)
        other.load_state_dict(saved)
        assert (set(saved["state"][0]) != keys) == changed, make


def case_state_of_another_layout_is_refused():
    def saved(make, model, **arguments):
        optimizer = make("flash_adamw", model, **arguments)
        return train(model, optimizer, range(1)) and optimizer.state_dict()

    checkpoints = [
        (saved(build, make_model(), master_weight_bits=32), "master_weight_bits"),
        (saved(build, make_model(), quantize=False), "quantize"),
        (saved(by_hand, make_model(), master_weight_bits=32), "master_bytewidth"),
        (saved(by_hand, make_model(), quantize=False), "quantize"),
        (saved(build, make_model(torch.float16)), "torch.float16"),
    ]
    for checkpoint, says in checkpoints:
        optimizer = build("flash_adamw", make_model())
        with pytest.raises(hub.CheckpointError, match=says):
            optimizer.load_state_dict(checkpoint)


def case_copies_go_on_like_the_original():
    model = make_model()
    optimizer = build("flash_adamw", model)
    train(model, optimizer, range(2))
    hub.detach(optimizer)
    other, copied = copy.deepcopy([model, optimizer])
    assert same(train(model, optimizer, range(2, 4)), train(other, copied, range(2, 4)))


def case_small_updates_of_narrow_weights_add_up():
    for bits, moved in ((24, 0.002), (32, 0.002), (None, 0.0)):
        weight = nn.ParameterList([torch.ones(4, 8, dtype=torch.float16)])
        optimizer = hub.build(
            "flash_adamw", weight, lr=1e-4, weight_decay=0.0, master_weight_bits=bits
        )
        for _ in range(20):
            weight[0].grad = torch.ones_like(weight[0])
            optimizer.step()
        assert abs(1 - weight[0][0, 0].item() - moved) < 1e-4, bits


def case_every_mode_learns():
    for name in CLASSES:
        losses = {}
        for dtype, arguments in ((torch.float32, FP32), (torch.bfloat16, {}), (torch.float16, {})):
            weight = nn.ParameterList([torch.ones(4, 8).to(dtype)])
            optimizer = build(name, weight, **arguments)
            for _ in range(20):
                weight[0].grad = weight[0].detach() * 0.1
                optimizer.step()
            losses[dtype] = weight[0].float().square().mean().item()
        exact = losses[torch.float32]
        assert exact < 0.99, losses
        assert abs(losses[torch.float16] - exact) < 0.01, losses
        assert abs(losses[torch.bfloat16] - exact) < 0.05, losses


def case_tiny_gradients_are_too_small_for_quantized_second_moments():
    """When this fails, `hooks._ADAM_NOTE` can go."""
    moved = {}
    for quantize in (True, False):
        weight = nn.ParameterList([torch.zeros(4, 8)])
        optimizer = hub.build(
            "flash_adamw", weight, lr=1e-3, weight_decay=0.0, quantize=quantize, **FP32
        )
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            weight[0].grad = 1e-6 * (1 + 0.1 * torch.randn(4, 8, generator=generator))
            optimizer.step()
        moved[quantize] = weight[0].abs().mean().item()
    assert moved[True] > 1.5 * moved[False], moved


def case_fp32_weights_can_be_set_before_the_first_step():
    for make, exact in ((by_hand, False), (build, True)):
        model, reference = make_model(torch.float16), make_model(torch.float32)
        optimizer = make("flash_adamw", model)
        optimizer.set_fp32_model_state_dict(model, reference.state_dict())
        weights = optimizer.get_fp32_model_state_dict(model)
        difference = (weights["0.weight"] - reference[0].weight).abs().max().item()
        assert (difference < 1e-6) == exact, (make, difference)


def case_channels_last_weights_train_without_the_fused_kernel():
    models = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.ModuleList([nn.Conv2d(3, 4, 3)]).half().to(memory_format=layout)
        optimizer = build("flash_sgd", model, quantize=False)
        assert optimizer._fused == (layout is torch.contiguous_format)
        models.append(train(model, optimizer, range(3)))
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    upstreams = flashoptim.FlashSGD(models[1].parameters(), momentum=0.9)
    with pytest.raises(RuntimeError, match="require contiguous parameters"):
        train(models[1], upstreams, range(1))


def case_fp32_models_build_where_the_upstream_class_refuses_them():
    model = make_model(torch.float32)
    train(model, build("flash_adamw", model), range(1))
    with pytest.raises(ValueError, match="has no effect"):
        by_hand("flash_adamw", model)


def case_fp16_adam_needs_quantized_state():
    model = make_model(torch.float16)
    build("flash_adamw", model)
    with pytest.raises(hub.PrecisionError, match="underflow"):
        build("flash_adamw", model, quantize=False)


def main():
    warnings.simplefilter("ignore")
    emulate()
    results = {}
    for name, case in list(globals().items()):
        if name.startswith("case_"):
            try:
                case()
            except Exception:  # noqa: BLE001 - reported as the result of the case
                results[name] = traceback.format_exc()
            else:
                results[name] = ""
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()

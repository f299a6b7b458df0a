"""What steps make is on the parameters' device, whatever `torch.set_default_device` says.

Tensors on the default device here, "meta", have no values: whoever uses one fails or is off.
"""

import pytest
import torch

from hub.testing import Subject
from hub.testing.subject import differing, give_gradients

STAGGERED = {"projection": "randomized", "refresh": "staggered"}
CASES = {
    "adamw_torch": ("adamw_torch", "fp32", (), {}),
    "split": ("adamw_torch", "bf16", (("rounding", "split"),), {}),
    "stochastic": ("adamw_torch", "bf16", (("rounding", "stochastic"),), {}),
    "stochastic fp16": ("adamw_torch", "fp16", (("rounding", "stochastic"),), {}),
    "offload": ("adamw_torch", "fp32", (("offload", "cpu"),), {}),
    "layerwise": ("adamw_torch_layerwise", "fp32", (), {}),
    "galore_adamw": ("galore_adamw", "fp32", (), STAGGERED),
    "galore_adafactor": ("galore_adafactor", "fp32", (), {}),
    "apollo_adamw": ("apollo_adamw", "fp32", (), {"update_proj_gap": 2}),
    "grokadamw": ("grokadamw", "fp32", (), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_the_same_on_any_default_device(case):
    name, precision, options, arguments = CASES[case]
    found = []
    for default in ("cpu", "meta"):
        model, optimizer = Subject(name, precision, options=options).start(**arguments)
        for step in range(4):
            give_gradients(model, step)
            with torch.device(default):
                optimizer.step()
        found.append({key: p.detach().clone() for key, p in model.named_parameters()})
    assert not differing(*found)

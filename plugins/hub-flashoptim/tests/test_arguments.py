"""The arguments of the FlashOptim names are upstream's, and wrong ones are refused."""

import subprocess
import sys

import pytest

import hub
from hub.testing.upstream import arguments_match, imports_nothing, small_model

from .wrapped import (
    WRAPPED,
    build,
    every_name,
    no_master_weights,
)

pytestmark = no_master_weights


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    arguments_match(name, WRAPPED[name].cls)


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_flashoptim.hooks")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("flash_adamw", {"master_weight_bits": 16}, "24"),
        ("flash_adamw", {"optim_args": "master_weight_bits=true"}, "24"),
        ("flash_adamw", {"quantize": "8bit"}, "boolean"),
        ("flash_adamw", {"betas": (0.9, 1.0)}, "less than 1"),
        ("flash_adamw", {"lr": -1.0}, "greater than or equal to 0"),
        ("flash_adamw", {"lr": 0.0, "decouple_lr": True}, "above 0"),
        ("flash_adam", {"decouple_lr": True}, "no argument 'decouple_lr'"),
        ("flash_lion", {"eps": 1e-8}, "no argument 'eps'"),
        ("flash_sgd", {"momentum": -0.1}, "greater than or equal to 0"),
        ("flash_sgd", {"nesterov": True, "momentum": 0.0, "dampening": 0.0}, "needs momentum"),
        ("flash_sgdw", {"dampening": 0.1}, "dampening=0"),
        ("flash_sgd", {"decouple_lr": True}, "no argument 'decouple_lr'"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(name, small_model(), **arguments)


def test_a_platform_without_triton_is_told_so():
    code = """
import sys
sys.modules["triton"] = None
import hub, torch
try:
    hub.build("flash_adamw", torch.nn.Linear(2, 2), master_weight_bits=None)
except hub.PluginError as error:
    sys.stdout.write(str(error))
"""
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "flashoptim needs triton, which is not installed" in said
    assert "plugin: hub-flashoptim" in said
    assert "adamw_torch" in said

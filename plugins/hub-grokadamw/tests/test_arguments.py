"""The arguments of `grokadamw` are upstream's, and wrong ones are refused."""

import math
import subprocess
import sys

import grokadamw
import pytest

import hub
from hub.testing.upstream import arguments_match, builds_quietly, imports_nothing, small_model

from .wrapped import build


def test_the_arguments_and_their_defaults_are_upstreams():
    arguments_match("grokadamw", grokadamw.GrokAdamW)


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_grokadamw.hooks")


def test_the_first_build_leaves_the_process_as_it_is():
    builds_quietly("grokadamw")


def test_the_upstream_package_sets_the_root_logger_up():
    """When this fails, `hub.backend` has one reason less."""
    code = "import logging, grokadamw; print(logging.root.handlers)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "(NOTSET)>]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"eps": -1e-8}, "greater than or equal to 0"),
        ({"weight_decay": -0.1}, "greater than or equal to 0"),
        ({"alpha_init": 1.5}, "less than or equal to 1"),
        ({"lamb": -1.0}, "greater than or equal to 0"),
        ({"gamma": 1.5}, "less than or equal to 1"),
        ({"grokking_signal_decay_rate": -1.0}, "greater than or equal to 0"),
        ({"gradient_clipping": -1.0}, "greater than or equal to 0"),
        ({"gradient_clipping": None}, "valid number"),
        ({"alpha": 0.9}, "did you mean 'alpha_init'"),
        ({"grokking_signal_fns": math.pi}, "a list of functions"),
        ({"grokking_signal_fns": max}, "a list of functions"),
        ({"grokking_signal_fns": ["max"]}, "a list of functions"),
        ({"grokking_signal_fns": []}, "at least 1 item"),
        ({"optim_args": "grokking_signal_fns=max"}, "cannot be written as text"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(small_model(), **arguments)

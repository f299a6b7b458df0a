"""The arguments of `lomo` and `adalomo` are upstream's, and wrong ones are refused."""

import pytest

import hub
from hub.testing.comparing import moved, weights
from hub.testing.upstream import arguments_match, imports_nothing, small_model

from .wrapped import THEIRS, build, every_name

CLIPPING = {"clipping": None}
SCALING = {"loss_scale": 1024.0, "loss_scale_window": 1000}
"""Upstream scales the loss of fp16 weights by a mapping in LOMO, and always the same in AdaLomo."""


@pytest.mark.parametrize(
    ("name", "left_out", "own"),
    [
        ("lomo", {"clip_grad_norm", "loss_scale_args"}, {**CLIPPING, **SCALING}),
        ("adalomo", {"clip_grad_norm"}, {**CLIPPING, "loss_scale_window": 1000}),
    ],
)
def test_the_arguments_and_their_defaults_are_upstreams(name, left_out, own):
    arguments_match(name, THEIRS[name], left_out, own)


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_lomo.hooks")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("lomo", {"lr": -1.0}, "greater than or equal to 0"),
        ("lomo", {"weight_decay": -0.1}, "greater than or equal to 0"),
        ("lomo", {"clip_grad_value": 0.0}, "greater than 0"),
        ("lomo", {"loss_scale": 0.5}, "greater than or equal to 1"),
        ("lomo", {"loss_scale_window": 0}, "greater than or equal to 1"),
        ("lomo", {"clip_grad_norm": 1.0}, "use max_grad_norm of hub.build, and clipping"),
        ("lomo", {"optim_args": "clip_grad_norm=1"}, "use max_grad_norm of hub.build"),
        ("lomo", {"max_grad_norm": 1.0}, "clipping='exact'"),
        ("lomo", {"clipping": "exact"}, "no norm to clip to"),
        ("lomo", {"eps": 1e-8}, "no argument 'eps'"),
        ("adalomo", {"eps": 1e-30}, "valid tuple"),
        ("adalomo", {"clip_threshold": 0.0}, "greater than 0"),
        ("adalomo", {"decay_rate": 0.5}, "less than or equal to 0"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(name, arguments, says):
    model = small_model()
    before = weights(model)
    with pytest.raises(hub.OptimArgsError, match=says):
        build(name, model, **arguments)
    assert not moved(model, before)
    build(name, model)  # no hook has stayed


@every_name
def test_gradient_scalers_are_refused(name):
    with pytest.raises(hub.PrecisionError, match="fp16-mixed"):
        build(name, small_model(), precision="fp16-mixed")

"""The arguments of `apollo_adamw` are upstream's, and wrong ones are refused."""

import apollo_torch
import pytest
from hub_apollo.hooks import SPEC
from torch import nn

import hub
from hub.testing.comparing import moved, weights
from hub.testing.upstream import arguments_match, imports_nothing, train

from .wrapped import build, by_hand, make_model

OF_TRANSFORMERS = {
    "rank": 128,
    "update_proj_gap": 200,
    "scale": 1.0,
    "proj": "random",
    "proj_type": "std",
    "scale_type": "channel",
}
"""The projection's defaults are not upstream's, whose groups have to name all six."""
OF_HUB = {"projection": "svd", "refresh": "together"}


def test_the_arguments_and_their_defaults_are_upstreams():
    left_out = {"no_deprecation_warning"}
    arguments_match("apollo_adamw", apollo_torch.APOLLOAdamW, left_out, OF_TRANSFORMERS | OF_HUB)
    assert any("projection defaults are those of Transformers" in note for note in SPEC.notes)


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_apollo.hooks")


def test_the_license_is_shown():
    assert SPEC.license == "CC-BY-NC-4.0"
    assert any("not for commercial use" in note for note in SPEC.notes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 4.5}, "integer"),
        ({"update_proj_gap": 0}, "update_proj_gap"),
        ({"scale": 0.0}, "scale"),
        ({"proj": "fourier"}, "'svd'"),
        ({"proj_type": "full"}, "reverse_std"),
        ({"proj_type": "reverse_std"}, "scale_type='tensor'"),
        ({"scale_type": "row"}, "'channel'"),
        ({"projection": "random"}, "'randomized'"),
        ({"projection": "randomized"}, "needs proj='svd'"),
        ({"refresh": "never"}, "'staggered'"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"no_deprecation_warning": True}, "no argument 'no_deprecation_warning'"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(make_model(), **arguments)


@pytest.mark.parametrize(
    ("proj_type", "where"), [("right", "2"), ("left", "0")], ids=["right", "left"]
)
def test_a_projection_of_the_channels_that_are_scaled_is_refused(proj_type, where):
    model = make_model()
    before = weights(model)
    with pytest.raises(hub.OptimArgsError, match="larger side of a") as refused:
        build(model, proj_type=proj_type)
    assert refused.value.where == where
    assert "scale_type='tensor'" in refused.value.fix
    assert not moved(model, before)


def test_the_rows_of_a_square_weight_are_its_channels():
    def square(proj_type):
        model = nn.Sequential(nn.Linear(8, 8))
        return build(model, target_modules="all-linear", proj_type=proj_type)

    square("right")
    with pytest.raises(hub.OptimArgsError, match="8x8"):
        square("left")


@pytest.mark.parametrize("proj_type", ["right", "left", "reverse_std"])
def test_the_upstream_class_fails_at_those(proj_type):
    model = make_model()
    with pytest.raises(RuntimeError, match="must match the size"):
        train(model, by_hand(model, proj_type=proj_type), [0])


@pytest.mark.parametrize(
    ("proj", "error"), [("random", NotImplementedError), ("svd", AttributeError)]
)
def test_the_upstream_class_cannot_project_both_sides(proj, error):
    """When this fails, `proj_type` may have the value "full"."""
    model = make_model()
    full = {"proj": proj, "proj_type": "full", "scale_type": "tensor"}
    with pytest.raises(error):
        train(model, by_hand(model, **full), range(2))


@pytest.mark.parametrize(("rank", "told"), [(25, True), (24, True), (23, False)])
def test_a_rank_that_is_not_low_is_told_and_trains(rank, told):
    """What it trains to is compared with the upstream class above, for each of `PROJECTIONS`."""
    optimizer = build(make_model(), rank=rank)
    expected = (
        f"rank={rank} is not below the smaller side of 2 of 2 target weights, such as 0.weight"
    )
    assert told == any(f.what.startswith(expected) for f in optimizer.hub_plan.findings)

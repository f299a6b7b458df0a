"""The arguments of the GaLore names are upstream's, and wrong ones are refused."""

import pytest
from hub_galore.hooks import LowRankArguments

import hub
from hub.arguments import AdafactorBase
from hub.testing.upstream import arguments_match, imports_nothing, train

from .wrapped import LOW_RANK, TARGETS, WRAPPED, build, every_name, make_model

# What upstream takes and ignores (8-bit), or what hub decides.
LEFT_OUT = {
    "galore_adamw": {"no_deprecation_warning"},
    "galore_adamw_8bit": {
        "amsgrad",
        "optim_bits",
        "args",
        "percentile_clipping",
        "block_wise",
        "is_paged",
    },
}
OTHER_DEFAULTS = {
    "galore_adafactor": {"lr": 1e-3, "scale_parameter": False, "relative_step": False}
}
OF_TRANSFORMERS = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
"""The projection's defaults are not upstream's, whose groups have to name all four."""
OF_HUB = {"projection": "svd", "refresh": "together"}


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    assert (OF_TRANSFORMERS | OF_HUB).keys() == LowRankArguments.model_fields.keys()
    own = {**OF_TRANSFORMERS, **OF_HUB, **OTHER_DEFAULTS.get(name, {})}
    arguments_match(name, WRAPPED[name].cls, LEFT_OUT.get(name, ()), own)


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_galore.hooks")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("galore_adamw", {"rank": 0}, "rank"),
        ("galore_adamw", {"rank": 4.5}, "integer"),
        ("galore_adamw", {"update_proj_gap": 0}, "update_proj_gap"),
        ("galore_adamw", {"scale": 0.0}, "scale"),
        ("galore_adamw", {"proj_type": "continuous"}, "reverse_std"),
        ("galore_adamw", {"projection": "random"}, "'randomized'"),
        ("galore_adamw", {"refresh": "never"}, "'staggered'"),
        ("galore_adamw", {"betas": (0.9, 1.0)}, "less than 1"),
        ("galore_adamw", {"beta1": 0.9}, "no argument 'beta1'"),
        ("galore_adamw_8bit", {"amsgrad": True}, "no argument 'amsgrad'"),
        ("galore_adamw_8bit", {"is_paged": True}, "no argument 'is_paged'"),
        ("galore_adamw_8bit", {"min_8bit_size": -1}, "greater than or equal to 0"),
        ("galore_adafactor", {"relative_step": True}, "needs lr=None, not lr=0.01"),
        ("galore_adafactor", {"lr": None}, "relative_step=True"),
        ("galore_adafactor", {"warmup_init": True}, "needs relative_step=True"),
        ("galore_adafactor", {"eps": 1e-8}, "eps"),
        ("galore_adafactor", {"decay_rate": 0.8}, "less than or equal to 0"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(name, make_model(), **arguments)


@pytest.mark.parametrize("decay_rate", [-0.8, 0.0])
def test_relative_step_alone_means_what_it_does_for_adafactor(decay_rate):
    def built(name, **arguments):
        model = make_model()
        optimizer = hub.build(
            name, model, relative_step=True, decay_rate=decay_rate, beta1=0.9, **arguments
        )
        train(model, optimizer, range(3))
        return {argument.name: argument for argument in optimizer.hub_plan.arguments}

    low_rank = built("galore_adafactor", target_modules=TARGETS, **LOW_RANK)
    plain = built("adafactor")
    assert low_rank["lr"].value is None
    assert {low_rank[key] for key in AdafactorBase.model_fields} == {
        plain[key] for key in AdafactorBase.model_fields
    }

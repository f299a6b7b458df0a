"""GrokAdamW. Imports neither torch nor grokadamw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Sharding
from hub_grokadamw.arguments import GrokAdamWArguments

if TYPE_CHECKING:
    from collections.abc import Iterable


def _generalizes_badly() -> float:
    """Return the signal of a model that generalizes badly, for the conformance kit."""
    return 1.0


_SIGNAL = {"grokking_signal_fns": [_generalizes_badly]}

SPEC = OptimizerSpec(
    name="grokadamw",
    summary="AdamW with slow gradient components amplified",
    factory="hub_grokadamw.factory:GrokAdamW",
    arguments=GrokAdamWArguments,
    precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset(GrokAdamWArguments.model_fields) - {"grokking_signal_fns"},
    contrasts={
        "gamma": (Contrast(other={"gamma": 0.5}, some=True),),  # not the first of a group
        "gradient_clipping": (
            Contrast(base={"eps": 0.5}, other={"eps": 0.5, "gradient_clipping": 0.25}),
        ),
        "grokking_signal_fns": (Contrast(other=_SIGNAL),),
        "grokking_signal_decay_rate": (
            Contrast(base=_SIGNAL, other={**_SIGNAL, "grokking_signal_decay_rate": 0.5}),
        ),
    },
    sharding=Sharding(kind="native"),
    why_not_layerwise="its first beta depends on how many parameters of the group come before",
    package="grokadamw",
    license="MIT",
    paper="https://arxiv.org/abs/2405.20233",
    homepage="https://github.com/cognitivecomputations/grokadamw",
    notes=(
        "The first beta of parameter i of a group (from 0) is multiplied by (1 - gamma)^i.",
        "Decayed and undecayed parameters are separate groups, as are those of each rule.",
        "Bias correction uses the plain beta: late parameters start with up to 10 times the lr.",
        "gamma=0 treats all parameters alike.",
        "Frozen parameters and missing gradients do not shift the places, as they do upstream.",
        "A checkpoint has the places, and resumes exactly with parameters in another order.",
        "Without functions or losses the grokking signal is 0, and alpha_init is the decay rate.",
        "An exception in a signal function ends the step before anything moves; upstream logs it.",
        "The slow average's decay rate is at most 1; upstream's diverges at negative signals.",
        "State is three tensors of each parameter's size, on its device; upstream's is on the CPU.",
        "Gradients are clipped one by one, in a copy, besides what a trainer clips.",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer GrokAdamW."""
    return (SPEC,)

"""What `grokadamw` is and takes. Imports neither torch nor grokadamw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer

from hub import backend
from hub.arguments import Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.optim import Optimizer

    from hub.spec import BuildContext


class Signal(BaseModel):
    """A function that plans hold, and print as its name: they are plain data otherwise."""

    model_config = ConfigDict(frozen=True)

    function: Callable[[], float | None]

    @model_serializer
    def __str__(self) -> str:
        function = self.function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', '')}.{name}"

    def __repr__(self) -> str:
        return str(self)


class GrokAdamWArguments(Arguments):
    """Arguments of `grokadamw.GrokAdamW`."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2
    alpha_init: float = Field(default=0.98, ge=0, le=1)
    """Decay rate of the slow running average of the gradient, at a grokking signal of 0."""
    lamb: float = Field(default=2.0, ge=0)
    """Factor on that average where it is added to the gradient."""
    gamma: float = Field(default=0.1, ge=0, le=1)
    """Share that the first of the betas loses from each parameter of a group to the next; 0 is the
    same beta for all."""
    grokking_signal_fns: tuple[Signal, ...] | None = Field(default=None, min_length=1)
    """Functions without arguments, called once a step, whose mean is the grokking signal: above 0
    while the model generalizes badly. Where several processes train together all must return the
    same. None: the relative gap of `group["train_loss"]` and `group["eval_loss"]`, and 0 where
    they are not set. They are not in checkpoints."""
    grokking_signal_decay_rate: float = Field(default=0.1, ge=0)
    """How fast the slow average forgets at a high signal: its decay rate is multiplied by
    exp(-grokking_signal_decay_rate * signal)."""
    gradient_clipping: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient of each parameter by itself, besides any clipping of the total
    norm by a trainer; 0 clips nothing."""

    @field_validator("grokking_signal_fns", mode="before")
    @classmethod
    def _names_functions(cls, value: Any) -> Any:
        if value is None:
            return None
        items = value if isinstance(value, tuple | list) else [value]
        if items is not value or not all(isinstance(i, Signal) or callable(i) for i in items):
            raise ValueError(
                "a list of functions, as a keyword of hub.build: they cannot be written as text"
            )
        return tuple(item if isinstance(item, Signal) else Signal(function=item) for item in items)


def _generalizes_badly() -> float:
    """Return the grokking signal of a model that does, for the conformance kit."""
    return 1.0


_SIGNAL = {"grokking_signal_fns": [_generalizes_badly]}

SPEC = OptimizerSpec(
    name="grokadamw",
    summary="AdamW on gradients with their slow part amplified (Grokfast).",
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
    why_not_layerwise="its first beta depends on how many parameters of the group come before",
    package="grokadamw",
    license="MIT",
    paper="https://arxiv.org/abs/2405.20233",
    homepage="https://github.com/cognitivecomputations/grokadamw",
    notes=(
        "betas: the first is multiplied by (1 - gamma)^i, i a parameter's place in its group.",
        "Decayed and undecayed parameters are different groups, as are those of each rule.",
        "Bias correction takes the plain beta: late parameters start with up to 10 times the lr.",
        "gamma=0 makes all parameters alike.",
        "Frozen parameters and missing gradients do not shift the places, as they do upstream.",
        "A checkpoint has the places, and resumes exactly in another order of parameters.",
        "No layerwise form: an update depends on the place among the other parameters.",
        "Without functions or losses the grokking signal is 0: alpha_init is all there is.",
        "An exception in a signal function ends the step before anything moved; upstream logs it.",
        "The slow average's decay rate stays at most 1; upstream's diverges at negative signals.",
        "State is three tensors of each parameter's size, on its device; upstream's is on the CPU.",
        "Gradients are clipped in a copy, one by one, besides what a trainer clips.",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer GrokAdamW."""
    return (SPEC,)


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: GrokAdamWArguments, context: BuildContext
) -> Optimizer | None:
    """Build GrokAdamW."""
    if name != SPEC.name:
        return None
    arguments = optim_args.model_dump(exclude={"grokking_signal_fns"})
    signals = optim_args.grokking_signal_fns
    functions = [signal.function for signal in signals] if signals else None
    factory = backend.load("hub_grokadamw.factory")
    optimizer: Optimizer = factory.build(context.param_groups(), functions, arguments)
    return optimizer

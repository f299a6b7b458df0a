"""What the bitsandbytes names are and take. Imports neither torch nor bitsandbytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hub import backend
from hub.errors import UnsupportedError
from hub.hookspecs import hookimpl
from hub.spec import Finding, Level, OptimizerSpec, Trait
from hub.text import listed
from hub_bitsandbytes import arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from hub.spec import BuildContext

PLUGIN = "hub-bitsandbytes"
BLOCK = 256
"""Elements that share one scale in 8-bit state (bitsandbytes 0.50.2, `optim/optimizer.py`)."""
MOST_ELEMENTS = 2**31 - 1
"""CUDA kernels of bitsandbytes 0.50.2 are given the number of elements as a 32-bit integer."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the names of one algorithm share."""

    title: str
    per_group: frozenset[str]
    paper: str
    arguments: dict[int, type[BaseModel]]
    """By the bits of the state."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What one name builds."""

    family: Family
    upstream: str
    """Name of the class in `bitsandbytes.optim`."""
    bits: Literal[8, 32]
    paged: bool = False
    shares_state_with: str = ""

    @property
    def is_8bit(self) -> bool:
        """Whether state is kept in 8 bits where nothing speaks against it."""
        return self.bits == 8  # noqa: PLR2004


_DECAYS_AFTER = (
    "On CUDA the updated weight is decayed, on CPU the weight before its update (bitsandbytes "
    "issue 2010): a difference of lr * weight_decay of the update."
)
ADAMW = Family(
    title="AdamW",
    per_group=frozenset({"lr", "weight_decay", "betas", "eps"}),
    paper="https://arxiv.org/abs/1711.05101",
    arguments={8: arguments.AdamW8bitArguments, 32: arguments.AdamWArguments},
    notes=("amsgrad is left out: bitsandbytes refuses or ignores it.", _DECAYS_AFTER),
)
ADEMAMIX = Family(
    title="AdEMAMix",
    per_group=frozenset({"lr", "weight_decay", "betas", "eps", "alpha", "t_alpha", "t_beta3"}),
    paper="https://arxiv.org/abs/2409.03137",
    arguments={8: arguments.AdEMAMix8bitArguments, 32: arguments.AdEMAMixArguments},
    notes=("Two betas leave the third at 0.9999; the bare class takes it for 0.", _DECAYS_AFTER),
)
LION = Family(
    title="Lion",
    per_group=frozenset({"lr", "weight_decay", "betas"}),
    paper="https://arxiv.org/abs/2302.06675",
    arguments={8: arguments.Lion8bitArguments, 32: arguments.LionArguments},
)
RMSPROP = Family(
    title="RMSprop",
    per_group=frozenset({"lr", "weight_decay", "eps"}),
    paper="https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf",
    arguments={8: arguments.RMSprop8bitArguments, 32: arguments.RMSpropArguments},
    notes=(
        "momentum and centered are left out: bitsandbytes ignores the one and refuses the other.",
        "weight_decay is L2 regularisation, as in torch.optim.RMSprop, not decoupled.",
    ),
)

# The 32-bit names of AdEMAMix build its general class at its default of 32 bits: bitsandbytes'
# `AdEMAMix32bit` and `PagedAdEMAMix32bit` lack the second half of the first buffer (0.50.2).
ROWS = {
    "adamw_8bit": Row(ADAMW, "AdamW8bit", 8),
    "adamw_bnb_8bit": Row(ADAMW, "AdamW8bit", 8, shares_state_with="adamw_8bit"),
    "paged_adamw_8bit": Row(ADAMW, "PagedAdamW8bit", 8, paged=True, shares_state_with="adamw_8bit"),
    "paged_adamw_32bit": Row(ADAMW, "PagedAdamW32bit", 32, paged=True),
    "ademamix": Row(ADEMAMIX, "AdEMAMix", 32),
    "ademamix_8bit": Row(ADEMAMIX, "AdEMAMix8bit", 8),
    "paged_ademamix_32bit": Row(
        ADEMAMIX, "PagedAdEMAMix", 32, paged=True, shares_state_with="ademamix"
    ),
    "paged_ademamix_8bit": Row(
        ADEMAMIX, "PagedAdEMAMix8bit", 8, paged=True, shares_state_with="ademamix_8bit"
    ),
    "lion_32bit": Row(LION, "Lion32bit", 32),
    "lion_8bit": Row(LION, "Lion8bit", 8),
    "paged_lion_32bit": Row(LION, "PagedLion32bit", 32, paged=True, shares_state_with="lion_32bit"),
    "paged_lion_8bit": Row(LION, "PagedLion8bit", 8, paged=True, shares_state_with="lion_8bit"),
    "rmsprop_bnb": Row(RMSPROP, "RMSprop", 32),
    "rmsprop_bnb_8bit": Row(RMSPROP, "RMSprop8bit", 8),
    "rmsprop_bnb_32bit": Row(RMSPROP, "RMSprop32bit", 32, shares_state_with="rmsprop_bnb"),
}

_NOTES = (
    "The name decides about optim_bits and is_paged; args, an object, is left out.",
    "What is registered with bitsandbytes' GlobalOptimManager for others does not apply.",
)
_EMBEDDINGS = (
    "embeddings_32bit is hub's: what Transformers' integration does for most 8-bit names, done for "
    "this optimizer alone."
)
_WHOLE_BLOCKS = (
    f"Parameters whose elements are no multiple of {BLOCK} keep 32-bit state: on CUDA bitsandbytes "
    "0.50.2 mixes up their scales."
)
_PAGED = (
    "The state of parameters of 100,000 elements or more lies in unified memory, which moves to "
    "the host when the GPU runs short, and which bitsandbytes never gives back; on CPU it is "
    "ordinary memory."
)


def _spec(name: str, row: Row) -> OptimizerSpec:
    family = row.family
    notes = [
        *family.notes,
        *([_EMBEDDINGS] if row.is_8bit else []),
        *([_WHOLE_BLOCKS] if row.is_8bit and family is ADEMAMIX else []),
        *([_PAGED] if row.paged else []),
        *_NOTES,
    ]
    return OptimizerSpec(
        name=name,
        summary=f"{family.title} whose state is kept in {row.bits} bits"
        + (" and in paged memory." if row.paged else "."),
        arguments=family.arguments[row.bits],
        traits=frozenset({Trait.PER_PARAMETER}),
        precisions=frozenset({"fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"}),
        per_group=family.per_group,
        example_arguments={"min_8bit_size": 256, "embeddings_32bit": False} if row.is_8bit else {},
        state_arguments=frozenset(arguments.EightBitArguments.model_fields if row.is_8bit else ()),
        shares_state_with=row.shares_state_with,
        why_not_sharded="bitsandbytes' kernels take no DTensors",
        package="bitsandbytes",
        license="MIT",
        paper=family.paper,
        homepage="https://github.com/bitsandbytes-foundation/bitsandbytes",
        notes=tuple(notes),
    )


SPECS = tuple(_spec(name, row) for name, row in ROWS.items())


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer the bitsandbytes optimizers."""
    return SPECS


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: BaseModel, context: BuildContext
) -> Optimizer | None:
    """Build one of them."""
    if name not in ROWS:
        return None
    factory = backend.load("hub_bitsandbytes.factory")
    optimizer: Optimizer = factory.build(
        ROWS[name].upstream,
        context.param_groups(),
        optim_args.model_dump(exclude={"embeddings_32bit"}),
        _embeddings(optim_args, context),
    )
    return optimizer


@hookimpl
def hub_validate_precision(
    name: str, optim_args: BaseModel, context: BuildContext
) -> Iterable[Finding]:
    """Say where nothing is paged, and refuse what the kernels cannot do."""
    if name not in ROWS:
        return
    row = ROWS[name]
    yield from _no_kernels(context)
    yield from _sparse(name, context)
    if row.paged and "cpu" in context.precision.devices:
        yield Finding(
            level=Level.NOTE,
            what="the state of parameters on the CPU is kept in ordinary memory: bitsandbytes "
            "pages on CUDA only",
        )
    yield from _too_large(context)
    if row.family is RMSPROP:
        yield from _rmsprop_on_cuda(row, optim_args, context)


def keeps_32_bits(
    parameter: Parameter,
    min_8bit_size: int,
    embeddings: frozenset[Parameter],
    *,
    whole_blocks: bool = False,
) -> bool:
    """Whether an 8-bit optimizer keeps 32-bit state for this parameter.

    Small parameters do by upstream's rule. Embeddings and, with `whole_blocks`, those that fill no
    whole number of blocks do by hub's: the CUDA kernel of AdEMAMix in bitsandbytes 0.50.2 writes
    two of their scales to one place, `absmax1[(n + i) / 256]`.
    """
    elements = parameter.numel()
    return (
        elements < min_8bit_size
        or parameter in embeddings
        or (whole_blocks and elements % BLOCK != 0)
    )


def _embeddings(optim_args: BaseModel, context: BuildContext) -> frozenset[Parameter]:
    """Return the embedding weights whose state stays in 32 bits, also those frozen as yet."""
    return context.embeddings if getattr(optim_args, "embeddings_32bit", False) else frozenset()


def _on_cuda(context: BuildContext) -> Iterator[tuple[str, Parameter, float | None]]:
    """Yield name, parameter and its group's own weight decay."""
    for group in context.groups:
        for name, parameter in group.parameters:
            if parameter.device.type == "cuda":
                yield name, parameter, group.overrides.get("weight_decay")


def _too_large(context: BuildContext) -> Iterator[Finding]:
    for name, parameter, _ in _on_cuda(context):
        if parameter.numel() > MOST_ELEMENTS:
            yield Finding(
                level=Level.REFUSE,
                what=f"{name} has {parameter.numel()} elements: bitsandbytes' CUDA kernels count "
                f"up to {MOST_ELEMENTS}",
                fix="split the parameter, or use adamw_torch",
            )


def _rmsprop_on_cuda(row: Row, optim_args: BaseModel, context: BuildContext) -> Iterator[Finding]:
    """Refuse what bitsandbytes 0.50.2 has no kernel for, and what its 8-bit kernel gets wrong.

    `backends/cuda/ops.py` lists no bf16 kernel for 32-bit state. The 8-bit kernel adds the decay to
    the gradient for the running average, but divides the bare gradient by it.
    """
    embeddings = _embeddings(optim_args, context)
    minimum = getattr(optim_args, "min_8bit_size", 0)
    no_kernel, no_decay = [], []
    for name, parameter, own_decay in _on_cuda(context):
        decay = getattr(optim_args, "weight_decay", 0.0) if own_decay is None else own_decay
        if not row.is_8bit or keeps_32_bits(parameter, minimum, embeddings):
            if str(parameter.dtype) == "torch.bfloat16":
                no_kernel.append(name)
        elif decay > 0:
            no_decay.append(name)
    if no_kernel:
        yield Finding(
            level=Level.REFUSE,
            what="on cuda bitsandbytes has no RMSprop kernel for bf16 weights with 32-bit state: "
            f"{listed(no_kernel)}",
            fix="train fp32 weights with precision='bf16-mixed', or use rmsprop",
        )
    if no_decay:
        yield Finding(
            level=Level.REFUSE,
            what="on cuda bitsandbytes' 8-bit RMSprop leaves weight decay out of the update: "
            f"{listed(no_decay)}",
            fix="use rmsprop_bnb, or weight_decay=0",
        )


def _no_kernels(context: BuildContext) -> Iterator[Finding]:
    """Refuse what would fail in the first step: no native library, or one without CUDA."""
    if "cuda" in context.precision.devices:
        library = backend.load("bitsandbytes.cextension").lib
        if not library.compiled_with_cuda:
            yield Finding.refuse(
                UnsupportedError(
                    "this bitsandbytes has no CUDA kernels, or cannot load them",
                    where="bitsandbytes",
                    fix="`python -m bitsandbytes` says why",
                )
            )


def _sparse(name: str, context: BuildContext) -> Iterator[Finding]:
    """Refuse parameters that get sparse gradients."""
    trained = set(context.parameters())
    for module_name, module in context.model.named_modules():
        if getattr(module, "sparse", False) is True and getattr(module, "weight", None) in trained:
            yield Finding.refuse(
                UnsupportedError(
                    f"{name} takes no sparse gradients",
                    where=module_name,
                    fix="build the embedding with sparse=False",
                )
            )

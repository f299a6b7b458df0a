"""The bitsandbytes optimizers. Imports neither torch nor bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.backend import load_object
from hub.hookspecs import hookimpl
from hub.spec import Finding, OptimizerSpec, Sharding, Trait
from hub_bitsandbytes import findings
from hub_bitsandbytes.arguments import EightBitArguments
from hub_bitsandbytes.names import ADEMAMIX, BLOCK, RMSPROP, ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel
    from torch.optim import Optimizer

    from hub.spec import BuildContext

_NOTES = (
    "optim_bits and is_paged follow from the name; `args` is not supported.",
    "What others register with bitsandbytes' GlobalOptimManager does not apply.",
)
_EMBEDDINGS = (
    "embeddings_32bit is hub's; Transformers does the same, for all optimizers of the process."
)
_WHOLE_BLOCKS = (
    f"Parameters whose size is not a multiple of {BLOCK} keep 32-bit state: on CUDA bitsandbytes "
    "0.50.2 mixes up their scales."
)
_PAGED = (
    "On CUDA, state of parameters of 100,000 elements or more is in unified memory, which moves to "
    "the host when the GPU runs short, and which bitsandbytes never frees."
)
_WHY_NOT_OFFLOADED = "bitsandbytes pages it in memory that the GPU and the host share"

_QUANTIZED = Sharding(
    kind="rows",
    block=BLOCK,
    quantized_from="min_8bit_size",
    unsplit=frozenset({"qmap1", "qmap2"}),
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
        summary=f"{family.title} with {row.bits}-bit state" + ", paged" * row.paged,
        arguments=family.arguments[row.bits],
        traits=frozenset({Trait.PER_PARAMETER}),
        precisions=frozenset({"fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"}),
        per_group=family.per_group,
        example_arguments={"min_8bit_size": 256, "embeddings_32bit": False} if row.is_8bit else {},
        state_arguments=frozenset(EightBitArguments.model_fields if row.is_8bit else ()),
        shares_state_with=row.shares_state_with,
        why_not_offloaded=_WHY_NOT_OFFLOADED if row.paged else "",
        sharding=_QUANTIZED if row.is_8bit else Sharding(kind="rows", elementwise=True),
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
def hub_build_optimizer(name: str, optim_args: BaseModel, context: BuildContext) -> Optimizer:
    """Build one of them, which has to know the embeddings."""
    build = load_object(f"hub_bitsandbytes.factory:{ROWS[name].upstream}")
    optimizer: Optimizer = build(
        context.param_groups(),
        embeddings=findings.embeddings_32bit(optim_args, context),
        **optim_args.model_dump(exclude={"embeddings_32bit"}),
    )
    return optimizer


@hookimpl
def hub_validate_precision(
    name: str, optim_args: BaseModel, context: BuildContext
) -> list[Finding]:
    """Say where nothing is paged, and refuse what the kernels cannot do."""
    row = ROWS[name]
    return [
        *findings.no_cuda_kernels(context),
        *findings.sparse_gradients(name, context),
        *(findings.not_paged(context) if row.paged else ()),
        *findings.too_large(context),
        *(findings.rmsprop_on_cuda(row, optim_args, context) if row.family is RMSPROP else ()),
    ]

"""The FlashOptim optimizers. Imports neither torch nor flashoptim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.hookspecs import hookimpl
from hub.spec import Finding, OptimizerSpec, Sharding, Trait
from hub_flashoptim import findings
from hub_flashoptim.arguments import (
    AdamArguments,
    AdamWArguments,
    FlashArguments,
    LionArguments,
    SGDArguments,
    SGDWArguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hub.spec import BuildContext

_WITHOUT_EFFECT = {
    "quantize": "needs CUDA, and is turned off elsewhere",
    "master_weight_bits": "needs CUDA, and is turned off elsewhere",
    "fused": "needs CUDA, and computes the same update",
    "compress_state_dict": "decides how the state is saved",
    "check_numerics": "raises errors, and changes no update",
}
_NOTES = (
    "master_weight_bits is turned off for fp32 models, which the upstream class refuses.",
    "For CPU parameters quantize, fused and master_weight_bits are turned off: they need CUDA.",
    "With master_weight_bits the weights are in model and optimizer together: save both.",
    "`optimizer.get_fp32_model_state_dict(model)` returns those weights in fp32.",
    "Schedules start from each group's lr; with the upstream class from the constructor's.",
    "The first steps on a GPU compile kernels.",
)
_ADAM_NOTE = (
    "Quantized second moments have fp16 scales, too coarse for gradients below about 3e-6: their "
    "updates come out up to three times too large. quantize=False has no such limit."
)
_SGD_NOTE = "dampening applies from the first step on; torch's SGD spares that one."


def _spec(
    name: str,
    summary: str,
    factory: str,
    arguments: type[FlashArguments],
    per_group: set[str],
    *notes: str,
) -> OptimizerSpec:
    has_momentum = "momentum" in arguments.model_fields  # without it there is no state to check
    return OptimizerSpec(
        name=name,
        summary=summary,
        factory=f"hub_flashoptim.factory:{factory}",
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER, Trait.COMPENSATED}),
        precisions=frozenset({"fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset({"lr", "weight_decay", *per_group}),
        example_arguments={"momentum": 0.9} if has_momentum else {},
        state_arguments=frozenset({"quantize", "master_weight_bits"}),
        without_effect=_WITHOUT_EFFECT,
        sharding=Sharding(kind="native"),
        package="flashoptim",
        license="Apache-2.0",
        paper="https://arxiv.org/abs/2602.23349",
        homepage="https://github.com/databricks/flashoptim",
        notes=(*notes, *_NOTES),
    )


SPECS = (
    _spec(
        "flash_adamw",
        "AdamW with 8-bit state and 24-bit weights",
        "FlashAdamW",
        AdamWArguments,
        {"betas", "eps"},
        _ADAM_NOTE,
    ),
    _spec(
        "flash_adam",
        "Adam (L2 penalty), 8-bit state and 24-bit weights",
        "FlashAdam",
        AdamArguments,
        {"betas", "eps"},
        _ADAM_NOTE,
    ),
    _spec(
        "flash_sgd",
        "SGD (L2 penalty), 8-bit state and 24-bit weights",
        "FlashSGD",
        SGDArguments,
        {"momentum", "dampening"},
        _SGD_NOTE,
    ),
    _spec(
        "flash_sgdw",
        "SGD (decoupled), 8-bit state and 24-bit weights",
        "FlashSGDW",
        SGDWArguments,
        {"momentum", "dampening"},
        _SGD_NOTE,
    ),
    _spec(
        "flash_lion",
        "Lion with 8-bit state and 24-bit weights",
        "FlashLion",
        LionArguments,
        {"betas"},
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer the five FlashOptim optimizers."""
    return SPECS


@hookimpl
def hub_validate_precision(
    name: str, optim_args: FlashArguments, context: BuildContext
) -> list[Finding]:
    """Turn off what these parameters cannot have, and refuse what flashoptim cannot train."""
    turned_off = [
        *findings.master_weights(optim_args, context),
        *findings.kernels(optim_args, context),
    ]
    return [
        *findings.missing_triton(name),
        *turned_off,
        *findings.fp16_moments(name, optim_args, context),
        *findings.uneven_shards(name, optim_args, turned_off, context),
        *findings.other_gpus(name, optim_args, turned_off, context),
    ]

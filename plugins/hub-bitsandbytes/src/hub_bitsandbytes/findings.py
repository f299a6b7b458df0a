"""What bitsandbytes 0.50.2 cannot do with a model's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.backend import load
from hub.errors import PrecisionError, UnsupportedError
from hub.spec import Finding
from hub.text import listed
from hub_bitsandbytes.names import keeps_32_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from torch.nn import Parameter

    from hub.spec import BuildContext
    from hub_bitsandbytes.names import Row

MOST_ELEMENTS = 2**31 - 1
"""CUDA kernels of bitsandbytes 0.50.2 take the number of elements as a 32-bit integer."""


def no_cuda_kernels(context: BuildContext) -> Iterator[Finding]:
    """Refuse what would fail in the first step: no native library, or one without CUDA."""
    on_cuda = "cuda" in context.precision.devices
    if on_cuda and not load("bitsandbytes.cextension").lib.compiled_with_cuda:
        yield Finding.refuse(
            UnsupportedError(
                "this bitsandbytes has no CUDA kernels, or cannot load them",
                where="bitsandbytes",
                fix="`python -m bitsandbytes` says why",
            )
        )


def sparse_gradients(name: str, context: BuildContext) -> Iterator[Finding]:
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


def not_paged(context: BuildContext) -> Iterator[Finding]:
    """Note that bitsandbytes pages on CUDA only."""
    if "cpu" in context.precision.devices:
        yield Finding.note(
            "the state of parameters on the CPU is kept in ordinary memory: bitsandbytes pages on "
            "CUDA only"
        )


def too_large(context: BuildContext) -> Iterator[Finding]:
    """Refuse parameters that CUDA kernels cannot count."""
    for name, parameter, _ in _on_cuda(context):
        if parameter.numel() > MOST_ELEMENTS:
            yield Finding.refuse(
                PrecisionError(
                    f"{name} has {parameter.numel()} elements: bitsandbytes' CUDA kernels count up "
                    f"to {MOST_ELEMENTS}",
                    fix="split the parameter, or use adamw_torch",
                )
            )


def rmsprop_on_cuda(row: Row, optim_args: BaseModel, context: BuildContext) -> Iterator[Finding]:
    """Refuse what bitsandbytes 0.50.2 has no kernel for, and what its 8-bit kernel gets wrong.

    `backends/cuda/ops.py` lists no bf16 kernel for 32-bit state. The 8-bit kernel adds the decay to
    the gradient for the running average, but divides the gradient without it by that average.
    """
    embeddings = embeddings_32bit(optim_args, context)
    minimum = getattr(optim_args, "min_8bit_size", 0)
    no_kernel, no_decay = [], []
    for name, parameter, own_decay in _on_cuda(context):
        decay = getattr(optim_args, "weight_decay", 0.0) if own_decay is None else own_decay
        is_embedding = name in embeddings
        if not row.is_8bit or keeps_32_bits(parameter, minimum, is_embedding=is_embedding):
            if str(parameter.dtype) == "torch.bfloat16":
                no_kernel.append(name)
        elif decay > 0:
            no_decay.append(name)
    if no_kernel:
        yield Finding.refuse(
            PrecisionError(
                "on cuda bitsandbytes has no RMSprop kernel for bf16 weights with 32-bit state: "
                f"{listed(no_kernel)}",
                fix="train fp32 weights with precision='bf16-mixed', or use rmsprop",
            )
        )
    if no_decay:
        yield Finding.refuse(
            PrecisionError(
                "on cuda bitsandbytes' 8-bit RMSprop leaves weight decay out of the update: "
                f"{listed(no_decay)}",
                fix="use rmsprop_bnb, or weight_decay=0",
            )
        )


def embeddings_32bit(optim_args: BaseModel, context: BuildContext) -> frozenset[str]:
    """Return the names of the embedding weights whose state stays in 32 bits."""
    return context.embeddings if getattr(optim_args, "embeddings_32bit", False) else frozenset()


def _on_cuda(context: BuildContext) -> Iterator[tuple[str, Parameter, float | None]]:
    """Yield name, parameter and its group's own weight decay."""
    for group in context.groups:
        for name, parameter in group.parameters:
            if parameter.device.type == "cuda":
                yield name, parameter, group.overrides.get("weight_decay")

"""Which of torch's implementations of an update cannot run for a model, or are slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.errors import UnsupportedError
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from hub.spec import BuildContext

_STEPS_DTENSORS = frozenset({"adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop"})
"""Adafactor gets whole tensors."""
_FUSED_FOR_DTENSORS = frozenset({"adamw_torch", "adamw_torch_fused"})
"""torch 2.13 shards `_fused_adamw_`, and neither `_fused_sgd_` nor `_fused_adagrad_`."""
_BF16_FALLS = 2.0**-8
"""The smallest relative decrease that changes every bf16 number."""
_FOREACH_DEVICES = frozenset({"cuda", "xpu", "mtia"})
"""Where torch 2.13 runs foreach operations by default (`_default_to_fused_or_foreach`)."""


def fused_slices(optim_args: BaseModel, context: BuildContext) -> Iterator[Finding]:
    """Refuse `fused` for slices of larger tensors, because it would write outside the slice.

    torch's fused kernels (2.13) ignore strides: they update as many contiguous elements as the
    parameter has.
    """
    if not getattr(optim_args, "fused", None):
        return
    for name, parameter in context.named_parameters():
        sides = zip(parameter.shape, parameter.stride(), strict=True)
        last = sum((length - 1) * step for length, step in sides)
        if last >= parameter.numel() > 0:
            yield Finding.refuse(
                UnsupportedError(
                    f"{name} is a slice of a larger tensor, and torch's fused update would write "
                    "outside the slice",
                    where=name,
                    fix="use fused=False, or copy the parameter to its own memory",
                )
            )


def capturable(optim_args: Any, context: BuildContext) -> Iterator[Finding]:
    """Refuse `capturable` where torch's step would."""
    if not getattr(optim_args, "capturable", False):
        return
    from torch.optim.optimizer import _get_capturable_supported_devices

    possible = {"meta", *_get_capturable_supported_devices()}
    for device in sorted({*context.precision.devices} - possible):
        yield Finding.refuse(
            UnsupportedError(
                f"capturable=True steps parameters on an accelerator, and some are on {device}",
                where="capturable",
                fix="move the model to the accelerator first, or leave out capturable",
            )
        )


def sharded(name: str, optim_args: Any, context: BuildContext) -> Iterator[Finding]:
    """Choose an implementation that works for DTensors, and none that torch 2.12 leaks with.

    For every foreach operation on DTensors torch 2.12 keeps Python objects that it never frees
    (NVIDIA-NeMo/Automodel, pull request 2888); torch 2.13 does not, but `fused` is faster.
    """
    is_sharded = any(hasattr(parameter, "device_mesh") for parameter in context.parameters())
    if not is_sharded or name not in _STEPS_DTENSORS:
        return
    has_fused = name in _FUSED_FOR_DTENSORS
    if getattr(optim_args, "fused", None) and not has_fused:
        yield Finding.adjust(
            "fused=True is turned off: torch's fused update takes no sharded parameters (DTensors)",
            "leave it out",
            instead={"fused": False},
        )
    elif _uses_foreach(optim_args, context):
        asked = optim_args.foreach is not None
        found = Finding.adjust if asked else Finding.note
        yield found(
            f"{'fused=True' if has_fused else 'foreach=False'} replaces foreach, whose operations "
            "on sharded parameters (DTensors) are slow, and leak memory with torch 2.12",
            "leave foreach out" if asked else "",
            instead={"foreach": False, "fused": True} if has_fused else {"foreach": False},
        )


def _uses_foreach(optim_args: Any, context: BuildContext) -> bool:
    """Whether torch would run foreach operations, as `torch.optim` decides it (2.13)."""
    if optim_args.foreach is not None or getattr(optim_args, "fused", None) is not None:
        return bool(optim_args.foreach)
    on_device = set(context.precision.devices) <= _FOREACH_DEVICES
    return on_device and not getattr(optim_args, "differentiable", False)


def narrow_state(optim_args: Any, context: BuildContext) -> Iterator[Finding]:
    """Say what bf16 moments round, which is measured on gradients drawn from a normal distribution.

    A bf16 number keeps its value if it is multiplied by more than 1 - 2**-9, and every one changes
    by less than 1 - 2**-8.
    """
    if getattr(optim_args, "state_dtype", None) is None:
        return
    if "fp32" not in context.precision.dtypes:
        yield Finding.warn(
            "state_dtype='bf16' does nothing: no parameter is fp32, and the moments of others have "
            "their dtype",
            "leave it out",
        )
        return
    betas = {dict(group.overrides).get("betas", optim_args.betas) for group in context.groups}
    largest = max(second for _, second in betas)
    if largest > 1 - _BF16_FALLS:
        yield Finding.warn(
            f"second moments in bf16 hardly fall at beta2={largest:g}, as most numbers times it "
            "round to themselves. At 0.999 none falls: they become 1.4 times too large under "
            "steady gradients, and stay up when gradients shrink",
            "use betas=(0.9, 0.95), with which they are right to 1 %",
        )
    else:
        yield Finding.note("moments of fp32 weights are rounded to bf16 after each step")

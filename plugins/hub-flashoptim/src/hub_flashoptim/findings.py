"""What flashoptim 0.1.4 cannot do with a model's parameters."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from hub.errors import PluginError, PrecisionError, UnsupportedError
from hub.spec import Finding, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hub.spec import BuildContext
    from hub_flashoptim.arguments import FlashArguments

_UNCOMPENSATED = frozenset({Trait.COMPENSATED})
_NEED_CUDA = ("quantize", "fused", "master_weight_bits")


def missing_triton(name: str) -> Iterator[Finding]:
    """Refuse a platform without triton, which flashoptim imports and does not require."""
    if find_spec("triton") is None:
        yield Finding.refuse(
            PluginError(
                "flashoptim needs triton, which is not installed",
                where=name,
                fix='on Linux: pip install "triton>=3"; on a platform without triton choose '
                "another optimizer, such as adamw_torch",
            )
        )


def master_weights(optim_args: FlashArguments, context: BuildContext) -> Iterator[Finding]:
    """Turn master_weight_bits off where no parameter has fewer bits, or kernels cannot run."""
    bits, off = optim_args.master_weight_bits, {"master_weight_bits": None}
    narrow = " and ".join(d for d in context.precision.dtypes if d in ("bf16", "fp16"))
    lost = f"updates of less than half the spacing of {narrow} weights are lost"
    if bits is None and narrow:
        yield Finding.note(
            f"with master_weight_bits=None, {lost}",
            "keep the weights in fp32, or on a GPU leave master_weight_bits at 24",
            without_traits=_UNCOMPENSATED,
        )
    elif bits is not None and not narrow:
        yield Finding.adjust(
            f"master_weight_bits={bits} is turned off: fp32 parameters have 32 bits already",
            "pass master_weight_bits=None, or convert the model to bf16 to save memory",
            instead=off,
        )
    elif bits is not None and _on_cpu(context):
        yield Finding.adjust(
            f"master_weight_bits={bits} is turned off: the parameters are on CPU and it needs "
            f"CUDA; {lost}",
            "move the model to a GPU before building, or keep the weights in fp32",
            without_traits=_UNCOMPENSATED,
            instead=off,
        )


def kernels(optim_args: FlashArguments, context: BuildContext) -> Iterator[Finding]:
    """Turn off kernels that cannot run: with a warning if asked for, else with a note."""
    strided = [name for name, p in context.named_parameters() if not p.is_contiguous()]
    if _on_cpu(context):
        keys = ["quantize", "fused"]
        why = "the parameters are on CPU and it needs CUDA"
        fix = "move the model to a GPU before building"
    elif strided:
        keys = ["fused"]
        why = f"'{strided[0]}' is not contiguous in memory, as flashoptim's kernels need it"
        fix = "make the parameters contiguous (not channels_last) before building"
    else:
        return
    for key in keys:
        if getattr(optim_args, key):
            found = Finding.adjust if key in optim_args.model_fields_set else Finding.note
            yield found(f"{key}=True is turned off: {why}", fix, instead={key: False})


def fp16_moments(name: str, optim_args: FlashArguments, context: BuildContext) -> Iterator[Finding]:
    """Refuse fp16 second moments, which underflow to a division by eps."""
    unquantized = _on_cpu(context) or not optim_args.quantize
    if "adam" in name and "fp16" in context.precision.dtypes and unquantized:
        yield Finding.refuse(
            PrecisionError(
                f"{name} without quantized state does not train fp16 parameters: their second "
                "moment would be fp16 too, and underflow",
                fix="train on a GPU with quantize=True, or in bf16 or fp32",
            )
        )


def uneven_shards(
    name: str, optim_args: FlashArguments, turned_off: Iterable[Finding], context: BuildContext
) -> Iterator[Finding]:
    """Refuse quantized state that flashoptim cannot save (`_wrap_state_as_dtensor`)."""
    off = {key for finding in turned_off for key in finding.instead}
    if not (optim_args.compress_state_dict and optim_args.quantize) or "quantize" in off:
        return
    for parameter_name, parameter in context.named_parameters():
        mesh = getattr(parameter, "device_mesh", None)
        for dimension, placement in enumerate(getattr(parameter, "placements", ())):
            sharded = getattr(placement, "dim", None)
            if mesh and sharded is not None and parameter.shape[sharded] % mesh.size(dimension):
                yield Finding.refuse(
                    UnsupportedError(
                        f"{name} cannot save the quantized state of a parameter of "
                        f"{parameter.shape[sharded]} rows or columns that is sharded over "
                        f"{mesh.size(dimension)} ranks",
                        where=parameter_name,
                        fix="use compress_state_dict=False, or pad the parameter to a multiple of "
                        "the number of ranks",
                    )
                )


def other_gpus(
    name: str, optim_args: FlashArguments, turned_off: Iterable[Finding], context: BuildContext
) -> Iterator[Finding]:
    """Refuse kernels for parameters that are not on the current GPU, where triton runs them."""
    off = {key for finding in turned_off for key in finding.instead}
    if "cuda" not in context.precision.devices or not any(
        getattr(optim_args, key) for key in _NEED_CUDA if key not in off
    ):
        return
    import torch

    current = torch.cuda.current_device()
    devices = (parameter.device for parameter in context.parameters())
    other = next((d for d in devices if d.type == "cuda" and d.index != current), None)
    if other is not None:
        yield Finding.refuse(
            UnsupportedError(
                f"{name} runs its kernels on the current GPU, {current}, and the model has "
                f"parameters on {other}",
                where="model",
                fix=f"call torch.cuda.set_device({other.index}) first; for a model on several "
                "GPUs pass quantize=False, fused=False, master_weight_bits=None",
            )
        )


def _on_cpu(context: BuildContext) -> bool:
    return "cpu" in context.precision.devices

"""What the FlashOptim names are and take. Imports neither torch nor flashoptim."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from hub import backend
from hub.arguments import Arguments, Beta, Betas, Eps, LearningRate, WeightDecay
from hub.errors import PluginError, UnsupportedError
from hub.hookspecs import hookimpl
from hub.spec import Finding, Level, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from torch.optim import Optimizer

    from hub.spec import BuildContext

L2Penalty = Annotated[float, Field(ge=0, description="L2 penalty, added to the gradient.")]


class FlashArguments(Arguments):
    """What all of them take."""

    lr: LearningRate = 1e-3
    quantize: bool = True
    """Keep the state in 8 bits, with one fp16 scale for 32 elements; False: in the dtype of the
    parameter. Needs CUDA."""
    compress_state_dict: bool = True
    """Save quantized state as it is; False: as fp32, which takes more space and can be loaded by
    other optimizers. Both resume exactly."""
    master_weight_bits: Literal[24, 32] | None = 24
    """Bits of the weights that updates are added to: the state of a bf16 or fp16 parameter holds
    the 8 or 16 that it lacks, so that small updates are not lost. None: the parameter's own. Needs
    CUDA."""
    check_numerics: bool = False
    """Raise `flashoptim.NumericsError` in a step whose learning rate is too small to change the
    largest weights, taking updates of Lion and SGD for lr and of Adam for a tenth of it. Slow: the
    first step reads the largest weight of every parameter back from the device."""
    fused: bool = True
    """Take a step in one kernel for each parameter instead of in several operations. Needs CUDA and
    contiguous parameters."""


class DecoupledArguments(FlashArguments):
    """What the names with decoupled weight decay take."""

    weight_decay: WeightDecay = 0.0
    decouple_lr: bool = False
    """Shrink the weights by weight_decay times lr over its initial value, instead of times lr.
    weight_decay is then the share itself that a step takes off: 1e-5 where it was 1e-2 at an lr of
    1e-3. The initial value is the `lr` of the group, or what a scheduler starts from."""

    @model_validator(mode="after")
    def _has_a_rate_to_divide_by(self) -> Self:
        if self.decouple_lr and self.lr == 0:
            raise ValueError("decouple_lr=True divides by lr, which must then be above 0")
        return self


class MomentumArguments(FlashArguments):
    """What both kinds of SGD take."""

    momentum: float = Field(default=0.0, ge=0)
    """Momentum factor."""
    dampening: float = 0.0
    """Dampening of the momentum, from the first step on."""
    nesterov: bool = False
    """Nesterov momentum; needs momentum and no dampening."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov=True needs momentum above 0 and dampening=0")
        return self


class AdamArguments(FlashArguments):
    """Arguments of `flashoptim.FlashAdam`."""

    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: L2Penalty = 0.0


class AdamWArguments(DecoupledArguments):
    """Arguments of `flashoptim.FlashAdamW`."""

    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2


class SGDArguments(MomentumArguments):
    """Arguments of `flashoptim.FlashSGD`."""

    weight_decay: L2Penalty = 0.0


class SGDWArguments(MomentumArguments, DecoupledArguments):
    """Arguments of `flashoptim.FlashSGDW`."""


class LionArguments(DecoupledArguments):
    """Arguments of `flashoptim.FlashLion`."""

    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Share of the running average of gradients in an update, and decay rate of that average."""


_WITHOUT_EFFECT = {
    "quantize": "needs CUDA, and is turned off elsewhere",
    "master_weight_bits": "needs CUDA, and is turned off elsewhere",
    "fused": "needs CUDA, and computes the same update",
    "compress_state_dict": "decides how the state is saved",
    "check_numerics": "raises errors, and changes no update",
}
_CPU_NOTE = (
    "For CPU parameters quantize, fused and master_weight_bits are turned off: flashoptim's "
    "kernels need CUDA."
)
_WEIGHTS_NOTE = (
    "With master_weight_bits the weights are in model and optimizer together: save both. "
    "`optimizer.get_fp32_model_state_dict(model)` returns them in fp32."
)
_NOTES = (
    "master_weight_bits is turned off for models of fp32 parameters, which the bare class refuses.",
    _CPU_NOTE,
    _WEIGHTS_NOTE,
    "Schedules start from each group's own lr; with the bare class from the constructor's.",
    "The first steps on a GPU compile kernels.",
)
_ADAM_NOTE = (
    "Quantized second moments have fp16 scales, too coarse for gradients of about 3e-6 and less: "
    "their updates come out up to three times too large. quantize=False has no such limit."
)
_SGD_NOTE = "dampening applies to the first step too, which torch's SGD spares."


def _spec(
    name: str, summary: str, arguments: type[FlashArguments], per_group: set[str], *notes: str
) -> OptimizerSpec:
    has_momentum = "momentum" in arguments.model_fields
    return OptimizerSpec(
        name=name,
        summary=summary,
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER, Trait.COMPENSATED}),
        precisions=frozenset({"fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset({"lr", "weight_decay", *per_group}),
        example_arguments={"momentum": 0.9}
        if has_momentum
        else {},  # without it there is no state to check
        state_arguments=frozenset({"quantize", "master_weight_bits"}),
        without_effect=_WITHOUT_EFFECT,
        package="flashoptim",
        license="Apache-2.0",
        paper="https://arxiv.org/abs/2602.23349",
        homepage="https://github.com/databricks/flashoptim",
        notes=(*notes, *_NOTES),
    )


SPECS = (
    _spec(
        "flash_adamw",
        "AdamW with 8-bit state, and 24-bit weights behind bf16 parameters.",
        AdamWArguments,
        {"betas", "eps"},
        _ADAM_NOTE,
    ),
    _spec(
        "flash_adam",
        "Adam (L2 penalty) with 8-bit state, and 24-bit weights behind bf16 parameters.",
        AdamArguments,
        {"betas", "eps"},
        _ADAM_NOTE,
    ),
    _spec(
        "flash_sgd",
        "SGD (L2 penalty) with 8-bit momentum, and 24-bit weights behind bf16 parameters.",
        SGDArguments,
        {"momentum", "dampening"},
        _SGD_NOTE,
    ),
    _spec(
        "flash_sgdw",
        "SGD (decoupled decay) with 8-bit momentum, and 24-bit weights behind bf16 parameters.",
        SGDWArguments,
        {"momentum", "dampening"},
        _SGD_NOTE,
    ),
    _spec(
        "flash_lion",
        "Lion with 8-bit momentum, and 24-bit weights behind bf16 parameters.",
        LionArguments,
        {"betas"},
    ),
)
_NAMES = frozenset(spec.name for spec in SPECS)
_NEED_CUDA = ("quantize", "fused", "master_weight_bits")


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer the five FlashOptim optimizers."""
    return SPECS


@hookimpl
def hub_validate_precision(
    name: str, optim_args: FlashArguments, context: BuildContext
) -> Iterable[Finding]:
    """Turn off what these parameters cannot have, by where and in what dtype they are."""
    if name not in _NAMES:
        return []
    on_cpu = "cpu" in context.precision.devices
    dtypes = context.precision.dtypes
    turned_off = [
        *_master_weight_findings(optim_args, dtypes, on_cpu=on_cpu),
        *_kernel_findings(optim_args, context, on_cpu=on_cpu),
    ]
    switches = {key: getattr(optim_args, key) for key in _NEED_CUDA}
    for finding in turned_off:
        switches.update(finding.instead)
    return [
        *_missing_triton(name),
        *turned_off,
        *_fp16_findings(name, optim_args, dtypes, on_cpu=on_cpu),
        *_shard_findings(name, context),
        *_other_gpu_findings(name, switches, context),
    ]


def _master_weight_findings(
    optim_args: FlashArguments, dtypes: tuple[str, ...], *, on_cpu: bool
) -> Iterator[Finding]:
    bits = optim_args.master_weight_bits
    narrow = " and ".join(dtype for dtype in dtypes if dtype in ("bf16", "fp16"))
    lost = f"updates of less than half the spacing of {narrow} weights are lost"
    if bits is None and narrow:
        yield Finding(
            level=Level.NOTE,
            without_traits=frozenset({Trait.COMPENSATED}),
            what=f"with master_weight_bits=None, {lost}",
            fix="keep the weights in fp32, or on a GPU leave master_weight_bits at 24",
        )
    elif bits is not None and not narrow:
        yield Finding(
            level=Level.ADJUST,
            what=f"master_weight_bits={bits} is turned off: fp32 parameters have 32 bits already",
            fix="pass master_weight_bits=None, or convert the model to bf16 to save memory",
            instead={"master_weight_bits": None},
        )
    elif bits is not None and on_cpu:
        yield Finding(
            level=Level.ADJUST,
            what=f"master_weight_bits={bits} is turned off: the parameters are on CPU and it needs "
            f"CUDA; {lost}",
            fix="move the model to a GPU before building, or keep the weights in fp32",
            without_traits=frozenset({Trait.COMPENSATED}),
            instead={"master_weight_bits": None},
        )


def _kernel_findings(
    optim_args: FlashArguments, context: BuildContext, *, on_cpu: bool
) -> Iterator[Finding]:
    if on_cpu:
        yield from _turned_off(
            [key for key in ("quantize", "fused") if getattr(optim_args, key)],
            optim_args,
            "the parameters are on CPU and it needs CUDA",
            "move the model to a GPU before building",
        )
        return
    strided = [
        name for name, parameter in context.named_parameters() if not parameter.is_contiguous()
    ]
    if optim_args.fused and strided:
        yield from _turned_off(
            ["fused"],
            optim_args,
            f"'{strided[0]}' is not contiguous in memory, as flashoptim's kernels need it",
            "make the parameters contiguous (not channels_last) before building",
        )


def _turned_off(
    keys: list[str], optim_args: FlashArguments, why: str, fix: str
) -> Iterator[Finding]:
    """Yield findings that turn switches off: aloud those the user gave, quietly mere defaults."""
    for key in keys:
        asked = key in optim_args.model_fields_set
        yield Finding(
            level=Level.ADJUST if asked else Level.NOTE,
            what=f"{key}=True is turned off: {why}",
            fix=fix,
            instead={key: False},
        )


def _fp16_findings(
    name: str, optim_args: FlashArguments, dtypes: tuple[str, ...], *, on_cpu: bool
) -> Iterator[Finding]:
    """Refuse the fp16 second moments of flashoptim 0.1.4, which underflow to a division by eps."""
    if "adam" in name and "fp16" in dtypes and (on_cpu or not optim_args.quantize):
        yield Finding(
            level=Level.REFUSE,
            what=f"{name} without quantized state does not train fp16 parameters: their second "
            "moment would be fp16 too, and underflow",
            fix="train on a GPU with quantize=True, or in bf16 or fp32",
        )


def _shard_findings(name: str, context: BuildContext) -> Iterator[Finding]:
    """Refuse what flashoptim 0.1.4 trains and then cannot save (`_wrap_state_as_dtensor`)."""
    for parameter_name, parameter in context.named_parameters():
        mesh = getattr(parameter, "device_mesh", None)
        for dimension, placement in enumerate(getattr(parameter, "placements", ())):
            sharded = getattr(placement, "dim", None)
            if mesh and sharded is not None and parameter.shape[sharded] % mesh.size(dimension):
                yield Finding.refuse(
                    UnsupportedError(
                        f"{name} cannot save the state of a parameter of "
                        f"{parameter.shape[sharded]} rows or columns that is sharded over "
                        f"{mesh.size(dimension)} ranks",
                        where=parameter_name,
                        fix="pad it to a multiple of the number of ranks, leave the module out of "
                        "FSDP2's sharding, or use DDP",
                    )
                )


def _other_gpu_findings(
    name: str, switches: Mapping[str, Any], context: BuildContext
) -> Iterator[Finding]:
    """Refuse parameters elsewhere than on the current GPU, where triton launches kernels."""
    if "cuda" not in context.precision.devices or not any(switches.values()):
        return
    import torch

    current = torch.cuda.current_device()
    for _, parameter in context.named_parameters():
        device = parameter.device
        if device.type == "cuda" and device.index != current:
            yield Finding.refuse(
                UnsupportedError(
                    f"{name} runs its kernels on the current GPU, {current}, and the model has "
                    f"parameters on {device}",
                    where="model",
                    fix=f"call torch.cuda.set_device({device.index}) first; for a model on several "
                    "GPUs pass quantize=False, fused=False, master_weight_bits=None",
                )
            )
            return


def _missing_triton(name: str) -> Iterator[Finding]:
    """Refuse a platform without triton, which flashoptim imports and does not require."""
    if importlib.util.find_spec("triton") is None:
        yield Finding.refuse(
            PluginError(
                "flashoptim needs triton, which is not installed",
                where=name,
                fix='on Linux: pip install "triton>=3"; on a platform that has no triton choose '
                "another optimizer, such as adamw_torch",
            )
        )


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: FlashArguments, context: BuildContext
) -> Optimizer | None:
    """Build one of them."""
    if name not in _NAMES:
        return None
    factory = backend.load("hub_flashoptim.factory")
    optimizer: Optimizer = factory.build(name, context.param_groups(), optim_args.model_dump())
    return optimizer

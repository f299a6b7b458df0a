"""What the torchao names are and take. Imports neither torch nor torchao."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import Field

from hub import backend
from hub.arguments import Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.errors import UnsupportedError
from hub.hookspecs import hookimpl
from hub.spec import Finding, Level, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.optim import Optimizer

    from hub.spec import BuildContext


class LowBitArguments(Arguments):
    """What both take."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2
    bf16_stochastic_round: bool = False
    """Round updated bf16 weights up or down at random, so that small updates count on average.
    Draws from torch's global random numbers: resuming exactly needs their state too."""


class AdamW4bitArguments(LowBitArguments):
    """Arguments of `torchao.optim.AdamW4bit`."""

    block_size: int = Field(default=128, gt=0, multiple_of=2)
    """Number of neighbouring elements of the state that share a scale; even, since two of them
    share a byte. Tensors whose size it does not divide keep unquantised state."""


class AdamW8bitArguments(LowBitArguments):
    """Arguments of `torchao.optim.AdamW8bit`."""

    block_size: int = Field(default=256, gt=0)
    """Number of neighbouring elements of the state that share a scale. Tensors whose size it does
    not divide keep unquantised state."""


_QUANTISED_FROM = 4096
"""Elements from which on torchao 0.18 quantises (`optim/adam.py`, `_new_buffer`)."""
# It decides by the local shard what is quantized (pytorch/ao issue 4912). With torch 2.13,
# torch.compile takes the cached kernels of another state for those of DTensors of the same shape.
_WHY_NOT_SHARDED = (
    "which state is quantized would depend on the mesh, and cached kernels of 4-bit and 8-bit "
    "state are taken for each other"
)
_NOTES = (
    "State is quantised for tensors of 4096 elements and more, whose number block_size divides.",
    "All other tensors keep unquantised state in the dtype of the parameter.",
    "fp16 weights are refused: the fp16 state of small tensors underflows, and updates explode.",
    "fp64 weights are refused: torchao computes in fp32.",
    "Compiles a kernel for each shape, dtype and setting of a group: the first step takes long.",
    "Schedules of betas (OneCycleLR without cycle_momentum=False) compile in every step.",
    "Needs a C++ compiler on CPU, triton on CUDA; the build is refused where there is none.",
    "Parameters sharded by FSDP2 are refused: what is quantised would depend on the mesh.",
    '`group["lr"]` is a tensor in fp32; a number written there becomes one at the next step.',
    "With bf16_stochastic_round=True small updates of bf16 weights are not lost.",
    "With it, training in several processes is refused: their weights would drift apart.",
    "With it, exact resuming takes the state of torch's random numbers beside the checkpoint.",
    "amsgrad is left out: torchao 0.18 fails in the first step of a quantised tensor.",
    "CPUOffloadOptimizer is left out: it has neither one state nor groups of its own.",
)


def _spec(name: str, bits: int, arguments: type[LowBitArguments], paper: str) -> OptimizerSpec:
    return OptimizerSpec(
        name=name,
        summary=f"AdamW whose state is quantised to {bits} bits in blocks, by torchao.",
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER, Trait.COMPENSATED}),
        precisions=frozenset({"fp32", "bf16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset({"lr", "weight_decay", "betas", "eps"}),
        state_arguments=frozenset({"block_size"}),
        why_not_sharded=_WHY_NOT_SHARDED,
        without_effect={"bf16_stochastic_round": "shows in bf16 weights only, and at random"},
        package="torchao",
        license="BSD-3-Clause",
        paper=paper,
        homepage="https://github.com/pytorch/ao",
        notes=_NOTES,
    )


SPECS = (
    _spec("adamw_torch_4bit", 4, AdamW4bitArguments, "https://arxiv.org/abs/2309.01507"),
    _spec("adamw_torch_8bit", 8, AdamW8bitArguments, "https://arxiv.org/abs/2110.02861"),
)
_NAMES = frozenset(spec.name for spec in SPECS)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer both."""
    return SPECS


@hookimpl
def hub_validate_precision(
    name: str, optim_args: AdamW4bitArguments | AdamW8bitArguments, context: BuildContext
) -> Iterable[Finding]:
    """Say what rounding at random does here, what is not quantised, and what would fail."""
    if name not in _NAMES:
        return
    yield from _without_compiler(name, context)
    if optim_args.bf16_stochastic_round:
        yield from _rounding(context)
    elif "bf16" in context.precision.dtypes:
        yield Finding(
            level=Level.NOTE,
            what="bf16 weights are rounded to the nearest number",
            fix="bf16_stochastic_round=True keeps small updates of bf16 weights on average",
            without_traits=frozenset({Trait.COMPENSATED}),
        )
    yield from _unquantised(optim_args.block_size, context)


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: LowBitArguments, context: BuildContext
) -> Optimizer | None:
    """Build one of them."""
    if name not in _NAMES:
        return None
    factory = backend.load("hub_torchao.factory")
    optimizer: Optimizer = factory.build(name, context.param_groups(), optim_args.model_dump())
    return optimizer


def _rounding(context: BuildContext) -> Iterator[Finding]:
    """Say where rounding at random has nothing to round, or rounds each replica differently."""
    from torch import distributed

    if "bf16" not in context.precision.dtypes:
        yield Finding(
            level=Level.WARN,
            what="bf16_stochastic_round=True does nothing: no parameter is bf16",
            fix="leave it out, or convert the model to bf16",
        )
        return
    several = distributed.is_available() and distributed.is_initialized()
    if several and distributed.get_world_size() > 1:
        yield Finding(
            level=Level.REFUSE,
            what="bf16_stochastic_round=True draws other numbers in each process, so that the "
            "replicas of a weight drift apart",
            fix="leave it out, and train fp32 weights with precision='bf16-mixed'",
        )


def _unquantised(block_size: int, context: BuildContext) -> Iterator[Finding]:
    """Note the tensors that are large enough to be quantised and are not."""
    sizes = [(name, parameter.numel()) for name, parameter in context.named_parameters()]
    plain = [
        (name, size) for name, size in sizes if size >= _QUANTISED_FROM and size % block_size != 0
    ]
    if plain:
        more = f" and {len(plain) - 1} more" if len(plain) > 1 else ""
        share = sum(size for _, size in plain) / sum(size for _, size in sizes)
        yield Finding(
            level=Level.NOTE,
            what=f"{plain[0][0]}{more}, {share:.0%} of all elements, keep unquantised state: "
            f"block_size={block_size} does not divide their number of elements",
            fix="choose a block_size that does",
        )


def _without_compiler(name: str, context: BuildContext) -> Iterator[Finding]:
    """Refuse what would fail in the first step, which is compiled unless torch was told not to."""
    if os.environ.get("TORCHDYNAMO_DISABLE") != "1":
        compilers = backend.load("hub_torchao.compilers")
        for problem, fix in compilers.problems(context.precision.devices):
            yield Finding.refuse(
                UnsupportedError(
                    f"{name} steps through torch.compile, which {problem}",
                    where=name,
                    fix=f"{fix}set TORCHDYNAMO_DISABLE=1 to step without compiling, in more memory",
                )
            )

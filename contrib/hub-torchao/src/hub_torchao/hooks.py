"""torchao's AdamW in few bits. Imports neither torch nor torchao."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.hookspecs import hookimpl
from hub.spec import Finding, OptimizerSpec, Sharding, Trait
from hub.text import listed
from hub.updates.compiling import refuse_without_compiler
from hub_torchao.arguments import AdamW4bitArguments, AdamW8bitArguments, LowBitArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hub.spec import BuildContext

_QUANTIZED_FROM = 4096
"""torchao 0.18 quantizes tensors from this size on (`optim/adam.py`, `_new_buffer`)."""
# Plain rows, because of DTensors it quantizes by the local shard (pytorch/ao issue 4912), and with
# torch 2.13 torch.compile takes the cached kernels of another state for those of the same shape.
_SHARDING = Sharding(
    kind="rows",
    block="block_size",
    quantized_from=_QUANTIZED_FROM,
    unsplit=frozenset({"qmap"}),
    whole_with="bf16_stochastic_round",
)
_NOTES = (
    "State is quantized for tensors of 4096 elements or more, if block_size divides their size.",
    "All other tensors keep unquantized state in the dtype of the parameter.",
    "fp16 weights are refused: the fp16 state of small tensors underflows, and updates explode.",
    "fp64 weights are refused: torchao computes in fp32.",
    "The first step compiles two kernels for each dtype of weights, which takes seconds for each.",
    "Each other pair of betas has two more: schedules of betas compile in every step.",
    "Needs a C++ compiler on CPU and triton on CUDA, and is refused where they are missing.",
    "`group['lr']` is an fp32 tensor; a number written there becomes one at the next step.",
    "With bf16_stochastic_round=True small updates of bf16 weights are not lost.",
    "It rounds by the parameter's name and step, so torch's seed has no part in it.",
    "amsgrad is left out: torchao 0.18 fails with it in the first step of a quantized tensor.",
    "CPUOffloadOptimizer is left out: it has neither a single state nor parameter groups.",
)


def _spec(name: str, bits: int, arguments: type[LowBitArguments], paper: str) -> OptimizerSpec:
    return OptimizerSpec(
        name=name,
        summary=f"AdamW with {bits}-bit state, by torchao",
        factory=f"hub_torchao.factory:adamw_{bits}bit",
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER, Trait.COMPENSATED}),
        precisions=frozenset({"fp32", "bf16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset({"lr", "weight_decay", "betas", "eps"}),
        state_arguments=frozenset({"block_size"}),
        sharding=_SHARDING,
        without_effect={"bf16_stochastic_round": "shows in bf16 weights only"},
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


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer both."""
    return SPECS


@hookimpl
def hub_validate_precision(
    name: str, optim_args: AdamW4bitArguments | AdamW8bitArguments, context: BuildContext
) -> Iterator[Finding]:
    """Report what stochastic rounding does, what stays unquantized, and what cannot compile."""
    instead = "set TORCHDYNAMO_DISABLE=1 to step without compiling, in more memory"
    yield from refuse_without_compiler(name, context, instead)
    has_bf16 = "bf16" in context.precision.dtypes
    if optim_args.bf16_stochastic_round and not has_bf16:
        yield Finding.warn(
            "bf16_stochastic_round=True does nothing: no parameter is bf16",
            "leave it out, or convert the model to bf16",
        )
    elif has_bf16 and not optim_args.bf16_stochastic_round:
        yield Finding.note(
            "bf16 weights are rounded to the nearest number",
            "bf16_stochastic_round=True keeps small updates of bf16 weights on average",
            without_traits=frozenset({Trait.COMPENSATED}),
        )
    yield from _unquantized(optim_args.block_size, context)


def _unquantized(block_size: int, context: BuildContext) -> Iterator[Finding]:
    """Note the tensors that are large enough to be quantized and are not."""
    sizes = {name: parameter.numel() for name, parameter in context.named_parameters()}
    plain = [name for name, n in sizes.items() if n >= _QUANTIZED_FROM and n % block_size]
    if plain:
        share = sum(sizes[name] for name in plain) / sum(sizes.values())
        yield Finding.note(
            f"{listed(plain, 1)}, {share:.0%} of all elements, keep unquantized state: "
            f"block_size={block_size} does not divide their number of elements",
            "choose a block_size that does",
        )

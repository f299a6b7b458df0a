"""Muon for hidden matrices. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.backend import load_object
from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Trait
from hub_muon import findings
from hub_muon.arguments import MuonArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.optim import Optimizer

    from hub.spec import BuildContext, Finding

MUON = OptimizerSpec(
    name="muon",
    summary="Momentum, orthogonalized, for the matrices of hidden layers",
    arguments=MuonArguments,
    traits=frozenset({Trait.MATRICES_ONLY, Trait.ORTHOGONAL, Trait.PER_PARAMETER}),
    precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset(MuonArguments.model_fields) - {"blocks", "tokens_per_step"},
    target_modules="all-linear",
    example_arguments={"lr": 0.02},
    contrasts={
        "eps": (Contrast(other={"eps": 100.0}),),
        "blocks": (Contrast(other={"blocks": {".*": 1}}),),
    },
    without_effect={"tokens_per_step": "is for a note in the plan"},
    paper="https://kellerjordan.github.io/posts/muon/",
    homepage="https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html",
    notes=(
        "Trains the weights of linear layers but the output head, and stacks of expert matrices.",
        "Each matrix of a stack, and each block of `blocks`, is orthogonalized by itself.",
        "Weights stored as (in, out), as in GPT-2's Conv1D, are taken as (out, in).",
        "Orthogonalizes in bf16, whatever the weights are in.",
        "nesterov=False in bf16 keeps its momentum, which torch's class overwrites (2.13).",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer muon."""
    return (MUON,)


@hookimpl
def hub_build_optimizer(optim_args: MuonArguments, context: BuildContext) -> Optimizer:
    """Build torch's class, or rather hub's subclass of it."""
    arguments = {key: value for key, value in optim_args if key in MUON.per_group}
    build = load_object("hub_muon.factory:Muon")
    optimizer: Optimizer = build(
        context.param_groups(),
        blocks=optim_args.blocks or {},
        transposed=context.transposed,
        **arguments,
    )
    return optimizer


@hookimpl
def hub_validate_precision(optim_args: MuonArguments, context: BuildContext) -> Iterator[Finding]:
    """Report what it cannot train, and rates, models and batches that it does not suit."""
    yield from findings.of_torch()
    planned, problems = findings.of_shapes(optim_args, context)
    yield from problems
    yield from findings.of_rates(optim_args, context, planned)
    yield from findings.of_pretraining(context, planned)
    yield from findings.of_cost(optim_args, planned)

"""What to know about a planned build of `muon`. Does not import torch."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from hub.arguments import closest_names
from hub.backend import load
from hub.errors import HubError, OptimArgsError, TargetModulesError, UnsupportedError
from hub.spec import Finding
from hub.text import listed, shape_text
from hub_muon.matrices import is_matched, matrices_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch.nn import Module

    from hub.spec import BuildContext
    from hub_muon.arguments import MuonArguments

_ADAMW_SIZED = 1e-3
"""AdamW's own default, and above nearly all rates that it is used with. The rates that Muon was
published with are near 0.02 (https://kellerjordan.github.io/posts/muon/)."""
_TOO_SMALL = 0.5
"""The share of AdamW's updates below which such a rate is told."""


class Planned(NamedTuple):
    """A planned weight, its shape as (..., out, in), and its matrices: number, rows, columns."""

    name: str
    shape: tuple[int, ...]
    matrices: tuple[int, int, int]


def of_torch() -> Iterator[Finding]:
    """Refuse a torch that has no Muon."""
    torch = load("torch")
    if not hasattr(torch.optim, "Muon"):
        yield Finding.refuse(
            UnsupportedError(
                f"muon is torch.optim.Muon, which torch {torch.__version__} does not have",
                where="muon",
                fix="install torch 2.9 or newer",
            )
        )


def of_shapes(
    arguments: MuonArguments, context: BuildContext
) -> tuple[list[Planned], list[Finding]]:
    """Return the planned weights, and refusals of what has no matrices."""
    planned, problems = [], []
    blocks = arguments.blocks or {}
    for name, parameter in context.named_parameters():
        shape = tuple(parameter.shape)
        if name in context.transposed:
            shape = (*shape[:-2], shape[-1], shape[-2])
        try:
            _check_no_embedding(name, context)
            planned.append(Planned(name, shape, matrices_of(name, shape, blocks)))
        except HubError as error:
            problems.append(Finding.refuse(error))
    return planned, [*problems, *_unmatched(blocks, [weight.name for weight in planned])]


def _check_no_embedding(name: str, context: BuildContext) -> None:
    if name in context.embeddings:
        raise UnsupportedError(
            f"{name} is the weight of an embedding, whose rows are not outputs of a matrix",
            where=name,
            fix="train it with another optimizer",
        )


def _unmatched(blocks: Iterable[str], names: Sequence[str]) -> Iterator[Finding]:
    if not names:
        yield Finding.refuse(
            TargetModulesError(
                "muon has no matrix to train",
                where="target_modules",
                fix='use target_modules="all-linear", or choose another optimizer',
            )
        )
        return
    for pattern in blocks:
        if not is_matched(pattern, names):
            yield Finding.refuse(
                OptimArgsError(
                    f"{pattern!r} of blocks matches no weight that muon trains",
                    where=f"blocks {pattern!r}",
                    fix=closest_names(pattern, names),
                )
            )


def of_rates(
    arguments: MuonArguments, context: BuildContext, planned: Sequence[Planned]
) -> Iterator[Finding]:
    """Report a rate that suits AdamW, where updates are smaller than AdamW's.

    An orthogonalized matrix has a root mean square of 1 / sqrt(max(rows, columns)), and AdamW's
    updates one of about 0.2 (https://arxiv.org/abs/2502.16982, section 2.2). Below the default of
    `torch.optim.Muon`, which is AdamW's too, it is a warning.
    """
    groups = [(g.overrides, {name for name, _ in g.parameters}) for g in context.groups]
    small = [
        (rate, weight)
        for overrides, names in groups
        if overrides.get("adjust_lr_fn", arguments.adjust_lr_fn) != "match_rms_adamw"
        and 0 < (rate := overrides.get("lr", arguments.lr)) <= _ADAMW_SIZED
        for weight in planned
        if weight.name in names and _like_adamw(rate, weight) < rate * _TOO_SMALL
    ]
    if not small:
        return
    rate, weight = min(small, key=lambda pair: _like_adamw(*pair))
    level = Finding.warn if rate < _ADAMW_SIZED else Finding.note
    yield level(
        f'with adjust_lr_fn="original", lr={rate:g} moves {weight.name} '
        f"({shape_text(weight.shape)}) as AdamW does with lr={_like_adamw(rate, weight):.1g}",
        'adjust_lr_fn="match_rms_adamw" suits rates of AdamW; "original" rates near 0.02',
    )


def _like_adamw(rate: float, weight: Planned) -> float:
    """Return the rate at which AdamW's updates are as large as those of a weight."""
    _, rows, columns = weight.matrices
    return rate * sqrt(max(1.0, rows / columns)) / (0.2 * sqrt(max(rows, columns)))


def of_pretraining(context: BuildContext, planned: Sequence[Planned]) -> Iterator[Finding]:
    """Warn of full fine-tuning; most published weights come from Adam."""
    source = _pretrained_from(context.model)
    full = [weight.name for weight in planned if "lora_" not in weight.name]
    if source and full:
        yield Finding.warn(
            f"muon fine-tunes all of {listed(full, 1)} of {source!r}: a model that Adam pretrained "
            "gets worse by that than by Adam (https://arxiv.org/abs/2605.10468)",
            "train LoRA weights, use adamw_torch, or ignore this if Muon pretrained the model",
        )


def _pretrained_from(model: Module) -> str:
    """Return where a model's weights come from, as Transformers keeps it; "" if from nowhere."""
    configs = (getattr(module, "config", None) for module in model.modules())
    names = (getattr(config, "_name_or_path", None) for config in configs if config is not None)
    return next((name for name in names if name and isinstance(name, str)), "")


def of_cost(arguments: MuonArguments, planned: Sequence[Planned]) -> Iterator[Finding]:
    """Note what Newton-Schulz costs beside the forward and backward passes of the same weights.

    A step of it takes three products: 4·n·m² + 2·m³ operations for m rows and n ≥ m columns. B
    tokens take 6·B·m·n forward and backward. For square matrices of width d and 5 steps that is
    5·d/B, as in https://kellerjordan.github.io/posts/muon/.
    """
    tokens = arguments.tokens_per_step
    if not (tokens and planned):
        return
    orthogonalizing = passing = 0
    for _, _, (count, rows, columns) in planned:
        m, n = sorted((rows, columns))
        orthogonalizing += count * arguments.ns_steps * (4 * n * m**2 + 2 * m**3)
        passing += count * 6 * tokens * m * n
    stacked = any(len(weight.shape) > 2 for weight in planned)  # noqa: PLR2004
    yield Finding.note(
        f"Newton-Schulz adds {orthogonalizing / passing:.1%} to the operations of the forward and "
        f"backward passes through these weights, at {tokens} tokens a step"
        + (", and more as experts see only some of the tokens" if stacked else "")
    )

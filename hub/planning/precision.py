"""Detect a model's precision, and check that an optimizer can train in it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hub.errors import PrecisionError
from hub.measuring import local_part
from hub.spec import MODES, Finding, Precision, Trait, dtype_name
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pydantic import BaseModel

    from hub.groups.split import Named
    from hub.spec import OptimizerSpec


_SPELLINGS = {  # Lightning's `precision` (lightning 2.6, `_PRECISION_INPUT`)
    "32-true": "fp32",
    "bf16-true": "bf16",
    "16-true": "fp16",
    "64-true": "fp64",
    "16-mixed": "fp16-mixed",
}
_FRACTION_BITS = {"bf16": 7, "fp16": 10}
_STALLS = "mostly round to zero"
_TYPICAL_WEIGHT = 0.02
"""Assumed if the values cannot be read: the usual init of language models."""


def detect_precision(trainable: Named, declared: str | None = None) -> Precision:
    """Return the precision of the trainable parameters, and of autocast if declared.

    Args:
        trainable: The parameters to be trained, by name; not empty.
        declared: One of `MODES`, or Lightning's spelling of it; None: the parameters' dtype.

    Raises:
        PrecisionError: `declared` is not a known mode.
    """
    dtypes: Counter[str] = Counter()
    devices: Counter[str] = Counter()
    for (dtype, device), elements in _elements(trainable):
        dtypes[dtype_name(dtype)] += elements
        devices[device.type] += elements
    names = tuple(name for name, _ in dtypes.most_common())
    known = isinstance(declared, str) and _SPELLINGS.get(declared, declared) in MODES
    if declared is not None and not known:
        raise PrecisionError(
            f"precision={shown(declared)} is unknown",
            where="precision",
            fix=f"use one of {', '.join(MODES)}",
        )
    mode = names[0] if declared is None else _SPELLINGS.get(declared, declared)
    return Precision(
        mode=mode,
        dtypes=names,
        devices=tuple(name for name, _ in devices.most_common()),
        grad_scaler=mode == "fp16-mixed",
    )


def rounding_of(arguments: BaseModel) -> str | None:
    """Return how an optimizer with these arguments rounds bf16 and fp16 weights."""
    rounding: str | None = getattr(arguments, "rounding", None)
    return rounding


def stepped_precision(precision: Precision, rounding: str | None) -> Precision:
    """Return the precision that an optimizer steps in: with `rounding`, fp32 for bf16 and fp16."""
    if rounding is None:
        return precision

    def stepped(name: str) -> str:
        return "fp32" if name in _FRACTION_BITS else name

    return replace(
        precision,
        mode=stepped(precision.mode),
        dtypes=tuple(dict.fromkeys(map(stepped, precision.dtypes))),
    )


def precision_findings(
    spec: OptimizerSpec,
    precision: Precision,
    trainable: Named,
    rates: list[float],
    *,
    without_traits: Collection[Trait] = (),
    rounding: str | None = None,
) -> Iterator[Finding]:
    """Yield findings about precision and device that follow from the spec.

    Args:
        spec: The optimizer.
        precision: From `detect_precision`.
        trainable: The parameters, whose magnitudes are sampled.
        rates: The learning rates of all groups.
        without_traits: Traits that it loses with the arguments it is built with.
        rounding: As in `hub.arguments.LowMemory`.
    """
    yield from _unsupported(spec, stepped_precision(precision, rounding))
    expected = MODES.get(precision.mode)
    if expected and precision.dtypes[0] != expected:
        yield Finding.warn(
            f"precision='{precision.mode}' keeps the weights in {expected}, but most "
            f"parameters of this model are {precision.dtypes[0]}",
            f"convert the model, or pass precision='{precision.dtypes[0]}'",
        )
    if rounding is not None:
        yield _rounding(precision, trainable, rounding)
    elif Trait.COMPENSATED not in spec.traits - frozenset(without_traits):
        yield from _stalling(precision, trainable, rates)


def stalls(findings: Iterable[Finding]) -> bool:
    """Whether findings of a plan say that the dtype of the weights rounds updates away."""
    return any(finding.what.endswith(_STALLS) for finding in findings)


def stalls_below(precision: Precision, trainable: Named) -> float | None:
    """Return the learning rate below which bf16 or fp16 weights stall; None for other weights."""
    dtype = _coarse_dtype(precision)
    return None if dtype is None else _spacing(_typical_weight(trainable, dtype), dtype) / 2


def _elements(trainable: Named) -> list[tuple[tuple[torch.dtype, torch.device], int]]:
    counts: Counter[tuple[torch.dtype, torch.device]] = Counter()
    for _, parameter in trainable:
        counts[parameter.dtype, parameter.device] += parameter.numel()
    return counts.most_common()


def _unsupported(spec: OptimizerSpec, precision: Precision) -> Iterator[Finding]:
    for name in sorted({precision.mode, *precision.dtypes} - spec.precisions):
        yield Finding.refuse(
            PrecisionError(
                f"{spec.name} does not train correctly in {name}",
                fix=f"it trains in {', '.join(sorted(spec.precisions))}",
            )
        )
    for device in sorted(set(precision.devices) - spec.devices - {"meta"}):
        yield Finding.refuse(
            PrecisionError(
                f"{spec.name} does not run on {device}",
                fix=f"it runs on {', '.join(sorted(spec.devices))}",
            )
        )


def _rounding(precision: Precision, trainable: Named, rounding: str) -> Finding:
    """Say what `rounding` costs, or that it does nothing."""
    weights = [p.numel() for _, p in trainable if dtype_name(p.dtype) in _FRACTION_BITS]
    if not weights:
        return Finding.warn(
            f"rounding='{rounding}' changes nothing: the parameters are "
            f"{'+'.join(precision.dtypes)}, and it is for bf16 and fp16",
            "leave it out",
        )
    cost = "2 more bytes a weight" if rounding == "split" else "nothing for the weights"
    return Finding.note(
        f"rounding='{rounding}' steps {sum(weights):,} weights as fp32 copies, some at a time: it "
        f"keeps {cost}, and the rest of the state is as large as for fp32 weights"
    )


def _stalling(precision: Precision, trainable: Named, rates: list[float]) -> Iterator[Finding]:
    """Warn if an update of about lr is less than half the spacing of the weights' dtype.

    Measured in pure bf16 with a weight of 1 and lr 1e-3: it never moves.
    """
    dtype = _coarse_dtype(precision)
    if dtype is None or not rates:
        return
    weight = _typical_weight(trainable, dtype)
    spacing = _spacing(weight, dtype)
    rate = max(rates)
    if rate < spacing / 2:
        yield Finding.warn(
            f"{dtype} values near {weight:.2g} are spaced {spacing:.2g} apart; updates of about "
            f"lr={rate:.2g} {_STALLS}",
            "pass rounding='split' or rounding='stochastic', keep the weights in fp32 and train "
            "with precision='bf16-mixed', raise lr, or use an optimizer with compensated updates "
            "(trait 'compensated' in `hub show`)",
        )


def _coarse_dtype(precision: Precision) -> str | None:
    return next((name for name in precision.dtypes if name in _FRACTION_BITS), None)


def _spacing(weight: float, dtype: str) -> float:
    return 2.0 ** (math.floor(math.log2(weight)) - _FRACTION_BITS[dtype])


def _typical_weight(trainable: Named, dtype: str, samples: int = 8, elements: int = 1024) -> float:
    """Return the median magnitude of some elements of the largest weights, or a typical value."""
    weights = [
        parameter
        for _, parameter in trainable
        if parameter.ndim > 1
        and dtype_name(parameter.dtype) == dtype
        and parameter.device.type != "meta"
    ]
    largest = sorted(weights, key=lambda weight: weight.numel(), reverse=True)[:samples]
    parts = [
        # This rank's part of a DTensor: a plan never waits for other ranks.
        local_part(weight.detach())[:4].reshape(-1)[:elements].to("cpu", torch.float32)
        for weight in largest
    ]
    values = torch.cat(parts) if parts else torch.empty(0)
    median = values.abs().median().item() if values.numel() else 0.0
    return median if 0 < median < math.inf else _TYPICAL_WEIGHT

"""How figures and settings are written for people, in the terminal and in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.compare.result import Comparison

UNKNOWN = "–"
"""Written where there is no figure."""


def loss(value: float | None) -> str:
    """Write nats a token."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"  # noqa: PLR2004 - diverged


def change(before: float | None, after: float | None) -> str:
    """Write two losses, as far as there are two."""
    return loss(before) if after is None else f"{loss(before)} → {loss(after)}"


def speed(value: float | None) -> str:
    """Write tokens per second."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def size(value: int | None) -> str:
    """Write bytes in binary units."""
    if value is None:
        return UNKNOWN
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(amount) < 1024:  # noqa: PLR2004 - the step between binary units
            return f"{amount:,.0f} B" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"


def setup(comparison: Comparison) -> dict[str, str]:
    """Write how the comparison was run, as pairs."""
    settings = comparison.settings
    trained = [row for row in comparison.rows if row.device]
    parameters = f", {trained[0].parameters:,} parameters" if trained else ""
    return {
        "model": f"{settings.model or 'small Llama'}{parameters}",
        "data": f"{comparison.data}, byte by byte",
        "batches": f"{settings.steps} steps of {settings.batch_size} sequences "
        f"of {settings.sequence_length} tokens, the same for every optimizer",
        "precision": settings.precision,
        "device": trained[0].device if trained else settings.device,
        "schedule": f"{settings.lr_scheduler}, {settings.warmup_steps} warm-up steps"
        if settings.lr_scheduler
        else "constant learning rate",
        "clipping": f"gradient norm {settings.max_grad_norm:g}"
        if settings.max_grad_norm
        else "none",
        "seed": str(settings.seed),
        "versions": ", ".join(f"{name} {value}" for name, value in comparison.versions.items()),
    }

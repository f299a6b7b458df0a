"""How figures and settings are written for people, in the terminal and in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.text import size_text

if TYPE_CHECKING:
    from hub.compare.result import Comparison

UNKNOWN = "–"
"""Written in place of a missing figure."""


def loss(value: float | None) -> str:
    """Write nats a token."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"  # noqa: PLR2004 - diverged


def speed(value: float | None) -> str:
    """Write tokens per second."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def size(value: int | None) -> str:
    """Write bytes in binary units, in at most eight characters."""
    return UNKNOWN if value is None else size_text(value)


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
        "held-out loss before training": loss(comparison.loss_before),
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

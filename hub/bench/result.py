"""What came out of a measurement: plain frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimizer's figures. None is what was not measured, or does not apply."""

    label: str
    error: str = ""
    """Why it was not measured."""
    parameters: int | None = None
    """How many numbers it trains."""
    tensors: int | None = None
    """In how many tensors."""
    build_seconds: float | None = None
    """Of `hub.build`, with the import of the package behind it."""
    first_ms: float | None = None
    """Of the first step, which makes state, and may compile."""
    ms: float | None = None
    """Of a step: the median, without the first step and without refreshes."""
    host_ms: float | None = None
    """Until `step` returns; on a GPU the device may then still be at work."""
    device_ms: float | None = None
    """Between the first and the last kernel of a step, on a GPU."""
    refresh_ms: float | None = None
    """Of a step that computes projections anew (`update_proj_gap`)."""
    refresh_gap: int | None = None
    """The steps from one such step to the next, in a training with these arguments."""
    slowest_ms: float | None = None
    """Of the slowest step after the first."""
    fused_ms: float | None = None
    """Of torch's fused AdamW on equal tensors, step by step in turn with this one."""
    step_bytes: int | None = None
    """What a step has to read and write: see `hub.bench.measuring.step_bytes`."""
    bandwidth: float | None = None
    """Of the memory, in bytes per second, measured in the same process."""
    state_bytes: int | None = None
    """What is in the state dict."""
    peak_bytes: int | None = None
    """Parameters, gradients, state and what the first two steps took beside them."""

    @property
    def mean_ms(self) -> float | None:
        """Of a step in a long training: refreshes take their share."""
        if self.ms is None or self.refresh_ms is None or self.refresh_gap is None:
            return self.ms
        return self.ms + (self.refresh_ms - self.ms) / self.refresh_gap

    @property
    def ratio(self) -> float | None:
        """`mean_ms`, relative to torch's fused AdamW."""
        return self.mean_ms / self.fused_ms if self.mean_ms and self.fused_ms else None

    @property
    def reached(self) -> float | None:
        """The share of the memory's bandwidth that a step without refresh reaches."""
        if self.ms is None or self.step_bytes is None or self.bandwidth is None:
            return None
        return self.step_bytes / (max(self.ms, 1e-6) / 1000) / self.bandwidth


@dataclass(frozen=True, kw_only=True)
class Report:
    """A measurement of several optimizers."""

    settings: dict[str, Any]
    """As text and numbers, without the contenders."""
    device: str
    date: str
    versions: dict[str, str]
    rows: tuple[Row, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        rows = [
            {**asdict(row), "mean_ms": row.mean_ms, "ratio": row.ratio, "reached": row.reached}
            for row in self.rows
        ]
        return {**asdict(self), "rows": rows}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Return what `to_dict` was called on."""
        derived = ("mean_ms", "ratio", "reached")
        rows = (Row(**{k: v for k, v in row.items() if k not in derived}) for row in data["rows"])
        return cls(**{**data, "rows": tuple(rows)})

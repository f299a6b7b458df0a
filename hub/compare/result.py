"""What came out of a study: plain frozen data, and the JSON that holds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, NamedTuple, TypeVar

from hub.arguments import values

T = TypeVar("T")

SCHEMA = "hub-compare-2"
"""The version of the format. A change that readers of the old one would misread changes it."""
WARM_UP_STEPS = 5
"""Steps at the start that say nothing about speed; at most half of those there are."""


class Status(StrEnum):
    """How one training ended."""

    DONE = "done"
    DIVERGED = "diverged"
    """Its loss stopped being a finite number."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NOT_STARTED = "not started"


class Purpose(StrEnum):
    """What a training is for."""

    TUNING = "tuning"
    """One of the trials that choose a contender's settings."""
    FINAL = "final"
    """One of those that contenders are compared by."""


class Point(NamedTuple):
    """One training step."""

    step: int
    """Counted from 1."""
    loss: float
    """On this step's batch, before the update."""
    seconds: float
    """Forward, backward and update together."""


class Evaluation(NamedTuple):
    """One evaluation on held-out data."""

    step: int
    """How many steps were done; 0 is before training."""
    loss: float
    seconds: float
    """Of training until then."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training that a study asks for."""

    contender: str
    """Its label."""
    task: str
    seed: int
    """Of the weights, and of the order of the data."""
    steps: int
    purpose: Purpose = Purpose.FINAL
    trial: int | None = None
    """Which trial of its contender's tuning, from 0."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What was chosen for it, on top of the contender's own arguments."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one training gave. None is what was not measured."""

    run: Run
    status: Status
    error: str = ""
    """Why it failed, or where it diverged or was interrupted."""
    diverged_at: int | None = None
    """The step whose loss, or after which the held-out loss, was not a finite number."""
    details: str = ""
    """The traceback, or the last lines that its process printed."""
    device: str = ""
    arguments: dict[str, values.Value] = field(default_factory=dict)
    """Every argument of the optimizer, as resolved."""
    changed: tuple[str, ...] = ()
    """Those of them that were set, by the contender, by its tuning or by the precision."""
    parameters: int | None = None
    """How many numbers the model trains."""
    curve: tuple[Point, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    """The first is before training; of a training that is done, the last is after it."""
    host_ms: float | None = None
    """Median time of the optimizer's own step, until the call returned; None where it steps inside
    the backward pass."""
    device_ms: float | None = None
    """The same on the GPU's stream."""
    step_bytes: int | None = None
    """What a step has to read and write, see `hub.experiments.traffic`."""
    bandwidth: float | None = None
    """Of the device's memory, measured beside it, in bytes a second."""
    state_bytes: int | None = None
    """All tensors under "state" in the optimizer's state dict."""
    gradient_bytes: int | None = None
    """All gradients in memory at the same time, at the highest point of a backward pass."""
    peak_memory_bytes: int | None = None
    """Parameters, gradients, optimizer state and activations at the highest point of training."""
    findings: tuple[str, ...] = ()
    """What the plan of the optimizer says to heed."""
    warnings: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """The held-out loss after training, if it is done."""
        return self.evaluations[-1].loss if self.status is Status.DONE else None

    @property
    def step_seconds(self) -> float | None:
        """Median time of the steps after the first few."""
        counted = self.curve[min(WARM_UP_STEPS, len(self.curve) // 2) :]
        return median(point.seconds for point in counted) if counted else None

    @property
    def bandwidth_fraction(self) -> float | None:
        """The part of the memory's bandwidth that the optimizer's own step reaches."""
        ms = self.device_ms or self.host_ms
        if not ms or not self.step_bytes or not self.bandwidth:
            return None
        return self.step_bytes / (ms / 1000) / self.bandwidth

    def reached(self, target: float) -> Evaluation | None:
        """Return the first evaluation after the start with this loss or a lower one."""
        return next((one for one in self.evaluations[1:] if one.loss <= target), None)


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """What is known of a task besides its functions; see `hub.compare.Task`."""

    name: str
    summary: str
    unit: str
    steps: int
    tokens: int | None = None
    target: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All trainings of a study, in the order they were asked for, and what repeats them."""

    schema: str = SCHEMA
    study: dict[str, Any]
    """The settings, as a study's file has them."""
    tasks: tuple[TaskRecord, ...]
    versions: dict[str, str]
    """Of Python and of the distributions that took part."""
    machines: tuple[str, ...]
    """The devices, in words; several after a merge."""
    outcomes: tuple[Outcome, ...]

    @property
    def contenders(self) -> tuple[str, ...]:
        """The labels, in the study's order."""
        return tuple(dict.fromkeys(outcome.run.contender for outcome in self.outcomes))

    @property
    def interrupted(self) -> bool:
        """Whether it was ended before its time."""
        return any(one.status in (Status.INTERRUPTED, Status.NOT_STARTED) for one in self.outcomes)

    def of(
        self, contender: str, task: str, purpose: Purpose = Purpose.FINAL
    ) -> tuple[Outcome, ...]:
        """Return the trainings of one contender on one task."""
        return tuple(
            outcome
            for outcome in self.outcomes
            if (outcome.run.contender, outcome.run.task) == (contender, task)
            and outcome.run.purpose is purpose
        )


def to_json(value: Results | Outcome) -> str:
    """Write results: bytes, seconds and losses as numbers, null for what is unknown.

    Infinities and nan, which JSON has no numbers for, are mappings: `{"float": "inf"}`.
    """
    from pydantic import TypeAdapter

    plain = values.to_json(TypeAdapter(type(value)).dump_python(value))
    return json.dumps(plain, indent=1, allow_nan=False, default=str) + "\n"


def from_json(text: str | bytes, kind: type[T]) -> T:
    """Read what `to_json` wrote of this class.

    Raises:
        ValueError: It is something else.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(values.from_json(json.loads(text)))


def digest(value: object) -> str:
    """Return a short digest of plain data."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

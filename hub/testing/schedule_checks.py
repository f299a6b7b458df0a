"""Checks of learning-rate schedules."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hub.arguments.resolve import resolve_arguments
from hub.building.build import build
from hub.errors import HubWarning
from hub.names.registry import Registry, default_registry
from hub.quiet import no_warnings
from hub.spec import SchedulerSpec
from hub.testing.comparing import through_a_file
from hub.testing.expect import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

WARMUP, TOTAL = 4, 20
PEAKS = (0.1, 0.02)


@dataclass(frozen=True)
class Timetable:
    """A schedule's name; `registry` is where it is looked up."""

    name: str
    registry: Registry = field(default_factory=default_registry, compare=False)
    precision: str = "fp32"
    device: str = "cpu"

    @property
    def spec(self) -> SchedulerSpec:
        """What the schedule says about itself."""
        return self.registry.scheduler(self.name)

    @property
    def has_peaks(self) -> bool:
        """Whether the groups have learning rates that it scales."""
        return self.spec.example_optimizer[0] == SchedulerSpec.example_optimizer[0]

    def start(
        self, peaks: Sequence[float] = PEAKS, warmup: int = WARMUP, *, tensors: bool = False
    ) -> Run:
        """Return a fresh run of groups with these peaks, and the schedule on it."""
        model = torch.nn.Sequential(*(torch.nn.Linear(2, 2, bias=False) for _ in peaks))
        for parameter in model.parameters():
            torch.nn.init.ones_(parameter)
        name, arguments = self.spec.example_optimizer
        own: dict[str, Any] = {"weight_decay": 0.0}
        rules = {str(i): {"lr": peak} if self.has_peaks else own for i, peak in enumerate(peaks)}
        lr: dict[str, Any] = {"lr": PEAKS[0]} if self.has_peaks else {}
        with no_warnings(HubWarning):
            optimizer = build(name, model, param_rules=rules, **lr, **arguments)
        if tensors:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
        return Run(self.spec, model, optimizer, self.schedule(optimizer, warmup))

    def schedule(self, optimizer: Optimizer, warmup: int = WARMUP) -> LRScheduler:
        """Return the schedule of a run of `TOTAL` steps."""
        options = resolve_arguments(
            self.name, self.spec.arguments, hyperparameters=self.spec.example_arguments
        )
        steps = warmup if self.spec.uses_warmup_steps else 0
        return self.spec.build(optimizer, steps, TOTAL, options.model)


@dataclass
class Run:
    """A model that trains under a schedule."""

    spec: SchedulerSpec
    model: torch.nn.Module
    optimizer: Optimizer
    schedule: LRScheduler

    def rates(self) -> list[float]:
        """Return each group's learning rate; one that the step itself computes is None, here 0."""
        return [float(group["lr"] or 0.0) for group in self.optimizer.param_groups]

    def train(self, steps: int, start: int = 0) -> list[list[float]]:
        """Take steps; return the learning rates that each was taken with."""
        used = []
        for step in range(start, start + steps):
            used.append(self.rates())
            for parameter in self.model.parameters():
                parameter.grad = torch.full_like(parameter, 0.1)
            self.optimizer.step()
            # A metric that gets better, and then no longer does.
            metric = [max(1.0, 5.0 - step)] if self.spec.needs_metric else []
            follow: Any = self.schedule.step
            follow(*metric)
        return used


def writes_rates(timetable: Timetable) -> None:
    """What `step` writes to the groups are learning rates, which `get_last_lr` reports.

    Also without a warm-up, and the last one is below the highest where the spec says `decays`.
    """
    for warmup in (0, WARMUP):
        run = timetable.start(warmup=warmup)
        used = [run.train(1, step)[0] for step in range(TOTAL)]
        for step, rates in enumerate([*used, run.rates()]):
            good = all(math.isfinite(rate) and rate >= 0 for rate in rates)
            expect(good, f"after {step} steps, {warmup=}, the learning rates are {rates}")
        told = [float(rate) for rate in run.schedule.get_last_lr()]
        expect(told == run.rates(), f"get_last_lr has {told}, and the groups have {run.rates()}")
        _ends(timetable.spec, [rates[0] for rates in [*used, run.rates()]])


def _ends(spec: SchedulerSpec, rates: list[float]) -> None:
    if spec.needs_metric or not any(rates):
        return
    falls = rates[-1] < max(rates)
    expect(falls == spec.decays, f"decays={spec.decays}, and the learning rates are {rates}")


def warms_up(timetable: Timetable) -> None:
    """The learning rate rises over the steps of the warm-up to its peak, and without one is there.

    Only where the spec says `uses_warmup_steps`.
    """
    if not timetable.spec.uses_warmup_steps:
        return
    rates = [rates[0] for rates in timetable.start().train(TOTAL)]
    top = rates.index(max(rates))
    rising = all(rates[step] < rates[step + 1] for step in range(top))
    ends = WARMUP - 1 <= top <= WARMUP
    expect(rising and ends, f"a warm-up of {WARMUP} steps gives {rates[: WARMUP + 2]}")
    first = timetable.start(warmup=0).rates()[0]
    expect(first > 0, f"without a warm-up the first learning rate is {first}")


def groups(timetable: Timetable) -> None:
    """Each group follows from its own learning rate, whatever the others have."""
    together = timetable.start().train(TOTAL)
    for index, peak in enumerate(PEAKS):
        alone = [rates[0] for rates in timetable.start([peak]).train(TOTAL)]
        found = [rates[index] for rates in together]
        expect(found == alone, f"group {index} has {found}, and by itself {alone}")


def tensor_lr(timetable: Timetable) -> None:
    """A learning rate that is a tensor stays one, and gets what a number would be."""
    if not timetable.has_peaks:
        return
    run = timetable.start(tensors=True)
    numbers = timetable.start().train(TOTAL)
    for step, (found, expected) in enumerate(zip(run.train(TOTAL), numbers, strict=True)):
        pairs = zip(found, expected, strict=True)
        same = all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in pairs)
        expect(same, f"at step {step} tensors are {found} and numbers {expected}")
    kinds = {type(group["lr"]).__name__ for group in run.optimizer.param_groups}
    expect(kinds == {"Tensor"}, f"learning rates that were tensors are {sorted(kinds)}")


def resume(timetable: Timetable) -> None:
    """A run that is saved and loaded continues with the same learning rates.

    In either order, optimizer first or schedule first, from everywhere, with plain data.
    """
    whole = timetable.start()
    expected = whole.train(TOTAL)
    half = timetable.start()
    for step in range(TOTAL - 1):
        half.train(1, step)
        for order in (("optimizer", "schedule"), ("schedule", "optimizer")):
            found = _resumed(timetable, half, order).train(TOTAL - step - 1, step + 1)
            expect(
                found == expected[step + 1 :],
                f"resumed after {step + 1} steps, {order[0]} first, the learning rates are "
                f"{found[:2]} and not {expected[step + 1 : step + 3]}",
            )


def _resumed(timetable: Timetable, half: Run, order: tuple[str, ...]) -> Run:
    fresh = timetable.start()
    for part in order:
        saved = copy.deepcopy(getattr(half, part).state_dict())
        getattr(fresh, part).load_state_dict(through_a_file(saved))
    fresh.model.load_state_dict(half.model.state_dict())
    return fresh


def late_group(timetable: Timetable) -> None:
    """A group that is added to the optimizer later is trained and reported with the others."""
    run = timetable.start()
    run.train(TOTAL // 2)
    late = torch.nn.Parameter(torch.ones(2, 2))
    run.model.register_parameter("late", late)
    run.optimizer.add_param_group({"params": [late]})
    run.train(TOTAL // 2 - 1, TOTAL // 2)
    rates = run.rates()
    good = all(math.isfinite(rate) and rate >= 0 for rate in rates)
    expect(good, f"with a group that joined late the learning rates are {rates}")
    told = len(run.schedule.get_last_lr())
    expect(told == len(rates), f"get_last_lr has {told} learning rates of {len(rates)} groups")


CHECKS = {
    "writes_rates": writes_rates,
    "warms_up": warms_up,
    "groups": groups,
    "tensor_lr": tensor_lr,
    "resume_schedule": resume,
    "late_group_schedule": late_group,
}
"""Name of the check of a schedule, and the check."""

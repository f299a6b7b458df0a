"""Results of studies that never ran, to test what is derived from results."""

import math
import random

from hub.compare.result import (
    Evaluation,
    Outcome,
    Point,
    Purpose,
    Results,
    Run,
    Status,
    TaskRecord,
)

START = 5.5
"""The loss before training."""
ENDED = {
    Status.DIVERGED: "diverged at step {}: the loss is nan",
    Status.FAILED: "RuntimeError: <b>no & way</b>",
    Status.INTERRUPTED: "interrupted at step {}",
    Status.NOT_STARTED: "",
}


def curve(final: float, steps: int, seed: int, seconds: float = 0.05) -> tuple[Point, ...]:
    """Losses that fall to about `final`, with noise."""
    noise = random.Random(f"{final} {seed}")
    return tuple(
        Point(
            step,
            final + (START - final) * math.exp(-5 * step / steps) + noise.uniform(-0.05, 0.05),
            seconds * noise.uniform(0.9, 1.1),
        )
        for step in range(1, steps + 1)
    )


def evaluated(points: tuple[Point, ...], every: int, final: float) -> tuple[Evaluation, ...]:
    """Evaluations before training, every few steps and after it."""
    found, seconds = [Evaluation(0, START, 0.0)], 0.0
    for point in points:
        seconds += point.seconds
        if point.step % every == 0 or point.step == len(points):
            found.append(Evaluation(point.step, point.loss, seconds))
    return (*found[:-1], found[-1]._replace(loss=final))


def outcome(
    contender: str,
    seed: int = 0,
    loss: float = 2.0,
    *,
    task: str = "llama",
    status: Status = Status.DONE,
    steps: int = 40,
    done: int | None = None,
    every: int = 10,
    trial: int | None = None,
    chosen: dict | None = None,
    **figures,
) -> Outcome:
    """One training; `done` steps of it where it did not end well."""
    points = curve(loss, steps, seed)
    if status is not Status.DONE:
        points = points[: 0 if status is Status.NOT_STARTED else done or 3]
    last = len(points)
    if status is Status.DIVERGED:
        points = points[:-1]
    evaluations = evaluated(points, every, loss) if points else ()
    if status is not Status.DONE:
        evaluations = evaluations[:1]
    begun = status is not Status.NOT_STARTED
    measured = {
        "device": "x86_64 CPU, 2 threads",
        "arguments": {"lr": 0.003, "betas": (0.9, 0.999), "weight_decay": 0.0} | (chosen or {}),
        "changed": ("lr", *(chosen or {})),
        "parameters": 1_900_000,
    }
    done_only = {
        "host_ms": 1.25,
        "step_bytes": 28 * 1_900_000,
        "bandwidth": 1e11,
        "state_bytes": 15_200_000,
        "gradient_bytes": 7_600_000,
        "peak_memory_bytes": 120_000_000,
    }
    return Outcome(
        **{
            "run": Run(
                contender=contender,
                task=task,
                seed=seed,
                steps=steps,
                purpose=Purpose.FINAL if trial is None else Purpose.TUNING,
                trial=trial,
                arguments=chosen or {},
            ),
            "status": status,
            "error": "" if status is Status.DONE else ENDED[status].format(last),
            "diverged_at": last if status is Status.DIVERGED else None,
            "details": "Traceback:\n  here" if status is Status.FAILED else "",
            "curve": points,
            "evaluations": evaluations,
            **(measured if begun else {}),
            **(done_only if status is Status.DONE else {}),
            **figures,
        }
    )


def task(name: str = "llama", **changes) -> TaskRecord:
    """A task as results name it."""
    return TaskRecord(
        **{
            "name": name,
            "summary": "a small Llama on the help text of Python, byte by byte",
            "unit": "nats a token",
            "steps": 40,
            "tokens": 1024,
            "fingerprint": "0123456789abcdef",
            **changes,
        }
    )


def results(*outcomes: Outcome, tasks: tuple[TaskRecord, ...] = (), **changes) -> Results:
    """A study of these trainings."""
    names = dict.fromkeys(one.run.contender for one in outcomes)
    return Results(
        **{
            "study": {"contenders": list(names), "tasks": ["llama"], "seeds": 3},
            "tasks": tasks or (task(),),
            "versions": {"python": "3.11.2", "hub": "2026.11", "torch": "2.13.0"},
            "machines": ("x86_64 CPU, 2 threads",),
            "outcomes": outcomes,
            **changes,
        }
    )


def study(losses: dict[str, list[float | Status]], **changes) -> Results:
    """A study by the held-out losses of its seeds; a status stands for a training without one."""
    made = [
        outcome(name, seed, status=one) if isinstance(one, Status) else outcome(name, seed, one)
        for name, seeds in losses.items()
        for seed, one in enumerate(seeds)
    ]
    return results(*made, **changes)

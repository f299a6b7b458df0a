"""The trainings of a study as a table for spreadsheets and data frames."""

from __future__ import annotations

import csv as writer
import io
import json
from typing import TYPE_CHECKING, Any

from hub.arguments.values import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hub.compare.result import Outcome, Results, TaskRecord


def csv(results: Results) -> str:
    """Return a line for each training, in the order they were asked for; what is unknown is empty.

    Arguments are JSON, as in the results file.
    """
    tasks = {task.name: task for task in results.tasks}
    lines = [_line(one, tasks[one.run.task]) for one in results.outcomes]
    file = io.StringIO()
    if lines:
        table = writer.DictWriter(file, list(lines[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    return file.getvalue()


def _line(one: Outcome, task: TaskRecord) -> dict[str, Any]:
    return {
        "contender": one.run.contender,
        "task": one.run.task,
        "purpose": one.run.purpose.value,
        "trial": one.run.trial,
        "seed": one.run.seed,
        "status": one.status.value,
        "held_out_loss": one.loss,
        "unit": task.unit,
        "held_out_loss_before": one.evaluations[0].loss if one.evaluations else None,
        "last_training_loss": one.curve[-1].loss if one.curve else None,
        "steps": one.run.steps,
        "steps_done": len(one.curve),
        "diverged_at_step": one.diverged_at,
        "training_seconds": sum(point.seconds for point in one.curve) if one.curve else None,
        **_target(one, task),
        "step_seconds": one.step_seconds,
        "host_ms": one.host_ms,
        "device_ms": one.device_ms,
        "step_bytes": one.step_bytes,
        "bandwidth": one.bandwidth,
        "bandwidth_fraction": one.bandwidth_fraction,
        "state_bytes": one.state_bytes,
        "gradient_bytes": one.gradient_bytes,
        "peak_memory_bytes": one.peak_memory_bytes,
        "parameters": one.parameters,
        "device": one.device,
        "chosen_arguments": _json(one.run.arguments),
        "arguments": _json(one.arguments),
        "changed": " ".join(one.changed),
        "error": one.error,
    }


def _target(one: Outcome, task: TaskRecord) -> dict[str, Any]:
    found = None if task.target is None else one.reached(task.target)
    return {
        "target": task.target,
        "steps_to_target": found.step if found else None,
        "seconds_to_target": found.seconds if found else None,
        "tokens_to_target": found.step * task.tokens if found and task.tokens else None,
    }


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(to_json(arguments), default=str)

"""Write `docs/schedulers.md` and its pictures from the schedules.

`python docs/generate_schedulers.py` writes all; with `--check` it fails where the text is not what
the code gives now. `tests/docs/test_schedulers_page.py` also checks the rates behind each picture.
"""

import sys

from generating import DOCS, finish

import hub
from hub.arguments.describe import type_name
from hub.cli import drawing
from hub.cli.lr import METRIC, curve
from hub.names.registry import default_registry

PAGE = DOCS / "schedulers.md"
PICTURES = DOCS / "pictures"
STEPS = 1000
WARMUP = 100
# Arguments that show a schedule best, or that it requires.
ARGUMENTS = {
    "cosine_warmup_with_min_lr": ["min_lr_rate=0.1", "warmup_lr_rate=0.3"],
    "cosine_with_min_lr": ["min_lr_rate=0.1"],
    "cosine_with_restarts": ["num_cycles=3"],
    "greedy": ["min_lr=1e-4", "patience=5"],
    "polynomial": ["power=2"],
    "reduce_lr_on_plateau": ["factor=0.5", "patience=50"],
    "warmup_stable_decay": ["num_decay_steps=300"],
}
INTRODUCTION = f"""\
# Learning-rate schedules

<!-- Written by docs/generate_schedulers.py: change that, or the schedules. -->

`hub.build_scheduler(name, optimizer, ...)` builds a schedule by name:

```python
import hub
import torch

model = torch.nn.Linear(8, 8)
optimizer = hub.build("adamw_torch", model, lr=1e-3)
scheduler = hub.build_scheduler(
    "cosine_with_min_lr", optimizer, num_warmup_steps=100, num_training_steps=1000, min_lr_rate=0.1
)
```

"Step" means an optimizer step: with gradient accumulation there are fewer steps than batches. A
schedule's peaks are the learning rates that the optimizer's groups have when it is built, also for
a second schedule. Schedules built before the first one has stepped share its peaks, as
`SequentialLR` needs. To resume, load the schedule's state dict, or pass `last_epoch=N` to continue
after step N with the peaks (`initial_lr`) of the optimizer's loaded state dict.

- The values equal those of `transformers.get_scheduler` (5.23) to the last bit, and either side
  loads the other's state dicts.
- A group that is added later (`optimizer.add_param_group`) starts from its own learning rate.
- A learning rate that is a tensor stays the same tensor and gets the same values, rounded to its
  dtype.
- Metric-driven schedules take the metric in `step()`, after an evaluation: `scheduler.step(loss)`.
  Trainers recognize them as `ReduceLROnPlateau`.
- hub warns of a decaying schedule for ScheduleFree, of two warm-ups at once, of a warm-up that the
  schedule does not have, and of phases of `warmup_stable_decay` that do not add up to the
  training. Adafactor with `relative_step=True` accepts only the schedule `adafactor`.

"steps" marks schedules that require `num_training_steps`, "warm-up" those that use
`num_warmup_steps`, and "metric" those whose `step()` takes a metric. `hub lr NAME` draws a schedule
in the terminal, or into a file with `--out`. The pictures below show {STEPS} steps from a learning
rate of 0.001, with {WARMUP} steps of warm-up if the schedule has one.

| name | | steps | warm-up | metric | arguments |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the text of `docs/schedulers.md`."""
    names = hub.list_schedulers()
    return INTRODUCTION + "".join(map(_row, names)) + "".join(map(_entry, names))


def rates(name: str) -> list[float]:
    """Return the learning rates that a picture shows."""
    arguments = dict(argument.split("=") for argument in ARGUMENTS.get(name, ()))
    return curve(name, arguments, steps=STEPS, warmup=_warmup(name), lr=1e-3)


def numbers(name: str) -> str:
    """Return some of the learning rates in a picture, for its metadata."""
    shown = rates(name)
    return " ".join(f"{rate:.3e}" for rate in shown[:: STEPS // 50])


def command(name: str) -> str:
    """Return the command that draws a picture."""
    warmup = ["--warmup", str(WARMUP)] if _warmup(name) else []
    return " ".join(["hub lr", name, *ARGUMENTS.get(name, ()), *warmup])


def _warmup(name: str) -> int:
    return WARMUP if default_registry().scheduler(name).uses_warmup_steps else 0


def _row(name: str) -> str:
    spec = default_registry().scheduler(name)
    marks = (spec.needs_training_steps, spec.uses_warmup_steps, spec.needs_metric)
    fields = spec.arguments.model_fields
    own = ", ".join(
        f"`{key}`" if field.is_required() else f"`{key}={field.default!r}`"
        for key, field in fields.items()
    )
    cells = " | ".join("yes" if mark else "" for mark in marks)
    return f"| [`{name}`](#{name}) | {spec.summary} | {cells} | {own} |\n"


def _entry(name: str) -> str:
    spec = default_registry().scheduler(name)
    lines = [f"\n## {name}\n", f"{spec.summary}.\n", f"![{name}](pictures/{name}.svg)\n"]
    by_metric = f" (with {METRIC})" if spec.needs_metric else ""
    lines.append(f"`{command(name)}`{by_metric}")
    described = [
        f"- `{key}`, {type_name(field)}: {' '.join((field.description or '').split())}"
        for key, field in spec.arguments.model_fields.items()
    ]
    return "\n".join([*lines, *([""] * bool(described)), *described]) + "\n"


def draw(name: str) -> None:
    """Write a picture, the same bytes for the same matplotlib."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        title = command(name).removeprefix("hub lr ")
        drawing.figure(rates(name), title).savefig(
            PICTURES / f"{name}.svg", metadata={"Date": None, "Description": numbers(name)}
        )


def main() -> int:
    """Write, or check the text; return the exit status."""
    if "--check" not in sys.argv:
        PICTURES.mkdir(exist_ok=True)
        for name in hub.list_schedulers():
            draw(name)
    return int(not finish({PAGE: page()}))


if __name__ == "__main__":
    sys.exit(main())

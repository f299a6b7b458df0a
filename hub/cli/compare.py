"""`hub compare NAME [NAME…]` or `hub compare STUDY.yaml`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.command import complete_optimizer, complete_schedule
from hub.cli.language import in_options
from hub.errors import HubError
from hub.terminal import Terminal

if TYPE_CHECKING:
    from hub.compare.settings import Settings

SEVERAL = {"task": "tasks", "tune_argument": "tune_arguments", "target_modules": "target_modules"}
"""Options that may be given several times, and the settings that they are."""


def compare(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            help="Optimizers, each NAME or NAME:key=value,key=value; or one study.yaml.",
            autocompletion=complete_optimizer,
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="llama, digits, lora, problems, or module:function of your own."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps; by default as the task says.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings that each optimizer is judged by.")] = 1,
    seed: Annotated[
        int, typer.Option(help="First seed, of the weights and of the order of the data.")
    ] = 0,
    tune: Annotated[
        int, typer.Option(help="Trials that choose the settings of each optimizer first.")
    ] = 0,
    tune_argument: Annotated[
        list[str] | None, typer.Option(help="What to tune; by default lr, weight_decay, betas.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="sobol or optuna.")] = "sobol",
    target: Annotated[
        float | None, typer.Option(help="A held-out loss; measures what it takes to reach it.")
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations on held-out data.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences or images per step.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Bytes per sequence.")] = None,
    target_modules: Annotated[
        list[str] | None, typer.Option(help="For low-rank optimizers; by default all-linear.")
    ] = None,
    lr_scheduler: Annotated[
        str | None,
        typer.Option(help="A schedule, as in `hub list`.", autocompletion=complete_schedule),
    ] = None,
    warmup_steps: Annotated[int, typer.Option(help="Steps of warm-up of the schedule.")] = 0,
    max_grad_norm: Annotated[float | None, typer.Option(help="Clip gradients to this.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, bf16-mixed, fp16-mixed.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    data: Annotated[
        Path | None, typer.Option(help="A UTF-8 text; by default Python's own documentation.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a Transformers configuration; by default a small Llama."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at the same time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report, and for the trainings, to go on from there."),
    ] = None,
) -> None:
    """Train the same tasks with each optimizer, and say which is better, if one is."""
    options = {key: value for key, value in locals().items() if key not in ("ctx", "names")}
    given = {key: value for key, value in options.items() if _is_given(ctx, key)}
    settings = _settings(names, {SEVERAL.get(key, key): value for key, value in given.items()})
    from hub.compare import Status, run

    console = Terminal()
    results = run(settings, console, partial(in_options, ctx=ctx))
    if out is not None:
        # Not wrapped: a terminal makes a link of a whole path.
        report = f"the report is {out / 'report.html'}"
        console.print(report, soft_wrap=True)
    if results.interrupted:
        raise typer.Exit(130)
    if any(outcome.status is Status.FAILED for outcome in results.outcomes):
        raise typer.Exit(1)


def _settings(names: list[str], given: dict[str, Any]) -> Settings:
    """Return the settings of a study's file with some changed, or of contenders' names."""
    from hub.compare import study_file

    files = [name for name in names if Path(name).suffix in study_file.SUFFIXES]
    if not files:
        return study_file.settings_of({"contenders": names, **given}, "the command line")
    if len(names) > 1:
        raise HubError(
            "a study names its contenders itself",
            where=files[0],
            fix="hub compare study.yaml, with options at most",
        )
    return study_file.read(Path(files[0]), **given)


def _is_given(ctx: typer.Context, key: str) -> bool:
    source = ctx.get_parameter_source(key)
    return source is not None and source.name == "COMMANDLINE"

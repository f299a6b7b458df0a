"""One real study for all tests, with a plugin whose optimizer fails in every way."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hub.compare import Contender, Results, Settings, run

PLUGIN = """
import os
import signal
from typing import Literal

from hub import OptimizerSpec, hookimpl
from hub.arguments import Arguments


class CrashingArguments(Arguments):
    how: Literal["raise", "kill", "exit"]


@hookimpl
def hub_register_optimizers():
    yield OptimizerSpec(name="crashing", summary="Crashes.", arguments=CrashingArguments)


@hookimpl
def hub_build_optimizer(name, optim_args, target_modules, context):
    import torch

    class Crashing(torch.optim.SGD):
        def step(self, closure=None):
            print("last words", flush=True)
            match optim_args.how:
                case "raise":
                    raise RuntimeError("<b>no & way</b>")
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exit":
                    os._exit(0)

    return Crashing(context.param_groups(), lr=0.1)
"""
SMALL = {"steps": 4, "batch_size": 2, "sequence_length": 32}


@pytest.fixture(scope="session")
def crashing_plugin(tmp_path_factory) -> Path:
    """An installed distribution, as far as this process and those it spawns can tell."""
    folder = tmp_path_factory.mktemp("plugin")
    metadata = folder / "hub_crashing-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hub-crashing\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[hub.optimizers]\ncrashing = hub_crashing\n")
    (folder / "hub_crashing.py").write_text(PLUGIN)
    return folder


@pytest.fixture
def settings(model_folder):
    """Make small settings of one optimizer or more."""

    def make(*contenders: str, **changes) -> Settings:
        parsed = tuple(Contender.parse(text) for text in contenders or ("adamw_torch",))
        return Settings(contenders=parsed, **({**SMALL, "model": model_folder} | changes))

    return make


@pytest.fixture(scope="session")
def study(model_folder, crashing_plugin, tmp_path_factory) -> tuple[Results, str, Path]:
    """A finished study, what it printed, and the folder of its report."""
    names = ("adamw_torch:lr=0.01", "sgd:lr=0.1", "sgd:lr=1e30")
    crashing = ("crashing:how=raise", "crashing:how=kill", "crashing:how=exit")
    out = tmp_path_factory.mktemp("out") / "new" / "report"
    settings = Settings(
        contenders=tuple(Contender.parse(name) for name in (*names, *crashing)),
        **SMALL,
        seeds=2,
        jobs=2,
        model=model_folder,
        max_grad_norm=1.0,
        lr_scheduler="constant_with_warmup",
        warmup_steps=1,
        out=out,
    )
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(crashing_plugin), *sys.path])
        return run(settings, Console(file=printed, width=100)), printed.getvalue(), out

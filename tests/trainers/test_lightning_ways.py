"""Lightning by other ways: manual optimization, LightningCLI, precisions, schedules by a metric."""

import json
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from helpers.lit import ITS_OWN_WARNINGS, Module, by_hand, described, fit
from helpers.problem import (
    BATCH,
    LR,
    STEPS,
    arguments,
    batch,
    difference,
    make_model,
    rows,
    weights_of,
)
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

import hub
from hub.trainers.lightning import Optimizer

pytestmark = [*map(pytest.mark.filterwarnings, ITS_OWN_WARNINGS)]
KINDS = ("adamw_torch", "schedule_free_adamw", "adamw_torch_layerwise", "lomo")


class Manual(Module):
    accumulation = 1

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.automatic_optimization = False

    def training_step(self, samples, index):
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        self.manual_backward(self.model(**samples).loss / self.accumulation)
        if (index + 1) % self.accumulation == 0:
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_manual_optimization(name, accumulation, tmp_path):
    # Lightning counts a step per batch here, having no way to know.
    given = {"gradient_accumulation_steps": accumulation, "num_training_steps": STEPS}
    module = Manual(described(name, **given))
    module.accumulation = accumulation
    fit(module, tmp_path, steps=STEPS * accumulation)
    expected = by_hand(name, accumulation=accumulation)
    assert module.rates == expected.rates
    assert difference(weights_of(module.model), expected.weights) == 0


class Doubtful(Manual):
    """Drops the first gradients."""

    accumulation = 2

    def training_step(self, samples, index):
        if index == 0:
            self.manual_backward(self.model(**samples).loss)
            self.optimizers().zero_grad()
        super().training_step(samples, index)


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
def test_gradients_that_a_user_drops_are_dropped(name, tmp_path):
    trained = []
    for kind in (Doubtful, Manual):
        module = kind(described(name, gradient_accumulation_steps=2, num_training_steps=STEPS))
        module.accumulation = 2
        fit(module, tmp_path, steps=2 * STEPS)
        trained.append(weights_of(module.model))
    assert difference(*trained) == 0


def test_the_wrapper_that_lightning_hands_out_is_seen_through(tmp_path):
    module = fit(Manual(described("adamw_torch_layerwise")), tmp_path)
    optimizer = module.optimizers()
    assert hub.grad_norm(optimizer) > 0
    hub.detach(optimizer)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in module.parameters())


@pytest.mark.parametrize(
    ("theirs", "ours", "name"),
    [
        ("bf16-mixed", "bf16-mixed", "adamw_torch"),
        ("bf16-mixed", "bf16-mixed", "adamw_torch_layerwise"),
        ("bf16-true", "bf16", "adamw_torch"),
        ("bf16-true", "bf16", "stable_adamw"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* rounds to zero:hub.HubWarning")
def test_precision(theirs, ours, name, tmp_path):
    module = Module(described(name))
    fit(module, tmp_path, precision=theirs)
    assert module.trainer.optimizers[0].hub_plan.precision.mode == ours
    expected = by_hand(name, precision=ours)
    assert difference(weights_of(module.model), expected.weights) == 0


@pytest.mark.filterwarnings("ignore:.* rounds to zero:hub.HubWarning")
def test_bf16_weights_under_lightnings_default_precision(tmp_path):
    module = Module(described("stable_adamw"), make_model(torch.bfloat16))
    fit(module, tmp_path)
    expected = by_hand("stable_adamw", precision="bf16")
    assert difference(weights_of(module.model), expected.weights) == 0


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_by_metric_gets_the_validations(name, tmp_path):
    kwargs = {"patience": 0, "factor": 0.5, "threshold": 1.0}
    module = Module(
        described("adamw_torch", schedule=name, schedule_args=kwargs, monitor="val_loss")
    )
    fit(module, tmp_path, max_epochs=6, check_val_every_n_epoch=2, limit_val_batches=1)
    assert len(module.losses) == 3
    parameter = torch.nn.Linear(2, 2)
    optimizer = hub.build("sgd", parameter, lr=LR)
    schedule = hub.build_scheduler(name, optimizer, **kwargs)
    expected = []
    for loss in module.losses:
        expected += [optimizer.param_groups[0]["lr"]] * (2 * STEPS)
        schedule.step(loss)
    assert module.rates == expected
    assert len(set(expected)) > 1


def test_without_a_schedule_the_rate_stays(tmp_path):
    module = fit(Module(described("adamw_torch", schedule=None)), tmp_path)
    assert module.rates == [LR] * STEPS


def test_training_without_an_end_needs_no_number_of_steps(tmp_path):
    class Stops(Module):
        def on_train_batch_end(self, *arguments):
            self.trainer.should_stop = arguments[-1] == 1

    module = Stops(described("adamw_torch", schedule="constant_with_warmup", num_warmup_steps=4))
    fit(module, tmp_path, max_epochs=-1)
    assert module.rates == [0.0, LR / 4]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_grad_norm": 1.0}, r"Trainer\(gradient_clip_val=…\)"),
        ({"precision": "bf16"}, r"Trainer\(precision=…\)"),
        ({"defaults": {"lr": 1e-3}}, "keyword arguments"),
    ],
)
def test_what_the_trainer_says_is_not_said_twice(given, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        Optimizer("adamw_torch", **given)


@pytest.mark.parametrize(
    ("given", "settings", "error"),
    [
        ({"name": "adamw_torc"}, {}, hub.UnknownOptimizerError),
        ({"schedule": "cosin"}, {}, hub.UnknownOptimizerError),
        ({"num_warmup_steps": STEPS + 1}, {}, hub.OptimArgsError),
        ({"learning_rate": 1.0}, {}, hub.OptimArgsError),
    ],
)
def test_bad_input_is_found_before_training(given, settings, error, tmp_path):
    module = Module(Optimizer(**{"name": "adamw_torch", "schedule": "linear", **given}))
    with pytest.raises(error):
        fit(module, tmp_path, **settings)
    assert module.rates == []


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(rows(BATCH * STEPS), batch_size=BATCH, collate_fn=batch)


class Configured(pl.LightningModule):
    """Takes its optimizer from the command line, as Lightning's users write it."""

    def __init__(self, optimizer: Callable[[pl.LightningModule], dict[str, Any]]):
        super().__init__()
        self.model = make_model()
        self.optimizer = optimizer

    def training_step(self, samples):
        return self.model(**samples).loss

    def configure_optimizers(self):
        return self.optimizer(self)


ARGUMENTS = json.dumps(arguments("galore_adamw"))
LINE = [
    "--model.optimizer=hub.trainers.lightning.Optimizer",
    "--model.optimizer.name=galore_adamw",
    f"--model.optimizer.lr={LR}",
    "--model.optimizer.schedule=linear",
    "--model.optimizer.target_modules=all-linear",
    f"--model.optimizer.optim_args={ARGUMENTS}",
]
FILE = f"""
model:
  optimizer:
    class_path: hub.trainers.lightning.Optimizer
    init_args:
      name: galore_adamw
      lr: {LR}
      optim_args: {ARGUMENTS}
      target_modules: all-linear
      schedule: linear
"""


# lightning 2.6 calls what jsonargparse 4.49 has deprecated.
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize("by_file", [False, True], ids=["command line", "YAML"])
def test_lightning_cli(by_file, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    (tmp_path / "given.yaml").write_text(FILE)
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
    }
    args = [f"--config={tmp_path / 'given.yaml'}"] if by_file else LINE
    cli = LightningCLI(
        Configured,
        Data,
        args=["fit", *args],
        trainer_defaults=defaults,
        seed_everything_default=False,
    )
    expected = by_hand("galore_adamw")
    assert difference(weights_of(cli.model.model), expected.weights) == 0

"""What frameworks get from `Class(params, **arguments)` is what `hub.build` gives."""

import lightning.pytorch as pl
import pytest
import torch
from helpers.lit import ITS_OWN_WARNINGS
from helpers.problem import BATCH, LR, batch, difference, make_model, rows, weights_of
from lightning.pytorch.cli import LightningCLI, OptimizerCallable
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import DataLoader
from trainers.frameworks import BY_SHAPE, DECAYED, OWN

import hub

NAMES = ("stable_adamw", "sgd", "adamw_8bit", "stable_adamw_layerwise")
DECAY = 0.1


def trained(model, optimizer, steps=3):
    samples = rows(steps * BATCH)
    for step in range(steps):
        model(**batch(samples[BATCH * step : BATCH * (step + 1)])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights_of(model)


def expected(name, **arguments):
    model = make_model().train()
    return trained(model, hub.build(name, model, lr=LR, **arguments))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("framework", [*BY_SHAPE, *DECAYED, *OWN], ids=lambda f: f.__name__)
def test_equal_to_hub_build(framework, name):
    decay = 0.0 if framework in DECAYED else DECAY
    model = make_model().train()
    optimizer = framework(model, name, {"lr": LR, "weight_decay": decay})
    betas = {"betas": (0.9, 0.95)} if framework.__name__ == "verl" and "adam" in name else {}
    theirs = expected(name, weight_decay=decay, **betas)
    assert difference(trained(model, optimizer), theirs) == 0


@pytest.mark.parametrize("framework", DECAYED, ids=lambda f: f.__name__)
def test_groups_without_weight_decay_decay_as_in_torch(framework):
    mine, theirs = make_model().train(), make_model().train()
    optimizer = framework(mine, "adamw_torch", {"lr": LR, "weight_decay": DECAY})
    torchs = torch.optim.AdamW(theirs.parameters(), lr=LR, weight_decay=DECAY)
    assert difference(trained(mine, optimizer), trained(theirs, torchs)) == 0


@pytest.fixture(autouse=True)
def _no_command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make_model()

    def training_step(self, samples):
        return self.model(**samples).loss

    def train_dataloader(self):
        return DataLoader(rows(3 * BATCH), batch_size=BATCH, collate_fn=batch)


class WithCallable(Module):
    def __init__(self, optimizer: OptimizerCallable):
        super().__init__()
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class WithNames(WithCallable):
    def configure_optimizers(self):
        return self.optimizer(self.named_parameters())


def fit(module, folder, args):
    defaults = {
        "accelerator": "cpu",
        "default_root_dir": str(folder),
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    cli = LightningCLI(
        module,
        args=["fit", *args],
        trainer_defaults=defaults,
        seed_everything_default=False,
    )
    return cli.model


@pytest.mark.filterwarnings(*ITS_OWN_WARNINGS)
# lightning 2.6 calls what jsonargparse 4.49 has deprecated.
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*configure_optimizers. will be overridden")
@pytest.mark.parametrize(
    ("module", "key"),
    [(Module, "optimizer"), (WithCallable, "model.optimizer"), (WithNames, "model.optimizer")],
    ids=["--optimizer", "OptimizerCallable", "names"],
)
def test_lightning_cli(module, key, tmp_path):
    args = [
        f"--{key}=hub.optim.stable_adamw",
        f"--{key}.lr={LR}",
        f"--{key}.weight_decay={DECAY}",
        f"--{key}.betas=[0.8, 0.95]",
    ]
    model = fit(module, tmp_path, args).model
    theirs = expected("stable_adamw", weight_decay=DECAY, betas=(0.8, 0.95))
    assert difference(weights_of(model), theirs) == 0


@pytest.mark.filterwarnings(*ITS_OWN_WARNINGS)
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_lightning_cli_with_a_rest(tmp_path):
    args = ["optimizer=hub.optim.muon", "optimizer.lr=0.02", "optimizer.rest={lr: 0.001}"]
    model = fit(WithNames, tmp_path, [f"--model.{arg}" for arg in args]).model
    theirs = make_model().train()
    trained(theirs, hub.build("muon", theirs, lr=0.02, rest={"lr": 0.001}))
    assert difference(weights_of(model), weights_of(theirs)) == 0


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize("wrong", ["learning_rate=1", "lr=fast", "betas=0.9", "foreach=maybe"])
def test_lightning_cli_checks_the_types(wrong, tmp_path, capsys):
    """Before anything is built: the signature has them."""
    with pytest.raises(SystemExit):
        fit(Module, tmp_path, ["--optimizer=hub.optim.stable_adamw", f"--optimizer.{wrong}"])
    assert wrong.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stable_adamw", "adamw_torch", "sgd"])
def test_skorch(name):
    def problem():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(16, 4)

    model, x = problem()
    net = NeuralNetRegressor(
        model,
        optimizer=getattr(hub.optim, name),
        optimizer__weight_decay=DECAY,
        optimizer__param_groups=[("*bias", {"weight_decay": 0.0})],
        lr=LR,
        max_epochs=3,
        batch_size=16,
        iterator_train__shuffle=False,
        train_split=None,
        verbose=0,
    )
    net.fit(x, x[:, :1])
    model, _ = problem()
    optimizer = hub.build(name, model, lr=LR, weight_decay=DECAY)
    for _ in range(3):
        nn.functional.mse_loss(model(x), x[:, :1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert difference(weights_of(net.module_), weights_of(model)) == 0
    net.set_params(optimizer__weight_decay=0.0, lr=0.5)
    assert net.optimizer_.param_groups[0]["lr"] == 0.5

"""Two optimizers, and a loss of one whose backward pass goes through the parameters of the other.

A generator's loss reaches the discriminator. The eager form drops those gradients with `zero_grad`;
what steps inside the backward pass has used them by then.
"""

import warnings

import lightning.pytorch as pl
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

import hub
from hub.testing.comparing import assert_same

DISCRIMINATORS = ("adamw_torch_layerwise", "lomo")
ROUNDS = 4
every_name = pytest.mark.parametrize("name", DISCRIMINATORS)
every_order = pytest.mark.parametrize("order", ["dg", "gd"])


class Gan:
    """The loop that everybody writes; `name` steps the discriminator."""

    def __init__(self, name, *, eager=False, **arguments):
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
        self.of_g = hub.build("adamw_torch", self.generator, lr=1e-2)
        self.of_d = hub.build(name, self.discriminator, lr=1e-2, **arguments)
        if eager:
            hub.detach(self.of_d)

    def judge(self, points, truth):
        logits = self.discriminator(points)
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))

    def fake(self):
        return self.generator(torch.randn(8, 4))

    def d(self):
        real = torch.randn(8, 2) + 3
        (self.judge(real, 1.0) + self.judge(self.fake().detach(), 0.0)).backward()

    def d_in_two_passes(self):
        self.judge(torch.randn(8, 2) + 3, 1.0).backward()
        self.judge(self.fake().detach(), 0.0).backward()

    def g(self):
        self.judge(self.fake(), 1.0).backward()

    def g_frozen(self):
        self.discriminator.requires_grad_(False)
        self.g()
        self.discriminator.requires_grad_(True)

    def g_of_its_inputs(self):
        self.judge(self.fake(), 1.0).backward(inputs=list(self.generator.parameters()))

    def clear_optimizer(self, optimizer):
        optimizer.zero_grad()

    def clear_model(self, optimizer):
        (self.discriminator if optimizer is self.of_d else self.generator).zero_grad()

    def train(self, order, *, d="d", g="g", clear="clear_optimizer", clears_first=True):
        torch.manual_seed(1)
        turns = {"d": (self.of_d, getattr(self, d)), "g": (self.of_g, getattr(self, g))}
        for _ in range(ROUNDS):
            for turn in order:
                optimizer, backward = turns[turn]
                if clears_first:
                    getattr(self, clear)(optimizer)
                backward()
                optimizer.step()
                if not clears_first:
                    getattr(self, clear)(optimizer)
        return self


def assert_equal(gan, other):
    assert_same(gan.discriminator, other.discriminator)
    assert_same(gan.generator, other.generator)


@every_name
@every_order
@pytest.mark.parametrize("clear", ["clear_optimizer", "clear_model"])
@pytest.mark.parametrize("clears_first", [True, False])
def test_a_generator_that_goes_through_the_discriminator_is_an_error(
    name, order, clear, clears_first
):
    gan = Gan(name)
    with pytest.raises(hub.UnsupportedError, match="already") as raised:
        gan.train(order, clear=clear, clears_first=clears_first)
    assert "loss.backward(inputs=...) or requires_grad_(False)" in raised.value.fix


@every_order
@pytest.mark.parametrize("clears_first", [True, False])
def test_accelerate_which_never_calls_step_of_lomo(order, clears_first):
    gan = Gan("lomo")
    accelerator = Accelerator(cpu=True)
    gan.of_d, gan.of_g = accelerator.prepare(gan.of_d, gan.of_g)
    with pytest.raises(hub.UnsupportedError, match="already"):
        gan.train(order, clears_first=clears_first)


@every_name
@every_order
@pytest.mark.parametrize("way", ["g_frozen", "g_of_its_inputs"])
@pytest.mark.parametrize("clears_first", [True, False])
def test_the_ways_out_equal_the_eager_form(name, order, way, clears_first):
    inside = Gan(name).train(order, g=way, clears_first=clears_first)
    eager = Gan(name, eager=True).train(order, g=way, clears_first=clears_first)
    assert_equal(inside, eager)
    assert_equal(eager, Gan(name, eager=True).train(order))  # as if nothing had been kept out


@every_name
@every_order
def test_a_discriminator_with_two_backward_passes_drops_a_third_one(name, order):
    """The gradients of the generator's loss wait, and `zero_grad` drops them."""
    inside = Gan(name, gradient_accumulation_steps=2)
    with warnings.catch_warnings():
        # LOMO cannot know in the first round that somebody calls `step()`.
        warnings.filterwarnings("ignore", "gradients of 1 of 2 micro-batches", hub.HubWarning)
        inside.train(order, d="d_in_two_passes")
    assert_equal(inside, Gan(name, eager=True).train(order, d="d_in_two_passes"))


class Module(pl.LightningModule):
    """Manual optimization, as Lightning's documentation of GANs has it."""

    automatic_optimization = False

    def __init__(self, gan, order, *, toggles):
        super().__init__()
        self.gan, self.order, self.toggles = gan, order, toggles
        self.generator, self.discriminator = gan.generator, gan.discriminator

    def configure_optimizers(self):
        return self.gan.of_d, self.gan.of_g

    def training_step(self, _):
        of_d, of_g = self.optimizers()
        for turn in self.order:
            optimizer = of_d if turn == "d" else of_g
            if self.toggles:
                self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            if turn == "d":
                real = torch.randn(8, 2) + 3
                loss = self.gan.judge(real, 1.0) + self.gan.judge(self.gan.fake().detach(), 0.0)
            else:
                loss = self.gan.judge(self.gan.fake(), 1.0)
            self.manual_backward(loss)
            optimizer.step()
            if self.toggles:
                self.untoggle_optimizer(optimizer)


def fit(gan, order, folder, *, toggles):
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    torch.manual_seed(1)
    module = Module(gan, order, toggles=toggles)
    trainer.fit(module, DataLoader(torch.zeros(ROUNDS, 1), generator=torch.Generator()))
    return gan


ignores = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)`:FutureWarning",
    "ignore:The '.*_dataloader' does not have many workers",
)


@ignores
@every_name
@every_order
def test_lightning_toggles(name, order, tmp_path):
    inside = fit(Gan(name), order, tmp_path, toggles=True)
    assert_equal(inside, fit(Gan(name, eager=True), order, tmp_path, toggles=True))


@ignores
@every_name
@every_order
def test_lightning_without_toggling_is_an_error(name, order, tmp_path):
    with pytest.raises(hub.UnsupportedError, match="already"):
        fit(Gan(name), order, tmp_path, toggles=False)

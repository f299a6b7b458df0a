"""A generator's loss through a discriminator that steps inside the backward pass, in Lightning."""

import lightning.pytorch as pl
import pytest
import torch
from helpers.gan import ROUNDS, Gan, assert_equal
from helpers.lit import ITS_OWN_WARNINGS, trainer
from torch.utils.data import DataLoader

import hub

pytestmark = [*map(pytest.mark.filterwarnings, ITS_OWN_WARNINGS)]
every_name = pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
every_order = pytest.mark.parametrize("order", ["dg", "gd"])


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
    torch.manual_seed(1)
    module = Module(gan, order, toggles=toggles)
    data = DataLoader(torch.zeros(ROUNDS, 1), generator=torch.Generator())
    trainer(folder).fit(module, data)
    return gan


@every_name
@every_order
def test_lightning_toggles(name, order, tmp_path):
    inside = fit(Gan(name), order, tmp_path, toggles=True)
    assert_equal(inside, fit(Gan(name, eager=True), order, tmp_path, toggles=True))


@every_name
@every_order
def test_lightning_without_toggling_is_an_error(name, order, tmp_path):
    with pytest.raises(hub.UnsupportedError, match="already"):
        fit(Gan(name), order, tmp_path, toggles=False)

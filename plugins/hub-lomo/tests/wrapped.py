"""`lomo` and `adalomo`, and lomo_optim's classes, which run on a CPU once `.cuda()` is out."""

import lomo_optim
import pytest
import torch
from torch import nn

import hub

THEIRS = {"lomo": lomo_optim.Lomo, "adalomo": lomo_optim.AdaLomo}
LR = 0.05
every_name = pytest.mark.parametrize("name", THEIRS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
bf16_weights = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


def matrices(dtype=torch.float32):
    """Return a model whose every parameter hub decays, as upstream does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.Linear(32, 8, bias=False))
    return model.to(dtype)


def rate(step):
    return LR * (1 - step / 20)


def build(name, model, **arguments):
    return hub.build(name, model, **{"lr": LR, **arguments})

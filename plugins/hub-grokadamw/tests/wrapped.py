"""`grokadamw` and grokadamw's class."""

import warnings

import grokadamw
import pytest
import torch

from hub.testing.upstream import Wrapped


class Quiet(grokadamw.GrokAdamW):
    """Upstream's class, but for the warnings of its step on a CPU."""

    def step(self, closure=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().step(closure)


OWN = {
    "lr": 0.01,
    "betas": (0.8, 0.95),
    "eps": 1e-7,
    "weight_decay": 0.1,
    "alpha_init": 0.9,
    "lamb": 1.7,
    "gamma": 0.2,
    "grokking_signal_decay_rate": 0.3,
    "gradient_clipping": 0.5,
}
WRAPPED = Wrapped("grokadamw", grokadamw.GrokAdamW, OWN, make=Quiet)
build, by_hand = WRAPPED.build, WRAPPED.by_hand
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

"""The optimizers of this plugin keep hub's promises."""

import pytest
import torch

from hub.testing import conformance

PLUGIN = "hub_lomo.hooks"

test_conformance = conformance(plugin=PLUGIN)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
class TestOnCuda:
    """The same on a GPU."""

    test_conformance = staticmethod(conformance(plugin=PLUGIN, device="cuda"))

"""The optimizers of this plugin keep hub's promises."""

import pytest
import torch

from hub.testing import conformance

PLUGIN = "hub_flashoptim.hooks"

test_conformance = conformance(plugin=PLUGIN)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
class TestOnCuda:
    """The same where quantized state and the kernels are."""

    test_conformance = staticmethod(conformance(plugin=PLUGIN, device="cuda"))

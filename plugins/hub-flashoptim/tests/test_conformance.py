"""The optimizers of this plugin keep hub's promises."""

from importlib.metadata import entry_points

import pytest
import torch

from hub.testing import conformance

NAMES = sorted(
    p.name for p in entry_points(group="hub.optimizers") if p.module == "hub_flashoptim.hooks"
)

test_conformance = conformance(*NAMES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
class TestOnCuda:
    """The same where quantized state and the kernels are."""

    test_conformance = staticmethod(conformance(*NAMES, device="cuda"))

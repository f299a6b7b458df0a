"""`lomo` and `adalomo` keep hub's promises."""

import pytest
import torch

from hub.testing import conformance

NAMES = "lomo", "adalomo"

test_conformance = conformance(*NAMES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
class TestOnCuda:
    """The same on a GPU."""

    test_conformance = staticmethod(conformance(*NAMES, device="cuda"))

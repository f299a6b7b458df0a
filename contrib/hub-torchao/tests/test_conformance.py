"""The optimizers of this plugin keep hub's promises.

torch.compile is switched off, here and in the fresh process that the kit resumes in: compiling
every shape of the kit's model takes minutes. Compiled steps are in `test_torchao.py`.
"""

from multiprocessing import forkserver

import pytest

from hub.testing import conformance


@pytest.fixture(autouse=True, scope="module")
def _eager():
    """Have the kit's processes start in this environment, and others not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        forkserver._forkserver._stop()
        yield
        forkserver._forkserver._stop()


test_conformance = conformance(plugin="hub_torchao.hooks")

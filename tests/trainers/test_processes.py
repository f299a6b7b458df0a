"""Trainers in two processes on CPU, as far as they go there."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from helpers.problem import difference, make_model, weights_of
from helpers.sft import config, sft
from helpers.trainer import by_name
from trl import SFTConfig

from .ranks import FEW, RANKS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with what two ranks have left, after their own checks."""
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*torchrun, "--nproc-per-node", str(RANKS), HERE / "ranks.py", folder],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        check=True,
        timeout=300,
    )
    return folder


@pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", FEW)
def test_sft_equals_one_process_that_accumulates(name, trained, tmp_path):
    given = config(SFTConfig, name, tmp_path, gradient_accumulation_steps=RANKS)
    model = make_model()
    sft(model, given, optimizer_cls_and_kwargs=by_name(name)).train()
    assert difference(weights_of(model), torch.load(trained / f"{name}.pt")) == 0


def test_lightning_has_no_fsdp_on_cpu():
    """When this fails, `ranks.check_lightning` can take this strategy too."""
    with pytest.raises(ValueError, match="requires a GPU accelerator"):
        pl.Trainer(strategy="fsdp", accelerator="cpu", devices=2)


def test_accelerate_has_no_fsdp_on_cpu():
    """When this fails, `ranks.prepared` can call `prepare`."""
    try:
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
        accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
        assert accelerator.distributed_type is not DistributedType.FSDP
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

"""Stepping in the backward pass in several processes: equal to one process, to the last bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("layerwise_ranks.py")
ENVIRONMENT = os.environ | {"TORCHDYNAMO_DISABLE": "1"}  # torchao compiles its step


def run(ranks, store, *cases):
    """Run cases on so many ranks, in one process each; all have to end well."""
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(ranks), store, *cases], env=ENVIRONMENT
        )
        for rank in range(ranks)
    ]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_name_under_ddp(ranks, tmp_path):
    run(ranks, tmp_path / "store", "every_name", "without_ddp")

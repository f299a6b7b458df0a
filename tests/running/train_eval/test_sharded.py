"""Evaluation weights of a model that FSDP2 shards, in two processes."""

import subprocess
import sys
from pathlib import Path


def test_a_sharded_model_evaluates_and_trains_as_one_process_does(tmp_path):
    script = Path(__file__).with_name("sharded.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "store"])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]

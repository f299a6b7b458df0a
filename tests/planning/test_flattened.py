"""Parameters that FSDP1 flattens, in two processes."""

import subprocess
import sys
from pathlib import Path


def test_flat_pieces_train_as_whole_parameters_or_are_refused(tmp_path):
    script = Path(__file__).with_name("flattened.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "store"])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]

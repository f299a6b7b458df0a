"""Stepping in the backward pass in several processes: equal to one process, to the last bit.

test_matrix.py has every name; these are the ways to train.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("layerwise_ranks.py")


def run(ranks, store, *cases):
    """Run cases on so many ranks, in one process each; all have to end well."""
    command = [sys.executable, SCRIPT, str(ranks), store, *cases]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        assert process.wait(timeout=240) == 0
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)


CASES = {
    "DDP": (2, "without_ddp", "every_way_to_wrap", "compiled", "detached", "memory"),
    "other models": (2, "sparse_gradients", "late_groups", "wrapped_before", "joined", "flattened"),
    "accumulation": (2, "accumulated", "accumulated_to_an_incomplete_end"),
    "clipping": (2, "clipped", "clipped_otherwise"),
    "nothing calls step": (2, "without_step", "saved_on_rank_0"),
    "ranks that differ": (2, "other_order", "failed_updates", "one_rank_interrupted"),
    "three ranks": (3, "some_names", "sharded"),
    "FSDP2": (
        2,
        "sharded",
        "sharded_accumulation",
        "sharded_clipping",
        "sharded_failure",
        "replaced",
    ),
    "HSDP": (4, "sharded", "sharded_clipping"),
}


@pytest.mark.parametrize(("ranks", "cases"), [(n, c) for n, *c in CASES.values()], ids=CASES)
def test_ranks_train_as_one_process_does(ranks, cases, tmp_path):
    run(ranks, tmp_path / "store", *cases)

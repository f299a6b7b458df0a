"""What goes wrong on one rank reaches all, and costs no more than the steps since a checkpoint."""

import time

import pytest
import torch
from helpers import in_ranks

from hub.testing import Subject
from hub.testing.process_checks import TRAINED, average_of, compare
from hub.testing.process_resumes import Route, resume_alone, resume_together
from hub.testing.process_runs import Setting
from hub.testing.rank_process import Failure
from hub.testing.ranks import Ranks, shared_ranks
from hub.testing.strategies import Strategy

AT_ONCE = 1.0
GROUP_TIMEOUT = 3.0


@pytest.mark.parametrize("name", ["galore_adamw", "galore_adafactor", "galore_adamw_8bit"])
def test_an_update_that_fails_on_its_owner_fails_on_all_ranks(name, tmp_path):
    found = shared_ranks(2).call(
        in_ranks.fail_in_an_owner, Setting.of(Subject(name)), tmp_path / "checkpoint"
    )
    errors, seconds, moved, after, resumed = zip(*found, strict=True)
    assert errors[0] == errors[1]
    assert errors[0][0] == "HubError"
    assert "non-finite" in errors[0][1]
    assert max(seconds) < AT_ONCE
    assert not any(moved)
    for weights in (after[1], *resumed):
        assert all(map(torch.equal, after[0], weights))


@pytest.mark.parametrize(
    ("how", "told"),
    [(in_ranks.die_on, "ProcessError"), (in_ranks.hang_on, "TimeoutError")],
    ids=["killed", "hanging"],
)
def test_a_lost_rank_ends_the_others_and_the_run_resumes(how, told, tmp_path):
    subject = Subject("adafactor", processes=2)
    setting, folder = Setting.of(subject), tmp_path / "checkpoint"
    ranks = Ranks(2, group_timeout=GROUP_TIMEOUT)
    ranks.call(in_ranks.rank)
    start = time.monotonic()
    lost = ranks.call(in_ranks.save_and_lose_a_rank, setting, folder, how)
    assert all(isinstance(failure, Failure) for failure in lost)
    assert lost[0].error not in ("TimeoutError", "ProcessError"), lost[0]
    assert lost[1].error == told
    assert time.monotonic() - start < 10 * GROUP_TIMEOUT
    last = (folder, Route.DISK)
    again = ranks.call(resume_together, setting, TRAINED, Strategy.FSDP2, *last)
    compare(subject, TRAINED, Strategy.FSDP2, again)
    average = average_of(subject, Strategy.FSDP2)
    one = shared_ranks(1).call(resume_alone, setting, TRAINED, average, *last)
    compare(subject, TRAINED, Strategy.FSDP2, one)
    ranks.close()

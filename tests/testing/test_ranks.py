"""Functions run in several processes, and one that goes wrong costs no other."""

import pytest
from helpers import in_ranks

import hub
from hub.testing import ranks as ranks_module
from hub.testing.ranks import Ranks

REFUSAL = hub.UnsupportedError("no", fix="another")


@pytest.fixture(scope="module")
def ranks():
    two = Ranks(2)
    yield two
    two.close()


def test_ranks_form_a_group(ranks):
    assert ranks.call(in_ranks.rank) == [0, 1]
    assert ranks.call(in_ranks.sum_of_ranks) == [1, 1]


def test_one_rank_has_no_group():
    one = Ranks(1)
    assert one.call(in_ranks.rank) == [None]
    one.close()


@pytest.mark.parametrize(
    ("function", "arguments", "error", "says"),
    [
        (in_ranks.fail_on, (1, ValueError("broken")), "ValueError", "broken"),
        (in_ranks.fail_on, (1, REFUSAL), "UnsupportedError", "no"),
        (in_ranks.hang_on, (1,), "TimeoutError", "does not finish"),
        (in_ranks.die_on, (1,), "ProcessError", "exit code -9"),
    ],
    ids=["fails", "refuses alone", "hangs", "dies"],
)
def test_a_call_that_goes_wrong_is_told_and_costs_no_other(
    function, arguments, error, says, ranks, monkeypatch
):
    monkeypatch.setattr(ranks_module, "GRACE", 1.0)
    failure = ranks.call(function, *arguments, timeout=5)[1]
    assert failure.error == error
    assert says in str(failure)
    assert ranks.call(in_ranks.sum_of_ranks) == [1, 1]


def test_processes_that_refuse_together_stay(ranks):
    ranks.call(in_ranks.rank)
    before = [rank.process.pid for rank in ranks._ranks]
    found = ranks.call(in_ranks.fail, REFUSAL)
    assert [failure.is_refusal for failure in found] == [True, True]
    assert [rank.process.pid for rank in ranks._ranks] == before

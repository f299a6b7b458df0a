"""What is said of contenders: each sentence is recomputed from the losses, with SciPy itself."""

import re
from dataclasses import replace
from itertools import combinations

import pytest
from helpers import studies
from helpers.true_claims import check_claims
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.compare import formatting
from hub.compare.claims import claims, pairs
from hub.compare.result import Results, Status, from_json, to_json

DIVERGED, FAILED, NOT_STARTED = Status.DIVERGED, Status.FAILED, Status.NOT_STARTED


def said(results: Results) -> list[str]:
    return [claim.sentence() for claim in claims(results, results.tasks[0])]


def test_a_clear_difference_is_said_with_its_evidence():
    results = studies.study({"A": [2.142, 2.151, 2.136], "B": [2.199, 2.211, 2.193]})
    assert said(results) == [
        "A is better than B: 2.143 against 2.201 nats a token, p < 0.001 (3 seeds)."
    ]
    check_claims(results)


def test_noise_is_called_noise():
    results = studies.study({"A": [2.1, 2.3, 2.2], "B": [2.2, 2.1, 2.35]})
    assert said(results) == ["A and B cannot be told apart (p = 0.89)."]
    check_claims(results)


def test_identical_losses_cannot_be_told_apart():
    results = studies.study({"A": [2.1, 2.3], "B": [2.1, 2.3]})
    assert said(results) == ["A and B cannot be told apart (p = 1)."]


@pytest.mark.parametrize(
    ("losses", "sentences"),
    [
        ({"A": [2.0], "B": [3.0]}, ["One seed: no contender can be called better."]),
        (
            {"A": [2.0, 2.1], "B": [DIVERGED, 2.0]},
            [
                "Only A was trained to the end: nothing compares with it.",
                "B diverged in 1 of 2 seeds.",
            ],
        ),
        (
            {"A": [FAILED], "B": [DIVERGED]},
            [
                "No contender was trained to the end with every seed.",
                "A failed.",
                "B diverged.",
            ],
        ),
        (
            {"A": [2.0, 2.1, 2.2], "B": [3.0, 3.11, NOT_STARTED], "C": [2.5, *2 * [NOT_STARTED]]},
            [
                "A is better than B: 2.050 against 3.055 nats a token, p = 0.0032 (2 seeds).",
                "B was not started in 1 of 3 seeds.",
                "C was not started in 2 of 3 seeds.",
            ],
        ),
        (
            {"A": [2.0, 2.1, *2 * [NOT_STARTED]], "B": [*2 * [NOT_STARTED], 2.0, 2.1]},
            [
                "No two seeds are done by two contenders: none can be called better.",
                "A was not started in 2 of 4 seeds.",
                "B was not started in 2 of 4 seeds.",
            ],
        ),
    ],
)
def test_what_cannot_be_said(losses, sentences):
    assert said(studies.study(losses)) == sentences


def test_a_contender_without_one_good_trial_is_named():
    trials = [studies.outcome("B", 9, trial=n, status=DIVERGED) for n in range(4)]
    results = studies.results(studies.outcome("A"), *trials)
    assert said(results) == [
        "Only A was trained to the end: nothing compares with it.",
        "B diverged in 4 of 4 trials.",
    ]


def test_a_lucky_seed_is_not_a_mean():
    """C's one good seed is lower than every loss of the others."""
    results = studies.study(
        {"A": [2.0, 2.1, 2.2], "B": [2.5, 2.61, 2.7], "C": [1.0, DIVERGED, DIVERGED]}
    )
    first, trouble = said(results)
    assert first.startswith("A is better than B")
    assert trouble == "C diverged in 2 of 3 seeds."
    assert all("C" not in (claim.winner, claim.loser) for claim in pairs(results, results.tasks[0]))


def test_many_contenders_are_compared_with_the_lowest():
    results = studies.study(
        {
            "A": [2.00, 2.10, 2.20],
            "B": [2.01, 2.09, 2.22],
            "C": [2.50, 2.601, 2.7],
            "D": [2.60, 2.702, 2.8],
        }
    )
    (sentence,) = said(results)
    assert sentence == (
        "A has the lowest mean: 2.100 nats a token (3 seeds). It cannot be told from B "
        "(p = 0.53). It is better than C and D (p < 0.001)."
    )
    check_claims(results)


def test_nothing_but_noise_among_many():
    results = studies.study(
        {name: [2.0, 2.1 + n / 99, 2.2 - n / 99] for n, name in enumerate("ABCD")}
    )
    assert said(results) == [
        "A has the lowest mean: 2.100 nats a token (3 seeds). "
        "It cannot be told from any other contender (every p = 1)."
    ]


def test_a_long_list_is_counted():
    results = studies.study({f"C{n}": [2.0 + n, 2.1 + n, 2.2 + 1.001 * n] for n in range(12)})
    (sentence,) = said(results)
    assert "better than 11 others (p" in sentence


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(*[st.floats(1, 3).map(lambda loss: round(loss, 3))] * 3), min_size=2, max_size=6
    )
)
def test_claims_follow_from_the_losses(losses):
    rounded = {
        f"C{n}": [round(one + n * 1e-7, 9) for one in seeds] for n, seeds in enumerate(losses)
    }
    results = studies.study({**rounded, "out": [1.0, DIVERGED, 1.0]})
    for first, second in combinations(rounded.values(), 2):
        differences = {round(a - b, 6) for a, b in zip(first, second, strict=True)}
        if len(differences) == 1:  # SciPy warns where the differences are all the same
            return
    check_claims(results)
    stored = from_json(to_json(results), Results)
    assert said(stored) == said(results)


@given(st.floats(0, 1))
def test_a_written_p_is_on_its_side_of_the_level(p):
    number = float(re.fullmatch(r"p [=<] ([\d.e-]+)", formatting.p(p, 0.05)).group(1))
    assert (number < 0.05) == (p < 0.05)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0, "p < 0.001"),
        (0.0031, "p = 0.0031"),
        (0.0499, "p = 0.0499"),
        (0.0502, "p = 0.05"),
        (1, "p = 1"),
    ],
)
def test_p_values_are_short(p, text):
    assert formatting.p(p, 0.05) == text


@pytest.mark.parametrize(
    "change",
    [
        {"p": 0.2},
        {"winner": "B", "loser": "A"},
        {"winner_loss": 2.15},
        {"seeds": 2},
        {"winner": "C"},
    ],
)
def test_false_claims_are_found(monkeypatch, change):
    results = studies.study({"A": [2.142, 2.151, 2.136], "B": [2.199, 2.211, 2.193]})
    (claim,) = pairs(results, results.tasks[0])
    check_claims(results)
    monkeypatch.setattr("hub.compare.claims.pairs", lambda *_: (replace(claim, **change),))
    with pytest.raises(AssertionError):
        check_claims(results)

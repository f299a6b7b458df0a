"""How the GaLore names find and spread their projections, beside upstream's way."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import continues, gradients, train
from hub.updates.low_rank import is_due, leading_directions, singular_bases, sketched_directions

from .wrapped import WRAPPED, both_dtypes, build, every_name, every_projection, make_model

pytestmark = pytest.mark.filterwarnings("ignore:.*(bf16|fp16):hub.HubWarning")

WAYS = [
    {"projection": "randomized"},
    {"refresh": "staggered", "update_proj_gap": 10},
    {"projection": "randomized", "refresh": "staggered", "update_proj_gap": 10},
]
every_way = pytest.mark.parametrize("way", WAYS, ids=["randomized", "staggered", "both"])
BOTH = WAYS[-1]


def decaying(rows, columns, seed=0):
    """A matrix whose singular values fall as 1/k."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(side, rows, generator=generator)).Q for side in (rows, columns)
    )
    return left / torch.arange(1, rows + 1) @ right.mT


def energy(basis, matrix):
    return (basis.mT @ matrix).square().sum().item()


@pytest.mark.parametrize("rank", [1, 16, 64, 128])
def test_a_randomized_basis_keeps_the_energy_of_the_truncated_svd(rank):
    matrix = decaying(128, 512)
    best = energy(singular_bases(matrix[None], rank, "left")[0], matrix)
    basis = leading_directions(matrix, rank, seed=1)
    again = leading_directions(decaying(128, 512, seed=2), rank, seed=2, last=basis)
    assert energy(basis, matrix) >= 0.999 * best
    for last in (basis, again):
        found = leading_directions(matrix, rank, seed=3, last=last)
        assert energy(found, matrix) >= 0.999 * best
    unit = torch.eye(rank)
    torch.testing.assert_close(basis.mT @ basis, unit, atol=1e-5, rtol=0)
    sketch = sketched_directions(matrix, rank, seed=1)
    torch.testing.assert_close(sketch.mT @ sketch, unit, atol=1e-5, rtol=0)
    assert energy(sketch, matrix) >= 0.99 * rank / 128 * matrix.square().sum()  # a random basis'


def test_directions_come_in_the_order_of_their_singular_values():
    matrix = torch.diag(torch.tensor([1.0, 8.0, 2.0, 4.0]))
    basis = leading_directions(matrix, 3, seed=0).abs()
    torch.testing.assert_close(basis.argmax(0), torch.tensor([1, 3, 2]))


@pytest.mark.parametrize("find", [leading_directions, sketched_directions])
@pytest.mark.parametrize(
    "matrix",
    [
        torch.zeros(6, 9),
        torch.ones(6, 9),
        1e30 * decaying(6, 9),
        1e-30 * decaying(6, 9),
        torch.full((6, 9), torch.nan),
        torch.full((6, 9), torch.inf),
    ],
    ids=["zeros", "rank 1", "huge", "tiny", "nan", "inf"],
)
def test_no_matrix_stops_it(find, matrix):
    for last in (None, torch.linalg.qr(decaying(6, 9)).Q[:, :3]):
        basis = find(matrix, 3, seed=0, last=last)
        torch.testing.assert_close(basis.mT @ basis, torch.eye(3), atol=1e-5, rtol=0)
        if last is not None and not matrix.isfinite().all():
            assert torch.equal(basis, last)


@every_way
@both_dtypes
@every_projection
def test_it_resumes_exactly_between_refreshes(proj_type, dtype, way):
    make = WRAPPED["galore_adamw"].build
    continues(make, make, model=partial(make_model, dtype), proj_type=proj_type, **way)


@every_way
@pytest.mark.parametrize("name", ["galore_adafactor", "galore_adamw_8bit"])
def test_the_others_resume_exactly_too(name, way):
    continues(*[WRAPPED[name].build] * 2, model=make_model, **way)


@every_way
@every_name
def test_the_layerwise_form_takes_the_same_bases(name, way):
    models = make_model(), make_model()
    whole, layerwise = (
        hub.build(each, model, **WRAPPED[name].arguments | way, target_modules=["0", "2"])
        for each, model in zip((name, f"{name}_layerwise"), models, strict=True)
    )
    for model, optimizer in zip(models, (whole, layerwise), strict=True):
        train(model, optimizer, range(12))
    assert_same(*models)


@every_name
def test_a_gradient_that_is_not_finite_keeps_the_last_basis(name):
    model = make_model()
    optimizer = build(name, model, projection="randomized", update_proj_gap=1)
    train(model, optimizer, range(2))
    before = optimizer.state[model[0].weight]["projector"].clone()
    gradients(model, 2)
    model[0].weight.grad[0, 0] = torch.nan
    optimizer.step()
    assert torch.equal(optimizer.state[model[0].weight]["projector"], before)
    assert not model[0].weight.isfinite().all()  # as with torch's AdamW
    assert model[2].weight.isfinite().all()


def test_the_first_gradient_may_be_one_that_is_not_finite():
    model = make_model()
    optimizer = build("galore_adamw", model, projection="randomized")
    gradients(model, 0)
    model[0].weight.grad.fill_(torch.inf)
    optimizer.step()
    assert optimizer.state[model[0].weight]["projector"].isfinite().all()


def test_randomized_bases_follow_from_names_and_steps_and_not_from_torchs_seed():
    models = [make_model() for _ in range(2)]
    for seed, model in enumerate(models):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            train(model, build("galore_adamw", model, **BOTH), range(12))
            assert torch.equal(torch.get_rng_state(), state)
    assert_same(*models)


@pytest.mark.parametrize("count", [12, 84, 400])
@pytest.mark.parametrize("gap", [1, 10, 50, 200])
def test_refreshes_are_spread_evenly_and_none_comes_late(gap, count):
    group = {"update_proj_gap": gap, "refresh": "staggered"}
    states = [{"projector": ..., "step": 0} for _ in range(count)]
    last, load = [0] * count, []
    for step in range(1, 3 * gap):
        due = []
        for number, state in enumerate(states):
            state["step"] = step
            if is_due(state, group, number):
                assert step - last[number] <= gap
                last[number] = step
                due.append(number)
        load.append(len(due))
    assert max(load[gap:]) <= count / gap + 2
    assert all(last)
    first_round = min(gap, max(16, gap // 8))
    assert sum(load[:first_round]) == count
    assert max(load[:first_round]) <= count / first_round + 2


def test_the_number_of_a_parameter_is_saved_with_it():
    model, other = make_model(), make_model()
    optimizer = build("galore_adamw", model, **BOTH)
    train(model, optimizer, [0])
    saved = optimizer.state_dict()
    numbers = [s["refresh_number"] for s in saved["state"].values() if "refresh_number" in s]
    assert sorted(numbers) == [0, 1]
    again = build("galore_adamw", other, **BOTH)
    again.low_rank_numbers.clear()  # as if the groups had been made in another order
    again.load_state_dict(saved)
    other.load_state_dict(model.state_dict())
    assert_same(train(model, optimizer, range(1, 12)), train(other, again, range(1, 12)))


def test_a_checkpoint_from_before_these_arguments_is_continued_with_the_new_ones():
    model, other = make_model(), make_model()
    optimizer = build("galore_adamw", model)
    train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group.pop("projection", None)
        group.pop("refresh", None)
    for key in ("projection", "refresh"):
        del saved["hub"]["arguments"][key]
    again = build("galore_adamw", other, projection="randomized")
    again.load_state_dict(saved)
    other.load_state_dict(model.state_dict())
    train(model, optimizer, [2])
    assert_same(train(other, again, [2]), model)  # between refreshes
    assert {g["projection"] for g in again.param_groups if "rank" in g} == {"randomized"}


def test_two_processes_that_shard_the_model_take_the_same_bases(tmp_path):
    script = Path(__file__).with_name("sharded.py")
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", script, str(rank), tmp_path / "store"])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


@pytest.mark.parametrize(("side", "noted"), [(512, True), (128, False)])
@pytest.mark.parametrize("projection", ["svd", "randomized"])
def test_the_plan_says_what_the_other_way_saves(projection, side, noted):
    model = nn.Linear(side, 2 * side, bias=False, device="meta")
    plan = hub.plan(
        "galore_adamw", model, target_modules="all-linear", rank=32, projection=projection
    )
    found = [str(finding) for finding in plan.findings if "projection='randomized'" in str(finding)]
    assert bool(found) == (noted and projection == "svd")

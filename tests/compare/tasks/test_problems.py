"""Each problem has the answer that it names, is passed by one optimizer, and not by another."""

import itertools
from math import log

import pytest
import torch
from torch import nn

import hub
from hub.compare import tasks
from hub.compare.tasks import problems
from hub.compare.tasks.problems import landscapes, quadratics, regressions
from hub.compare.tasks.problems.problem import SCALE
from tests.compare.tasks.training import trained

PROBLEMS = [problems.find(name) for name in problems.NAMES]
each = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)


def test_there_are_twenty():
    kinds = {"quadratics": quadratics, "landscapes": landscapes, "regressions": regressions}
    listed = {kind: tuple(one.name for one in module.PROBLEMS) for kind, module in kinds.items()}
    assert listed == problems.KINDS
    assert len(set(problems.NAMES)) == 20


@each
def test_what_solves_it_passes(problem):
    losses = trained(problem.solved_by, f"problems/{problem.name}")
    assert min(losses[1:]) <= problem.target < losses[0]


@each
def test_what_does_not_solve_it_fails(problem):
    assert min(trained(problem.not_by, f"problems/{problem.name}")[1:]) > 1.2 * problem.target


@each
def test_it_can_be_trained(problem):
    task = tasks.load(f"problems/{problem.name}", tasks.Options())
    tasks.dry_run(task)
    assert task.quick
    assert task.target == problem.target


def solved(model):
    """Put the answer into a model."""
    match model:
        case quadratics.Sum():
            for part in model.parts:
                solved(part)
        case quadratics.Quadratic():
            model.point.weight.copy_(SCALE * model.goal)
        case landscapes.Saddle():
            nn.init.orthogonal_(model.point.weight, gain=SCALE)
        case landscapes.Landscape():
            model.point.weight.fill_(SCALE)
        case landscapes.Product():
            factor(model.layers, model.answer)
        case regressions.Regression():
            layers = model.net if isinstance(model.net, nn.Sequential) else [model.net]
            factor(layers, model.scale * model.answer)
        case regressions.Logistic():
            model.net.weight.copy_(regressions.class_answer())
            model.net.bias.zero_()
        case regressions.Xor():
            hidden, _, out = model.net
            hidden.weight.copy_(torch.tensor([[9.0, 9.0], [-9.0, -9.0]]).repeat(8, 1))
            hidden.bias.fill_(-9)
            out.weight.fill_(-9)
            out.bias.fill_(-72)
    return model


def factor(layers, matrix):
    """Make layers whose product is a matrix."""
    if len(layers) == 1:
        layers[0].weight.copy_(matrix)
        return
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = layers[0].out_features
    layers[0].weight.copy_(values[:rank, None] * right[:rank])
    for layer in layers[1:-1]:
        layer.weight.copy_(torch.eye(rank))
    layers[-1].weight.copy_(left[:, :rank])


@each
@torch.no_grad()
def test_the_answer_is_the_minimum(problem):
    torch.manual_seed(0)
    model = solved(problem.model())
    lowest = model.held_out().item()
    assert abs(lowest) < 1e-4 * problem.target
    for parameter in model.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    assert model.held_out().item() >= lowest


@each
def test_seeds_change_the_start_or_the_data(problem):
    def beginning(seed):
        torch.manual_seed(seed)
        task = problem.task("")
        model = task.model(seed)
        batches = list(itertools.islice(task.batches(seed), 5))
        return [*model.parameters()], [*torch.utils._pytree.tree_leaves(batches)]

    def equal(first, second):
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    one, other = beginning(1), beginning(2)
    assert not (equal(one[0], other[0]) and equal(one[1], other[1]))
    assert equal(one[0], beginning(1)[0])


@torch.no_grad()
def test_held_out_losses_are_expected_ones():
    """Of many samples without noise."""
    torch.manual_seed(0)
    for model, samples, floor in (
        (regressions.low_rank(), regressions.noisy_samples, regressions.OUTPUTS * 0.01 / 2),
        (regressions.sparse(), regressions.sparse_samples, 0.0),
    ):
        batches = itertools.islice(samples(torch.Generator().manual_seed(1)), 2000)
        mean = sum(model(batch) for batch in batches).item() / 2000
        assert mean == pytest.approx(model.held_out().item() + floor, rel=0.02)


def at_saddle():
    return landscapes.Saddle().held_out()


def one_wrong_answer():
    """The best loss of a network that is undecided about one point."""
    model = solved(regressions.Xor())
    margins = torch.tensor([-50.0, 50.0, 50.0, 0.0])
    return nn.functional.binary_cross_entropy_with_logits(margins, model.labels)


def rare_features_unknown():
    model = regressions.sparse()
    start = model.held_out()
    common = slice(regressions.COMMON)
    model.net.weight[:, common] = SCALE * model.answer[:, common]
    return model.held_out() / start


def smallest_direction_missing():
    model = solved(landscapes.factorization())
    model.layers[0].weight[-1].zero_()
    return model.held_out()


def at_the_bend():
    model = landscapes.Rosenbrock()
    start = model.held_out()
    model.point.weight.zero_()
    return model.held_out() / start


def twelve_steps_late():
    model = quadratics.Quadratic()
    start = model.held_out()
    *_, late = itertools.islice(quadratics.moving(None), quadratics.STEPS - 12)
    model.point.weight.copy_(SCALE * late.progress * model.goal)
    return model.held_out() / start


def half_untrained():
    """What is left if one of the halves has arrived."""
    model = quadratics.Quadratic()
    start = model.held_out()
    half = quadratics.SIZE // 2
    model.point.weight[:half] = SCALE * model.goal[:half]
    return model.held_out() / start


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (at_saddle, 100 * 0.002),
        (one_wrong_answer, log(2) / 4),
        (rare_features_unknown, 0.09),
        (smallest_direction_missing, 0.5),
        (at_the_bend, 0.22),
        (twelve_steps_late, 0.0576),
        (half_untrained, 0.5),
    ],
)
@torch.no_grad()
def test_what_the_problems_say_of_themselves(measured, said):
    torch.manual_seed(0)
    assert measured().item() == pytest.approx(said, rel=0.1)


def test_targets_are_parts_of_the_start():
    found = {}
    for problem in PROBLEMS:
        torch.manual_seed(0)
        with torch.no_grad():
            found[problem.name] = round(100 * problem.target / problem.model().held_out().item(), 1)
    tenths = {"ill_conditioned": 0.1, "valley": 0.1, "noise": 10, "heavy_tails": 20, "outliers": 10}
    others = {"loss_fades": 10, "moving_goal": 5, "logistic": 6, "xor": 25}
    assert found == pytest.approx(dict.fromkeys(found, 1) | tenths | others, rel=0.1)


@pytest.mark.parametrize("name", ["galore_adamw:rank=3", "apollo_adamw:rank=3", "muon"])
@each
def test_optimizers_of_matrices_have_some(problem, name):
    losses = trained(name, f"problems/{problem.name}", steps=4)
    assert losses[-1] != losses[0]


def test_one_problem_has_state_in_8_bits():
    model = problems.find("problems/ill_conditioned").model()
    optimizer = hub.build("adamw_8bit", model)
    model(quadratics.Batch()).backward()
    optimizer.step()
    assert optimizer.state[model.point.weight]["state1"].dtype == torch.uint8

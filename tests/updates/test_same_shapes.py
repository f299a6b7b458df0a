"""Parameters of equal shape step together, and round as each alone."""

from itertools import product

import pytest
import torch
from torch import nn

from hub.updates import same_shapes, stacking
from hub.updates.same_shapes import buckets, in_stack, products, single

SIDES = [(4, 8), (8, 512), (12, 100), (32, 20), (5, 33), (8, 17), (2, 3), (64, 1024)]
RANKS = [1, 2, 3, 4, 8, 12, 32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_products_round_as_single_ones(sides, dtype):
    rows, columns = sides
    for rank, by_columns in product(RANKS, (True, False)):
        gradients = torch.randn(5, rows, columns).to(dtype)
        bases = [torch.randn(rank, rows).to(dtype).mT for _ in gradients]
        bases = bases if by_columns else [basis.contiguous() for basis in bases]
        basis = in_stack(bases)
        found = products(basis.mT, gradients)
        expected = [basis.mT @ one for basis, one in zip(bases, gradients, strict=True)]
        assert torch.equal(found, torch.stack(expected))
        back = products(basis, found)
        assert torch.equal(back, torch.stack([b @ e for b, e in zip(bases, expected, strict=True)]))


@pytest.fixture
def untried():
    """Shapes are tried in the test, and not taken for tried after it."""
    same_shapes._round_alike.cache_clear()
    yield
    same_shapes._round_alike.cache_clear()


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("is_off", [False, True])
def test_a_batched_product_that_rounds_otherwise_is_not_taken(is_off, monkeypatch):
    calls = []

    def bmm(left, right):
        calls.append(len(left))
        found = torch.stack([torch.mm(*pair) for pair in zip(left, right, strict=True)])
        found[-1, -1, -1] *= 1 + is_off * 2.0**-20
        return found

    monkeypatch.setattr(torch, "bmm", bmm)
    left, right = torch.randn(3, 4, 8), torch.randn(3, 8, 16)
    expected = torch.stack([torch.mm(*pair) for pair in zip(left, right, strict=True)])
    assert torch.equal(products(left, right), expected)
    tried = len(calls)
    assert torch.equal(products(left, right), expected)
    assert len(calls) == tried + (not is_off), "it is found out once"


def test_one_tensor_is_not_copied():
    tensor = torch.ones(2, 3)
    assert in_stack([tensor]).data_ptr() == tensor.data_ptr()


def optimizer_of(*shapes):
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, len(parameters))
    return torch.optim.SGD(parameters), parameters


def sizes(optimizer):
    return [len(bucket.parameters) for bucket in buckets(optimizer, optimizer.param_groups[0])]


def test_each_parameter_with_a_gradient_is_in_one_bucket():
    optimizer, parameters = optimizer_of((2, 3), (3, 2), (2, 3), (4,), (2, 3))
    parameters[2].grad = None
    found = list(buckets(optimizer, optimizer.param_groups[0]))
    together = [[p.shape for p in bucket.parameters] for bucket in found]
    assert together == [[(2, 3), (2, 3)], [(3, 2)], [(4,)]]
    assert [bucket.gradient.shape for bucket in found] == [(2, 2, 3), (1, 3, 2), (1, 4)]
    assert found[0].states == [optimizer.state[parameters[0]], optimizer.state[parameters[4]]]
    assert single(optimizer, optimizer.param_groups[0], 1).parameters == [parameters[1]]


def test_parameters_that_took_other_steps_are_apart():
    optimizer, parameters = optimizer_of((2, 3), (2, 3), (2, 3))
    optimizer.state[parameters[1]]["step"] = 5
    assert sizes(optimizer) == [2, 1]


def test_large_and_transposed_parameters_are_alone(monkeypatch):
    optimizer, parameters = optimizer_of((2, 3), (2, 3), (2, 3), (2, 3))
    parameters[0].grad = torch.ones(3, 2).mT
    assert sizes(optimizer) == [1, 3]
    monkeypatch.setitem(stacking._MOST, "cpu", 12)
    assert sizes(optimizer) == [1, 2, 1]
    monkeypatch.setitem(stacking._SMALL, "cpu", 5)
    assert sizes(optimizer) == [1, 1, 1, 1]


def test_a_sparse_gradient_is_refused():
    optimizer, parameters = optimizer_of((2, 3))
    parameters[0].grad = torch.ones(2, 3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        sizes(optimizer)

"""Stacks of small tensors, which plugins compute on."""

import pytest
import torch

from hub.updates.stacking import each, rows, scale, stacked, stacks, write_back

GRAIN = 2**15


def tensors(*shapes):
    return [torch.arange(float(torch.Size(shape).numel())).view(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([], []),
        ([(2, 3)] * 3, [[0, 1, 2]]),
        ([(2, 3), (3, 2), (2, 3)], [[0, 2], [1]]),
        ([(), (), (1,)], [[0, 1], [2]]),
        ([(GRAIN,)] * 2, [[0], [1]]),
        ([(GRAIN - 1,)] * 2, [[0, 1]]),
        ([(2**14,)] * 17, [list(range(16)), [16]]),
        ([(0, 3)] * 2, [[0, 1]]),
    ],
    ids=str,
)
def test_small_tensors_of_one_shape_are_together(shapes, expected):
    assert stacks(tensors(*shapes)) == expected


def test_dtypes_are_apart():
    assert stacks([torch.ones(2), torch.ones(2).bfloat16(), torch.ones(2)]) == [[0, 2], [1]]


def test_devices_are_apart():
    first, second = torch.ones(2), torch.ones(2, device="meta")
    assert stacks([first, second, first]) == [[0, 2], [1]]


def test_what_is_not_contiguous_is_alone():
    row, column = torch.ones(3, 2), torch.ones(2, 3).T
    assert stacks([row, column, row]) == [[0, 2], [1]]
    assert stacks([row, row, row], [row, column, row]) == [[0, 2], [1]]


@pytest.mark.parametrize("shape", [(2, 3), (4,), ()], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_a_stack_is_written_back(shape, count):
    originals = [torch.full(shape, float(i)) for i in range(count)]
    stack = stacked(originals)
    numbers = torch.arange(1.0, count + 1) if count > 1 else torch.tensor(1.0)
    stack.add_(each(numbers, stack))
    assert [row[...].sum() for row in rows(stack, originals)] == [
        torch.full(shape, 2.0 * i + 1).sum() for i in range(count)
    ]
    write_back(stack, originals)
    for i, original in enumerate(originals):
        assert torch.equal(original, torch.full(shape, 2.0 * i + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_factors_are_not_rounded_to_the_dtype(dtype):
    torch.manual_seed(0)
    originals, factors = [torch.randn(500).to(dtype) for _ in range(3)], [0.9, 0.8717948, 1 - 3e-3]
    scaled = [tensor.clone() for tensor in originals]
    scale(scaled, factors)
    for tensor, original, factor in zip(scaled, originals, factors, strict=True):
        assert torch.equal(tensor, original.mul(factor))


def test_torch_rounds_the_factors_of_bf16_tensors():
    """When this fails, `scale` need not loop."""
    tensor = torch.rand(500).bfloat16()
    scaled = tensor.clone()
    torch._foreach_mul_([scaled], [0.9])
    assert not torch.equal(scaled, tensor.mul(0.9))

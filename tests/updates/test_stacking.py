"""Stacks of small tensors, which plugins compute on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hub.updates.stacking import (
    add_to_stack,
    each,
    rows,
    scale,
    stacked,
    stacked_state,
    stacks,
    write_back,
)

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


def is_their_memory(stack, tensors):
    return [row.data_ptr() for row in stack] == [tensor.data_ptr() for tensor in tensors]


@pytest.mark.parametrize("shape", [(2, 3), (4,), ()], ids=str)
def test_state_is_moved_once_and_stays_the_same_objects(shape):
    state = [torch.full(shape, float(i)) for i in range(3)]
    kept = list(state)
    stack = stacked_state(state)
    assert all(one is other for one, other in zip(state, kept, strict=True))
    stack.add_(1)
    write_back(stack, state)
    assert [tensor.sum() / max(1, tensor.numel()) for tensor in state] == [1, 2, 3]
    assert is_their_memory(stack, state)
    assert is_their_memory(stacked(state), state)
    assert stacked_state(state).data_ptr() == stack.data_ptr()
    assert stack.untyped_storage().nbytes() == stack.nbytes


def test_bases_keep_their_order_of_strides():
    bases = [torch.arange(6.0).view(2, 3).mT + i for i in range(3)]
    expected = [basis.clone() for basis in bases]
    assert stacked(bases).stride()[1:] == (1, 3)
    stack = stacked_state([basis.clone() for basis in bases])
    assert stack.stride() == (6, 1, 3)
    assert torch.equal(stack, torch.stack(expected))


def without_the_second(state):
    del state[1]


def with_a_new_one(state):
    state[1] = torch.full_like(state[1], 7.0)


def in_another_order(state):
    state.reverse()


def with_one_of_other_strides(state):
    state[1].data = state[1].view(3, 2).mT


@pytest.mark.parametrize(
    "change", [without_the_second, with_a_new_one, in_another_order, with_one_of_other_strides]
)
def test_other_tensors_than_those_moved_together_are_copied(change):
    state = tensors(*[(2, 3)] * 4)
    first = stacked_state(state)
    memory = first.untyped_storage().data_ptr()
    change(state)
    expected = [tensor + 1 for tensor in state]
    stack = stacked_state(state)
    assert not is_their_memory(stack, state)
    stack.add_(1)
    write_back(stack, state)
    for tensor, one in zip(state, expected, strict=True):
        assert torch.equal(tensor, one)
    assert state[0].untyped_storage().data_ptr() == memory


steps = st.tuples(st.lists(st.integers(0, 4), min_size=1, unique=True), st.booleans())


@given(st.lists(steps, max_size=10))
def test_whatever_steps_together_changes_alone(plan):
    state = [torch.full((2, 3), float(i)) for i in range(5)]
    expected = [float(i) for i in range(5)]
    for places, is_loaded in plan:
        if is_loaded:
            state[places[0]] = state[places[0]].clone()
        chosen = [state[place] for place in places]
        stack = stacked_state(chosen)
        stack.add_(1)
        write_back(stack, chosen)
        for place in places:
            expected[place] += 1
        assert [tensor.unique().tolist() for tensor in state] == [[value] for value in expected]


def test_neighbours_of_other_storages_are_not_one():
    memory = bytearray(48)
    state = [torch.frombuffer(memory, dtype=torch.float32, count=6, offset=o) for o in (0, 24)]
    assert state[1].data_ptr() == state[0].data_ptr() + 24
    assert not is_their_memory(stacked(state), state)


def test_gradients_side_by_side_are_not_copied():
    """As those of DistributedDataParallel with `gradient_as_bucket_view`."""
    gradients = list(torch.arange(12.0).view(2, 2, 3).unbind())
    assert is_their_memory(stacked(gradients), gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("size", [1, 5, 17, 100])
def test_a_share_is_added_to_a_stack_as_to_each_alone(size, dtype):
    torch.manual_seed(0)
    stack, others = torch.randn(2, 7, size).to(dtype)
    expected = [
        one.clone().add_(other, alpha=0.1) for one, other in zip(stack, others, strict=True)
    ]
    add_to_stack(stack, others, 0.1)
    assert torch.equal(stack, torch.stack(expected))


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch 2.13 has other code for the ends of tensors only where it uses vectors",
)
def test_torch_rounds_the_ends_of_bf16_tensors_otherwise():
    """When this fails, `add_to_stack` need not go through rows."""
    torch.manual_seed(0)
    stack, others = torch.randn(2, 7, 17).bfloat16()
    expected = [
        one.clone().add_(other, alpha=0.1) for one, other in zip(stack, others, strict=True)
    ]
    assert not torch.equal(stack.add_(others, alpha=0.1), torch.stack(expected))

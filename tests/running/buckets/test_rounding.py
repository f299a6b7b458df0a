"""How fp32 numbers become weights and bits, and random numbers that are the same everywhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.running.buckets.arithmetic import CHUNK, merge, round_at_random, split
from hub.running.buckets.random_bits import numbered, random_bits, seed_from
from hub.running.buckets.rounding import fp32_copy, write

BF16_NORMAL, FP16_LEAST = 2.0**-126, 2.0**-14
GOLDEN = [22331, 55062, 38432, 41041]
"""Runs that are resumed by a later version have to round alike."""


def numbers_above(start):
    """All fp32 numbers between two bf16 numbers that follow each other."""
    first = torch.tensor([start]).view(torch.int32)
    return (first + torch.arange(1 << 16, dtype=torch.int32)).view(torch.float32)


def there_and_back(numbers, dtype):
    weight = torch.empty_like(numbers, dtype=dtype)
    bits = torch.empty_like(weight, dtype=torch.int16)
    split(numbers.flatten().clone(), [weight], [bits])
    copy = torch.empty(numbers.numel())
    merge(copy, [weight], [bits])
    return weight, copy.view(numbers.shape)


@pytest.mark.parametrize("start", [1.0, -1.0, 0.0, -0.0, 0.02, -3e-39, 3e38, BF16_NORMAL])
def test_weight_and_bits_are_every_fp32_number(start):
    numbers = numbers_above(start)
    weight, copy = there_and_back(numbers, torch.bfloat16)
    assert torch.equal(copy.view(torch.int32), numbers.view(torch.int32))
    # The weight alone is the nearest bf16 number; of a tie, the one further from zero.
    ties = (numbers.view(torch.int32) & 0xFFFF) == 1 << 15
    assert ties.sum() == 1
    assert torch.equal(weight[~ties], numbers[~ties].bfloat16())
    assert (weight[ties].float().abs() > numbers[ties].abs()).all()


@pytest.mark.parametrize("start", [1.0, -0.02, 60000.0, FP16_LEAST, -3 * FP16_LEAST])
def test_fp16_weights_and_bits_are_fp32_numbers_too(start):
    numbers = numbers_above(start)
    weight, copy = there_and_back(numbers, torch.float16)
    assert torch.equal(copy, numbers)
    assert torch.equal(weight, numbers.half())


def test_small_fp16_weights_are_kept_to_a_fixed_place():
    numbers = torch.cat([numbers_above(start) for start in (1e-5, -3e-7, 2e-8, 0.0, 1e-12)])
    _, copy = there_and_back(numbers, torch.float16)
    assert (copy - numbers).abs().max() <= 2.0**-40


def test_what_fp16_cannot_hold_is_infinite():
    weight, copy = there_and_back(torch.tensor([1e5, -1e5]), torch.float16)
    assert weight.tolist() == copy.tolist() == [float("inf"), float("-inf")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_memory_order_and_size_do_not_matter(dtype):
    numbers = torch.randn(3, CHUNK // 2 + 5)
    weight, copy = there_and_back(numbers, dtype)
    turned = numbers.T.contiguous().T
    assert not turned.is_contiguous()
    other, again = there_and_back(turned, dtype)
    assert torch.equal(weight, other)
    assert torch.equal(copy, again)


def test_a_copy_in_new_memory():
    weight = torch.randn(4, 5).bfloat16()
    bits = torch.zeros_like(weight, dtype=torch.int16)
    numbers = fp32_copy(weight, None)
    assert torch.equal(numbers, weight.float())
    write(numbers + 1e-4, weight, bits)
    assert torch.equal(fp32_copy(weight, bits), numbers + 1e-4)
    write(numbers, weight, None)
    assert torch.equal(weight.float(), numbers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [1.0011, -0.3003, 3e-5, -2.9e-8, 250.3])
def test_random_rounding_is_right_on_average(value, dtype):
    numbers = torch.full((1 << 18,), value)
    weight = torch.empty_like(numbers, dtype=dtype)
    round_at_random(numbers.clone(), [weight], [seed_from("a weight 3")], [0])
    found = weight.double()
    neighbors = found.unique()
    assert len(neighbors) == 2
    assert neighbors[0] < numbers[0].double() < neighbors[1]
    error = (found.mean() - numbers[0].double()).abs()
    assert error <= 3 * found.std() / len(found) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_that_need_no_rounding_stay(dtype):
    numbers = torch.tensor([0.0, 1.0, -0.5, float("inf"), float("-inf"), float("nan")])
    weight = torch.empty_like(numbers, dtype=dtype)
    round_at_random(numbers.clone(), [weight], [1], [0])
    assert torch.equal(weight.float().nan_to_num(7.0), numbers.nan_to_num(7.0))


def bits_of(elements, seed, first):
    """The random bits of so many elements of a parameter, from its first one on."""
    return random_bits(numbered([elements], [first], torch.device("cpu")), [elements], [seed])


def test_random_bits_are_the_same_in_every_version():
    bits = bits_of(4, seed_from("layers.0.weight 17"), 0)
    assert bits.tolist() == GOLDEN


@given(first=st.integers(0, 1 << 40), seed=st.integers(0, (1 << 63) - 1))
def test_a_part_has_the_bits_of_the_whole(first, seed):
    whole = bits_of(24, seed, first).view(6, 4)
    assert torch.equal(bits_of(8, seed, first + 3 * 4).view(2, 4), whole[3:5])
    numbers = torch.arange(24, dtype=torch.int64).view(6, 4)[:, 1:3] + first
    assert torch.equal(bits_of(12, seed, numbers.flatten()), whole[:, 1:3].flatten())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.integers(0, 1 << 40),
            st.integers(0, (1 << 63) - 1),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_parameters_have_the_same_bits_together_as_alone(parameters):
    sizes, firsts, seeds, counted = zip(*parameters, strict=True)
    given = [
        torch.arange(first, first + size) if is_tensor else first
        for size, first, is_tensor in zip(sizes, firsts, counted, strict=True)
    ]
    together = random_bits(numbered(sizes, given, torch.device("cpu")), sizes, seeds)
    alone = [bits_of(*each) for each in zip(sizes, seeds, firsts, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_random_bits_are_spread_evenly_and_independent_of_their_neighbors():
    bits = bits_of(1 << 20, seed_from("w 0"), 0).double() / (1 << 16)
    following = bits_of(1 << 20, seed_from("w 1"), 0).double()
    expected = (1 << 20) / 256
    counts = torch.histc(bits.float(), 256, 0, 1)
    assert ((counts - expected) ** 2 / expected).sum() < 340  # chi-squared, p > 0.0003
    for other in (bits.roll(1), bits.roll(64), following):
        assert torch.corrcoef(torch.stack([bits, other]))[0, 1].abs() < 4e-3

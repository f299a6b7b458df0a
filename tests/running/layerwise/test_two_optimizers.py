"""Two optimizers, and a loss of one whose backward pass goes through the parameters of the other.

A generator's loss reaches the discriminator. The eager form drops those gradients with `zero_grad`;
what steps inside the backward pass has used them by then.
"""

import warnings

import pytest
from accelerate import Accelerator
from helpers.gan import Gan, assert_equal

import hub

DISCRIMINATORS = ("adamw_torch_layerwise", "lomo")
every_name = pytest.mark.parametrize("name", DISCRIMINATORS)
every_order = pytest.mark.parametrize("order", ["dg", "gd"])


@every_name
@every_order
@pytest.mark.parametrize("clear", ["clear_optimizer", "clear_model"])
@pytest.mark.parametrize("clears_first", [True, False])
def test_a_generator_that_goes_through_the_discriminator_is_an_error(
    name, order, clear, clears_first
):
    gan = Gan(name)
    with pytest.raises(hub.UnsupportedError, match="already") as raised:
        gan.train(order, clear=clear, clears_first=clears_first)
    assert "loss.backward(inputs=...) or requires_grad_(False)" in raised.value.fix


@every_order
@pytest.mark.parametrize("clears_first", [True, False])
def test_accelerate_which_never_calls_step_of_lomo(order, clears_first):
    gan = Gan("lomo")
    accelerator = Accelerator(cpu=True)
    gan.of_d, gan.of_g = accelerator.prepare(gan.of_d, gan.of_g)
    with pytest.raises(hub.UnsupportedError, match="already"):
        gan.train(order, clears_first=clears_first)


@every_name
@every_order
@pytest.mark.parametrize("way", ["g_frozen", "g_of_its_inputs"])
@pytest.mark.parametrize("clears_first", [True, False])
def test_the_ways_out_equal_the_eager_form(name, order, way, clears_first):
    inside = Gan(name).train(order, g=way, clears_first=clears_first)
    eager = Gan(name, eager=True).train(order, g=way, clears_first=clears_first)
    assert_equal(inside, eager)
    assert_equal(eager, Gan(name, eager=True).train(order))  # as if nothing had been kept out


@every_name
@every_order
def test_a_discriminator_with_two_backward_passes_drops_a_third_one(name, order):
    """The gradients of the generator's loss wait, and `zero_grad` drops them."""
    inside = Gan(name, gradient_accumulation_steps=2)
    with warnings.catch_warnings():
        # LOMO cannot know in the first round that somebody calls `step()`.
        warnings.filterwarnings("ignore", "gradients of 1 of 2 micro-batches", hub.HubWarning)
        inside.train(order, d="d_in_two_passes")
    assert_equal(inside, Gan(name, eager=True).train(order, d="d_in_two_passes"))

"""`rounding` in whole runs: it equals fp32, it learns where bf16 stalls, and keeps the promises."""

import warnings
from dataclasses import replace
from pydoc_data.topics import topics

import pytest
import torch
from helpers.models import Model
from torch import nn

import hub
from hub.running.buckets import sizes
from hub.running.buckets.rounding import BITS, fp32_copy
from hub.testing import Subject, cases
from hub.testing.comparing import storage_bytes
from hub.testing.promises import run
from hub.testing.subject import train, train_on_fixed_gradients

SPLIT, STOCHASTIC = (("rounding", "split"),), (("rounding", "stochastic"),)
OTHERWISE = {
    "names",  # the random bits depend on names
}
SAMPLE = [
    ("adamw_torch", SPLIT),
    ("adamw_torch_layerwise", STOCHASTIC),
    ("galore_adamw", SPLIT),
    ("galore_adamw_layerwise", SPLIT),
    ("schedule_free_adamw", SPLIT),
    ("schedule_free_radam", STOCHASTIC),
    ("adagrad", SPLIT),
    ("adamw_8bit", STOCHASTIC),
    ("lomo", SPLIT),
]
CONTEXT = 8


@pytest.mark.parametrize(("name", "options"), SAMPLE)
def test_the_kit_holds(name, options):
    for case in cases([name.removesuffix("_layerwise")]):
        subject = case.subject
        if subject.name != name or subject.precision != "bf16" or case.check in OTHERWISE:
            continue
        run(case.check, replace(subject, options=options))


@pytest.mark.parametrize("elements", [1, 5000, 1 << 22], ids=["alone", "some", "together"])
def test_the_size_of_buckets_changes_nothing(elements, monkeypatch):
    monkeypatch.setattr(sizes, "ELEMENTS", elements)
    subject = Subject("galore_adamw", "bf16", options=SPLIT)
    model, optimizer = subject.start()
    train_on_fixed_gradients(model, optimizer)
    plain = Subject("galore_adamw")
    expected = plain.model()
    with torch.no_grad():
        for parameter, own in zip(expected.parameters(), subject.model().parameters(), strict=True):
            parameter.copy_(own)
    reference = plain.build(expected)
    for step in range(6):
        for index, parameter in enumerate(expected.parameters()):
            generator = torch.Generator().manual_seed(100 * step + index)
            gradient = torch.randn(parameter.shape, generator=generator).bfloat16()
            parameter.grad = gradient.float()
        reference.step()
    for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(fp32_copy(parameter, optimizer.state[parameter].get(BITS)), other)


class Reassigning(torch.optim.SGD):
    """Puts its results into new memory, as some classes do."""

    @torch.no_grad()
    def step(self, closure=None):
        """Update every other parameter in place."""
        assert closure is None
        for number, parameter in enumerate(self.param_groups[0]["params"]):
            rate = self.param_groups[0]["lr"]
            if number % 2:
                parameter.data = parameter.data.add(parameter.grad, alpha=-rate)
            else:
                parameter.add_(parameter.grad, alpha=-rate)


@pytest.mark.parametrize("rounding", ["split", "stochastic"])
def test_weights_of_all_dtypes_step_together_wherever_the_class_puts_its_results(rounding):
    dtypes = [torch.bfloat16, torch.float16, torch.float32] * 3
    starts = [torch.linspace(-1, 1, 24).view(4, 6) * (number + 1) for number in range(len(dtypes))]
    starts[1] = starts[1].T.contiguous().T  # in another order in memory
    results = []
    for cls in (Reassigning, torch.optim.SGD):
        weights = [
            nn.Parameter(start.to(dtype, copy=True))
            for start, dtype in zip(starts, dtypes, strict=True)
        ]
        optimizer = hub.build((cls, {"lr": 1e-3}), nn.ParameterList(weights), rounding=rounding)
        for step in range(3):
            for number, weight in enumerate(weights):
                weight.grad = torch.full_like(weight, 0.5 + number + step)
            optimizer.step()
        results.append(weights)
    for start, own, plain in zip(starts, *results, strict=True):
        assert torch.equal(own, plain)
        assert not torch.equal(own.float(), start)


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "schedule_free_adamw", "adamw_8bit"])
@pytest.mark.parametrize("rounding", ["split", "stochastic"])
def test_the_estimate_is_what_a_step_takes(name, rounding):
    subject = Subject(name, "bf16", options=(("rounding", rounding),))
    model, optimizer = subject.start()
    arguments = {"rounding": rounding, "lr": 1e-2, **subject.spec.example_arguments}
    estimated = hub.estimate(name, subject.model(), **arguments)
    train(model, optimizer, 1)
    assert estimated.state == storage_bytes(optimizer.state)
    elements = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert estimated.copies == 2 * 4 * elements  # one bucket has room for all
    with_bits = [BITS in state for state in optimizer.state.values()]
    assert all(with_bits) if rounding == "split" else not any(with_bits)


def test_layerwise_forms_copy_one_parameter_at_a_time():
    model = Model().bfloat16()
    largest = max(p.numel() for p in model.parameters() if p.requires_grad)
    assert hub.estimate("sgd_layerwise", model, rounding="split").copies == 8 * largest


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(256, 32),
        nn.Flatten(),
        nn.Linear(32 * CONTEXT, 256),
        nn.GELU(),
        nn.Linear(256, 256),
    ).bfloat16()


def held_out_loss(dtype, name="adamw_torch", steps=400, **arguments):
    """Train on Python's documentation; return the loss on the end of it, in nats a byte."""
    text = torch.frombuffer(bytearray("".join(topics.values()).encode()), dtype=torch.uint8).long()
    model = small_model().to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hub.HubWarning)
        optimizer = hub.build(name, model, lr=5e-5, **arguments)
    generator = torch.Generator().manual_seed(0)

    def loss(starts):
        windows = text[starts[:, None] + torch.arange(CONTEXT + 1)]
        return nn.functional.cross_entropy(model(windows[:, :-1]).float(), windows[:, -1])

    for _ in range(steps):
        loss(torch.randint(len(text) - 60_000, (64,), generator=generator)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return loss(torch.arange(len(text) - 50_000, len(text) - 10_000, 7)).item()


def test_what_stalls_in_bf16_learns_as_in_fp32():
    exact = held_out_loss(torch.float32)
    assert held_out_loss(torch.bfloat16) > exact + 1
    for rounding in ("split", "stochastic"):
        assert abs(held_out_loss(torch.bfloat16, rounding=rounding) - exact) < 0.02


def test_several_optimizers_round_alike_unless_one_says_otherwise():
    model = Model().bfloat16()
    plan = hub.plan("muon", model, rounding="split")
    assert [hub.describe(m.optimizer).name for m in plan.members] == ["muon", "adamw_torch"]
    values = [{a.name: a.value for a in member.arguments} for member in plan.members]
    assert [own["rounding"] for own in values] == ["split", "split"]
    other = hub.plan("muon", model, optim_args="rounding=split, rest.rounding=stochastic")
    assert other.arguments_of("adamw_torch")["rounding"] == "stochastic"


def test_a_checkpoint_without_the_bits_is_refused():
    options = Subject("adamw_torch", "bf16").start()
    split = Subject("adamw_torch", "bf16", options=SPLIT).start()
    for (model, optimizer), (_, other) in ((options, split), (split, options)):
        train(model, optimizer, 1)
        with pytest.raises(hub.CheckpointError, match="rounding"):
            other.load_state_dict(optimizer.state_dict())
    # Checkpoints from before the argument existed say nothing about it.
    saved = options[1].state_dict()
    del saved["hub"]["arguments"]["rounding"]
    with pytest.raises(hub.CheckpointError, match="rounding None → 'split'"):
        split[1].load_state_dict(saved)


def test_weights_stay_as_they_are_if_a_step_fails():
    model, optimizer = Subject("adamw_torch", "bf16", options=SPLIT).start()
    train(model, optimizer, 1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    bits = {p: state[BITS].clone() for p, state in optimizer.state.items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.param_groups[0]["betas"] = "nonsense"
    with pytest.raises((TypeError, ValueError)):
        optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for parameter, own in bits.items():
        assert torch.equal(optimizer.state[parameter][BITS], own)

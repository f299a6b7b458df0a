"""`capturable`: what a CUDA graph repeats reads the learning rate from a tensor that stays."""

from importlib import import_module

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, through_a_file

NAMES = {"adamw_torch": "AdamW", "adamw_torch_fused": "AdamW", "rmsprop": "RMSprop"}
RATE = 1e-3
SUPPORTED = "_get_capturable_supported_devices"
every_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Let a CPU, whose operations are the same, take capturable steps."""
    for name in ("optimizer", "adam", "rmsprop"):
        module = import_module(f"torch.optim.{name}")
        monkeypatch.setattr(module, SUPPORTED, lambda *_, **__: ["cpu"])


def small(device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)).to(device)


def give_gradients(model, step):
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(100 * step + number)
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter)
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)  # where a graph reads it


def started(name, device="cpu", **arguments):
    model = small(device)
    optimizer = hub.build(name, model, lr=RATE, capturable=True, **arguments)
    schedule = hub.build_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=12)
    return model, optimizer, schedule


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def take(model, optimizer, schedule, steps):
    for step in steps:
        give_gradients(model, step)
        optimizer.step()
        schedule.step()


@every_name
def test_it_equals_the_class_by_hand(name, as_on_a_gpu):
    model, optimizer, schedule = started(name)
    other = small()
    groups = [
        {**group, "params": [dict(other.named_parameters())[n] for n in group["param_names"]]}
        for group in optimizer.param_groups
    ]
    for group in groups:
        group["lr"] = torch.tensor(RATE)
    fused = {"fused": True} if name == "adamw_torch_fused" else {}
    by_hand = getattr(torch.optim, NAMES[name])(groups, capturable=True, **fused)
    for step in range(6):
        for model_, optimizer_ in ((model, optimizer), (other, by_hand)):
            for group, rate in zip(optimizer_.param_groups, rates(optimizer), strict=True):
                group["lr"].fill_(rate.item())
            give_gradients(model_, step)
            optimizer_.step()
        schedule.step()
    assert_same(model, other)


@every_name
def test_the_rate_stays_one_tensor_that_is_changed_in_place(name, as_on_a_gpu):
    model, optimizer, schedule = started(name)
    tensors = rates(optimizer)
    assert len({id(tensor) for tensor in tensors}) == len(tensors)
    seen = []
    for step in range(4):
        take(model, optimizer, schedule, [step])
        assert all(a is b for a, b in zip(rates(optimizer), tensors, strict=True))
        seen.append(tensors[0].item())
    assert seen == pytest.approx(schedule_of_numbers(4), rel=1e-6)
    assert seen[0] == pytest.approx(RATE / 2)


def schedule_of_numbers(steps):
    optimizer = hub.build("sgd", small(), lr=RATE)
    schedule = hub.build_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=12)
    found = []
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@every_name
def test_a_resume_is_exact_and_keeps_the_tensors(name, as_on_a_gpu):
    whole = started(name)
    take(*whole, range(8))
    half = started(name)
    take(*half, range(4))
    saved = through_a_file([each.state_dict() for each in half])
    assert all(type(group["lr"]) is float for group in saved[1]["param_groups"])
    resumed = started(name)
    tensors = rates(resumed[1])
    for each, state in zip(resumed, saved, strict=True):
        each.load_state_dict(state)
        assert all(a is b for a, b in zip(rates(resumed[1]), tensors, strict=True))
    assert [rate.item() for rate in tensors] == [rate.item() for rate in rates(half[1])]
    take(*resumed, range(4, 8))
    assert_same(whole[0], resumed[0])


def test_a_rate_that_is_given_as_a_tensor_is_its_number(as_on_a_gpu):
    given = torch.tensor(0.25)
    optimizer = hub.build("adamw_torch", small(), lr=given, capturable=True)
    assert [rate.item() for rate in rates(optimizer)] == [0.25, 0.25]
    assert all(rate is not given for rate in rates(optimizer))


@every_name
def test_without_capturable_rates_are_numbers(name):
    assert {type(rate) for rate in rates(hub.build(name, small(), lr=RATE))} == {float}


def test_it_is_refused_on_a_cpu():
    with pytest.raises(hub.UnsupportedError, match="some are on cpu") as refused:
        hub.build("rmsprop", small(), capturable=True)
    assert refused.value.where == "capturable"
    assert hub.plan("rmsprop", small("meta"), capturable=True).materialized().refusal is None


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("adamw_torch_layerwise", {}, "counts gradients on the host"),
        ("adamw_torch", {"rounding": "split"}, "rounding=None"),
        ("adamw_torch", {"offload": "cpu"}, "offload=None"),
    ],
)
def test_what_a_graph_would_miss_is_refused(name, arguments, says, as_on_a_gpu):
    with pytest.raises(hub.UnsupportedError, match="no CUDA graph") as refused:
        hub.build(name, small(), capturable=True, **arguments)
    assert says in str(refused.value)


def test_other_names_do_not_take_it():
    for name in set(hub.list_optimizers()) - set(NAMES):
        assert "capturable" not in hub.describe(name).arguments.model_fields
    with pytest.raises(hub.OptimArgsError, match="no argument 'capturable'"):
        hub.build("sgd", small(), capturable=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@every_name
def test_a_graph_repeats_the_step_with_the_present_rate(name, max_grad_norm):
    eager, graphed = (started(name, "cuda", max_grad_norm=max_grad_norm) for _ in range(2))
    model, optimizer, schedule = graphed
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # where the first steps make the state
        take(*graphed, range(3))
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    schedule_only = range(3, 10)
    for step in schedule_only:
        give_gradients(model, step)
        graph.replay()
        schedule.step()
    take(*eager, range(10))
    assert_same(eager[0], model)
    assert [rate.item() for rate in rates(eager[1])] == [rate.item() for rate in rates(optimizer)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_compiled_step_that_is_a_graph_follows_the_schedule():
    (eager, compiled), steps = (started("adamw_torch", "cuda") for _ in range(2)), range(8)
    model, optimizer, schedule = compiled
    step = torch.compile(optimizer.step, mode="reduce-overhead")
    for number in steps:
        give_gradients(model, number)
        step()
        schedule.step()
    take(*eager, steps)
    for ours, theirs in zip(model.parameters(), eager[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)

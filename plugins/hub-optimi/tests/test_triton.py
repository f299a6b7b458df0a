"""Where `stable_adamw` takes optimi's triton kernels, and where a checkpoint of them goes."""

import copy

import optimi
import pytest
import torch
from hub_optimi import factory

import hub
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import small_model, train

from .wrapped import OWN, both_dtypes, build, by_hand

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@pytest.mark.usefixtures("with_triton")
def test_the_upstream_class_chooses_triton_on_a_cpu():
    """When this fails, `factory.StableAdamW._init_group` need not choose any more."""
    model = small_model()
    optimizer = optimi.StableAdamW(model.parameters(), lr=0.01)
    # "0 active drivers", or where triton is missing the kernels are.
    with pytest.raises((RuntimeError, NameError)):
        train(model, optimizer, [0])
    assert optimizer.param_groups[0]["triton"] is True


@pytest.mark.usefixtures("with_triton")
def test_it_runs_on_a_cpu_where_triton_can_be_imported():
    ours, theirs = small_model(), small_model()
    optimizer = build(ours)
    optimizer.step()  # no gradients: upstream decides for triton here at the latest
    reference = by_hand(theirs)
    reference.step()
    assert_same(train(ours, optimizer, range(3)), train(theirs, reference, range(3)))
    assert all(group["triton"] is False for group in optimizer.param_groups)


def test_triton_on_a_cpu_is_refused():
    with pytest.raises(hub.PrecisionError, match="parameters are on cpu"):
        build(small_model(), triton=True)


@pytest.mark.parametrize(("dtype", "refused"), [(torch.float32, False), (torch.float64, True)])
def test_triton_can_be_planned_for_elsewhere(monkeypatch, dtype, refused):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: object())
    plan = hub.plan("stable_adamw", small_model(dtype).to("meta"), triton=True)
    assert plan.materialized().refused is refused


def test_triton_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    plan = hub.plan("stable_adamw", small_model().to("meta"), triton=True)
    assert any("not installed" in finding.what for finding in plan.findings)
    assert plan.refused


@pytest.mark.parametrize(
    ("dtype", "asked", "expected"),
    [
        (torch.float32, {}, True),
        (torch.bfloat16, {}, True),
        (torch.float64, {}, False),
        (torch.float32, {"foreach": False}, None),
        (torch.float32, {"triton": False}, False),
    ],
    ids=str,
)
def test_triton_is_chosen_where_upstreams_kernels_serve(monkeypatch, dtype, asked, expected):
    # As on a GPU: what upstream says of its parameters is put in its place, the step is not taken.
    monkeypatch.setattr(factory, "_default_to_triton", bool)
    monkeypatch.setattr(optimi.StableAdamW, "_init_group", lambda *_, **__: None)
    optimizer = factory.StableAdamW([*small_model(dtype).parameters()], **OWN, **asked)
    optimizer._init_group(optimizer.param_groups[0])
    assert optimizer.param_groups[0]["triton"] is expected


def as_written_on_a_gpu(optimizer):
    """The state dict as triton's implementation leaves it (`optimi/stableadamw.py`)."""
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group["triton"] = True
    for state in saved["state"].values():
        state["mean_square"] = torch.zeros(1)
        if state["kahan_comp"] is None:
            state["kahan_comp"] = torch.zeros(1, dtype=torch.uint8)
    return through_a_file(saved)


@both_dtypes
@pytest.mark.parametrize("arguments", [{}, {"foreach": True}], ids=str)
def test_a_checkpoint_from_a_gpu_resumes_on_a_cpu(arguments, dtype):
    straight, model, fresh = small_model(dtype), small_model(dtype), small_model(dtype)
    train(straight, build(straight, **arguments), range(6))
    optimizer = build(model, **arguments)
    train(model, optimizer, range(3))
    fresh.load_state_dict(model.state_dict())
    again = build(fresh, **arguments)
    again.load_state_dict(as_written_on_a_gpu(optimizer))
    assert_same(train(fresh, again, range(3, 6)), straight)


@pytest.mark.usefixtures("with_triton")
def test_the_upstream_class_takes_the_implementation_of_the_checkpoint():
    """When this fails, `factory.StableAdamW.load_state_dict` need not keep ours any more."""
    model = small_model()
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    optimizer.load_state_dict(as_written_on_a_gpu(optimizer))
    with pytest.raises((RuntimeError, NameError)):
        train(model, optimizer, [1])


@pytest.mark.usefixtures("with_triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_from_a_cpu_is_made_fit_for_triton(dtype):
    model, fresh = small_model(dtype), small_model(dtype)
    optimizer = build(model)
    train(model, optimizer, range(3))
    fresh.load_state_dict(model.state_dict())
    groups = [
        {"params": [dict(fresh.named_parameters())[name] for name in group["param_names"]]}
        for group in optimizer.param_groups
    ]
    again = factory.StableAdamW(groups, **OWN, triton=True)
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    for group in again.param_groups:
        assert group["triton"] is True
        for parameter in group["params"]:
            state = again.state[parameter]
            assert state["mean_square"].dtype == torch.float32
            low = dtype == torch.bfloat16
            assert state["kahan_comp"].shape == (parameter.shape if low else (1,))
            assert state["kahan_comp"].dtype == (dtype if low else torch.uint8)

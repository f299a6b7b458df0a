"""What `hub bench` measures, on tensors small enough to know the figures."""

import time

import pytest
import torch

import hub
from hub.bench import Report, Row, Settings, measuring, problem
from hub.bench.settings import parse_shape
from hub.experiments import clock
from hub.experiments.contender import Contender

CPU = torch.device("cpu")


def settings(*names, **changes):
    contenders = tuple(Contender.parse(name) for name in names)
    return Settings(
        contenders=contenders, **{"shapes": ((3, 8, 16), (2, 5)), "steps": 3, **changes}
    )


@pytest.fixture(autouse=True)
def small_bandwidth(monkeypatch):
    monkeypatch.setattr(clock, "bandwidth", lambda _: 1e10)


def measure(name, **changes):
    one = settings(name, **changes)
    return measuring.measure(one, one.contenders[0])


def test_adamw_moves_28_bytes_for_a_parameter_and_as_many_for_its_counters():
    row = measure("adamw_torch")
    parameters, counters = 3 * 8 * 16 + 2 * 5, 5
    assert (row.parameters, row.tensors) == (parameters, 5)
    assert row.state_bytes == 8 * parameters + 4 * counters
    assert row.step_bytes == 28 * parameters + 8 * counters
    assert row.peak_bytes >= 8 * parameters
    assert 0 < row.ms <= row.slowest_ms
    assert row.ratio == row.ms / row.fused_ms
    assert row.reached == pytest.approx(row.step_bytes / row.ms * 1000 / 1e10)
    assert row.refresh_ms is row.device_ms is None


def test_a_slow_step_is_seen(monkeypatch):
    step = torch.optim.SGD.step

    def slow(self, closure=None):
        time.sleep(0.02)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", slow)
    row = measure("sgd")
    assert 20 <= row.ms < 20 + 10 * row.fused_ms + 20
    assert row.first_ms >= 20
    assert row.ratio > 2


def test_refreshes_are_apart_from_other_steps(monkeypatch):
    """They take part in the mean as often as in a training, of which nothing else is changed."""
    svd = torch.linalg.svd

    def slow(*arguments, **keywords):
        time.sleep(0.1)
        return svd(*arguments, **keywords)

    monkeypatch.setattr(torch.linalg, "svd", slow)
    row = measure("galore_adamw", steps=None)
    assert (
        row.refresh_gap
        == hub.describe("galore_adamw").arguments.model_fields["update_proj_gap"].default
    )
    assert row.refresh_ms >= 100 > row.ms
    assert row.slowest_ms >= row.refresh_ms
    assert row.mean_ms == pytest.approx(row.ms + (row.refresh_ms - row.ms) / row.refresh_gap)


def test_given_arguments_are_left_as_they_are():
    row = measure("galore_adamw:rank=2,update_proj_gap=3", steps=2)
    assert row.refresh_gap == 3
    assert measure("galore_adamw:rank=2", steps=2).refresh_gap == 200


@pytest.mark.parametrize("name", ["sgd_layerwise", "lomo"])
def test_a_step_in_the_backward_pass_is_timed_without_the_pass(name, monkeypatch):
    given = problem.Given.backward

    def slow(ctx, *gradients):
        time.sleep(0.005)
        return given(ctx, *gradients)

    monkeypatch.setattr(problem.Given, "backward", staticmethod(slow))
    assert measure(name).ms < 10  # of 25 for the pass


def test_a_given_gradient_arrives():
    model = problem.make_model(settings())
    gradients = problem.make_gradients(model)
    problem.loss_with(model, gradients).backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert parameter.grad is not gradient


def test_models_of_configurations_have_their_ties_and_their_dtype(tmp_path):
    from transformers import GPT2Config

    small = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 30}
    GPT2Config(**small, bos_token_id=0, eos_token_id=0).save_pretrained(tmp_path)
    model = problem.make_model(settings(model=tmp_path, shapes=(), precision="bf16"))
    assert model.lm_head.weight is model.transformer.wte.weight
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.device == CPU and p.std() > 0.01 for p in model.parameters() if p.ndim > 1)


def test_shapes_are_layers_where_they_are_matrices():
    model = problem.of_shapes((parse_shape("3x8x16"), parse_shape("2x5"), parse_shape("1x2x3x4")))
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(8, 16)] * 3 + [(5,)] * 2 + [(2, 3, 4)]
    assert [isinstance(each, torch.nn.Linear) for each in model] == [True] * 3 + [False] * 3


def test_a_report_goes_through_json():
    row = Row(label="sgd", ms=1.0, fused_ms=0.5, step_bytes=100, bandwidth=1e9)
    report = Report(settings={}, device="a CPU", date="2026-11-22", versions={}, rows=(row,))
    assert report.to_dict()["rows"][0]["ratio"] == 2
    assert Report.from_dict(report.to_dict()) == report

"""Accelerate as it is, around nothing but `hub.build`."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from helpers.fresh import run_fresh
from helpers.problem import (
    BATCH,
    KINDS,
    LR,
    STEPS,
    Trained,
    arguments,
    batch,
    difference,
    evaluate,
    make_model,
    names,
    plain,
    rows,
    schedule_of,
    targets,
    weights_of,
)
from torch.utils.data import DataLoader

import hub
from hub.spec import Trait

SAVED_AT = 3
ACCUMULATION = 4
CLIP = 0.1
"""Below the norm of every step."""
LOMO = ("lomo", "adalomo")


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def steps_in_backward(name):
    return Trait.STEPS_IN_BACKWARD in hub.describe(name).traits


def train(
    name,
    *,
    accumulation=1,
    precision=None,
    clip=None,
    save_to=None,
    load_from=None,
    evaluate_at=(),
    tells_rate=False,
    **given,
):
    """Train in the loop of Accelerate's documentation, from `load_from` where that is given."""
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=accumulation, mixed_precision=precision
    )
    model = make_model().train()
    optimizer = hub.build(
        name,
        model,
        target_modules=targets(name),
        precision=precision and f"{precision}-mixed",
        gradient_accumulation_steps=accumulation,
        **{**arguments(name), "lr": LR, **given},
    )
    schedule = hub.build_scheduler(schedule_of(name), optimizer, num_training_steps=STEPS)
    data = DataLoader(rows(STEPS * accumulation * BATCH), batch_size=BATCH, collate_fn=batch)
    model, optimizer, data, schedule = accelerator.prepare(model, optimizer, data, schedule)
    done = 0
    if load_from is not None:
        accelerator.load_state(load_from)
        done = SAVED_AT
        data = accelerator.skip_first_batches(data, SAVED_AT)
    trained = Trained({})
    for samples in data:
        with accelerator.accumulate(model):
            loss = model(**samples).loss
            rate = float(optimizer.param_groups[0]["lr"])
            accelerator.backward(loss, **({"learning_rate": rate} if tells_rate else {}))
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        done += 1
        trained.rates.append(rate)
        if done in evaluate_at:
            trained.evaluations.append(evaluate(model))
        if done == SAVED_AT and save_to is not None:
            accelerator.save_state(save_to)
    trained.weights = weights_of(accelerator.unwrap_model(model))
    return trained


def check(found, expected):
    assert found.rates == [float(rate) for rate in expected.rates]
    assert found.evaluations == expected.evaluations
    assert difference(found.weights, expected.weights) == 0


@pytest.mark.parametrize("name", names())
def test_every_name(name):
    check(train(name, evaluate_at=(SAVED_AT,)), plain(name, evaluate_at=(SAVED_AT,)))


@pytest.mark.parametrize("name", KINDS)
def test_accumulates(name):
    check(train(name, accumulation=ACCUMULATION), plain(name, accumulation=ACCUMULATION))


@pytest.mark.parametrize("name", LOMO)
def test_backward_may_be_told_the_learning_rate_of_lomo(name):
    check(train(name, tells_rate=True), plain(name))


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_layerwise", "schedule_free_adamw"])
def test_mixed_precision(name):
    check(train(name, precision="bf16"), plain(name, precision="bf16-mixed"))


@pytest.mark.parametrize("name", [name for name in KINDS if not steps_in_backward(name)])
def test_clips(name):
    found = train(name, clip=CLIP)
    check(found, plain(name, clip=CLIP))
    assert difference(found.weights, plain(name).weights) > 1e-3


@pytest.mark.parametrize("name", [name for name in KINDS if steps_in_backward(name)])
def test_clipping_that_comes_too_late_is_told(name):
    with pytest.warns(hub.HubWarning, match="after it has no effect"):
        train(name, clip=CLIP)


@pytest.mark.parametrize("name", names())
def test_resumes_to_the_last_bit(name, tmp_path):
    whole = train(name, save_to=tmp_path)
    resumed = train(name, load_from=tmp_path)
    assert resumed.rates == whole.rates[SAVED_AT:]
    assert difference(resumed.weights, whole.weights) == 0


def test_resumes_in_a_fresh_process(tmp_path):
    name = "galore_adamw_layerwise"
    whole = train(name, save_to=tmp_path)
    code = f"""
import torch, test_accelerate
torch.set_num_threads({torch.get_num_threads()})
weights = test_accelerate.train({name!r}, load_from={str(tmp_path)!r}).weights
torch.save(weights, {str(tmp_path / "weights.pt")!r})
"""
    run_fresh(code)
    assert difference(torch.load(tmp_path / "weights.pt"), whole.weights) == 0

"""Lightning's Trainer as it is arrives where a loop by hand does."""

from pathlib import Path

import pytest
import torch
from helpers.fresh import run_fresh
from helpers.lit import ITS_OWN_WARNINGS, Module, by_hand, described, fit
from helpers.problem import KINDS, STEPS, difference, names, weights_of
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

import hub
from hub.spec import Trait

pytestmark = [*map(pytest.mark.filterwarnings, ITS_OWN_WARNINGS)]
SAVED_AT = 3
ACCUMULATION = 4
CLIP = 0.1
"""Below the norm of every step."""


def steps_in_backward(name):
    return Trait.STEPS_IN_BACKWARD in hub.describe(name).traits


@pytest.mark.parametrize("name", names())
def test_every_name(name, tmp_path):
    """One evaluation is in the middle."""
    module = Module(described(name))
    fit(module, tmp_path, val_check_interval=SAVED_AT, limit_val_batches=1)
    expected = by_hand(name, evaluate_at=(SAVED_AT,))
    assert module.rates == expected.rates
    assert module.losses == expected.evaluations
    assert difference(weights_of(module.model), expected.weights) == 0


def saved(name, folder):
    """Train, and return the module and the checkpoint of the middle."""
    keep = ModelCheckpoint(folder, every_n_train_steps=SAVED_AT, save_top_k=-1)
    module = fit(Module(described(name)), folder, enable_checkpointing=True, callbacks=[keep])
    return module, next(Path(folder).glob(f"*step={SAVED_AT}.ckpt"))


def resumed(name, checkpoint, folder):
    module = fit(Module(described(name)), folder, start=SAVED_AT, ckpt_path=checkpoint)
    return weights_of(module.model)


@pytest.mark.parametrize("name", names())
def test_resumes_to_the_last_bit(name, tmp_path):
    whole, checkpoint = saved(name, tmp_path)
    assert difference(resumed(name, checkpoint, tmp_path), weights_of(whole.model)) == 0


def test_resumes_in_a_fresh_process(tmp_path):
    name = "galore_adamw_layerwise"
    whole, checkpoint = saved(name, tmp_path)
    code = f"""
import torch, test_lightning
torch.set_num_threads({torch.get_num_threads()})
weights = test_lightning.resumed({name!r}, {str(checkpoint)!r}, {str(tmp_path)!r})
torch.save(weights, {str(tmp_path / "weights.pt")!r})
"""
    run_fresh(code)
    assert difference(torch.load(tmp_path / "weights.pt"), weights_of(whole.model)) == 0


def test_a_checkpoint_has_the_weights_that_one_evaluates(tmp_path):
    name = "schedule_free_adamw"
    _, checkpoint = saved(name, tmp_path)
    expected = by_hand(name, save_at=SAVED_AT).saved["model"]
    found = torch.load(checkpoint, weights_only=True)["state_dict"]
    for key, weight in expected.items():
        assert torch.equal(found[f"model.{key}"], weight), key


@pytest.mark.parametrize("name", KINDS)
def test_accumulates(name, tmp_path):
    module = Module(described(name))
    fit(module, tmp_path, steps=STEPS * ACCUMULATION, accumulate_grad_batches=ACCUMULATION)
    assert len(module.rates) == STEPS
    expected = by_hand(name, accumulation=ACCUMULATION)
    assert difference(weights_of(module.model), expected.weights) == 0


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
def test_accumulation_that_changes(name, tmp_path):
    """Inside the backward pass as outside of it."""
    trained = []
    for detached in (False, True):
        module = Module(described(name, schedule=None))
        if detached:
            build = module.optimizer
            module.optimizer = lambda m, build=build: (
                hub.detach((built := build(m))["optimizer"]) or built
            )
        changing = GradientAccumulationScheduler({0: 1, 1: 3, 2: 2})
        fit(module, tmp_path, steps=6, max_epochs=3, callbacks=[changing])
        assert len(module.rates) == 6 + 2 + 3
        trained.append(weights_of(module.model))
    assert difference(*trained) == 0


@pytest.mark.parametrize("name", KINDS)
def test_clips(name, tmp_path):
    how = {"clipping": "previous_norm"} if steps_in_backward(name) else {}
    module = fit(Module(described(name, **how)), tmp_path, gradient_clip_val=CLIP)
    expected = by_hand(name, max_grad_norm=CLIP, **how)
    assert difference(weights_of(module.model), expected.weights) == 0


@pytest.mark.parametrize("name", [name for name in KINDS if steps_in_backward(name)])
def test_clipping_that_would_come_too_late_is_refused(name, tmp_path):
    with pytest.raises(hub.OptimArgsError, match="before the norm of all gradients is known"):
        fit(Module(described(name)), tmp_path, gradient_clip_val=CLIP)


def test_clipping_by_value_is_refused(tmp_path):
    clip = {"gradient_clip_val": CLIP, "gradient_clip_algorithm": "value"}
    with pytest.raises(hub.UnsupportedError, match="clips values after the backward pass"):
        fit(Module(described("adamw_torch_layerwise")), tmp_path, **clip)

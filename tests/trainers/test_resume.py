"""Training that is cut short and resumed by `resume_from_checkpoint`, in a fresh process too."""

import pytest
import torch
from helpers.fresh import run_fresh
from helpers.problem import KINDS, STEPS, difference, make_model, names, weights_of
from helpers.trainer import logged, resume, train

HALF = {"save_strategy": "steps", "save_steps": 3}
RESUME = """
import sys, torch
from hub.testing.thread_count import thread_count
torch.set_num_threads(thread_count())
from helpers.problem import make_model, weights_of
from helpers.trainer import resume
folder = sys.argv[1]
for name in sys.argv[2:]:
    model = make_model()
    running = resume(name, model, f"{folder}/{name}")
    torch.save(weights_of(model), f"{folder}/{name}/resumed.pt")
"""


@pytest.mark.parametrize("name", names())
def test_to_the_bit(name, tmp_path):
    whole, resumed = make_model(), make_model()
    uninterrupted = train(name, whole, tmp_path, **HALF)
    again = resume(name, resumed, tmp_path)
    assert again.state.global_step == STEPS
    assert logged(again, "learning_rate") == logged(uninterrupted, "learning_rate")
    assert difference(weights_of(resumed), weights_of(whole)) == 0


def test_in_a_fresh_process(tmp_path):
    whole = {}
    for name in KINDS:
        model = make_model()
        running = train(name, model, tmp_path / name, **HALF)
        whole[name] = weights_of(model)
        del running
    run_fresh(RESUME, str(tmp_path), *KINDS, options=("-W", "error::hub.HubWarning"))
    for name in KINDS:
        resumed = torch.load(tmp_path / name / "resumed.pt", weights_only=True)
        assert difference(resumed, whole[name]) == 0, name


@pytest.mark.parametrize("name", KINDS)
def test_the_file_is_plain_data(name, tmp_path):
    train(name, make_model(), tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    saved = torch.load(tmp_path / "checkpoint-1" / "optimizer.pt", weights_only=True)
    assert saved["state"] or name in ("sgd", "lomo")

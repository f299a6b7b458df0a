"""`lomo` and `adalomo` in Accelerate and Transformers' Trainer, which know LOMO by its classes.

Accelerate 1.15 never calls `step()` of an instance of `lomo_optim.Lomo` or `AdaLomo`, nor does
Transformers 5.23. Both have to arrive where a loop by hand does.
"""

import lomo_optim
import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same

from .loops import LR, build, by_hand, falling, loader, make_model, trainer, with_accelerate

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")

CLASSES = {"lomo": lomo_optim.Lomo, "adalomo": lomo_optim.AdaLomo}
every_name = pytest.mark.parametrize("name", CLASSES)
every_window = pytest.mark.parametrize("window", [1, 2])
STEPS = 6
CLIP = {"max_grad_norm": 0.5, "clipping": "previous_norm"}


@every_name
@every_window
@pytest.mark.parametrize("tells_lr", [True, False])
@pytest.mark.parametrize("clip", [{}, CLIP], ids=["unclipped", "clipped"])
def test_accelerate_trains_as_a_loop_by_hand(name, window, tells_lr, clip):
    ours, theirs = make_model(), make_model()
    optimizer = build(name, ours, window, **clip)
    assert isinstance(optimizer, CLASSES[name])
    with_accelerate(ours, optimizer, STEPS * window, window, tells_lr=tells_lr)
    reference = build(name, theirs, window, **clip)
    assert_same(ours, by_hand(theirs, reference, STEPS * window, window))


@every_name
def test_accelerate_clips_exactly_without_being_told(name):
    model, other = make_model(), make_model()
    clip = {"max_grad_norm": 0.5, "clipping": "exact"}
    with_accelerate(model, build(name, model, **clip), STEPS, tells_lr=True)
    optimizer = build(name, other)
    hub.detach(optimizer)
    # Norms add up in the order of the groups.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def clip_before(*_):
        nn.utils.clip_grad_norm_(parameters, 0.5)

    optimizer.register_step_pre_hook(clip_before)
    assert_same(model, by_hand(other, optimizer, STEPS))


@every_name
@every_window
@pytest.mark.parametrize("knows", [True, False], ids=["optim=name", "another optim"])
def test_transformers_trains_as_a_loop_by_hand(name, window, knows, tmp_path):
    ours, theirs = make_model(), make_model()
    optimizer = build(name, ours, window)
    settings = {"optim": name} if knows else {}
    running = trainer(
        tmp_path, ours, STEPS * window, window, settings=settings, optimizers=(optimizer, None)
    )
    running.train()
    assert_same(ours, by_hand(theirs, build(name, theirs, window), STEPS * window, window))
    logged = [entry["learning_rate"] for entry in running.state.log_history if "loss" in entry]
    assert logged == [LR * falling(STEPS, 1, 1)(step) for step in range(STEPS)]


@every_name
def test_transformers_logs_the_norm_of_the_gradients(name, tmp_path):
    model, other = make_model(), make_model()
    optimizers = build(name, model), None
    running = trainer(
        tmp_path, model, STEPS, settings={"max_grad_norm": 0.5}, optimizers=optimizers
    )
    with pytest.warns(hub.HubWarning, match="after it has no effect"):
        running.train()
    logged = [entry["grad_norm"] for entry in running.state.log_history if "loss" in entry]
    other(**next(iter(loader(STEPS))))["loss"].backward()
    assert logged[0] == pytest.approx(hub.grad_norm(torch.optim.SGD(other.parameters())).item())
    assert len(set(logged)) == STEPS

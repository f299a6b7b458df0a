"""The last window of an epoch may have fewer micro-batches, where nobody calls `step()`."""

import pytest

import hub
from hub.testing.comparing import assert_same, moved, weights

from .loops import build, by_hand, eager, loader, make_model, trainer, with_accelerate

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")

WINDOW = {"window": 4, "epochs": 3}
DECAY = {"weight_decay": 0.1}
every_name = pytest.mark.parametrize("name", ["lomo", "adalomo"])
every_size = pytest.mark.parametrize("batches", [8, 6, 2, 1])


def in_windows(name):
    model = make_model()
    return model, build(name, model, WINDOW["window"], **DECAY)


@every_name
@every_size
@pytest.mark.parametrize("set_to_none", [True, False])
def test_accelerate(name, batches, set_to_none):
    model, optimizer = in_windows(name)
    with_accelerate(model, optimizer, batches, **WINDOW, set_to_none=set_to_none)
    expected = eager(name, batches, **WINDOW, arguments=DECAY, set_to_none=set_to_none)
    assert_same(model, expected)


@every_name
def test_a_loop_by_hand_does_not_listen_to_what_accelerate_has_left(name):
    """Its state is the process's: it still says that a window ends."""
    with_accelerate(*in_windows(name), 6, **WINDOW)
    model = by_hand(*in_windows(name), 6, **WINDOW)
    assert_same(model, eager(name, 6, **WINDOW, arguments=DECAY))


@every_name
@pytest.mark.parametrize("batches", [8, 6, 2])
def test_a_trainer_that_is_given_the_optimizer(name, batches, tmp_path):
    """16 and 48 samples among them; the Trainer divides by the micro-batches that there are."""
    model, optimizer = in_windows(name)
    trainer(tmp_path, model, batches, **WINDOW, optimizers=(optimizer, None)).train()
    assert_same(model, eager(name, batches, **WINDOW, arguments=DECAY, divides_by_window=True))


@every_name
@every_size
def test_a_trainer_that_creates_the_optimizer(name, batches, tmp_path):
    from hub.trainers import transformers

    model = make_model()
    made = transformers.optimizer(name)
    running = trainer(
        tmp_path, model, batches, **WINDOW, settings=DECAY, optimizer_cls_and_kwargs=made
    )
    running.train()
    assert_same(model, eager(name, batches, **WINDOW, arguments=DECAY, divides_by_window=True))


@every_name
def test_gradients_that_are_cleared_in_a_window_do_not_count(name):
    """By `model.zero_grad()`, which does not tell the optimizer."""
    ours, theirs = make_model(), make_model()
    optimizers = [build(name, model, 2, **DECAY) for model in (ours, theirs)]
    for optimizer in optimizers:
        optimizer.step()  # so that it knows that somebody calls it
    first, *rest = loader(4)
    (ours(**first)["loss"] / 2).backward()
    ours.zero_grad()
    for model in (ours, theirs):
        for inputs in rest[:2]:
            (model(**inputs)["loss"] / 2).backward()
    for optimizer in optimizers:
        optimizer.step()
    assert_same(ours, theirs)


def test_windows_that_are_cleared_before_they_are_whole_are_told(tmp_path):
    """A Trainer with one micro-batch an epoch never says that a window does not end."""
    model, optimizer = in_windows("lomo")
    before = weights(model)
    running = trainer(tmp_path, model, 1, **WINDOW, optimizers=(optimizer, None))
    with pytest.warns(hub.HubWarning, match="1 of 4 micro-batches were cleared"):
        running.train()
    assert not moved(model, before)

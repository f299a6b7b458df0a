"""The last window of an epoch may have fewer micro-batches, where nobody calls `step()`."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import hub
from hub.testing.comparing import assert_same, moved, weights

EPOCHS, SIZE, WINDOW, LR, DECAY = 3, 8, 4, 0.05, 0.1
every_name = pytest.mark.parametrize("name", ["lomo", "adalomo"])
every_size = pytest.mark.parametrize("batches", [8, 6, 2, 1])


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Model(nn.Module):
    """Has a layer that takes part in every other batch."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 1)
        self.sometimes = nn.Linear(16, 16)

    def forward(self, x, labels):
        features = self.first(x).tanh()
        if x[0, 0] > 0:
            features = features + self.sometimes(features)
        return {"loss": (self.last(features).squeeze(-1) - labels).square().mean()}


def make_model():
    torch.manual_seed(0)
    return Model()


def samples(batches):
    inputs = torch.randn(batches * SIZE, 8, generator=torch.Generator().manual_seed(1))
    inputs[:, 0] = torch.tensor([1.0, -1.0]).repeat_interleave(SIZE).repeat(batches)[: len(inputs)]
    return [{"x": x, "labels": x.sum()} for x in inputs]


def falling(batches):
    total = EPOCHS * math.ceil(batches / WINDOW)
    return lambda step: max(0.0, float(total - step) / total)


def by_hand(name, batches, *, divides_by_window=False, set_to_none=True):
    """Return a model that the eager form has trained."""
    model = make_model()
    optimizer = hub.build(name, model, lr=LR, weight_decay=DECAY)
    hub.detach(optimizer)
    schedule = LambdaLR(optimizer, falling(batches))
    for _ in range(EPOCHS):
        for number, inputs in enumerate(DataLoader(samples(batches), SIZE), 1):
            short = number > batches - batches % WINDOW
            parts = batches % WINDOW if short and divides_by_window else WINDOW
            (model(**inputs)["loss"] / parts).backward()
            if number % WINDOW == 0 or number == batches:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none)
    return model


def with_accelerate(name, batches, zero_grad):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=WINDOW)
    model = make_model()
    optimizer = hub.build(
        name, model, lr=LR, weight_decay=DECAY, gradient_accumulation_steps=WINDOW
    )
    schedule = LambdaLR(optimizer, falling(batches))
    data = DataLoader(samples(batches), SIZE)
    prepared, wrapped, data, schedule = accelerator.prepare(model, optimizer, data, schedule)
    for _ in range(EPOCHS):
        for inputs in data:
            with accelerator.accumulate(prepared):
                accelerator.backward(prepared(**inputs)["loss"])
                wrapped.step()
                schedule.step()
                zero_grad(wrapped)
    return model, optimizer


@every_name
@every_size
@pytest.mark.parametrize("set_to_none", [True, False])
def test_accelerate(name, batches, set_to_none):
    found, _ = with_accelerate(name, batches, lambda one: one.zero_grad(set_to_none=set_to_none))
    assert_same(found, by_hand(name, batches, set_to_none=set_to_none))


@every_name
def test_a_loop_by_hand_does_not_listen_to_what_accelerate_has_left(name):
    """Its state is the process's: it still says that a window ends."""
    with_accelerate(name, 6, lambda one: one.zero_grad())
    model = make_model()
    optimizer = hub.build(
        name, model, lr=LR, weight_decay=DECAY, gradient_accumulation_steps=WINDOW
    )
    schedule = LambdaLR(optimizer, falling(6))
    for _ in range(EPOCHS):
        for number, inputs in enumerate(DataLoader(samples(6), SIZE), 1):
            (model(**inputs)["loss"] / WINDOW).backward()
            if number in (WINDOW, 6):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    assert_same(model, by_hand(name, 6))


def trainer(folder, model, batches, **how):
    settings = TrainingArguments(
        output_dir=str(folder),
        lr_scheduler_type="linear",
        max_grad_norm=0.0,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=SIZE,
        gradient_accumulation_steps=WINDOW,
        learning_rate=LR,
        weight_decay=DECAY,
        train_sampling_strategy="sequential",
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    return Trainer(model, settings, train_dataset=samples(batches), **how)


@every_name
@pytest.mark.parametrize("batches", [8, 6, 2])
def test_a_trainer_that_is_given_the_optimizer(name, batches, tmp_path):
    """16 and 48 samples among them; the Trainer divides by the micro-batches that there are."""
    model = make_model()
    optimizer = hub.build(
        name, model, lr=LR, weight_decay=DECAY, gradient_accumulation_steps=WINDOW
    )
    trainer(tmp_path, model, batches, optimizers=(optimizer, None)).train()
    assert_same(model, by_hand(name, batches, divides_by_window=True))


@every_name
@every_size
def test_a_trainer_that_creates_the_optimizer(name, batches, tmp_path):
    from hub.trainers import transformers

    model = make_model()
    made = transformers.optimizer(name)
    trainer(tmp_path, model, batches, optimizer_cls_and_kwargs=made).train()
    assert_same(model, by_hand(name, batches, divides_by_window=True))


@every_name
def test_gradients_that_are_cleared_in_a_window_do_not_count(name):
    """By `model.zero_grad()`, which does not tell the optimizer."""
    ours, theirs = make_model(), make_model()
    optimizer = hub.build(name, ours, lr=LR, weight_decay=DECAY, gradient_accumulation_steps=2)
    other = hub.build(name, theirs, lr=LR, weight_decay=DECAY, gradient_accumulation_steps=2)
    for one in (optimizer, other):
        one.step()  # so that it knows that somebody calls it
    data = list(DataLoader(samples(4), SIZE))
    for model, used in ((ours, data), (theirs, data[1:3])):
        for inputs in used:
            if inputs is data[1]:
                model.zero_grad()
            if inputs is not data[3]:
                (model(**inputs)["loss"] / 2).backward()
    for one in (optimizer, other):
        one.step()
    assert_same(ours, theirs)


def test_windows_that_are_cleared_before_they_are_whole_are_told(tmp_path):
    """A Trainer with one micro-batch an epoch never says that a window does not end."""
    model = make_model()
    before = weights(model)
    optimizer = hub.build(
        "lomo", model, lr=LR, weight_decay=DECAY, gradient_accumulation_steps=WINDOW
    )
    running = trainer(tmp_path, model, 1, optimizers=(optimizer, None))
    with pytest.warns(hub.HubWarning, match="1 of 4 micro-batches were cleared"):
        running.train()
    assert not moved(model, before)

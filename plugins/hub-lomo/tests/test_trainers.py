"""`lomo` and `adalomo` in Accelerate and Transformers' Trainer, which know LOMO by its classes.

Accelerate 1.15 never calls `step()` of an instance of `lomo_optim.Lomo` or `AdaLomo`, nor does
Transformers 5.23. Both have to arrive where a loop by hand does with the eager form.
"""

import lomo_optim
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments

import hub
from hub.testing.comparing import assert_same

CLASSES = {"lomo": lomo_optim.Lomo, "adalomo": lomo_optim.AdaLomo}
every_name = pytest.mark.parametrize("name", CLASSES)
every_accumulation = pytest.mark.parametrize("accumulation", [1, 2])
STEPS, SIZE, LR = 6, 4, 0.05
CLIP = {"max_grad_norm": 0.5, "clipping": "previous_norm"}


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Model(nn.Module):
    """Has a layer that takes part where an input's first number is positive, if it is told to."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 1)
        self.sometimes = nn.Linear(16, 16)
        self.leaves_out = False

    def forward(self, x, labels):
        features = self.first(x).tanh()
        if x[0, 0] > 0 or not self.leaves_out:
            features = features + self.sometimes(features)
        return {"loss": (self.last(features).squeeze(-1) - labels).square().mean()}


def make_model():
    torch.manual_seed(0)
    return Model()


def samples(accumulation):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(STEPS * accumulation * SIZE, 8, generator=generator)
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(SIZE)
    inputs[:, 0] = signs.repeat(len(inputs) // len(signs))
    return [{"x": x, "labels": x.sum()} for x in inputs]


def batches(accumulation):
    data = samples(accumulation)
    for start in range(0, len(data), SIZE):
        part = data[start : start + SIZE]
        yield {key: torch.stack([sample[key] for sample in part]) for key in part[0]}


def falling(step):
    """Transformers' linear schedule without warm-up."""
    return max(0.0, float(STEPS - step) / STEPS)


def build(name, model, accumulation=1, **arguments):
    return hub.build(name, model, lr=LR, gradient_accumulation_steps=accumulation, **arguments)


def by_hand(name, model, accumulation, **arguments):
    optimizer = build(name, model, accumulation, **arguments)
    schedule = LambdaLR(optimizer, falling)
    for number, inputs in enumerate(batches(accumulation), 1):
        (model(**inputs)["loss"] / accumulation).backward()
        if number % accumulation == 0:
            optimizer.step()
            schedule.step()
    return model


def with_accelerate(model, optimizer, accumulation, *, tells_lr):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    schedule = LambdaLR(optimizer, falling)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    for inputs in batches(accumulation):
        with accelerator.accumulate(model):
            loss = model(**inputs)["loss"]
            told = {"learning_rate": optimizer.param_groups[0]["lr"]} if tells_lr else {}
            accelerator.backward(loss, **told)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


@every_name
@every_accumulation
@pytest.mark.parametrize("tells_lr", [True, False])
@pytest.mark.parametrize("clip", [{}, CLIP], ids=["unclipped", "clipped"])
def test_accelerate_trains_as_a_loop_by_hand(name, accumulation, tells_lr, clip):
    ours, theirs = make_model(), make_model()
    ours.leaves_out = theirs.leaves_out = True
    optimizer = build(name, ours, accumulation, **clip)
    assert isinstance(optimizer, CLASSES[name])
    with_accelerate(ours, optimizer, accumulation, tells_lr=tells_lr)
    assert_same(ours, by_hand(name, theirs, accumulation, **clip))


@every_name
def test_accelerate_clips_exactly_without_being_told(name):
    model, other = make_model(), make_model()
    clip = {"max_grad_norm": 0.5, "clipping": "exact"}
    with_accelerate(model, build(name, model, **clip), 1, tells_lr=True)
    optimizer = build(name, other)
    hub.detach(optimizer)
    schedule = LambdaLR(optimizer, falling)
    # Norms add up in the order of the groups.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for inputs in batches(1):
        other(**inputs)["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert_same(model, other)


def trainer(folder, model, optimizer, accumulation=1, **arguments):
    settings = TrainingArguments(
        **{
            "output_dir": str(folder),
            "lr_scheduler_type": "linear",
            "max_grad_norm": 0.0,
            "max_steps": STEPS,
            "per_device_train_batch_size": SIZE,
            "gradient_accumulation_steps": accumulation,
            "train_sampling_strategy": "sequential",
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
            **arguments,
        }
    )
    return Trainer(
        model, settings, train_dataset=samples(accumulation), optimizers=(optimizer, None)
    )


@every_name
@every_accumulation
@pytest.mark.parametrize("knows", [True, False], ids=["optim=name", "another optim"])
def test_transformers_trains_as_a_loop_by_hand(name, accumulation, knows, tmp_path):
    ours, theirs = make_model(), make_model()
    ours.leaves_out = theirs.leaves_out = True
    optimizer = build(name, ours, accumulation)
    optim = {"optim": name} if knows else {}
    running = trainer(tmp_path, ours, optimizer, accumulation, **optim)
    running.train()
    assert_same(ours, by_hand(name, theirs, accumulation))
    logged = [entry["learning_rate"] for entry in running.state.log_history if "loss" in entry]
    assert logged == [LR * falling(step) for step in range(STEPS)]


@every_name
def test_transformers_logs_the_norm_of_the_gradients(name, tmp_path):
    model, other = make_model(), make_model()
    running = trainer(tmp_path, model, build(name, model), max_grad_norm=0.5)
    with pytest.warns(hub.HubWarning, match="have no effect any more"):
        running.train()
    logged = [entry["grad_norm"] for entry in running.state.log_history if "loss" in entry]
    other(**next(batches(1)))["loss"].backward()
    assert logged[0] == pytest.approx(hub.grad_norm(torch.optim.SGD(other.parameters())).item())
    assert len(set(logged)) == STEPS

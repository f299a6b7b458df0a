"""One model trained in a loop by hand, with Accelerate, and by Transformers' Trainer."""

import math

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import hub

SIZE, LR = 8, 0.05


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


def loader(batches):
    return DataLoader(samples(batches), SIZE)


def falling(batches, window, epochs):
    """Transformers' linear schedule without warm-up."""
    total = epochs * math.ceil(batches / window)
    return lambda step: max(0.0, float(total - step) / total)


def build(name, model, window=1, **arguments):
    return hub.build(name, model, lr=LR, gradient_accumulation_steps=window, **arguments)


def by_hand(
    model, optimizer, batches, window=1, epochs=1, *, divides_by_window=False, set_to_none=True
):
    """Train, the last window of an epoch with as many micro-batches as there are."""
    schedule = LambdaLR(optimizer, falling(batches, window, epochs))
    for _ in range(epochs):
        for number, inputs in enumerate(loader(batches), 1):
            short = number > batches - batches % window
            parts = batches % window if short and divides_by_window else window
            (model(**inputs)["loss"] / parts).backward()
            if number % window == 0 or number == batches:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none)
    return model


def eager(name, batches, window=1, epochs=1, *, arguments=None, **how):
    """Return a model that the eager form has trained by hand."""
    model = make_model()
    optimizer = hub.build(name, model, lr=LR, **(arguments or {}))
    hub.detach(optimizer)
    return by_hand(model, optimizer, batches, window, epochs, **how)


def with_accelerate(
    model, optimizer, batches, window=1, epochs=1, *, tells_lr=False, set_to_none=True
):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=window)
    schedule = LambdaLR(optimizer, falling(batches, window, epochs))
    prepared, wrapped, data, schedule = accelerator.prepare(
        model, optimizer, loader(batches), schedule
    )
    for _ in range(epochs):
        for inputs in data:
            with accelerator.accumulate(prepared):
                told = {"learning_rate": wrapped.param_groups[0]["lr"]} if tells_lr else {}
                accelerator.backward(prepared(**inputs)["loss"], **told)
                wrapped.step()
                schedule.step()
                wrapped.zero_grad(set_to_none=set_to_none)
    return model


def trainer(folder, model, batches, window=1, epochs=1, *, settings=None, **how):
    arguments = {
        "output_dir": str(folder),
        "lr_scheduler_type": "linear",
        "max_grad_norm": 0.0,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": SIZE,
        "gradient_accumulation_steps": window,
        "learning_rate": LR,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        **(settings or {}),
    }
    return Trainer(model, TrainingArguments(**arguments), train_dataset=samples(batches), **how)

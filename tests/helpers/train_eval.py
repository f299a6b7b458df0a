"""What hub is held to: schedulefree's own class by hand, and an evaluation as trainers do it."""

import copy

import schedulefree
import torch

import hub
from hub.testing.kit_model import batch, loss_of

ARGUMENTS = {"lr": 0.05, "weight_decay": 0.1}


def pair(make, steps):
    """Return two models after the same training: hub's with its optimizer, and one for evaluation.

    Args:
        make: Returns the model, the same every time.
        steps: Trains a model with an optimizer.
    """
    model = make()
    optimizer = hub.build("schedule_free_adamw", model, **ARGUMENTS)
    other = make()
    names = [(group["param_names"], group["weight_decay"]) for group in optimizer.param_groups]
    bare = schedulefree.AdamWScheduleFree(
        [
            {"params": [other.get_parameter(name) for name in group], "weight_decay": decay}
            for group, decay in names
        ],
        lr=ARGUMENTS["lr"],
    )
    bare.train()
    steps(model, optimizer)
    steps(other, bare)
    bare.eval()
    return model, optimizer, copy.deepcopy(other).eval()


def evaluated(model):
    """Return the loss as a trainer measures it, and leave the model in training mode."""
    model.eval()
    with torch.no_grad():
        loss = loss_of(model, batch(99)).item()
    model.train()
    return loss

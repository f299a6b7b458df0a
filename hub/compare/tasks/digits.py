"""Handwritten digits, by a tiny vision transformer."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from hub.compare.result import digest
from hub.compare.tasks.task import Task
from hub.experiments import extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from hub.compare.tasks import Options

BATCH_SIZE = 32
TAKES = ("batch_size",)
PRELOADED = ()
HELD_OUT = 6
"""Every sixth image is only evaluated on."""
VERSION = 1
"""Of the model below: another one gives other losses."""


class Images(NamedTuple):
    """Images of 8×8 pixels from -1 to 1, and which digit each shows."""

    pixels: Tensor
    digits: Tensor


def check(_: Options) -> None:
    """Check that scikit-learn is there.

    Raises:
        HubError: It is missing.
    """
    extra.require("sklearn")


def make(options: Options) -> Task:
    """Return the task.

    Raises:
        HubError: As `check`.
    """
    check(options)
    batch_size = options.batch_size or BATCH_SIZE
    return Task(
        name="digits",
        summary="a vision transformer with 102,000 parameters on scikit-learn's images of digits, "
        f"{batch_size} a step",
        unit="nats an image",
        model=lambda _: model(),
        batches=lambda seed: training_batches(batch_size, seed),
        loss=loss,
        evaluate=lambda module: loss(module, images(held_out=True)).item(),
        tokens=batch_size,
        steps=150,
        target=0.25,
        fingerprint=digest([VERSION, HELD_OUT, batch_size, _of_images()]),
    )


def model() -> nn.Module:
    """Make the transformer, with random weights."""
    from hub.compare.tasks.vision import VisionTransformer

    return VisionTransformer()


def loss(module: nn.Module, batch: Images) -> Tensor:
    """Return the mean negative log likelihood of the digits, in nats."""
    from torch.nn.functional import cross_entropy

    device = next(module.parameters()).device
    return cross_entropy(module(batch.pixels.to(device)), batch.digits.to(device))


@cache
def images(*, held_out: bool) -> Images:
    """Return the images to train on, or those that are held out."""
    import torch

    loaded = extra.load("sklearn.datasets").load_digits()
    pixels = torch.from_numpy(loaded.images).float() / 8 - 1
    digits = torch.from_numpy(loaded.target).long()
    chosen = (torch.arange(len(digits)) % HELD_OUT == 0) == held_out
    return Images(pixels[chosen], digits[chosen])


def training_batches(batch_size: int, seed: int) -> Iterator[Images]:
    """Draw images for ever, each once before any comes again."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    pixels, digits = images(held_out=False)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(len(digits), generator=generator)])
        some, left = left[:batch_size], left[batch_size:]
        yield Images(pixels[some], digits[some])


def _of_images() -> str:
    """Return a digest of all images, which scikit-learn brings along."""
    found = hashlib.sha256()
    for held_out in (False, True):
        for one in images(held_out=held_out):
            found.update(one.numpy().tobytes())
    return found.hexdigest()

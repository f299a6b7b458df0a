"""Check of what several threads get and leave when they build at the same time: P11."""

from __future__ import annotations

import logging
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import torch

from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.subject import Subject, differing, train

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from hub.testing.kit_model import Model

THREADS = 4


def threads(subject: Subject) -> None:
    """P11: building in several threads leaves the process alone, and each optimizer is right."""
    alone = _trained(*subject.start())
    models = [subject.model() for _ in range(THREADS)]
    before, streams = _process(), (sys.stdout, sys.stderr)
    optimizers = _built_at_once(subject, models)
    changed = [key for key, value in _process().items() if value != before[key]]
    sys.stdout, sys.stderr = streams
    expect(not changed, f"building in {THREADS} threads changed {', '.join(changed)}")
    for model, optimizer in zip(models, optimizers, strict=True):
        different = differing(alone, _trained(model, optimizer))
        expect(not different, f"an optimizer of a thread updates differently: {different}")


def _built_at_once(subject: Subject, models: list[Model]) -> list[Optimizer]:
    barrier = Barrier(len(models))
    interval = sys.getswitchinterval()

    def build(model: Model) -> Optimizer:
        barrier.wait()
        return subject.build(model)

    sys.setswitchinterval(1e-5)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(len(models)) as pool:
            return list(pool.map(build, models))
    finally:
        sys.setswitchinterval(interval)


def _trained(model: Model, optimizer: Optimizer) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        train(model, optimizer, 2)
    return weights(model)


def _process() -> dict[str, Any]:
    """Return what all threads share, by identity where a copy is another thing."""
    root = logging.getLogger()
    return {
        "stdout": id(sys.stdout),
        "stderr": id(sys.stderr),
        "the warnings filters": (id(warnings.filters), list(warnings.filters)),
        "how warnings are shown": warnings.showwarning,
        "logging": (root.manager.disable, root.level, list(root.handlers), list(root.filters)),
        "torch's default dtype": torch.get_default_dtype(),
    }

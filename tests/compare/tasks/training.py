"""Trains a task as a study does, in this process."""

from hub.compare import Contender, Run, Settings
from hub.compare.execution.events import Ended, Evaluated
from hub.compare.execution.training import train
from hub.compare.result import Status


def trained(contender, task, *, seed=0, steps=200, **settings):
    """Return the held-out losses, from that before training on; of a diverged one, until then."""
    one = Contender.parse(contender)
    study = Settings(contenders=(one,), tasks=(task,), target=0.0, **settings)
    events = list(train(study, one, Run(contender=one.label, task=task, seed=seed, steps=steps)))
    assert isinstance(events[-1], Ended)
    assert events[-1].status is not Status.FAILED
    return [event.loss for event in events if isinstance(event, Evaluated)]

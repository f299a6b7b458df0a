"""Each class is a linear schedule with one promise broken."""

from functools import partial

from hub.builtin.schedule_classes import CurveSchedule


def linear(step, warmup, total):
    """Return the factor of a linear warm-up and a linear decay."""
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


class Linear(CurveSchedule):
    """Breaks nothing by itself."""

    def __init__(self, optimizer, warmup, total):
        super().__init__(optimizer, partial(self.factor, warmup=warmup, total=total))

    factor = staticmethod(linear)


class NeedsAWarmup(Linear):
    @staticmethod
    def factor(step, warmup, total):
        return linear(step, warmup, total) if warmup else float("nan")


class IgnoresTheWarmup(Linear):
    def __init__(self, optimizer, warmup, total):  # noqa: ARG002
        super().__init__(optimizer, 0, total)


class FirstGroupForAll(Linear):
    def step(self, epoch=None):
        super().step(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.optimizer.param_groups[0]["lr"]


class ReplacesTensors(Linear):
    def step(self, epoch=None):
        super().step(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = float(group["lr"])


class ResumesFromTheGroups(Linear):
    """Takes what the groups have when it is loaded for the peaks."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]


class ForgetsLateGroups(Linear):
    def get_last_lr(self):
        return super().get_last_lr()[:2]

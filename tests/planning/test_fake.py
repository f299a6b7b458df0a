"""Steps that read values, on tensors without any."""

import pytest
import torch
from torch import nn

import hub
from hub.planning import state_size
from hub.planning.fake import fake_tensors

LARGE = 5000


class Reads(torch.optim.SGD):
    """Keeps as many numbers as it is told to, after reading a value."""

    kept = staticmethod(lambda p, value: p.numel() if value > 0 else 0)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["kept"] = torch.zeros(self.kept(p, p.flatten()[0].item()))
        return super().step(closure)


class ByValue(Reads):
    """What it keeps depends on the value, which is 0.1."""

    kept = staticmethod(lambda _, value: 7 if value < 0.5 else 1)


@pytest.mark.parametrize(
    ("cls", "size", "is_real"), [(Reads, 4 * LARGE * LARGE, False), (ByValue, 28, True)]
)
def test_only_what_does_not_depend_on_values_goes_without(cls, size, is_real, monkeypatch):
    with torch.device("meta"):
        model = nn.Linear(LARGE, LARGE, bias=False)
    one_by_one, called = state_size._one_by_one, []

    def spy(*arguments):
        called.append(arguments)
        return one_by_one(*arguments)

    monkeypatch.setattr(state_size, "_one_by_one", spy)
    assert hub.estimate((cls, {"lr": 0.1}), model).state == size
    assert bool(called) == is_real


def test_reading_a_value_is_an_error_unless_any_will_do():
    def read():
        tensor = torch.ones(2)
        return tensor[0].item(), tensor.int()[0].item(), bool(tensor.any())

    with fake_tensors(), pytest.raises(Exception, match="_local_scalar_dense"):
        read()
    with fake_tensors(any_value=True):
        assert read() == (1.0, 1, True)
    assert torch.ones(2)[0].item() == 1

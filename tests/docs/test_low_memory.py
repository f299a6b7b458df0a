"""The figures of docs/low-memory.md are those of `hub.estimate`."""

import re

import pytest
import torch

import hub
from tests.docs.conftest import DOCS

PAGE = (DOCS / "low-memory.md").read_text()
ROWS = re.findall(
    r"^\| `(\w+)`, (fp32|bf16)[^|]*?(?:`rounding=(\w+)`)? \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
    PAGE,
    re.MULTILINE,
)
SIDE = 1024


def test_all_rows_are_read():
    assert len(ROWS) == PAGE.count("\n| `") - 4  # of the first table


@pytest.mark.parametrize(
    ("name", "dtype", "rounding", "weight", "gradient", "state", "total"), ROWS
)
def test_bytes_for_each_weight(name, dtype, rounding, weight, gradient, state, total):
    model = torch.nn.Linear(SIDE, SIDE, bias=False)
    model.to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    found = hub.estimate(name, model, rounding=rounding or None)
    bytes_each = [found.parameters, found.gradients, found.state]
    assert [round(each / SIDE**2) for each in bytes_each] == [
        int(weight),
        int(gradient),
        int(state),
    ]
    assert int(weight) + int(gradient) + int(state) == int(total)

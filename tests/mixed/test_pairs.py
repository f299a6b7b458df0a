"""docs/mixed.md: every pair of optimizers keeps the kit's checks, or is refused with the reason."""

import json
import subprocess
import sys

import pytest

from hub.testing import Subject
from tests.docs.conftest import DOCS, generator

MEASURE = generator("measure_mixed")
TABLE = json.loads((DOCS / "mixed.json").read_text())
AGAIN = [
    ("adamw_torch", "galore_adamw", ("resume", "witnessed", "late_group", "clips")),
    ("schedule_free_adamw", "adamw_8bit", ("modes", "evaluates", "own_lr", "witnessed")),
    ("lomo", "adamw_torch", ("resume", "distributed_state", "copies")),
    ("muon", "apollo_adamw", ("follows_lr", "decay", "other_checkpoint", "witnessed")),
    ("adamw_torch_layerwise", "lomo", ("closures", "accumulates", "norm_before_step")),
    ("flash_adamw", "muon", ("is_optimizer", "covers", "detaches", "plain_state")),
]


def test_no_pair_is_silently_wrong():
    assert list(TABLE) == [f"{first} + {second}" for first, second in MEASURE["PAIRS"]]
    texts = [t for pair in TABLE.values() for found in pair.values() for t in found.values()]
    assert all(text.startswith("refused: ") for text in texts)


def test_the_page_has_the_present_figures():
    command = [sys.executable, DOCS / "generate_mixed.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("first", "second", "check"),
    [(first, second, check) for first, second, checks in AGAIN for check in checks],
)
def test_some_cells_are_as_stored(first, second, check):
    subject = Subject(first, partner=second)
    stored = TABLE[f"{first} + {second}"]["fp32"].get(check, "holds")
    assert MEASURE["outcome"](check, subject) == stored

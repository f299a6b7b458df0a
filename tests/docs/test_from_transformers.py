"""docs/from-transformers.md has every name and argument, and its programs run."""

import re

from transformers.training_args import OptimizerNames

import hub
from hub.names.layerwise_spec import LAYERWISE_SUFFIX
from tests.docs.conftest import DOCS, Classifier, blocks

PAGE = (DOCS / "from-transformers.md").read_text()
THEIRS = {name.value for name in OptimizerNames}


def rows(heading):
    """Return the names in the first and in the second column of a table."""
    table = PAGE.partition(heading)[2].partition("\n\n")[0]
    cells = [line.split(" | ", 1) for line in table.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`(\w+)`", first), second) for first, second in cells]


def test_every_name_of_transformers_has_a_row():
    table = rows("| `optim=` | what differs with hub |")
    named = [name for names, _ in table for name in names]
    assert sorted(named) == sorted(THEIRS)
    others = {name for names, says in table if says.startswith("Not in hub") for name in names}
    ours = set(hub.list_optimizers())
    assert {name for name in named if name.removesuffix(LAYERWISE_SUFFIX) not in ours} == others
    assert "All names of `optim=` but three are hub's" in PAGE
    assert len(others) == 3


def test_the_names_that_only_hub_has():
    sentence = re.search(r"^Only hub has (.*?), and", PAGE, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(hub.list_optimizers()) - THEIRS


def test_every_schedule_of_transformers_is_hubs():
    from transformers.trainer_utils import SchedulerType

    assert {each.value for each in SchedulerType} == set(hub.list_schedulers()) - {"adafactor"}


def test_every_argument_has_a_row():
    named = [
        name for names, _ in rows("| `TrainingArguments`, `hub.TrainingConfig` |") for name in names
    ]
    assert sorted(named) == sorted(hub.TrainingConfig.model_fields)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"model": Classifier()}
    for block in blocks(PAGE):
        exec(compile(block, "from-transformers.md", "exec"), namespace)
    assert "did you mean 'amsgrad'" in capsys.readouterr().out

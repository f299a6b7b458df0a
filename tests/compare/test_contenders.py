"""A contender is a name, which may be an import path, and its arguments."""

import pytest

import hub
from hub.compare.settings import Contender

READ = {
    "adamw_torch": ("adamw_torch", ""),
    " sgd : lr=1": ("sgd", "lr=1"),
    "torch.optim:NAdam": ("torch.optim:NAdam", ""),
    "torch.optim:NAdam:lr=1e-3": ("torch.optim:NAdam", "lr=1e-3"),
    "muon:rest.lr=3e-3, blocks={'qkv': 64}": ("muon", "rest.lr=3e-3, blocks={'qkv': 64}"),
}


@pytest.mark.parametrize(("text", "expected"), READ.items(), ids=READ)
def test_names_and_arguments(text, expected):
    found = Contender.parse(text)
    assert (found.name, found.optim_args) == expected


def test_a_name_is_needed():
    with pytest.raises(hub.HubError, match="name of an optimizer is missing"):
        Contender.parse(":lr=1")

"""The order of everything that takes part in saving and loading, as `hub.saving` lists it."""

import hub_schedulefree.factory
import pytest
import torch
from torch import nn

import hub
import hub.saving
import hub.saving.load
from hub.repairs import keep_state_dtypes, translate_state
from hub.running.train_eval.follower import Follower

NAME = "schedule_free_adamw"
NAMES_OF_HOOKS = {
    "translate_state.<locals>.saved": "translate_state",
    "translate_state.<locals>.loaded": "translate_state",
    "keep_state_dtypes.<locals>.before": "keep_state_dtypes notes",
    "keep_state_dtypes.<locals>.after": "keep_state_dtypes puts back",
    "save_sharded.<locals>.export_state": "export_state",
    "save_sharded.<locals>.import_state": "import_state",
    "sign_state_dicts.<locals>.sign": "sign",
    "sign_state_dicts.<locals>.align": "align",
}
SAVED = ["translate_state", "Follower.export", "export_state", "sign"]
LOADED = [
    "check_structure",
    "align",
    "import_state",
    "keep_state_dtypes notes",
    "torch",
    "keep_state_dtypes puts back",
    "translate_state",
    "Follower.after_load_of_state",
    "_unshare",
]


def recorded(function, name, calls):
    """Return the function, which appends its name to the calls when it begins."""

    def call(*args, **kwargs):
        calls.append(name)
        return function(*args, **kwargs)

    return call


@pytest.fixture
def optimizer(monkeypatch):
    """An optimizer with evaluation weights whose factory also translates its state."""
    upstream = hub_schedulefree.factory.adamw

    def build(*args, **kwargs):
        built = upstream(*args, **kwargs)
        keep_state_dtypes(built)
        translate_state(
            built, lambda state, _: {**state, "live": False}, lambda state, _: {**state, "live": 1}
        )
        return built

    monkeypatch.setattr(hub_schedulefree.factory, "adamw", build)
    model = nn.Linear(3, 3)
    optimizer = hub.build(NAME, model)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.fixture
def calls(optimizer, monkeypatch):
    """The names of what runs, in order, from now on."""
    calls = []
    for hooks in (
        optimizer._optimizer_state_dict_post_hooks,
        optimizer._optimizer_load_state_dict_pre_hooks,
        optimizer._optimizer_load_state_dict_post_hooks,
    ):
        for key, hook in hooks.items():
            name = NAMES_OF_HOOKS.get(hook.__qualname__)
            hooks[key] = recorded(hook, name, calls) if name else hook
    for home, attribute, name in (
        (hub.saving.load, "check_structure", "check_structure"),
        (hub.saving.load, "_unshare", "_unshare"),
        (type(optimizer), "__setstate__", "torch"),
        (type(optimizer.hub_modes.weights), "export", "Follower.export"),
        (type(optimizer.hub_modes.weights), "adopt_state", "Follower.after_load_of_state"),
    ):
        monkeypatch.setattr(home, attribute, recorded(getattr(home, attribute), name, calls))
    return calls


def test_saving_runs_its_hooks_in_the_documented_order(optimizer, calls):
    state_dict = optimizer.state_dict()
    assert calls == SAVED
    layout = dict(state_dict["hub"]["parameters"]["weight"]["state"])
    assert {"trained", "live"} <= layout.keys(), "signed before the state was complete"


def test_loading_runs_its_hooks_in_the_documented_order(optimizer, calls):
    state_dict = optimizer.state_dict()
    calls.clear()
    optimizer.load_state_dict(state_dict)
    assert calls == LOADED
    assert all(state["live"] == 1 for state in optimizer.state.values())


def test_the_documentation_lists_this_order():
    saving, loading = hub.saving.__doc__.split("`load_state_dict()` of an optimizer")
    assert hasattr(Follower, "export")
    assert hasattr(Follower, "after_load_of_state")
    for text, names in ((saving.split("`state_dict()` runs")[1], SAVED), (loading, LOADED[:-1])):
        places = [
            text.index(f"`{name.split()[0]}`") for name in dict.fromkeys(names) if name != "torch"
        ]
        assert places == sorted(places)

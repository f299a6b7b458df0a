"""Lookup from metadata alone, and what a plugin that cannot be used costs."""

import json
import subprocess
import sys
import types
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Annotated

import pytest
from pydantic import Field
from torch import nn

import hub
from hub.arguments import Arguments, LearningRate, Search
from hub.names.registry import Registry


class Distribution:
    def __init__(self, name):
        self.metadata = {"Name": name}


def point(name, module, distribution, group="hub.optimizers"):
    entry = EntryPoint(name, module, group)
    vars(entry)["dist"] = Distribution(distribution)
    return entry


@pytest.fixture
def plugin(monkeypatch):
    """Make a module importable; it needs nothing and comes from a distribution of its own."""
    monkeypatch.setattr("hub.names.registry.unmet_requirements", lambda _: [])

    def make(name, **attributes):
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


def registers(*names, factory="torch.optim:SGD"):
    spec = hub.describe("sgd")

    @hub.hookimpl
    def hub_register_optimizers():
        return [replace(spec, name=name, factory=factory) for name in names]

    return hub_register_optimizers


def test_listing_imports_neither_torch_nor_a_plugin():
    program = (
        "import hub, sys; names = hub.list_optimizers(); hub.list_schedulers('c*'); "
        "assert 'adamw_torch' in names and 'galore_adamw' in names; "
        "heavy = {'torch', 'pydantic', 'pluggy', 'hub_galore', 'rich'}; "
        "bad = heavy & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_describing_imports_no_backend():
    program = (
        "import hub, sys; hub.describe('galore_adamw'); "
        "bad = [m for m in ('torch', 'galore_torch', 'hub_schedulefree') if m in sys.modules]; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_hub_changes_no_global():
    program = (
        "import torch, pydantic, logging, warnings; "
        "before = list(warnings.filters), list(logging.root.handlers), logging.root.level; "
        "import hub; hub.build; hub.plan; hub.eval_mode; hub.build_scheduler; hub.describe('sgd'); "
        "after = list(warnings.filters), list(logging.root.handlers), logging.root.level; "
        "assert before == after, (before, after)"
    )
    subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", program], check=True)


@pytest.mark.parametrize(
    ("pattern", "found"), [("*", ["a", "b_one", "b_two"]), ("b_*", ["b_one", "b_two"]), ("c", [])]
)
def test_patterns(pattern, found):
    registry = Registry([point(n, "m", "d") for n in ("b_two", "a", "b_one")])
    assert registry.names("optimizer", pattern) == found


def test_a_disabled_distribution_is_not_there():
    points = [point("a", "m", "Hub_A"), point("b", "m", "hub-b")]
    registry = Registry(points, {"HUB_DISABLE_PLUGINS": "hub-a, other"})
    assert registry.names("optimizer") == ["b"]


def test_two_distributions_with_one_name_are_both_named():
    registry = Registry(
        [point("a", "m", "hub-x"), point("a", "n", "hub-y"), point("b", "m", "hub-x")]
    )
    assert registry.names("optimizer") == ["a", "b"]
    with pytest.raises(hub.PluginError, match="hub-x and hub-y"):
        registry.source("optimizer", "a")
    assert registry.source("optimizer", "b").distribution == "hub-x"


def test_only_the_owner_is_loaded_and_once(plugin):
    loads = []

    @hub.hookimpl
    def hub_register_optimizers():
        loads.append("a")
        return registers("a")()

    plugin("fake_a", hub_register_optimizers=hub_register_optimizers)
    registry = Registry([point("a", "fake_a", "hub-a"), point("b", "no_such_module", "hub-b")])
    assert registry.optimizer("a").name == "a"
    assert registry.optimizer("a").name == "a"
    assert loads == ["a"]
    for _ in range(2):
        with pytest.raises(hub.PluginError, match="hub-b does not load: ModuleNotFoundError"):
            registry.optimizer("b")


def test_a_misspelt_hook_is_an_error_that_names_the_plugin(plugin):
    misspelt = registers("a")
    misspelt.__name__ = "hub_register_optimisers"
    plugin("fake_misspelt", hub_register_optimisers=misspelt)
    with pytest.raises(hub.PluginError, match=r"hub-odd.*hub_register_optimisers"):
        Registry([point("a", "fake_misspelt", "hub-odd")]).optimizer("a")


@pytest.mark.parametrize(
    ("specs", "says"),
    [(("a",), "b only in its metadata"), (("a", "b", "c"), "c only in its specs")],
)
def test_specs_and_metadata_must_agree(plugin, specs, says):
    plugin("fake_contradiction", hub_register_optimizers=registers(*specs))
    points = [point(name, "fake_contradiction", "hub-odd") for name in "ab"]
    with pytest.raises(hub.PluginError, match=says):
        Registry(points).optimizer("a")


def test_requirements_that_are_not_met_are_told(monkeypatch):
    from hub.names import registry

    requirements = [
        "hub>=2099",
        "no-such-package-anywhere>1",
        "torch>=2",
        "never; extra == 'x'",
        "never; python_version < '3'",
    ]
    monkeypatch.setattr(registry.metadata, "requires", lambda _: requirements)
    assert registry.unmet_requirements("hub") == [
        f"needs hub>=2099, but hub is {hub.__version__}",
        "needs no-such-package-anywhere>1, which is not installed",
    ]


def test_tracing_writes_hook_calls(plugin, capsys):
    plugin("fake_traced", hub_register_optimizers=registers("a"))
    Registry([point("a", "fake_traced", "hub-a")], {"HUB_TRACE_PLUGINS": "1"}).optimizer("a")
    assert "hub_register_optimizers" in capsys.readouterr().err


class Observed(list):
    @hub.hookimpl
    def hub_optimizer_built(self, optimizer, plan):
        self.append((optimizer, plan))


def build_with(registry, model, name="sgd"):
    from hub.building.build import build_prepared
    from hub.planning.call import BuildCall
    from hub.planning.prepare import prepare

    return build_prepared(prepare(BuildCall(name, model), registry=registry), registry.observers())


def sgd_and(*points):
    own = next(p for p in Registry()._points["hub.optimizers"] if p.name == "sgd")
    builtin = [p for p in Registry()._points["hub.optimizers"] if p.module == own.module]
    return Registry([*builtin, *points])


def test_observers_see_the_optimizer_and_the_plan(plugin, model):
    seen = Observed()
    plugin("fake_observer", hub_optimizer_built=seen.hub_optimizer_built)
    registry = sgd_and(point("watch", "fake_observer", "hub-watch", group="hub.plugins"))
    optimizer = build_with(registry, model)
    assert seen == [(optimizer, optimizer.hub_plan)]


def test_a_broken_observer_costs_a_warning(plugin, model):
    @hub.hookimpl
    def hub_optimizer_built():
        raise RuntimeError("offline")

    plugin("fake_observer", hub_optimizer_built=hub_optimizer_built)
    points = [
        point("watch", "fake_observer", "hub-watch", group="hub.plugins"),
        point("gone", "no_such_module", "hub-gone", group="hub.plugins"),
    ]
    with pytest.warns(hub.HubWarning) as record:
        build_with(sgd_and(*points), model)
    texts = " ".join(str(warning.message) for warning in record)
    assert "hub-watch failed: RuntimeError('offline')" in texts
    assert "hub-gone does not load" in texts


def with_groups(change):
    """Return a factory of SGD over the planned groups, changed."""

    def factory(context):
        import torch

        return torch.optim.SGD(change(context.param_groups(), context.model), lr=1e-3)

    return factory


def test_a_model_of_one_layer_has_groups_too(plugin):
    """Its parameters are in the planned order by themselves, but for names and decay."""
    import torch

    @hub.hookimpl
    def hub_build_optimizer(context):
        return torch.optim.SGD(context.model.parameters(), lr=1e-3)

    plugin(
        "fake_bare",
        hub_register_optimizers=registers("a", factory=""),
        hub_build_optimizer=hub_build_optimizer,
    )
    with pytest.raises(hub.PluginError, match="lost name or param_names") as raised:
        build_with(Registry([point("a", "fake_bare", "hub-odd")]), torch.nn.Linear(2, 2), "a")
    assert "if you write hub-odd: build from context.param_groups()" in raised.value.fix


@pytest.mark.parametrize(
    ("changes", "says", "near"),
    [
        ({"per_group": frozenset({"momentun"})}, "per_group of 'a' has 'momentun'", "'momentum'"),
        (
            {"example_arguments": {"dampning": 0.5}},
            "example_arguments of 'a' has 'dampning'",
            "'dampening'",
        ),
        (
            {"state_arguments": frozenset({"nestrov"})},
            "state_arguments of 'a' has 'nestrov'",
            "'nesterov'",
        ),
        ({"other_rates": frozenset({"lrs"})}, "other_rates of 'a' has 'lrs'", "'lr'"),
        (
            {"low_rank": frozenset({"lrs"}), "traits": frozenset({hub.Trait.LOW_RANK})},
            "low_rank of 'a' has 'lrs'",
            "'lr'",
        ),
        ({"low_rank": frozenset({"momentum"})}, "has no effect", "Trait.LOW_RANK"),
        ({"without_effect": {"forech": "?"}}, "without_effect of 'a' has 'forech'", "'foreach'"),
        (
            {"contrasts": {"lr": (hub.Contrast(other={"maximise": True}),)}},
            "contrasts of 'a' has 'maximise'",
            "'maximize'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_keys_of_a_spec_are_arguments(plugin, changes, says, near):
    from dataclasses import replace

    @hub.hookimpl
    def hub_register_optimizers():
        return [replace(hub.describe("sgd"), name="a", **changes)]

    plugin("fake_keys", hub_register_optimizers=hub_register_optimizers)
    with pytest.raises(hub.PluginError, match=says) as raised:
        Registry([point("a", "fake_keys", "hub-odd")]).optimizer("a")
    assert near in raised.value.fix
    assert raised.value.plugin == "hub-odd"


def test_a_range_that_its_argument_refuses_is_told(plugin):
    class TooHigh(Arguments):
        lr: Annotated[LearningRate, Search(0.1, 10.0)] = 0.1
        momentum: Annotated[float, Field(ge=0, lt=1), Search(0.5, 1.0, "linear")] = 0.9

    spec = hub.OptimizerSpec(name="a", summary="A", arguments=TooHigh, factory="torch.optim:SGD")

    @hub.hookimpl
    def hub_register_optimizers():
        return [spec]

    plugin("fake_ranges", hub_register_optimizers=hub_register_optimizers)
    with pytest.raises(hub.PluginError, match="'momentum' of 'a' refuses 1") as raised:
        Registry([point("a", "fake_ranges", "hub-odd")]).optimizer("a")
    assert "change the Search" in raised.value.fix
    assert raised.value.plugin == "hub-odd"


def test_a_hook_without_the_mark_is_named(plugin):
    def hub_build_optimizer(context):
        raise AssertionError(context)

    plugin(
        "fake_plain",
        hub_register_optimizers=registers("a", factory=""),
        hub_build_optimizer=hub_build_optimizer,
    )
    with pytest.raises(hub.PluginError, match="hub_build_optimizer is not marked") as raised:
        Registry([point("a", "fake_plain", "hub-odd")]).optimizer("a")
    assert "put @hub.hookimpl above it" in raised.value.fix


@pytest.mark.parametrize(
    ("ask", "name", "says"),
    [
        (hub.describe, "cosine", "'cosine' is a learning-rate schedule, not an optimizer"),
        (lambda name: Registry().scheduler(name), "sgd", "'sgd' is an optimizer, not a"),
    ],
    ids=["a schedule", "an optimizer"],
)
def test_a_name_of_the_other_kind_is_told(ask, name, says):
    with pytest.raises(hub.UnknownOptimizerError, match=says):
        ask(name)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (lambda context: None, "returned nothing"),  # noqa: ARG005
        (lambda context: context.model, "not a torch.optim.Optimizer"),
        (
            lambda context: __import__("torch").optim.SGD(context.param_groups()[:1], lr=1.0),
            "left out",
        ),
        (with_groups(lambda groups, _: groups[::-1]), "changed the order: '.*' is at position 0"),
        (
            with_groups(lambda groups, _: [{"params": g["params"]} for g in groups]),
            "lost name or param_names of group 0",
        ),
        (
            with_groups(lambda groups, _: [{**g, "lr": 7.0} for g in groups]),
            "gave group 'decay' lr=7.0, where the plan has 0.001",
        ),
        (
            with_groups(lambda groups, _: [{**g, "weight_decay": 0.5} for g in groups]),
            "weight_decay=0.5, where the plan has 0.0",
        ),
        (
            with_groups(lambda groups, _: [{**g, "low_rank": True} for g in groups]),
            "gave group 'decay' low_rank=True, where the plan has False",
        ),
        (
            with_groups(lambda _, model: [{"params": [*model.parameters()]}]),
            "that is not in the plan|lost name|changed the order",
        ),
        (lambda context: 1 / 0, "cannot be built: ZeroDivisionError"),  # noqa: ARG005
        (lambda context: __import__("no_such_backend"), "cannot import its package"),  # noqa: ARG005
    ],
    ids=[
        "nothing",
        "no optimizer",
        "parameters missing",
        "another order",
        "names lost",
        "another lr",
        "another decay",
        "another kind",
        "the model's parameters",
        "raises",
        "backend missing",
    ],
)
def test_a_factory_is_held_to_the_plan(plugin, model, result, says):
    @hub.hookimpl
    def hub_build_optimizer(context):
        return result(context)

    plugin(
        "fake_factory",
        hub_register_optimizers=registers("a", factory=""),
        hub_build_optimizer=hub_build_optimizer,
    )
    with pytest.raises(hub.PluginError, match=says) as raised:
        build_with(Registry([point("a", "fake_factory", "hub-odd")]), model, "a")
    assert raised.value.plugin == "hub-odd"


@pytest.mark.parametrize("name", ["a", "a_layerwise"])
def test_a_factory_needs_no_hook(plugin, model, name):
    import torch

    plugin("fake_named", hub_register_optimizers=registers("a", factory="torch.optim:SGD"))
    optimizer = build_with(Registry([point("a", "fake_named", "hub-a")]), model, name)
    assert isinstance(optimizer, torch.optim.SGD)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("", "nothing builds 'a'"),
        ("torch.optim.SGD", "'torch.optim.SGD', which does not name a callable"),
        ("torch.optim:", "'torch.optim:', which does not name a callable"),
    ],
    ids=["none", "no colon", "nothing behind it"],
)
def test_a_spec_without_a_way_to_build_it_does_not_load(plugin, factory, says):
    plugin("fake_unbuilt", hub_register_optimizers=registers("a", factory=factory))
    with pytest.raises(hub.PluginError, match=says) as raised:
        Registry([point("a", "fake_unbuilt", "hub-odd")]).optimizer("a")
    assert 'factory="package.module:Class"' in raised.value.fix


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("no_such_module:SGD", "cannot import its package: ModuleNotFoundError"),
        ("torch.optim:SGDD", "cannot be built: AttributeError"),
        ("torch:is_tensor", "cannot be built: TypeError"),
    ],
    ids=["no module", "no class", "other arguments"],
)
def test_a_factory_that_fails_is_named(plugin, model, factory, says):
    plugin("fake_failing", hub_register_optimizers=registers("a", factory=factory))
    with pytest.raises(hub.PluginError, match=says):
        build_with(Registry([point("a", "fake_failing", "hub-odd")]), model, "a")


def test_a_plugin_may_parse_its_own_arguments(plugin, model):
    @hub.hookimpl
    def hub_parse_optim_args(name, text):
        return {"lr": float(text.removeprefix(f"{name} at "))}

    @hub.hookimpl
    def hub_build_optimizer(optim_args, context):
        import torch

        return torch.optim.SGD(context.param_groups(), **optim_args.model_dump())

    plugin(
        "fake_parser",
        hub_register_optimizers=registers("a", factory=""),
        hub_parse_optim_args=hub_parse_optim_args,
        hub_build_optimizer=hub_build_optimizer,
    )
    from hub.planning.call import BuildCall
    from hub.planning.prepare import prepare

    registry = Registry([point("a", "fake_parser", "hub-a")])
    prepared = prepare(BuildCall("a", model, optim_args="a at 0.5"), registry=registry)
    assert prepared.optim_args.lr == 0.5


def test_findings_of_a_plugin_adjust_warn_and_refuse(plugin, model):
    from hub.building.build import build_prepared
    from hub.planning.call import BuildCall
    from hub.planning.prepare import prepare

    found = []

    @hub.hookimpl
    def hub_validate_precision(name, optim_args, context):
        return found

    @hub.hookimpl
    def hub_build_optimizer(optim_args, context):
        import torch

        return torch.optim.SGD(context.param_groups(), **optim_args.model_dump())

    plugin(
        "fake_finder",
        hub_register_optimizers=registers("a", factory=""),
        hub_validate_precision=hub_validate_precision,
        hub_build_optimizer=hub_build_optimizer,
    )
    registry = Registry([point("a", "fake_finder", "hub-a")])
    found.append(hub.Finding.adjust("no foreach here", instead={"foreach": False}))
    with pytest.warns(hub.HubWarning, match="no foreach here"):
        optimizer = build_prepared(prepare(BuildCall("a", model), registry=registry))
    assert optimizer.defaults["foreach"] is False
    origins = {a.name: a.origin for a in optimizer.hub_plan.arguments}
    assert origins["foreach"] == "precision"
    found.append(hub.Finding.refuse(hub.PrecisionError("not on a Sunday")))
    with pytest.raises(hub.PrecisionError, match="not on a Sunday"):
        build_prepared(prepare(BuildCall("a", model), registry=registry))


class OwnError(hub.UnsupportedError):
    """An error of a plugin."""


@pytest.mark.parametrize(
    ("error", "after_json"),
    [
        (hub.OptimArgsError, hub.OptimArgsError),
        (hub.HubError, hub.HubError),
        (OwnError, hub.UnsupportedError),
    ],
)
def test_a_finding_raises_its_error_with_where_and_keeps_it_through_json(error, after_json):
    finding = hub.Finding.refuse(error("no", where="0.weight", fix="yes"))
    plan = replace(hub.plan("sgd", nn.Linear(2, 2)), findings=(finding,))
    again = hub.Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    for refusal, kind in ((plan.refusal, error), (again.refusal, after_json)):
        assert type(refusal) is kind
        assert (refusal.what, refusal.where, refusal.fix) == ("no", "0.weight", "yes")
        assert refusal.plugin == "hub"


@pytest.mark.parametrize("error", ["ValueError", "HubWarning", "nothing", 3])
def test_a_plan_with_another_error_is_not_read(error):
    finding = hub.Finding.refuse(hub.HubError("no"))
    data = replace(hub.plan("sgd", nn.Linear(2, 2)), findings=(finding,)).to_dict()
    data["findings"][0]["error"] = error
    with pytest.raises(hub.HubError, match="not one of hub's errors"):
        hub.Plan.from_dict(data)


def test_a_plugin_hears_of_a_layerwise_form_by_the_eager_name(plugin, model):
    from hub.planning.call import BuildCall
    from hub.planning.prepare import prepare

    heard = []

    @hub.hookimpl
    def hub_validate_precision(name, optim_args):
        heard.append((name, set(type(optim_args).model_fields)))
        return [hub.Finding.refuse(hub.UnsupportedError("not like this"))]

    plugin(
        "fake_eager",
        hub_register_optimizers=registers("a"),
        hub_validate_precision=hub_validate_precision,
    )
    registry = Registry([point("a", "fake_eager", "hub-a")])
    prepared = prepare(BuildCall("a_layerwise", model), registry=registry)
    assert prepared.plan.refused
    assert heard == [("a", set(hub.describe("sgd").own_arguments.model_fields))]


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("adamw", "adamw_torch"),
        ("AdamW", "adamw_torch"),
        ("adam", "adamw_torch"),
        ("adamw-torch", "adamw_torch"),
        ("adamw_toch", "adamw_torch"),
        ("adamw_torch_foreach", "adamw_torch"),
        ("sgd_momentum", "sgd"),
        ("SGD", "sgd"),
        ("lion", "lion_8bit"),
        ("paged_adamw", "paged_adamw_8bit"),
        ("schedulefree_sgd", "schedule_free_sgd"),
        ("rmsprop_8bit", "rmsprop"),
        ("galore_adam", "galore_adamw"),
        ("adamw_layerwise", "adamw_torch"),
    ],
)
def test_the_likeliest_name_comes_first(asked, first):
    with pytest.raises(hub.UnknownOptimizerError) as raised:
        hub.describe(asked)
    assert raised.value.fix.startswith((f"did you mean {first} ", f"did you mean {first}?"))


@pytest.mark.parametrize("asked", ["", "zzz", "\x1b"])
def test_nothing_is_suggested_where_nothing_is_like_it(asked):
    with pytest.raises(hub.UnknownOptimizerError) as raised:
        hub.describe(asked)
    assert raised.value.fix == "see hub.list_optimizers()"


def test_metadata_that_name_no_module_or_another_distribution_cost_their_own_names(
    tmp_path, monkeypatch
):
    folder = tmp_path / "odd-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: even\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[hub.optimizers]\nodd_one = not a module!\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    assert {"odd_one", "sgd"} <= set(registry.names("optimizer"))
    assert registry.optimizer("sgd").name == "sgd"
    with pytest.raises(hub.PluginError, match="has metadata for another name"):
        registry.optimizer("odd_one")


def test_an_error_does_not_keep_those_who_got_it(plugin):
    """A registry raises the same error for every build; frames, and models in them, go away."""
    plugin("broken_hooks")
    registry = Registry([point("toy", "broken_hooks", "hub-toy")])
    raised = []
    for _ in range(2):
        with pytest.raises(hub.PluginError) as error:
            registry.optimizer("toy")
        raised.append(error.value)
    assert raised[0] is not raised[1]
    assert str(raised[0]) == str(raised[1])

"""Import paths as names: what they build, in each place where a name goes, and bad ones."""

import json
import sys
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.errors import HubError, OptimArgsError, PluginError, UnknownOptimizerError
from hub.names.registry import Registry, default_registry
from hub.testing import Subject, cases, run
from hub.testing.subject import differing, train_on_fixed_gradients

LOCAL = '''
from torch.optim import SGD, Optimizer


class Texts(SGD):
    """Keeps what it is given."""

    def __init__(
        self, params, lr, mode="plain", other: str | None = "none", parts=(1, 2), flag=False
    ):
        super().__init__(params, lr=lr)
        self.got = {"mode": mode, "other": other, "parts": parts, "flag": flag}


class Needs(SGD):
    def __init__(self, params, *, secret, lr=1e-3):
        super().__init__(params, lr=lr)
        self.secret = secret


class Inner:
    class Nested(SGD):
        pass


def needs(params, lr=1e-3):
    return Needs(params, secret=3, lr=lr)


def empty(params):
    return None


value = 3
'''

NO_DECAY = {"weight_decay": 0.0}


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Return the name of a module in the current folder, which is on the path."""
    (tmp_path / "local_optimizers.py").write_text(LOCAL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield "local_optimizers"
    sys.modules.pop("local_optimizers", None)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def by_hand(cls, model, weight_decay=None, **arguments):
    parts = [[p for p in model.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False)]
    decays = [{}, {}] if weight_decay is None else [{"weight_decay": weight_decay}, NO_DECAY]
    groups = [{"params": part, **own} for part, own in zip(parts, decays, strict=True)]
    return cls(groups, **arguments)


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("torch.optim:NAdam", {"betas": (0.8, 0.9)}),
        ("torch.optim:Adamax", {}),
        ("torch.optim:Rprop", {}),
        ("pytorch_optimizer:Lion", {"betas": (0.8, 0.9)}),
    ],
)
def test_equal_to_the_class_by_hand(path, arguments):
    module, _, name = path.partition(":")
    cls = getattr(import_module(module), name)
    decay = {"weight_decay": 0.1} if name != "Rprop" else {}
    model, other = net(), net()
    optimizer = hub.build(path, model, lr=1e-2, **arguments, **decay)
    assert type(optimizer) is cls
    expected = by_hand(cls, other, lr=1e-2, **arguments, **decay)
    train_on_fixed_gradients(model, optimizer)
    train_on_fixed_gradients(other, expected)
    assert not differing(dict(model.named_parameters()), dict(other.named_parameters()))


class TestPlaces:
    def test_plan_and_estimate(self):
        plan = hub.plan("torch.optim:NAdam", net())
        assert (plan.optimizer, plan.distribution) == ("torch.optim:NAdam", "torch")
        assert [str(f) for f in plan.findings] == [
            "torch.optim:NAdam is not an installed name: hub promises nothing about it; "
            "`hub check torch.optim:NAdam` shows which promises it keeps"
        ]
        assert hub.Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
        assert hub.estimate("torch.optim:NAdam", net()).state > 0

    def test_describe(self):
        spec = hub.describe("torch.optim:NAdam")
        assert spec is hub.describe("torch.optim:NAdam")
        assert spec.arguments.model_fields["lr"].default == 2e-3
        assert "torch.optim:NAdam" not in hub.list_optimizers()

    def test_rules_and_checkpoints(self):
        model = net()
        build = lambda: hub.build("torch.optim:NAdam", model, param_rules={"0": {"lr": 1.0}})  # noqa: E731
        optimizer = build()
        assert [g["lr"] for g in optimizer.param_groups] == [2e-3, 2e-3, 1.0, 1.0]
        train_on_fixed_gradients(model, optimizer)
        again = build()
        again.load_state_dict(optimizer.state_dict())
        assert again.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()

    @pytest.mark.parametrize("suffix", ["yaml", "json"])
    def test_a_trainers_file(self, suffix, tmp_path):
        path = tmp_path / f"config.{suffix}"
        path.write_text('{"optim": "torch.optim:NAdam", "optim_args": "betas=(0.8, 0.9)"}')
        optimizer = hub.create_optimizer(net(), path)
        assert type(optimizer) is torch.optim.NAdam
        assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
        assert optimizer.param_groups[0]["lr"] == 5e-5

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            (["plan", "torch.optim:NAdam", "--optim-args", "lr=3e-3"], "0.003"),
            (["show", "torch.optim:NAdam"], "momentum_decay"),
            (["estimate", "torch.optim:NAdam"], "torch.optim:NAdam"),
            (["show", "torch.optim.NAdam"], "write 'torch.optim:NAdam'"),
            (["plan", "torch.optim:NAdm"], "did you mean NAdam"),
            (["check", "torch.optim:NAdm"], "did you mean NAdam"),
        ],
    )
    def test_commands(self, line, shown):
        result = CliRunner().invoke(app, line)
        assert shown in result.output
        assert result.exit_code == (2 if "write" in shown or "mean" in shown else 0)

    def test_the_kit_runs_on_it(self):
        found = {case.check for case in cases(["torch.optim:Adamax"])}
        chosen = {"decay", "bad_input", "hyperparameters", "resume"}
        assert chosen < found
        for check in chosen:
            run(check, Subject("torch.optim:Adamax"))

    def test_the_kit_catches_a_class_that_breaks_a_promise(self, tmp_path, monkeypatch):
        (tmp_path / "drops_decay.py").write_text(
            "from torch.optim import SGD\n\n\nclass Drops(SGD):\n"
            "    def __init__(self, params, lr=1e-3, weight_decay=0.0):\n"
            "        super().__init__([{**g, 'weight_decay': 0.0} for g in params], lr=lr)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(PluginError, match="weight_decay"):
            run("decay", Subject("drops_decay:Drops"))

    def test_required_arguments_need_a_function_for_the_kit(self, local):
        with pytest.raises(OptimArgsError, match="requires secret") as raised:
            cases([f"{local}:Needs"])
        assert "write a function" in raised.value.fix
        assert cases([f"{local}:needs"])


class TestArguments:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("mode=64", {"mode": "64"}),
            ("mode=none", {"mode": "none"}),
            ("other=none", {"other": None}),
            ("parts=(3,)", {"parts": (3,)}),
            ("flag=true, lr=1", {"flag": True}),
        ],
    )
    def test_texts_are_read_by_the_default(self, local, text, expected):
        optimizer = hub.build(f"{local}:Texts", net(), optim_args=text, defaults={"lr": 0.1})
        assert {**optimizer.got, **expected} == optimizer.got

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"mod": "x"}, "has no argument 'mod'"),
            ({"mode": 3}, "mode=3 is not valid"),
            ({"parts": "x"}, "parts='x' is not valid"),
            ({"flag": "perhaps"}, "flag='perhaps' is not valid"),
            ({"lr": None, "flag": 1}, "flag=1 is not valid"),
            ({}, "lr"),
        ],
    )
    def test_bad_ones(self, local, arguments, match):
        given = arguments and {"lr": 0.1, **arguments}
        with pytest.raises(OptimArgsError, match=match):
            hub.build(f"{local}:Texts", net(), **given)

    def test_the_nearest_key(self):
        with pytest.raises(OptimArgsError) as raised:
            hub.build("torch.optim:NAdam", net(), momentum_decy=1)
        assert "did you mean 'momentum_decay'" in raised.value.fix

    def test_a_nested_class_and_a_function(self, local):
        assert type(hub.build(f"{local}:Inner.Nested", net(), lr=1.0)).__name__ == "Nested"
        assert hub.build(f"{local}:needs", net()).secret == 3

    def test_a_reloaded_module_counts(self, local, tmp_path):
        hub.build(f"{local}:Texts", net(), lr=1.0)
        del sys.modules[local]
        (tmp_path / f"{local}.py").write_text(LOCAL.replace("mode=", "fashion="))
        assert "fashion" in hub.describe(f"{local}:Texts").arguments.model_fields


BAD = [
    ("torch.optim.NAdam", "write 'torch.optim:NAdam'"),
    ("a:b:c", "package.module:Class"),
    (":NAdam", "package.module:Class"),
    ("torch.optim:", "package.module:Class"),
    ("torch.optim:NAdm", "did you mean NAdam"),
    ("torch.optim:nadam.NAdm", "did you mean NAdam"),
    ("torch.nothing:NAdam", "python -m hub"),
    ("nothing_of_this_name:NAdam", "python -m hub"),
    ("torch:float32", "name a subclass"),
    ("torch.nn:Linear", "name a subclass"),
    ("torch.optim:Optimizer", "name a subclass"),
    ("torch.optim:NAdam_layerwise", "did you mean NAdam"),
    ("../optim:NAdam", "package.module:Class"),
    (" torch.optim:NAdam", "package.module:Class"),
]


@pytest.mark.parametrize(("path", "fix"), BAD)
def test_bad_paths(path, fix):
    with pytest.raises(UnknownOptimizerError) as raised:
        hub.build(path, net())
    assert fix in raised.value.fix
    assert raised.value.where == path


def test_a_schedule_has_no_import_path():
    with pytest.raises(UnknownOptimizerError):
        default_registry().scheduler("torch.optim:NAdam")


def test_a_module_that_fails(tmp_path, monkeypatch):
    (tmp_path / "fails_itself.py").write_text("1 / 0")
    (tmp_path / "needs_another.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("fails_itself", "needs_another"):
        with pytest.raises(PluginError, match=f"{module} cannot be imported"):
            hub.build(f"{module}:X", net())


def test_a_function_that_returns_no_optimizer(local):
    with pytest.raises(PluginError, match="returned nothing"):
        hub.build(f"{local}:empty", net())


PIECE = st.sampled_from(
    ["torch", "optim", "NAdam", "torch.optim", "os", "Optimizer", "é", "1", "", " "]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECE, min_size=1, max_size=4), st.sampled_from([":", ".", "::", ":."]))
def test_any_text_builds_or_is_refused(pieces, joint):
    path = joint.join(pieces)
    registry = Registry()
    try:
        spec = registry.optimizer(path)
    except HubError as error:
        assert error.fix or error.plugin  # noqa: PT017
    else:
        assert spec.name == path
        assert path.replace(":", ".") == "torch.optim.NAdam"

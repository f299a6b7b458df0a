"""Bugs planted one at a time in two correct plugins: the kit catches each.

One is the tutorial's, built by a hook, where bugs can be planted too; the other has two rules, for
target modules and for the rest.
"""

from importlib.metadata import EntryPoint, distribution
from itertools import count
from pathlib import Path

import pytest

from hub.names.registry import Registry
from hub.testing import cases, run

COUNT = count()
ROOT = Path(__file__).parents[2]
SOURCES = {
    "signum": ROOT / "docs" / "tutorial" / "hub-signum" / "src" / "hub_signum",
    "duo": ROOT / "tests" / "testing" / "planted" / "hub_duo",
}
LOOP = "        for group in self.param_groups:\n"
UPDATE = "    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:\n"
STATE = '            state["average"] = torch.zeros_like(parameter)\n'
LERP = 'state["average"].lerp_(parameter.grad, 1 - group["momentum"])'
SIGNUM_DECAY = '        parameter.mul_(1 - group["lr"] * group["weight_decay"])\n'
DUO_DECAY = '                    parameter.mul_(1 - group["lr"] * group["weight_decay"])\n'
FACTORY = '            factory="hub_signum.signum:Signum",\n'
HOOK = '''

@hub.hookimpl
def hub_build_optimizer(optim_args, context):
    """Build Signum."""
    from hub_signum.signum import Signum

    return Signum(context.param_groups(), **optim_args.model_dump())
'''
BUILD = "    return Signum(context.param_groups(), **optim_args.model_dump())\n"
ARGUMENTS = "**optim_args.model_dump())\n"
GROUPS = "    groups = context.param_groups()\n"
RULE = '            rule = self.orthogonalized if group.get("low_rank") else self.adapted\n'
EACH = '            for parameter in group["params"]:\n'


def in_place(change):
    return UPDATE + f"        {change}\n"


# What stands in the plugin, what is put there instead, and the check that is to run first.
SIGNUM = {
    "drops weight decay": (SIGNUM_DECAY, "", "decay"),
    "decays all": ('group["weight_decay"]', 'self.defaults["weight_decay"]', "decay"),
    "decays by half": (
        BUILD,
        "    groups = context.param_groups()\n"
        "    for group in groups:\n"
        '        group["weight_decay"] /= 2\n'
        "    return Signum(groups, **optim_args.model_dump())\n",
        "decay",
    ),
    "decays as L2, in the gradient": (
        SIGNUM_DECAY,
        "",
        "leaves_gradients",
        (UPDATE, in_place('parameter.grad.add_(parameter, alpha=group["weight_decay"])')),
    ),
    "scales the gradient": (UPDATE, in_place("parameter.grad.mul_(0.5)"), "leaves_gradients"),
    "takes the gradient's sign in place": (
        UPDATE,
        in_place("parameter.grad.sign_()"),
        "leaves_gradients",
    ),
    "clips the gradient in place": (
        UPDATE,
        in_place("parameter.grad.clamp_(-1.0, 1.0)"),
        "leaves_gradients",
    ),
    "drops the gradient": (
        "        parameter.add_(average",
        "        parameter.grad = None\n        parameter.add_(average",
        "leaves_gradients",
    ),
    "has a momentum of its own": ('group["momentum"])\n', "0.9)\n", "hyperparameters"),
    "reads momentum from the defaults": (
        'group["momentum"])\n',
        'self.defaults["momentum"])\n',
        "hyperparameters",
    ),
    "is not told the momentum": (
        ARGUMENTS,
        '**optim_args.model_dump(exclude={"momentum"}))\n',
        "hyperparameters",
    ),
    "has one momentum for all": (
        ARGUMENTS,
        '**{**optim_args.model_dump(), "momentum": 0.9})\n',
        "hyperparameters",
    ),
    "reads lr of the first group": (
        'alpha=-group["lr"]',
        'alpha=-self.param_groups[0]["lr"]',
        "own_lr",
    ),
    "reads lr of the last group": (
        'alpha=-group["lr"]',
        'alpha=-self.param_groups[-1]["lr"]',
        "own_lr",
    ),
    "reads lr from the defaults": (
        'alpha=-group["lr"]',
        'alpha=-self.defaults["lr"]',
        "follows_lr",
    ),
    "half of the groups ignore lr": (
        LOOP,
        "        for index, group in enumerate(self.param_groups):\n"
        "            if index % 2:\n"
        '                group = {**group, "lr": self.defaults["lr"]}\n',
        "follows_lr",
    ),
    "half of the groups ignore lr once there are two": (
        LOOP,
        '        rates = {group["lr"] for group in self.param_groups}\n'
        "        for index, group in enumerate(self.param_groups):\n"
        "            if len(rates) > 1 and index % 2:\n"
        '                group = {**group, "lr": self.defaults["lr"]}\n',
        "own_lr",
    ),
    "builds over the model's parameters": (
        "Signum(context.param_groups(),",
        "Signum(context.model.parameters(),",
        "is_optimizer",
    ),
    "drops the groups' names": (
        BUILD,
        "    groups = context.param_groups()\n"
        "    for group in groups:\n"
        '        del group["name"]\n'
        "    return Signum(groups, **optim_args.model_dump())\n",
        "is_optimizer",
    ),
    "turns the order around": (
        "Signum(context.param_groups(),",
        "Signum(context.param_groups()[::-1],",
        "is_optimizer",
    ),
    "keeps its state on itself": (
        "        state = self.state[parameter]\n        if not state:\n" + STATE,
        "        state = vars(self).setdefault('kept', {}).setdefault(parameter, {})\n"
        "        if not state:\n" + STATE,
        "resume",
    ),
    "counts on itself": (
        UPDATE,
        in_place("self.steps = vars(self).get('steps', 0) + 1")
        + "        if self.steps > 60:\n            return\n",
        "resume",
    ),
    "saves an object": (STATE, STATE + '            state["kind"] = Signum\n', "plain_state"),
    "skips vectors": (
        UPDATE,
        in_place("if parameter.ndim < 2:\n            return"),
        "covers",
    ),
    "climbs": ('alpha=-group["lr"]', 'alpha=group["lr"]', "trains"),
    "knows the parameters of the first day only": (
        UPDATE,
        in_place("first = vars(self).setdefault('first', list(map(id, self.param_groups)))")
        + "        if id(group) not in first:\n            return\n",
        "late_group",
    ),
    "prints": (BUILD, '    print("signum")\n' + BUILD, "no_trace"),
    "draws a random number": (
        BUILD,
        "    import torch\n\n    torch.rand(1)\n" + BUILD,
        "no_trace",
    ),
}
DUO = {
    "forgets the decay of one rule": (
        DUO_DECAY,
        '                    decay = 0.0 if group.get("low_rank") else group["weight_decay"]\n'
        '                    parameter.mul_(1 - group["lr"] * decay)\n',
        "decay",
    ),
    "forgets the decay of the other": (
        DUO_DECAY,
        '                    decay = group["weight_decay"] if group.get("low_rank") else 0.0\n'
        '                    parameter.mul_(1 - group["lr"] * decay)\n',
        "decay",
    ),
    "drops ns_steps": ('group["ns_steps"])', "3)", "hyperparameters"),
    "drops momentum": ('group["momentum"])', "0.95)", "hyperparameters"),
    "drops eps": ('.sqrt() + group["eps"]', ".sqrt() + 1e-8", "hyperparameters"),
    "drops the first beta": (
        'beta1, beta2 = group["betas"]',
        'beta1, beta2 = 0.9, group["betas"][1]',
        "hyperparameters",
    ),
    "drops the second beta": (
        'beta1, beta2 = group["betas"]',
        'beta1, beta2 = group["betas"][0], 0.95',
        "hyperparameters",
    ),
    "gives the embedding the rule of matrices": (
        RULE + EACH,
        EACH.replace("            for", "            for name,").replace(
            'in group["params"]', 'in zip(group["param_names"], group["params"])'
        )
        + '                matrix = "embed" in name or group.get("low_rank")\n'
        "                rule = self.orthogonalized if matrix else self.adapted\n"
        "                group = {**self.matrices, **self.rest, **group}\n",
        "names",
    ),
    "takes every weight for a matrix": (
        GROUPS,
        GROUPS + "    for group in groups:\n"
        '        if all(p.ndim > 1 for p in group["params"]):\n'
        '            group["low_rank"] = True\n',
        "is_optimizer",
    ),
    "takes matrices by their shape": (
        RULE + EACH,
        EACH + "                matrix = parameter.ndim == 2\n"
        "                rule = self.orthogonalized if matrix else self.adapted\n"
        "                group = {**self.matrices, **self.rest, **group}\n",
        "hyperparameters",
    ),
    "leaves one matrix to the other rule": (
        RULE + EACH,
        EACH.replace("            for", "            for name,").replace(
            'in group["params"]', 'in zip(group["param_names"], group["params"])'
        )
        + '                matrix = group.get("low_rank") and "attn" not in name\n'
        "                rule = self.orthogonalized if matrix else self.adapted\n"
        "                group = {**self.matrices, **self.rest, **group}\n",
        "hyperparameters",
    ),
    "leaves the target modules to the other rule": (
        GROUPS,
        GROUPS + '    for group in groups:\n        group.pop("low_rank", None)\n',
        "is_optimizer",
    ),
    "forgets the second rate": (
        "optim_args.adamw_lr * scale",
        "3e-3 * scale",
        "hyperparameters",
    ),
    "has no ratio between the rates of a rule": (
        "optim_args.adamw_lr * scale",
        "optim_args.adamw_lr",
        "hyperparameters",
    ),
    "keeps the second rate to itself": (
        'parameter.add_(update, alpha=-group["lr"])',
        'parameter.add_(update, alpha=-(group["lr"] if group.get("low_rank") else 3e-3))',
        "follows_lr",
    ),
    "has one rate for both": (
        'parameter.add_(update, alpha=-group["lr"])',
        'parameter.add_(update, alpha=-self.param_groups[0]["lr"])',
        "own_lr",
    ),
    "changes the gradients of one rule": (
        "average.lerp_(grad, ",
        "average.lerp_(grad.div_(grad.norm()), ",
        "leaves_gradients",
    ),
    "shares its state among matrices": (
        'average = state.setdefault("average"',
        'state = vars(self).setdefault("shared", {}).setdefault(grad.shape, {})\n'
        '        average = state.setdefault("average"',
        "resume",
    ),
    "counts in its groups without saying so": (
        'step = state["step"]',
        'step = group["steps"] = group.get("steps", 0) + 1',
        "equals_eager",
    ),
}
BUGS = [
    pytest.param(plugin, *row[:3], row[3:], id=f"{plugin}: {name}")
    for plugin, rows in (("signum", SIGNUM), ("duo", DUO))
    for name, row in rows.items()
]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Return a registry of a plugin in whose sources some text is replaced.

    The package has a name of its own, as the kit's processes keep what they have imported.
    """

    def plant(plugin, *replacements):
        source = SOURCES[plugin]
        package = f"{source.name}_{next(COUNT)}"
        (tmp_path / package).mkdir()
        texts = {file.name: file.read_text(encoding="utf-8") for file in source.glob("*.py")}
        if plugin == "signum":
            assert FACTORY in texts["hooks.py"]
            texts["hooks.py"] = texts["hooks.py"].replace(FACTORY, "") + HOOK
        for old, new in replacements:
            found = [name for name, text in texts.items() if old in text]
            assert len(found) == 1, f"{old!r} is in {found}"
            texts[found[0]] = texts[found[0]].replace(old, new)
        for name, text in texts.items():
            named = text.replace(source.name, package).replace(dashed(source.name), dashed(package))
            (tmp_path / package / name).write_text(named, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        point = EntryPoint(plugin, f"{package}.hooks", "hub.optimizers")
        vars(point)["dist"] = distribution("hub")  # whose requirements are met
        return Registry([point])

    return plant


def dashed(name):
    return name.replace("_", "-")


@pytest.mark.parametrize("plugin", SOURCES)
def test_the_right_one_passes(plugin, planted):
    registry = planted(plugin)
    for case in cases([plugin], registry=registry):
        run(case.check, case.subject)


@pytest.mark.parametrize(("plugin", "old", "new", "first", "more"), BUGS)
def test_a_planted_bug_is_caught(plugin, old, new, first, more, planted):
    registry = planted(plugin, (old, new), *more)
    found = cases([plugin], registry=registry)
    assert any(fails(case) for case in sorted(found, key=lambda case: case.check != first))


def fails(case):
    try:
        run(case.check, case.subject)
    except Exception:  # noqa: BLE001 - as the command does
        return True
    return False

"""Five thousand generated calls: each works, or is a `HubError` that leaves no mess.

Values are drawn from what fits, nearly fits and does not fit at all. Whether a call that works
should have been refused is not judged here.
"""

import copy
import logging
import pathlib
import random
import sys
import warnings
from collections import UserDict
from decimal import Decimal
from enum import Enum

import numpy as np
import pytest
import torch
from torch import nn

import hub
from hub.builtin.schedule_hooks import hub_register_schedulers
from hub.text import clean, shown

CALLS, PARTS = 5000, 20
NAMES = [
    *hub.list_optimizers(),
    "adamw_torch_layerwise",
    "adamw_layerwise",
    "lomo_layerwise",
    "sgd_layerwise_layerwise",
    "adamw",
]


class Color(Enum):
    RED = "red"


def recursive():
    values = []
    values.append(values)
    return values


def recursive_mapping():
    values = {}
    values["lr"] = values
    return values


def nested(depth=2000):
    values = 1e-3
    for _ in range(depth):
        values = [values]
    return values


def junk(r):
    return r.choice(
        (
            lambda: None,
            lambda: r.choice((True, False)),
            lambda: r.choice((0, 1, -1, 2, 10**400, -(10**400), 2**63)),
            lambda: r.choice((0.0, 1.5, -0.5, 1e-3, float("nan"), float("inf"), -float("inf"))),
            lambda: r.choice(
                ("", "x", "lr", "lr=1", "none", "a\0b", "\x1b[31m", "\ud800", "(" * 9)
            ),
            lambda: "9" * 5000,
            lambda: b"bytes",
            object,
            list,
            lambda: (),
            dict,
            lambda: {1: 2, None: "x"},
            lambda: {"lr": 1e-3},
            lambda: {3, 4},
            lambda: [("x", {"lr": 1})],
            lambda: np.float32(0.1),
            lambda: np.array([0.1, 0.2]),
            lambda: torch.tensor(0.1),
            lambda: torch.ones(2),
            lambda: nn.Linear(2, 2),
            lambda: Decimal("0.1"),
            lambda: 1j,
            lambda: Color.RED,
            lambda: int,
            lambda: lambda *_: None,
            lambda: (value for value in (1, 2)),
            lambda: pathlib.Path("nowhere.json"),
            lambda: UserDict(lr=0.1),
            lambda: range(2),
            recursive,
            recursive_mapping,
            nested,
        )
    )()


class Generator:
    """Draws calls; each is a function without arguments and a description."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        self.model = tiny()
        self.optimizers = [
            hub.build("sgd", tiny(), lr=0.1),
            hub.build("adamw_torch", tiny()),
            torch.optim.SGD(tiny().parameters(), lr=0.1),
        ]
        self.keys = [key for key, value in vars(type(self)).items() if key.startswith("call_")]

    def maybe(self, share, good):
        """Return what fits, or with this probability anything."""
        return junk(self.r) if self.r.random() < share else good()

    def name(self):
        return self.maybe(0.05, lambda: self.r.choice(NAMES))

    def argument(self, name):
        try:
            fields = list(hub.describe(name).arguments.model_fields)
        except hub.HubError:
            fields = ["lr", "betas"]
        return self.maybe_key(fields)

    def maybe_key(self, fields):
        return self.r.choice([*fields, *fields, "lr", "no_such_key"])

    def value(self):
        return self.maybe(
            0.25,
            lambda: self.r.choice(
                (1e-3, 0, 0.9, 4, (0.9, 0.99), "0.5", "(0.8, 0.9)", "none", True, None, "std")
            ),
        )

    def values(self, name, most=3):
        return {self.argument(name): self.value() for _ in range(self.r.randint(0, most))}

    def text(self, name):
        pieces = [f"{key}={shown(value, 200)}" for key, value in self.values(name).items()]
        text = ", ".join(pieces)
        if self.r.random() < 0.3:
            at = self.r.randint(0, len(text))
            text = text[:at] + self.r.choice(list("()[]{}'\",=\\ \0\x1b\n#")) + text[at:]
        return text

    def optim_args(self, name):
        return self.maybe(0.2, lambda: self.r.choice((self.text, self.values))(name))

    def targets(self):
        good = ("all-linear", "0", ["0"], ("0", "2"), r"\d", "1", "nope", "(", ["0", 3], {"0"})
        return self.maybe(0.2, lambda: self.r.choice(good))

    def rules(self, name):
        def good():
            pairs = [
                (
                    self.maybe(
                        0.2, lambda: self.r.choice(("0", "2", "bias", r".*weight", "(", "no"))
                    ),
                    self.maybe(
                        0.2,
                        lambda: {
                            self.r.choice(
                                ("lr", "lr_scale", "weight_decay", self.argument(name))
                            ): self.value()
                        },
                    ),
                )
                for _ in range(self.r.randint(0, 2))
            ]
            try:
                return self.r.choice((dict, list))(pairs)
            except TypeError:
                return pairs

        return self.maybe(0.2, good)

    def build_arguments(self, name):
        candidates = {
            "optim_args": lambda: self.optim_args(name),
            "target_modules": self.targets,
            "defaults": lambda: self.maybe(0.3, lambda: self.values(name)),
            "param_rules": lambda: self.rules(name),
            "precision": lambda: self.maybe(
                0.4, lambda: self.r.choice((None, "fp32", "bf16", "bf16-mixed", "16-mixed"))
            ),
            "gradient_accumulation_steps": lambda: self.maybe(0.4, lambda: self.r.choice((1, 2))),
            "max_grad_norm": lambda: self.maybe(0.4, lambda: self.r.choice((None, 1.0, 2))),
        }
        given = self.r.sample(sorted(candidates), self.r.randint(0, 3))
        low_rank = isinstance(name, str) and name.startswith(("galore", "apollo"))
        arguments = {"target_modules": "all-linear"} if low_rank and self.r.random() < 0.7 else {}
        keywords = {key: value for key, value in self.values(name).items() if self.r.random() < 0.7}
        return {**keywords, **arguments, **{key: candidates[key]() for key in given}}

    def a_model(self):
        return self.maybe(0.03, lambda: self.model)

    def call_plan(self):
        return hub.plan, (self.name(), self.a_model()), None

    def call_build(self):
        return hub.build, (self.name(), self.a_model()), None

    def call_estimate(self):
        return hub.estimate, (self.name(), self.a_model()), None

    def call_names(self):
        function = self.r.choice((hub.describe, hub.list_optimizers, hub.list_schedulers))
        return function, (self.maybe(0.5, lambda: self.r.choice((*NAMES, "[", "*"))),), {}

    def call_of_an_optimizer(self):
        function = self.r.choice((hub.describe_groups, hub.grad_norm))
        return function, (self.an_optimizer(0.7),), {}

    def an_optimizer(self, share=0.05):
        return self.maybe(share, lambda: self.r.choice(self.optimizers))

    def call_build_scheduler(self):
        name = self.maybe(0.1, lambda: self.r.choice(hub.list_schedulers()))
        arguments = {
            key: self.value() for key in self.r.sample(SCHEDULE_KEYS, self.r.randint(0, 2))
        }
        for key in ("num_warmup_steps", "num_training_steps"):
            if self.r.random() < 0.7:
                arguments[key] = self.maybe(0.2, lambda: self.r.choice((0, 1, 10, 100)))
        return hub.build_scheduler, (name, self.an_optimizer()), arguments

    def config(self):
        fields = list(hub.TrainingConfig.model_fields)
        good = {
            "optim": self.name,
            "optim_args": lambda: self.optim_args("adamw_torch"),
            "lr_scheduler_type": lambda: self.r.choice(hub.list_schedulers()),
            "optim_target_modules": self.targets,
        }
        values = {
            key: self.maybe(0.3, good[key]) if key in good else self.value()
            for key in self.r.sample(fields, self.r.randint(0, 3))
        }
        return self.maybe(0.1, lambda: values)

    def call_config(self):
        return hub.TrainingConfig.load, (self.config(),), {}

    def call_config_numbers(self):
        config = hub.TrainingConfig(max_steps=self.r.choice((-1, 3)))
        function = self.r.choice((config.training_steps, config.resolved_warmup_steps))
        return function, (self.maybe(0.7, lambda: 100),), {}

    def call_create(self):
        extras = {
            "param_rules": lambda: self.rules("adamw_torch"),
            "optimizer": lambda: self.maybe(0.5, lambda: (torch.optim.SGD, self.values("sgd"))),
        }
        chosen = self.r.sample(sorted(extras), self.r.randint(0, 1))
        arguments = {key: extras[key]() for key in chosen}
        if self.r.random() < 0.5:
            return hub.create_optimizer, (self.a_model(), self.config()), arguments
        steps = self.maybe(0.3, lambda: 10)
        return hub.create_optimizer_and_scheduler, (self.a_model(), self.config(), steps), arguments

    def call_create_scheduler(self):
        steps = self.maybe(0.3, lambda: 10)
        arguments = {} if self.r.random() < 0.7 else {"scheduler": junk(self.r)}
        return hub.create_scheduler, (self.an_optimizer(), self.config(), steps), arguments

    def call_load_state_dict(self):
        self.loading = trained(self.r.choice(("adamw_torch", "sgd")))
        return self.loading.load_state_dict, (self.state_dict(self.loading),), {}

    def state_dict(self, optimizer):
        state = copy.deepcopy(optimizer.state_dict())
        place, path = state, []
        while isinstance(place, (dict, list)) and place and self.r.random() < 0.8:
            key = self.r.choice(list(place) if isinstance(place, dict) else range(len(place)))
            path.append((place, key))
            place = place[key]
        if path:
            place, key = path[-1]
            if self.r.random() < 0.4:
                del place[key]
            else:
                place[key] = junk(self.r)
        return self.maybe(0.1, lambda: state)

    def call_from_dict(self):
        data = hub.plan("adamw_torch", self.model).to_dict()
        key = self.r.choice(list(data))
        data[key] = junk(self.r)
        return hub.Plan.from_dict, (self.maybe(0.3, lambda: data),), {}

    def draw(self):
        weights = {
            "call_plan": 8,
            "call_build": 6,
            "call_build_scheduler": 6,
            "call_create": 4,
            "call_estimate": 1,
        }
        kind = self.r.choices(self.keys, [weights.get(key, 2) for key in self.keys])[0]
        function, positional, keywords = getattr(self, kind)()
        if keywords is None:
            keywords = self.build_arguments(positional[0])
        return function, positional, keywords


SCHEDULE_KEYS = sorted(
    {key for spec in hub_register_schedulers() for key in spec.arguments.model_fields}
)


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4))


def trained(name):
    model = tiny()
    optimizer = hub.build(name, model, lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return optimizer


def process():
    root = logging.getLogger()
    return {
        "streams": (sys.stdout, sys.stderr),
        "logging": (root.level, list(root.handlers), root.manager.disable),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "recursion": sys.getrecursionlimit(),
    }


def picture(model):
    """Return what a refused call has to leave alone."""
    root = logging.getLogger()
    return {
        "streams": (sys.stdout, sys.stderr),
        "logging": (root.level, tuple(root.handlers), root.manager.disable),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        "random numbers": (torch.get_rng_state().numpy().tobytes(), random.getstate()),
        "parameters": [
            (name, id(p), p.tolist(), p.requires_grad, p.grad, sorted(vars(p)))
            for name, p in model.named_parameters()
        ],
        "modules": [
            (name, sorted(vars(module)), [len(hooks) for hooks in hooks_of(module)])
            for name, module in model.named_modules()
        ],
    }


def hooks_of(module):
    return [value for key, value in vars(module).items() if key.endswith("_hooks")]


def problem(function, positional, keywords, model):
    """Make one call; return what is wrong with how it ended, or nothing."""
    before = picture(model)
    try:
        function(*positional, **keywords)
    except hub.HubError as error:
        if not error.what or clean(str(error)) != str(error):
            return f"the error says nothing, or what cannot be printed: {error!r}"
        after = picture(model)
        return [key for key, value in before.items() if after[key] != value] or None
    except Exception as error:  # noqa: BLE001 - it is told
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_call_works_or_is_a_hub_error(part):
    generator = Generator(part)
    filters = list(warnings.filters)
    problems = []
    for _ in range(CALLS // PARTS):
        generator.model = tiny()
        function, positional, keywords = generator.draw()
        found = problem(function, positional, keywords, generator.model)
        if found:
            call = f"{function.__qualname__}{shown(positional)} {shown(keywords)}"
            problems.append(f"{call}: {found}")
    assert not problems
    assert warnings.filters == filters

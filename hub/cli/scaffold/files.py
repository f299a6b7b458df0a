"""The files of a plugin, as texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hub
from hub.builtin.hooks import SAME_UPDATE
from hub.cli.scaffold.fields import written

if TYPE_CHECKING:
    from hub.cli.scaffold.fields import Fields
    from hub.cli.scaffold.upstream import Upstream

NEEDS = ".".join(hub.__version__.split(".")[:2])
"""The version of hub that a new plugin requires."""
IMPORTED = ("Beta", "Betas", "Eps", "LearningRate", "WeightDecay")
"""What a field may take from `hub.arguments`."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that offers one optimizer."""

    name: str
    upstream: Upstream
    fields: Fields

    @property
    def distribution(self) -> str:
        """The name that it is installed by."""
        return distribution_of(self.name)

    @property
    def package(self) -> str:
        """The name that it is imported by."""
        return f"hub_{self.name}"

    @property
    def arguments(self) -> str:
        """The name of its arguments model."""
        words = re.split("_", self.upstream.name)
        return "".join(word[:1].upper() + word[1:] for word in words) + "Arguments"

    def files(self) -> dict[str, str]:
        """Return the text of each file, by its path in the project."""
        return {
            "pyproject.toml": _pyproject(self),
            "README.md": _readme(self),
            f"src/{self.package}/__init__.py": f'"""The optimizer `{self.name}` for hub."""\n',
            f"src/{self.package}/hooks.py": _hooks(self),
            "tests/test_conformance.py": _test(self),
        }


def distribution_of(name: str) -> str:
    """Return what the plugin of an optimizer is installed by."""
    return f"hub-{name.replace('_', '-')}"


def _pyproject(plugin: Plugin) -> str:
    requires = "".join(
        f'    "{one}",\n' for one in dict.fromkeys((f"hub>={NEEDS}", _requirement(plugin)))
    )
    return f"""\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{plugin.distribution}"
version = "0.1.0"
description = "{plugin.upstream.name} of {plugin.upstream.package} for hub."
readme = "README.md"
requires-python = ">=3.11"
dependencies = [
{requires}]

[project.entry-points."hub.optimizers"]
{plugin.name} = "{plugin.package}.hooks"

[tool.hatch.build.targets.wheel]
packages = ["src/{plugin.package}"]
"""


def _requirement(plugin: Plugin) -> str:
    own = plugin.upstream.package == "hub"
    return f"hub>={NEEDS}" if own else plugin.upstream.requirement


def _hooks(plugin: Plugin) -> str:
    lines = [field.source for field in plugin.fields.fields]
    body = "\n".join(lines)
    spec = "".join(f"            {key}={text},\n" for key, text in _spec(plugin).items())
    return f'''\
"""What `{plugin.name}` is and takes. Does not import it."""

{_imports(body, spec)}

class {plugin.arguments}(Arguments):
    """Arguments of `{plugin.upstream.module}.{plugin.upstream.name}`."""
{f"{chr(10)}{body}{chr(10)}" if body else ""}

@hookimpl
def hub_register_optimizers() -> list[OptimizerSpec]:
    """Offer it."""
    return [
        OptimizerSpec(
{spec}        )
    ]
'''


def _imports(body: str, spec: str) -> str:
    used = [name for name in IMPORTED if re.search(rf"\b{name}\b", body)]
    typing = [name for name in ("Any", "Literal") if re.search(rf"\b{name}\b", body)]
    standard = ["import math"] if "math." in body else []
    standard += [f"from typing import {', '.join(typing)}"] if typing else []
    others = [f"from hub import OptimizerSpec, {'Trait, ' * ('Trait.' in spec)}hookimpl"]
    others.append(f"from hub.arguments import {', '.join(['Arguments', *used])}")
    others += ["from pydantic import Field"] if "Field(" in body else []
    return "\n".join([*standard, *([""] if standard else []), *others, ""])


def _spec(plugin: Plugin) -> dict[str, str]:
    """Return the fields of the spec, as source texts."""
    upstream = plugin.upstream
    ineffective = {key: SAME_UPDATE[key] for key in SAME_UPDATE if key in plugin.fields.names}
    texts = {
        "name": plugin.name,
        "summary": upstream.summary or f"{upstream.name} of {upstream.package}",
        "factory": upstream.path,
        "package": upstream.package,
        "license": upstream.license,
        "homepage": upstream.homepage,
    }
    spec = {key: str(written(text)) for key, text in texts.items()}
    entries = "".join(f'                "{key}": "{why}",\n' for key, why in ineffective.items())
    modes = all(callable(getattr(upstream.target, name, None)) for name in ("train", "eval"))
    traits = {"traits": "frozenset({Trait.TRAIN_EVAL_MODES})"} if modes else {}
    without = {"without_effect": f"{{\n{entries}            }}"} if ineffective else {}
    return {
        "name": spec.pop("name"),
        "summary": spec.pop("summary"),
        "arguments": plugin.arguments,
        **traits,
        **spec,
        **without,
    }


def _test(plugin: Plugin) -> str:
    return f'''\
"""`{plugin.name}` keeps hub's promises."""

from hub.testing import conformance

test_conformance = conformance("{plugin.name}")
'''


def _readme(plugin: Plugin) -> str:
    upstream = plugin.upstream
    required = "".join(f", {name}=..." for name in plugin.fields.required)
    return f"""\
# {plugin.distribution}

`{upstream.name}` of {upstream.package} by name, in every trainer that
[hub](https://pypi.org/project/hub/) works with.

```sh
pip install {plugin.distribution}
hub show {plugin.name}
```

```python
optimizer = hub.build("{plugin.name}", model{required})
```

## Develop

```sh
pip install -e . pytest
hub doctor
hub check {plugin.name}
pytest
```

`src/{plugin.package}/hooks.py` was written from the signature of `{upstream.name}`
({upstream.requirement}). Fill in what each argument means, and its bounds.
"""

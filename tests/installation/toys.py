"""Tiny plugins, most of them broken: templates in `broken/`, and here what is put into them."""

from dataclasses import dataclass, field
from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).parent / "broken"


@dataclass(frozen=True)
class Toy:
    """One distribution, and what hub has to say about it."""

    distribution: str
    declares: tuple[str, ...]
    """The names in its metadata."""
    breaks: str = ""
    """The one of them that cannot be used; with observers, none is."""
    says: tuple[str, ...] = ()
    """Why not, and what to do: parts of the message."""
    put_in: dict[str, str] = field(default_factory=dict)
    """What differs from a plugin that works."""
    requires: str = "hub>=2026.11"
    kind: str = "optimizers"

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def write(self, folder: Path) -> Path:
        """Write the project, and return its folder."""
        project = folder / self.distribution
        (project / self.package).mkdir(parents=True)
        (project / self.package / "__init__.py").touch()
        hooks = _filled(f"{self.kind}.py", _WORKING | {"specs": repr(self.declares)} | self.put_in)
        (project / self.package / "hooks.py").write_text(hooks)
        metadata = _filled(
            "pyproject.toml",
            {
                "distribution": self.distribution,
                "package": self.package,
                "requires": self.requires,
                "group": "hub.plugins" if self.kind == "observer" else "hub.optimizers",
                "entry_points": "\n".join(
                    f'{name} = "{self.package}.hooks"' for name in self.declares
                ),
            },
        )
        (project / "pyproject.toml").write_text(metadata)
        return project


_WORKING = {
    "at_import": "",
    "arguments": "Arguments",
    "register_hook": "hub_register_optimizers",
    "before_building": "pass",
    "built_hook": "hub_optimizer_built",
    "on_built": "pass",
}


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / f"{template}.template").read_text()).substitute(values)


BROKEN = (
    Toy(
        "hub-toy-syntax",
        declares=("toy_syntax",),
        breaks="toy_syntax",
        put_in={"specs": "("},
        says=("hub-toy-syntax does not load: SyntaxError", "fix: pip install --upgrade"),
    ),
    Toy(
        "hub-toy-backend",
        declares=("toy_backend",),
        breaks="toy_backend",
        put_in={"before_building": "import a_backend_that_is_not_there"},
        says=(
            "toy_backend cannot import its package: ModuleNotFoundError",
            "a_backend_that_is_not_there",
            "plugin: hub-toy-backend",
            "fix: install a_backend_that_is_not_there, and ask the author of hub-toy-backend",
        ),
    ),
    Toy(
        "hub-toy-clash",
        declares=("sgd", "toy_without_clash"),
        breaks="sgd",
        says=(
            "optimizer 'sgd' is claimed by two distributions",
            "where: hub and hub-toy-clash",
            "fix: uninstall one of them, or name it in HUB_DISABLE_PLUGINS",
        ),
    ),
    Toy(
        "hub-toy-misspelt",
        declares=("toy_misspelt",),
        breaks="toy_misspelt",
        put_in={"register_hook": "hub_register_optimisers"},
        says=("hub-toy-misspelt does not load", "unknown hook 'hub_register_optimisers'", "fix: "),
    ),
    Toy(
        "hub-toy-metadata",
        declares=("toy_declared",),
        breaks="toy_declared",
        put_in={"specs": "('toy_offered',)"},
        says=(
            "hub-toy-metadata contradicts itself",
            "toy_declared only in its metadata",
            "toy_offered only in its specs",
            "fix: if you write hub-toy-metadata: give each entry point a spec",
        ),
    ),
    Toy(
        "hub-toy-exiting",
        declares=("toy_exiting",),
        breaks="toy_exiting",
        put_in={"at_import": "raise SystemExit('no GPU here')"},
        says=("hub-toy-exiting does not load: SystemExit: no GPU here", "fix: pip install"),
    ),
    Toy(
        "hub-toy-untyped",
        declares=("toy_untyped",),
        breaks="toy_untyped",
        put_in={"arguments": "dict"},
        says=(
            "hub-toy-untyped does not load",
            "'toy_untyped' are not a pydantic model",
            "fix: pip",
        ),
    ),
    Toy(
        "hub-toy-future",
        declares=("toy_future",),
        breaks="toy_future",
        requires="hub>=2099",
        says=(
            "hub-toy-future has unmet requirements",
            "needs hub>=2099, but hub is 2026.11.0",
            "fix: pip ",
        ),
    ),
)

OBSERVERS = (
    Toy(
        "hub-toy-watching",
        kind="observer",
        declares=("toy_watching",),
        put_in={
            "on_built": 'sys.stderr.write(f"saw {type(optimizer).__name__}, {plan.optimizer}\\n")'
        },
    ),
    Toy(
        "hub-toy-blind",
        kind="observer",
        declares=("toy_blind",),
        put_in={"built_hook": "hub_optimiser_built"},
        says=("an observer is ignored", "hub-toy-blind does not load", "hub_optimiser_built"),
    ),
    Toy(
        "hub-toy-raising",
        kind="observer",
        declares=("toy_raising",),
        put_in={"on_built": 'raise ValueError("no tracker")'},
        says=("the observer hub-toy-raising failed", "no tracker"),
    ),
)

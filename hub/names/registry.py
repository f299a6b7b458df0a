"""Find the plugin that owns a name from metadata alone, and load only that plugin."""

from __future__ import annotations

import os
import re
import sys
from fnmatch import fnmatchcase
from importlib import import_module, metadata
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from hub.errors import HubError, PluginError, UnknownOptimizerError, for_author
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form, layerwise_spec
from hub.names.requirements import unmet_requirements
from hub.names.spec_checks import (
    PATH,
    check_builds,
    check_hooks_are_marked,
    check_optimizer_spec,
    check_scheduler_spec,
)
from hub.names.unknown import Kind, other_kind_error, unknown_error
from hub.names.whole_spec import whole_spec
from hub.text import clean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pluggy

    from hub.spec import OptimizerSpec, SchedulerSpec

GROUPS: dict[Kind, str] = {"optimizer": "hub.optimizers", "scheduler": "hub.schedulers"}
OBSERVERS = "hub.plugins"


class Source(NamedTuple):
    """Where a plugin comes from: one hooks module of one distribution."""

    distribution: str
    module: str


class Plugin(NamedTuple):
    """A loaded plugin: its hooks, and the specs that its metadata promised."""

    source: Source
    hooks: pluggy.HookRelay
    optimizers: dict[str, OptimizerSpec]
    schedulers: dict[str, SchedulerSpec]


class Registry:
    """Everything installed, by name. Nothing is imported until a name is looked up.

    Args:
        entry_points: Where to look names up; by default the metadata of this environment.
        environ: Read for `HUB_DISABLE_PLUGINS` (distribution names, separated by commas) and
            `HUB_TRACE_PLUGINS` (set: hook calls are written to standard error).
    """

    def __init__(
        self,
        entry_points: Iterable[metadata.EntryPoint] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.given = None if entry_points is None else tuple(entry_points)
        self._disabled = {
            _normalized(name) for name in environ.get("HUB_DISABLE_PLUGINS", "").split(",") if name
        }
        self._trace = bool(environ.get("HUB_TRACE_PLUGINS"))
        self._loaded: dict[Source, Plugin | PluginError] = {}
        self._layerwise: dict[str, OptimizerSpec] = {}
        self._by_path: dict[str, tuple[object, Plugin]] = {}
        """By import path, what it led to the last time, and the plugin made from that."""
        self.refresh()

    def refresh(self) -> None:
        """Read the metadata again to find new installations; loaded plugins stay loaded."""
        given = self.given
        points = metadata.entry_points() if given is None else metadata.EntryPoints(given)
        self._points = {
            group: [point for point in points.select(group=group) if not self._is_disabled(point)]
            for group in (*GROUPS.values(), OBSERVERS)
        }

    def names(self, kind: Kind, pattern: str = "*") -> list[str]:
        """Return the installed names that match a shell-style pattern, sorted."""
        if not isinstance(pattern, str):
            raise HubError(
                f"{shown(pattern)} is not a pattern",
                where=f"hub.list_{kind}s",
                fix="pass a shell-style pattern such as 'galore*'",
            )
        names = {point.name for point in self._points[GROUPS[kind]]}
        return sorted(name for name in names if fnmatchcase(name, pattern))

    def source(self, kind: Kind, name: str) -> Source:
        """Return the plugin that owns a name, without importing it.

        An optimizer's import path, "package.module:Class", is a plugin itself.

        Raises:
            UnknownOptimizerError: No installed distribution has the name.
            PluginError: Several distributions have it.
        """
        if not isinstance(name, str):
            raise UnknownOptimizerError(
                f"{shown(name)} is not a name",
                where=kind,
                fix=f"use one of hub.list_{kind}s()",
            )
        if kind == "optimizer" and PATH.fullmatch(name):
            return Source(re.split(r"[.:]", name)[0], name)
        eager = name.removesuffix(LAYERWISE_SUFFIX)
        is_layerwise = (
            kind == "optimizer" and name != eager and not eager.endswith(LAYERWISE_SUFFIX)
        )
        sources = self.owners(kind, name)
        if not sources and not (is_layerwise and self.owners(kind, eager)):
            self.refresh()
            sources = self.owners(kind, name)
        if not sources and is_layerwise:
            return self.source(kind, eager)
        if not sources:
            raise self._unknown(kind, name)
        if len(sources) > 1:
            owners = " and ".join(sorted(source.distribution for source in sources))
            raise PluginError(
                f"{kind} '{name}' is claimed by two distributions",
                where=owners,
                fix="uninstall one of them, or name it in HUB_DISABLE_PLUGINS",
                plugin=owners,
            )
        return sources.pop()

    def plugin(self, kind: Kind, name: str) -> Plugin:
        """Return the plugin that owns a name, loaded.

        Raises:
            UnknownOptimizerError: No installed distribution has the name.
            PluginError: The plugin cannot be used; the error says why and what to do.
        """
        return self.load(self.source(kind, name))

    def optimizer(self, name: str) -> OptimizerSpec:
        """Return the spec of an optimizer or of its layerwise form.

        Raises:
            UnsupportedError: It has no layerwise form.
            HubError: As `plugin` does.
        """
        specs = self.plugin("optimizer", name).optimizers
        if name in specs:
            return specs[name]
        if name not in self._layerwise:  # creating its arguments class takes milliseconds
            self._layerwise.setdefault(
                name, layerwise_spec(specs[name.removesuffix(LAYERWISE_SUFFIX)])
            )
        return self._layerwise[name]

    def rest_of(self, spec: OptimizerSpec) -> OptimizerSpec:
        """Return what trains the parameters that an optimizer of matrices leaves, by default.

        It is layerwise if the optimizer is, and if it can be.

        Raises:
            HubError: As `plugin` does.
        """
        rest = self.optimizer(spec.rest)
        if spec.eager_spec is None or not has_layerwise_form(rest):
            return rest
        return self.optimizer(spec.rest + LAYERWISE_SUFFIX)

    def scheduler(self, name: str) -> SchedulerSpec:
        """Return the spec of a schedule; raises as `plugin` does."""
        return self.plugin("scheduler", name).schedulers[name]

    def observers(self) -> Iterator[Plugin | PluginError]:
        """Yield each observer plugin, or the error that kept it from loading."""
        for source in sorted({_source(point) for point in self._points[OBSERVERS]}):
            try:
                yield self.load(source)
            except PluginError as error:
                yield error

    def sources(self) -> list[Source]:
        """Return every installed plugin."""
        return sorted({_source(point) for points in self._points.values() for point in points})

    def declared(self, source: Source, kind: Kind) -> set[str]:
        """Return the names that a plugin's metadata declares."""
        return {point.name for point in self._points[GROUPS[kind]] if _source(point) == source}

    def load(self, source: Source) -> Plugin:
        """Import a plugin and check it against its metadata, once.

        Raises:
            UnknownOptimizerError: It is an import path that leads to no optimizer.
            PluginError: It cannot be imported, misspells a hook, contradicts its metadata, or
                has unmet requirements.
        """
        if ":" in source.module:
            return self._load_path(source)
        if source not in self._loaded:
            try:
                loaded: Plugin | PluginError = self._load(source)
            except PluginError as error:
                loaded = error
            self._loaded.setdefault(source, loaded)  # another thread may have been faster
        loaded = self._loaded[source]
        if isinstance(loaded, PluginError):
            # A new one each time: a raised error keeps its callers' frames, and thus their models.
            raise PluginError(*loaded.args) from loaded.__cause__
        return loaded

    def _load(self, source: Source) -> Plugin:
        problems = unmet_requirements(source.distribution)
        if problems:
            raise PluginError(
                f"{source.distribution} has unmet requirements: {'; '.join(problems)}",
                where=source.distribution,
                fix=f"pip install --upgrade {source.distribution}",
                plugin=source.distribution,
            )
        try:
            plugin = self.adopt(source, import_module(source.module))
        except PluginError:
            raise
        except (Exception, SystemExit) as error:  # a broken plugin only costs its own names
            raise PluginError(
                f"{source.distribution} does not load: {type(error).__name__}: {error}",
                where=source.module,
                fix=f"pip install --upgrade --force-reinstall {source.distribution}; "
                + for_author("see what importing it raises", source.distribution),
                plugin=source.distribution,
            ) from error
        self._check_against_metadata(source, "optimizer", set(plugin.optimizers))
        self._check_against_metadata(source, "scheduler", set(plugin.schedulers))
        return plugin

    def _load_path(self, source: Source) -> Plugin:
        """Return the plugin of an import path; a new one if its module has been reloaded."""
        from hub.names.by_class import Adopted
        from hub.names.by_path import load_factory

        factory = load_factory(source.module)
        known = self._by_path.get(source.module)
        if known is None or known[0] is not factory:
            adopted = Adopted.from_path(source.module, factory)
            known = self._by_path[source.module] = factory, self.adopt(source, adopted)
        return known[1]

    def adopt_class(self, given: object) -> tuple[Plugin, Mapping[str, Any]]:
        """Return a plugin made from a class or factory, and the arguments given with it.

        Raises:
            OptimArgsError: `given` is not a pair of a callable and a mapping.
        """
        from hub.names.by_class import Adopted, checked_pair

        factory, arguments = checked_pair(given, "optimizer")
        adopted = Adopted.from_pair(factory, arguments)
        return self.adopt(Source(adopted.spec.package, adopted.spec.name), adopted), arguments

    def adopt(self, source: Source, hooks: object) -> Plugin:
        """Return a plugin made from these hooks, without consulting metadata."""
        from hub import hookspecs

        check_hooks_are_marked(hooks, vars(hookspecs), source.distribution)
        relay = self._manager(hooks).hook
        plugin = Plugin(
            source,
            relay,
            _by_name(relay.hub_register_optimizers()),
            _by_name(relay.hub_register_schedulers()),
        )
        for optimizer in [*plugin.optimizers.values()]:
            check_optimizer_spec(optimizer, source.distribution)
            check_builds(optimizer, relay, source.distribution)
            plugin.optimizers[optimizer.name] = whole_spec(optimizer)
        for scheduler in plugin.schedulers.values():
            check_scheduler_spec(scheduler, source.distribution)
        return plugin

    def _manager(self, module: object) -> pluggy.PluginManager:
        """Register a plugin with a separate manager, so that no plugin answers for another."""
        import pluggy

        from hub import hookspecs

        manager = pluggy.PluginManager("hub")
        manager.add_hookspecs(hookspecs)
        if self._trace:
            manager.trace.root.setwriter(lambda text: sys.stderr.write(clean(text)))
            manager.enable_tracing()
        manager.register(module)
        manager.check_pending()
        return manager

    def _check_against_metadata(self, source: Source, kind: Kind, specs: set[str]) -> None:
        declared = self.declared(source, kind)
        if specs == declared:
            return
        differences = [
            f"{', '.join(sorted(names))} only in its {place}"
            for names, place in ((declared - specs, "metadata"), (specs - declared, "specs"))
            if names
        ]
        raise PluginError(
            f"{source.distribution} contradicts itself: {kind} {' and '.join(differences)}",
            where=f"entry points '{GROUPS[kind]}' and {source.module}",
            fix=for_author(
                "give each entry point a spec, and each spec an entry point", source.distribution
            ),
            plugin=source.distribution,
        )

    def owners(self, kind: Kind, name: str) -> set[Source]:
        """Return all plugins that claim a name; several are a conflict."""
        return {_source(point) for point in self._points[GROUPS[kind]] if point.name == name}

    def _is_disabled(self, point: metadata.EntryPoint) -> bool:
        return bool(self._disabled) and _normalized(_source(point).distribution) in self._disabled

    def _unknown(self, kind: Kind, name: str) -> HubError:
        other: Kind = "scheduler" if kind == "optimizer" else "optimizer"
        if self.owners(other, name):
            return other_kind_error(kind, name)
        own = {point.name for point in self._points[GROUPS[kind]] if _source(point)[0] == "hub"}
        return unknown_error(kind, name, self.names(kind), own)


def _by_name(results: list[Iterable[Any]]) -> dict[str, Any]:
    by_name = {spec.name: spec for specs in results for spec in specs}
    for name, spec in by_name.items():
        if not hasattr(spec.arguments, "model_fields"):  # checked without importing pydantic
            raise TypeError(f"the arguments of '{name}' are not a pydantic model")
    return by_name


def _source(point: metadata.EntryPoint) -> Source:
    # `point.module` raises AttributeError for a malformed value; importing it gives our error.
    module = re.split(r"[:\[]", point.value, maxsplit=1)[0].strip()
    return Source(point.dist.metadata["Name"] if point.dist else "", module)


def _normalized(name: str) -> str:
    """Normalize a distribution name as PyPI does."""
    return name.strip().lower().replace("_", "-").replace(".", "-")


_default: Registry | None = None
_creation = Lock()


def default_registry() -> Registry:
    """Return the registry of this environment, made on first use."""
    global _default  # noqa: PLW0603 - the one place that holds it
    if _default is None:
        with _creation:
            _default = _default or Registry()
    return _default

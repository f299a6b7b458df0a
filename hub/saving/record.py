"""Record which optimizer wrote a checkpoint, and compare it with the one that loads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.arguments import LowMemory
from hub.errors import CheckpointError
from hub.saving.plain import is_plain, tuples
from hub.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hub.saving.plain import Group


@dataclass(frozen=True)
class Record:
    """What a checkpoint says about the optimizer that wrote it."""

    version: str
    """The version of hub."""
    optimizer: str
    """The optimizer's name, or the name whose checkpoints it shares."""
    arguments: dict[str, Any]
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The arguments in which each group differs from the optimizer, by the group's name."""
    state_arguments: frozenset[str] = field(default=frozenset(), compare=False)
    """The arguments that decide the layout of the state; not saved."""

    def plain(self) -> dict[str, Any]:
        """Return the record as it is saved."""
        return {
            "version": self.version,
            "optimizer": self.optimizer,
            "arguments": _plain(self.arguments),
            "overrides": {name: _plain(values) for name, values in self.overrides.items()},
        }

    def differences(
        self, saved: Mapping[str, Any], groups: Sequence[Group], saved_groups: Sequence[Group]
    ) -> Iterator[str]:
        """Yield how a run resumed from a checkpoint differs from this build.

        Args:
            saved: The record in the checkpoint.
            groups: The optimizer's groups, with `param_names`.
            saved_groups: The checkpoint's groups.

        Raises:
            CheckpointError: Another optimizer wrote it, or its state has another layout.
        """
        check_writer(saved["optimizer"], self.optimizer)
        changed = self._changed_arguments(saved["arguments"])
        unusable = [text for key, text in changed.items() if key in self.state_arguments]
        if unusable:
            raise CheckpointError(
                f"the checkpoint's state does not fit these arguments: {', '.join(unusable)}",
                where=f"load_state_dict of {self.optimizer}",
                fix="build with the checkpoint's values, or start without optimizer state",
            )
        if changed:
            in_groups = {key for group in saved_groups for key in group}
            used = [
                f"{text} ({'checkpoint' if key in in_groups else 'new'} value is used)"
                for key, text in changed.items()
            ]
            yield f"{self.optimizer} resumes with arguments that differ from the checkpoint's: " + (
                ", ".join(used)
            )
        moved = self._changed_overrides(saved, groups, saved_groups)
        if moved:
            yield (
                f"{self.optimizer} resumes with param_rules or groups that differ from the "
                f"checkpoint's, whose values are used: {'; '.join(moved)}"
            )

    def _changed_arguments(self, saved: Mapping[str, Any]) -> dict[str, str]:
        ours = _plain(self.arguments)
        # Checkpoints from before hub 2026.12 lack them.
        added = dict.fromkeys(LowMemory.model_fields)
        return {
            key: f"{key} {value!r} → {ours[key]!r}"
            for key, value in {**added, **saved}.items()
            if key in ours and tuples(value) != tuples(ours[key])
        }

    def _changed_overrides(
        self, saved: Mapping[str, Any], groups: Sequence[Group], saved_groups: Sequence[Group]
    ) -> list[str]:
        """Compare parameter by parameter, as a rule may have moved from one to another."""
        theirs = dict(_overrides(saved["overrides"], saved_groups))
        changed: dict[str, list[str]] = {}
        for name, own in _overrides(self.overrides, groups):
            if name not in theirs:
                continue
            other = theirs[name]
            for key in sorted(own.keys() | other.keys()):
                then = other.get(key, saved["arguments"].get(key))
                now = own.get(key, self.arguments.get(key))
                if tuples(then) != tuples(now):
                    changed.setdefault(f"{key} {then!r} → {now!r}", []).append(name)
        return [f"{text} for {listed(names)}" for text, names in changed.items()]


def check_writer(saved: str, ours: str) -> None:
    """Check that a checkpoint is that of an optimizer.

    Args:
        saved: The name of the optimizer that wrote it.
        ours: The name of the one that loads it.

    Raises:
        CheckpointError: They differ.
    """
    if saved != ours:
        raise CheckpointError(
            f"the checkpoint was saved by {saved}, not {ours}",
            where="load_state_dict",
            fix=f"build {saved}, or start without optimizer state",
        )


def _overrides(
    of: Mapping[str, Mapping[str, Any]], groups: Sequence[Group]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each parameter's name and overrides, except in groups that were added later."""
    for group in groups:
        if group.get("name") in of:
            yield from ((name, of[group["name"]]) for name in group.get("param_names", ()))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if is_plain(value)}

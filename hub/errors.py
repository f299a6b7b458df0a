"""What can go wrong: every error says what, where and the fix, in that order.

What they say can be printed as it is, also where parts of it come from outside.
"""

from hub.text import clean


class HubError(Exception):
    """Base of all errors that hub raises on purpose.

    Attributes:
        what: What is wrong, in one sentence.
        where: The name, argument, module or distribution it is about.
        fix: What to do about it.
        plugin: The distribution that owns the optimizer, where one is to blame.
    """

    def __init__(self, what: str, where: str = "", fix: str = "", plugin: str = "") -> None:
        what, where, fix, plugin = map(clean, (what, where, fix, plugin))
        super().__init__(what, where, fix, plugin)
        self.what = what
        self.where = where
        self.fix = fix
        self.plugin = plugin

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.plugin:
            lines.append(f"  plugin: {self.plugin}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


def for_author(advice: str, distribution: str) -> str:
    """Return a fix that only the author of a plugin can make, for the author and for all others."""
    return f"if you write {distribution}: {advice}; if not, report it to its author"


class UnknownOptimizerError(HubError):
    """No installed plugin offers this optimizer or scheduler name."""


class OptimArgsError(HubError):
    """An argument is unknown, malformed, of the wrong type, out of range or given twice."""


class TargetModulesError(HubError):
    """`target_modules` or `param_rules` select nothing, or cannot be used here."""


class PrecisionError(HubError):
    """The optimizer cannot train parameters of this dtype, on this device or in this mode."""


class UnsupportedError(HubError):
    """It cannot be done with this optimizer, or with the model or the process as it is."""


class PluginError(HubError):
    """A plugin cannot be loaded, contradicts its metadata, or clashes with another one."""


class CheckpointError(HubError):
    """A state dict does not belong to this optimizer."""


class HubWarning(UserWarning):
    """What hub reports through `warnings`: legal, but probably not what was meant."""

    def __init__(self, message: str = "") -> None:
        super().__init__(clean(message))

"""hub's errors and warning: every error says what, where and the fix, in that order.

Their messages are safe to print, even if parts of them come from outside.
"""

from hub.text import clean


class HubError(Exception):
    """Base of all errors that hub raises on purpose.

    Attributes:
        what: What is wrong, in one sentence.
        where: The name, argument, module or distribution it is about.
        fix: What to do about it.
        plugin: The distribution that owns the optimizer, if it is at fault.
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
    """Word a fix that only a plugin's author can make, for the author and for users."""
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
    """The optimizer, or the current model or process, does not allow this."""


class PluginError(HubError):
    """A plugin cannot be loaded, contradicts its metadata, or clashes with another one."""


class CheckpointError(HubError):
    """A state dict does not belong to this optimizer."""


class HubWarning(UserWarning):
    """The category of hub's warnings: something is legal, but probably not what was meant."""

    def __init__(self, message: str = "") -> None:
        super().__init__(clean(message))

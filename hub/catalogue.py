"""The names that plugins of this project offer, so that a missing one can say how to install it.

`tests/test_catalogue.py` holds this table equal to the plugins' own metadata.
"""

NAMES_BY_EXTRA: dict[str, tuple[str, ...]] = {
    "galore": ("galore_adafactor", "galore_adamw", "galore_adamw_8bit"),
    "schedulefree": ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"),
}

EXTRA_OF: dict[str, str] = {
    name: extra for extra, names in NAMES_BY_EXTRA.items() for name in names
}


def install_command(extra: str) -> str:
    """Return the command that installs the plugin behind an extra of the core distribution."""
    return f'pip install "hub[{extra}]"'

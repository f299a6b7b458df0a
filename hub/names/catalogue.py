"""Names of this project's plugins, so that an error can say how to install a missing one.

`tests/names/test_catalogue.py` checks this table against the plugins' metadata.
"""

NAMES_BY_EXTRA: dict[str, tuple[str, ...]] = {
    "apollo": ("apollo_adamw",),
    "bitsandbytes": (
        "adamw_8bit",
        "adamw_bnb_8bit",
        "ademamix",
        "ademamix_8bit",
        "lion_32bit",
        "lion_8bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "paged_ademamix_32bit",
        "paged_ademamix_8bit",
        "paged_lion_32bit",
        "paged_lion_8bit",
        "rmsprop_bnb",
        "rmsprop_bnb_32bit",
        "rmsprop_bnb_8bit",
    ),
    "flashoptim": ("flash_adam", "flash_adamw", "flash_lion", "flash_sgd", "flash_sgdw"),
    "galore": ("galore_adafactor", "galore_adamw", "galore_adamw_8bit"),
    "grokadamw": ("grokadamw",),
    "lomo": ("adalomo", "lomo"),
    "muon": ("muon",),
    "optimi": ("stable_adamw",),
    "prodigy": ("prodigy",),
    "pytorch-optimizer": (
        "po_adabelief",
        "po_adagc",
        "po_adamod",
        "po_adamp",
        "po_adams",
        "po_adamwsn",
        "po_adan",
        "po_adanorm",
        "po_adapnm",
        "po_adatam",
        "po_ano",
        "po_avagrad",
        "po_bcos",
        "po_came",
        "po_diffgrad",
        "po_exadam",
        "po_flashadamw",
        "po_focus",
        "po_fromage",
        "po_grams",
        "po_lion",
        "po_pnm",
        "po_sgdp",
        "po_sgdw",
        "po_signsgd",
        "po_simplifiedademamix",
        "po_sm3",
        "po_tam",
        "po_tiger",
        "po_vsgd",
        "po_yogi",
    ),
    "schedulefree": ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"),
    "torchao": ("adamw_torch_4bit", "adamw_torch_8bit"),
}

EXTRA_OF: dict[str, str] = {
    name: extra for extra, names in NAMES_BY_EXTRA.items() for name in names
}


def install_command(extra: str) -> str:
    """Return the command that installs the plugin behind an extra of the core distribution."""
    return f'pip install "hub[{extra}]"'

"""Arguments that a class of hub itself checks too."""

from __future__ import annotations

from hub.arguments import AdafactorBase


class AdafactorArguments(AdafactorBase):
    """Arguments of `transformers.Adafactor` (5.23), and `foreach`."""

    foreach: bool | None = None
    """Use the multi-tensor implementation; None: where torch thinks it is faster."""

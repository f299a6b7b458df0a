"""What speaks against a build of GaLore's optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.errors import OptimArgsError
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.nn import Parameter

    Targets = Sequence[tuple[str, Parameter]]


def irreversible(targets: Targets, rank: int) -> Iterator[Finding]:
    """Refuse what galore_torch 1.0 projects but cannot project back.

    `GaLoreProjector.project_back` infers the side from the shape of the projected gradient. For a
    weight with more columns than rows that stops working at a rank of its number of rows.
    """
    for name, parameter in targets:
        rows, columns = parameter.shape
        if rows < columns and rank >= rows:
            yield Finding.refuse(
                OptimArgsError(
                    f"proj_type='reverse_std' cannot project a {rows}x{columns} weight at rank "
                    f"{rank}: there it needs a rank below the number of rows",
                    where=name.removesuffix(".weight"),
                    fix=f"use proj_type='std', a rank below {rows}, or leave the module out of "
                    "target_modules",
                )
            )

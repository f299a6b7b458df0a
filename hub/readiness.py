"""What in the model as it is stands in the way of a build, whichever optimizer is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub import conduct, layerwise
from hub.errors import HubError, UnsupportedError
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.groups import Named

ON_META = Finding.refusal(
    UnsupportedError(
        "the model's parameters are on the meta device: there is nothing to optimize yet",
        where="model",
        fix="materialize it first; hub.plan and hub.estimate work on the meta device",
    )
)
_CHECKS = (layerwise.check_free, conduct.check_free)
"""Each takes names and parameters, and raises if another optimizer still holds one of them."""


def check(trainable: Named) -> Iterator[Finding]:
    """Yield a refusal for each thing that has to be done to the model before a build.

    Args:
        trainable: The parameters to be trained, by name.
    """
    if any(parameter.device.type == "meta" for _, parameter in trainable):
        yield ON_META
    for is_free in _CHECKS:
        try:
            is_free(trainable)
        except HubError as error:
            yield Finding.refusal(error)

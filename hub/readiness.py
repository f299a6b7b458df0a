"""What in the model and the process as they are stands in the way of a build."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hub import conduct, layerwise, processes
from hub.errors import HubError, UnsupportedError
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hub.groups import Named
    from hub.spec import OptimizerSpec

ON_META = Finding.refusal(
    UnsupportedError(
        "the model's parameters are on the meta device: there is nothing to optimize yet",
        where="model",
        fix="materialize it first; hub.plan and hub.estimate work on the meta device",
    )
)


def check(spec: OptimizerSpec, trainable: Named) -> Iterator[Finding]:
    """Yield a refusal for each thing that has to be done before a build.

    Args:
        spec: The optimizer.
        trainable: The parameters to be trained, by name.
    """
    yield from check_model(trainable)
    yield from _refusal(partial(processes.check_alone, spec))
    yield from _refusal(partial(processes.check_unpartitioned, spec, trainable))


def check_model(trainable: Named) -> Iterator[Finding]:
    """Yield a refusal for each thing that has to be done to the model, whatever is built.

    Args:
        trainable: The parameters to be trained, by name.
    """
    if any(parameter.device.type == "meta" for _, parameter in trainable):
        yield ON_META
    yield from _refusal(partial(layerwise.check_free, trainable))
    yield from _refusal(partial(conduct.check_free, trainable))


def _refusal(raise_unless_ready: Callable[[], None]) -> Iterator[Finding]:
    try:
        raise_unless_ready()
    except HubError as error:
        yield Finding.refusal(error)

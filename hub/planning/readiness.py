"""Find obstacles to a build in the current model and process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hub.errors import HubError
from hub.planning.capturing import check_capturable
from hub.planning.processes import check_unpartitioned, check_unwrapped
from hub.plans import ON_META
from hub.running.attach import check_not_switched
from hub.running.layerwise.engine import check_not_stepped
from hub.running.sharded.flat import check_not_flattened, check_not_inside_fsdp1
from hub.running.sharded.refusals import check_sharded
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import BaseModel
    from torch.nn import Module

    from hub.groups.split import Named
    from hub.spec import OptimizerSpec


def readiness_findings(
    spec: OptimizerSpec, arguments: BaseModel, model: Module, trainable: Named
) -> Iterator[Finding]:
    """Yield a refusal for each obstacle to building this optimizer now.

    Args:
        spec: The optimizer.
        arguments: Its arguments.
        model: The model.
        trainable: The parameters to be trained, by name.
    """
    yield from model_findings(trainable)
    yield from _refusal(partial(check_not_flattened, spec, model))
    yield from _refusal(partial(check_not_inside_fsdp1, spec, model))
    yield from _refusal(partial(check_unwrapped, spec, model))
    yield from _refusal(partial(check_unpartitioned, spec, trainable))
    yield from _refusal(partial(check_capturable, arguments))
    yield from _refusal(partial(check_sharded, spec, dict(arguments), trainable))


def model_findings(trainable: Named) -> Iterator[Finding]:
    """Yield a refusal for each obstacle in the model, whichever optimizer is built.

    Args:
        trainable: The parameters to be trained, by name.
    """
    if any(parameter.device.type == "meta" for _, parameter in trainable):
        yield ON_META
    yield from _refusal(partial(check_not_stepped, trainable))
    yield from _refusal(partial(check_not_switched, trainable))


def _refusal(raise_unless_ready: Callable[[], None]) -> Iterator[Finding]:
    try:
        raise_unless_ready()
    except HubError as error:
        yield Finding.refuse(error)

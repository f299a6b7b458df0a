"""`hub.plan`: decide everything that `hub.build` will do, before it does anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.arguments.checks import check_build_call
from hub.groups.walk import one_walk
from hub.names.registry import default_registry
from hub.planning.call import takes_build_arguments
from hub.planning.found import find_optimizer
from hub.planning.mixed import prepare_mixed
from hub.planning.requests import read_requests
from hub.planning.single import prepare_single

if TYPE_CHECKING:
    from hub.groups.given import GivenGroups
    from hub.names.registry import Registry
    from hub.planning.call import BuildCall
    from hub.planning.single import Prepared
    from hub.plans import Plan


@takes_build_arguments
def plan(call: BuildCall) -> Plan:
    """Return what `hub.build` would do with the same arguments, without building anything.

    See `hub.build` for the arguments, and for the errors that bad input raises in both. Whatever
    else makes `hub.build` refuse is a finding here: `plan.refused` says whether it will, and
    `plan.refusal` is the error. A model on the meta device can be planned, but not built. Failures
    of the package itself, such as of its import, only show in a build.
    """
    return prepare(call).plan


def prepare(
    call: BuildCall, *, given: GivenGroups | None = None, registry: Registry | None = None
) -> Prepared:
    """Resolve a call's name and arguments against its model; raise as `hub.build` does.

    Args:
        call: The arguments of `hub.build`.
        given: Groups of the same model, in place of those that hub makes.
        registry: Where to look names up; by default, in this environment.
    """
    check_build_call(call.model, call.gradient_accumulation_steps, call.max_grad_norm)
    with one_walk(call.model):
        return _prepare(call, given, registry or default_registry())


def _prepare(call: BuildCall, given: GivenGroups | None, registry: Registry) -> Prepared:
    found = find_optimizer(call.name, call.optim_args, registry)
    router = read_requests(call, found, registry)
    if router is None:
        return prepare_single(call, found, given=given)
    return prepare_mixed(call, router, given)

"""Plan several optimizers that share a model, each with the parameters that it trains."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from hub.arguments import InBackward, LowMemory
from hub.errors import OptimArgsError, TargetModulesError
from hub.groups.flat import is_flattened
from hub.groups.modules import trainable_parameters
from hub.groups.split import check_all_used
from hub.planning.call import BuildCall
from hub.planning.precision import detect_precision
from hub.planning.routing import reasons
from hub.planning.single import Part, Prepared, prepare_single
from hub.plans import Plan, PlannedMember
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hub.groups.given import GivenGroups
    from hub.groups.split import Named
    from hub.planning.routing import Request, Router
    from hub.spec import Finding


def prepare_mixed(call: BuildCall, router: Router, given: GivenGroups | None) -> Prepared:
    """Plan each optimizer for its parameters, and join the plans.

    Raises:
        TargetModulesError: An optimizer would have nothing to train.
        HubError: As `hub.build` does.
    """
    trainable = trainable_parameters(call.model) if given is None else given.trainable
    parts = _parts(call, router, trainable)
    requests = [request for request in router.requests if request.label in parts]
    _check_same_time(call, requests)
    members: list[Prepared] = []
    for request in requests:
        first = members[0] if members else None
        part = parts[request.label]
        own = None if given is None else given.only(part.trainable)
        sub = _call_of(request, call, router, part, first)
        if len(requests) == 1:
            sub.max_grad_norm = call.max_grad_norm
        members.append(prepare_single(sub, request.found, part, own))
    _check_clipping(call, members)
    if len(members) == 1:
        return members[0]
    return _joined(call, router, members, trainable)


def _parts(call: BuildCall, router: Router, trainable: Named) -> dict[str, Part]:
    """Return the part of the model that each request trains, by label; a rest may have none."""
    labels = list(router.labels(call.model, trainable))
    why = reasons(call.model, trainable)
    names = [name for name, _ in trainable]
    patterns = [pattern for (pattern, _), _ in router.rules]
    check_all_used(patterns, router.used(names), names)
    parts: dict[str, Part] = {}
    for request in router.requests:
        own = [
            pair for pair, label in zip(trainable, labels, strict=True) if label == request.label
        ]
        if own:
            parts[request.label] = Part(request.label, own, router.why(request.label, why))
        elif request not in router.rests:
            raise TargetModulesError(
                f"{request.found.spec.name} would train nothing",
                where=f"param_rules {request.label!r}" if request.label else "param_rules",
                fix="match parameters that it trains, or build the other optimizer alone",
            )
        elif request.found.optim_args and not is_flattened(call.model):
            raise OptimArgsError(
                "no parameter is left for the rest, so its arguments would have no effect",
                where=request.label,
                fix="leave them out",
            )
    return parts


def _call_of(
    request: Request, call: BuildCall, router: Router, part: Part, first: Prepared | None
) -> BuildCall:
    """Return the call that builds one of the optimizers by itself."""
    spec, given = request.found.spec, call.defaults_for(request.found.spec.arguments)
    in_backward = Trait.STEPS_IN_BACKWARD in spec.traits
    return BuildCall(
        spec.name,
        call.model,
        optim_args=request.found.optim_args,
        target_modules=request.target_modules,
        defaults={**(given or {}), **_shared(first, in_backward=in_backward)},
        param_rules=router.plain_rules([name for name, _ in part.trainable]),
        precision=call.precision,
        gradient_accumulation_steps=call.gradient_accumulation_steps,
        max_grad_norm=call.max_grad_norm if in_backward else None,
        **request.hyperparameters,
    )


def _shared(first: Prepared | None, *, in_backward: bool) -> dict[str, Any]:
    """Return the arguments that one optimizer takes over from the one that was asked for."""
    values = {} if first is None else dict(first.optim_args)
    keys = [*LowMemory.model_fields, *(InBackward.model_fields if in_backward else ())]
    return {key: values[key] for key in keys if values.get(key) is not None}


def _check_same_time(call: BuildCall, requests: Sequence[Request]) -> None:
    """Check that all optimizers need the norm of all gradients at the same time, if one is set."""
    specs = [request.found.spec for request in requests]
    inside = [spec.name for spec in specs if Trait.STEPS_IN_BACKWARD in spec.traits]
    after = [spec.name for spec in specs if spec.name not in inside]
    if call.max_grad_norm is not None and inside and after:
        raise OptimArgsError(
            f"max_grad_norm limits the norm of all gradients, which {inside[0]} needs inside the "
            f"backward pass, and {after[0]} after it",
            where="max_grad_norm",
            fix="leave it out, or choose forms that step at the same time",
        )


def _check_clipping(call: BuildCall, members: Sequence[Prepared]) -> None:
    """Check that optimizers which step inside the backward pass clip one norm in one way."""
    if call.max_grad_norm is None or len(members) == 1:
        return
    modes = {getattr(member.optim_args, "clipping", None) for member in members}
    if len(modes) > 1:
        raise OptimArgsError(
            f"max_grad_norm limits one norm, in one way, but clipping has {len(modes)} values",
            where="clipping",
            fix="use the same clipping for all optimizers of the model",
        )
    ends_itself = [m.plan.optimizer for m in members if _ends_itself(m)]
    if modes == {"previous_norm"} and ends_itself:
        raise OptimArgsError(
            f"{ends_itself[0]} ends its steps by itself, so the norm of all gradients of a step is "
            "never known",
            where="clipping='previous_norm'",
            fix="use clipping='exact' or 'per_parameter'",
        )


def _ends_itself(member: Prepared) -> bool:
    return Trait.STEPS_IN_BACKWARD in member.spec.traits and member.spec.eager_spec is None


def _joined(
    call: BuildCall, router: Router, members: Sequence[Prepared], trainable: Named
) -> Prepared:
    """Return one plan of all members, under the name that was asked for."""
    first = members[0]
    precision = detect_precision(trainable, call.precision)
    groups = tuple(
        replace(group, optimizer=member.plan.optimizer)
        for member in members
        for group in member.plan.groups
    )
    joined = Plan(
        optimizer=first.plan.optimizer,
        distribution=first.plan.distribution,
        arguments=first.plan.arguments,
        target_modules=tuple(chain.from_iterable(m.plan.target_modules for m in members)),
        groups=groups,
        precision=precision,
        gradient_accumulation_steps=call.gradient_accumulation_steps,
        max_grad_norm=call.max_grad_norm,
        findings=tuple(_findings(members)),
        members=tuple(
            PlannedMember(
                member.label, member.plan.optimizer, member.plan.distribution, member.plan.arguments
            )
            for member in members
        ),
    )
    context = replace(
        first.context,
        groups=tuple(chain.from_iterable(member.context.groups for member in members)),
        precision=precision,
    )
    return replace(
        first,
        plan=joined,
        context=context,
        layouts=(),
        members=tuple(members),
        router=router,
    )


def _findings(members: Sequence[Prepared]) -> Iterator[Finding]:
    """Yield the findings of all members; what several of them find, once."""
    seen: set[tuple[str, str]] = set()
    for member in members:
        for finding in member.plan.findings:
            if (finding.what, finding.where) in seen:
                continue
            seen.add((finding.what, finding.where))
            is_first = member is members[0]
            named = is_first or member.plan.optimizer in finding.what
            yield (
                finding
                if named
                else replace(finding, what=f"{member.plan.optimizer}: {finding.what}")
            )

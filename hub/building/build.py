"""`hub.build`: make a plan, and execute it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from hub.building.verify import verified
from hub.errors import HubError, HubWarning, PluginError
from hub.names.catalogue import EXTRA_OF, install_command
from hub.names.registry import default_registry
from hub.planning.call import takes_build_arguments
from hub.planning.prepare import prepare
from hub.running.attach import attach_behavior, detach, mix
from hub.spec import Level
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.optim import Optimizer

    from hub.names.registry import Plugin
    from hub.planning.call import BuildCall
    from hub.planning.single import Prepared
    from hub.plans import Plan


@takes_build_arguments
def build(call: BuildCall) -> Optimizer:  # noqa: D417 - the decorator spreads `call`
    """Build the optimizer with this name for a model's trainable parameters.

    Args:
        name: One of `hub.list_optimizers()`, followed by `_layerwise` for the form that steps
            inside the backward pass; or `(class_or_factory, arguments)` for one without a plugin.
        model: The model, on its device and in the dtype it will be trained in.
        optim_args: The optimizer's arguments, as `"key=value, key=value"` or a mapping.
        target_modules: For low-rank optimizers: "all-linear", a module name or regular
            expression, or several; see `hub.groups.targets.select_targets`.
        defaults: What a trainer passes to every optimizer (learning rate, betas, …): used if
            this one has the argument, and overridden by everything else.
        param_rules: Ordered `{pattern: {argument: value}}`; the first match wins. Besides the
            optimizer's per-group arguments, a rule may have `lr_scale`, which multiplies the
            learning rate. A rule's `weight_decay` only replaces the coefficient of decayed
            parameters.
        precision: "fp32", "bf16" (bf16 parameters), "bf16-mixed" (fp32 parameters under
            autocast), and so on, see `hub.spec.MODES`; None: the parameters' dtype.
        gradient_accumulation_steps: Micro-batches per step. Gradients accumulate in `.grad` as
            always; an optimizer that steps inside the backward pass does so in the last of them.
        max_grad_norm: Clip the total gradient norm to this before each step. Leave it out if a
            trainer clips. With an optimizer that steps inside the backward pass, also choose
            `clipping`.
        hyperparameters: The optimizer's arguments, as keywords.

    Returns:
        An instance of the optimizer's own class. Its groups have `name` and `param_names`.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        OptimArgsError: An argument is unknown, contradictory, of the wrong type or out of range.
        TargetModulesError: `target_modules` or `param_rules` match nothing.
        PrecisionError: The optimizer cannot train this dtype or on this device.
        UnsupportedError: The model is on the meta device, the optimizer has no layerwise form,
            another optimizer still steps the model's parameters inside the backward pass or
            switches them for evaluation, or the optimizer cannot train in this process.
        PluginError: The plugin, or the package behind it, fails.
        HubError: There is nothing to train, or the plan's `refusal` is of another class.
    """
    return build_prepared(prepare(call), default_registry().observers(), stacklevel=4)


def build_prepared(
    prepared: Prepared,
    observers: Iterable[Plugin | PluginError] = (),
    *,
    stacklevel: int = 2,
) -> Optimizer:
    """Execute a plan and notify the observers; raise as `build` does.

    Args:
        prepared: The plan and what it is about.
        observers: From the registry.
        stacklevel: As for `warnings.warn`.
    """
    plan = prepared.plan
    if plan.refusal is not None:
        raise plan.refusal
    _choose_kernels_of_roots()
    optimizer = _assembled(prepared, [verified(_call_factory(p), p) for p in prepared.parts])
    for finding in plan.findings:
        if finding.level in (Level.WARN, Level.ADJUST):
            warnings.warn(f"{plan.optimizer}: {finding}", HubWarning, stacklevel=stacklevel)
    _notify(observers, optimizer, prepared, stacklevel + 1)
    return optimizer


def _assembled(prepared: Prepared, built: Sequence[Optimizer]) -> Optimizer:
    """Attach hub's behavior to each optimizer, and join several into one."""
    model = prepared.context.model
    try:
        for part, optimizer in zip(prepared.parts, built, strict=True):
            attach_behavior(optimizer, part.plan, part.spec, model)
    except Exception:
        for optimizer in built:
            detach(optimizer)
        raise
    if prepared.router is None:
        return built[0]
    labels = [part.label for part in prepared.members]
    members = dict(zip(labels, built, strict=True))
    return mix(members, prepared.plan, model, prepared.router.labels)


def _choose_kernels_of_roots() -> None:
    """Let MKL choose its kernels for square roots on one thread.

    If several threads of a CPU take the first roots of a process, one of them may use a kernel
    with an error of up to 3e-4 (torch 2.13, https://github.com/pytorch/pytorch/issues/188792): the
    first step after a resume would not be that of the uninterrupted run.
    """
    for dtype in (torch.float32, torch.float64):
        torch.ones(1, dtype=dtype, device="cpu").sqrt()


def _call_factory(prepared: Prepared) -> object:
    plan = prepared.plan
    try:
        return prepared.construct(prepared.context)
    except HubError:
        raise
    except Exception as error:  # whatever the package behind a plugin raises
        missing = isinstance(error, ImportError)
        raise PluginError(
            f"{plan.optimizer} "
            + ("cannot import its package" if missing else "cannot be built")
            + f": {type(error).__name__}: {error}",
            where=plan.optimizer,
            fix=_how_to_install(plan, error) if missing else "",
            plugin=plan.distribution,
        ) from error


def _how_to_install(plan: Plan, error: Exception) -> str:
    extra = EXTRA_OF.get(plan.optimizer)
    if extra:
        return f"{install_command(extra)}, and see `hub doctor`"
    return (
        f"install {getattr(error, 'name', None) or 'the missing package'}, and ask the author of "
        f"{plan.distribution} to declare it"
    )


def _notify(
    observers: Iterable[Plugin | PluginError],
    optimizer: Optimizer,
    prepared: Prepared,
    stacklevel: int,
) -> None:
    """Call every observer once; a broken one costs a warning, not the optimizer."""
    for plugin in observers:
        if isinstance(plugin, PluginError):
            warnings.warn(f"an observer is ignored: {plugin}", HubWarning, stacklevel=stacklevel)
            continue
        try:
            plugin.hooks.hub_optimizer_built(optimizer=optimizer, plan=prepared.plan)
        except Exception as error:  # noqa: BLE001 - third-party code
            warnings.warn(
                f"the observer {plugin.source.distribution} failed: {shown(error)}",
                HubWarning,
                stacklevel=stacklevel,
            )

"""AdamW whose moments of fp32 weights are bf16, updated by torch's fused kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim.adamw import adamw

from hub.builtin.capturable import with_rate_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
_AT_ONCE = 2**20
"""The number of elements from which a batch of fp32 copies is full."""


def fused_adamw(
    groups: list[Group], *, state_dtype: str | None = None, **arguments: Any
) -> torch.optim.AdamW:
    """Return torch's AdamW, with moments in bf16 for fp32 weights if `state_dtype` is "bf16"."""
    cls = torch.optim.AdamW if state_dtype is None else NarrowAdamW
    return with_rate_tensors(cls(groups, **arguments))


class NarrowAdamW(torch.optim.AdamW):
    """torch's class, which computes in fp32 and rounds the moments to bf16 after each step.

    The kernel for CUDA takes such moments (torch 2.13, `fused_adam_utils.cuh`), as torchtitan uses
    it (pull request 2732): each update is computed from moments that are not rounded yet. The one
    for CPUs refuses them ("expected scalar type Float but found BFloat16"), so there it steps fp32
    copies of the moments, a few parameters at a time, which computes the same.
    """

    def __init__(self, params: Any, **arguments: Any) -> None:
        super().__init__(params, **arguments)
        # `load_state_dict` casts state to the parameter's dtype, which bf16 survives exactly.
        self.register_load_state_dict_post_hook(_narrow)

    def _init_group(self, group: Group, *lists: list[Any]) -> bool:
        """Collect what the fused kernel steps, after stepping what is on a CPU.

        torch's step calls this for each group.
        """
        for parameter in group["params"]:
            if parameter.grad is not None and not self.state[parameter]:
                self.state[parameter].update(_start(parameter, group))
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        columns = [column for column in lists if column]  # the maxima may be left out
        rows = list(zip(*columns, strict=True))
        here = [row for row in rows if _needs_copies(*row)]
        elsewhere = [row for row in rows if not _needs_copies(*row)]
        for index, column in enumerate(columns):
            column[:] = [row[index] for row in elsewhere]
        for batch in _batches(here):
            self._step_copies(group, batch)
        return has_complex

    def _step_copies(self, group: Group, batch: list[tuple[Tensor, ...]]) -> None:
        """Step parameters with fp32 copies of their moments, and round these back."""
        parameters, grads, *moments, steps = (list(column) for column in zip(*batch, strict=True))
        wide = [[tensor.float() for tensor in one] for one in moments]
        mean, square, *largest = wide
        adamw(
            parameters,
            grads,
            mean,
            square,
            largest[0] if largest else [],
            steps,
            fused=True,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            amsgrad=group["amsgrad"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )
        for kept, stepped in zip(moments, wide, strict=True):
            for tensor, value in zip(kept, stepped, strict=True):
                tensor.copy_(value)


def _start(parameter: Tensor, group: Group) -> dict[str, Tensor]:
    """Return the first state of an fp32 parameter; of others none, which torch makes."""
    if parameter.dtype is not torch.float32:
        return {}
    keys = _MOMENTS if group["amsgrad"] else _MOMENTS[:-1]
    return {
        "step": torch.zeros((), device=parameter.device),
        **{key: torch.zeros_like(parameter, dtype=torch.bfloat16) for key in keys},
    }


def _narrow(optimizer: Optimizer) -> None:
    """Round the moments of fp32 parameters to bf16: those of an earlier run may be fp32."""
    for parameter, state in optimizer.state.items():
        if parameter.dtype is torch.float32:
            state.update({key: state[key].bfloat16() for key in _MOMENTS if key in state})


def _needs_copies(parameter: Tensor, _: Tensor, mean: Tensor, *__: Tensor) -> bool:
    return parameter.device.type == "cpu" and mean.dtype is not parameter.dtype


def _batches(items: Iterable[tuple[Tensor, ...]]) -> Iterator[list[tuple[Tensor, ...]]]:
    batch: list[tuple[Tensor, ...]] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item[0].numel()
        if size >= _AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

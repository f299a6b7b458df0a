"""torch's Muon (2.13), for stacks of matrices, blocks of rows and weights stored as (in, out)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim._muon import _adjust_lr

from hub.updates.stacking import is_stackable, scale, stacked, stacks
from hub_muon.matrices import matrices_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Group = dict[str, Any]


class Muon(torch.optim.Muon):
    """torch's class, whose step gets the matrices that it can take, and hub's the others.

    Args:
        groups: Parameter groups with `param_names`.
        blocks: Numbers of rows by patterns of names.
        transposed: The names of weights stored as (in, out).
        arguments: Those of torch's class.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        blocks: Mapping[str, int],
        transposed: frozenset[str],
        **arguments: Any,
    ) -> None:
        self.blocks, self.transposed = blocks, transposed
        # Upstream's constructor refuses 3-D parameters, which `add_param_group` adds.
        super().__init__([torch.empty(0, 0)], **arguments)
        self.param_groups.clear()
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of matrices and stacks of matrices.

        Raises:
            HubError: It has another parameter, or one that `blocks` does not cut.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for name, parameter in zip(_names(group), group["params"], strict=True):
                self._matrices(name, self._as_out_in(name, parameter))
        except Exception:
            self.param_groups.pop()
            raise

    def _init_group(
        self,
        group: Group,  # type: ignore[override]
        params_with_grad: list[Tensor],
        grads: list[Tensor],
        muon_momentum_bufs: list[Tensor],
    ) -> bool:
        """Leave single matrices to upstream's step, as (out, in), and step all others.

        The others are stacks of matrices, blocks of rows, and small matrices of one shape.
        Upstream's step calls this for each group. In bf16 without `nesterov` it would divide the
        momentum itself by its norm (torch 2.13, `_zeropower_via_newtonschulz`), so that is left out
        as well.
        """
        lists = (params_with_grad, grads, muon_momentum_bufs)
        has_complex = super()._init_group(group, *lists)
        pairs = zip(_names(group), group["params"], strict=True)
        names = [name for name, parameter in pairs if parameter.grad is not None]
        found = list(zip(names, *lists, strict=True))
        for each in lists:
            each.clear()
        single: list[Any] = []
        for name, *tensors in found:
            views: Any = [self._as_out_in(name, tensor) for tensor in tensors]
            matrices = self._matrices(name, views[0])
            if views[0].shape == matrices[1:]:
                single.append(views)
            else:
                _step(*views, matrices=matrices, group=group)
        for places in stacks([views[0] for views in single], [views[1] for views in single]):
            alike: Any = list(zip(*(single[place] for place in places), strict=True))
            if is_stackable(alike[0][0], alike[1][0]):
                _step_alike(*alike, group=group)
            elif alike[2][0].dtype == torch.bfloat16 and not group["nesterov"]:
                _step(*single[places[0]], matrices=(1, *alike[0][0].shape), group=group)
            else:
                for each, found_here in zip(lists, alike, strict=True):
                    each.extend(found_here)
        return has_complex

    def _matrices(self, name: str, view: Tensor) -> tuple[int, int, int]:
        return matrices_of(name, view.shape, self.blocks)

    def _as_out_in(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.mT if name in self.transposed else tensor

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs, where torch keeps groups and state only."""
        return {**super().__getstate__(), "blocks": self.blocks, "transposed": self.transposed}


def _names(group: Group) -> list[str]:
    names: list[str] = group.get("param_names") or [""] * len(group["params"])
    return names


def _step(
    parameter: Tensor,
    gradient: Tensor,
    momentum: Tensor,
    *,
    matrices: tuple[int, int, int],
    group: Group,
) -> None:
    """Do to many matrices at once what upstream's step does to one.

    The operations are those of `_single_tensor_muon` (torch 2.13), in the same order.
    """
    rate, decay = float(group["lr"]), group["momentum"]
    momentum.lerp_(gradient, 1 - decay)
    update = gradient.lerp(momentum, decay) if group["nesterov"] else momentum
    stack = update.reshape(matrices)
    orthogonal = orthogonalized(stack, group["ns_coefficients"], group["ns_steps"], group["eps"])
    parameter.mul_(1 - rate * group["weight_decay"])
    adjusted = _adjust_lr(rate, group["adjust_lr_fn"], stack.shape[1:])
    parameter.add_(orthogonal.reshape(parameter.shape), alpha=-adjusted)


def _step_alike(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    *,
    group: Group,
) -> None:
    """Do to matrices of one shape together what upstream's step does to each."""
    rate, decay = float(group["lr"]), group["momentum"]
    torch._foreach_lerp_(list(momenta), list(gradients), weight=1 - decay)
    # A lone matrix is stacked with itself: its product alone may round otherwise, and an update
    # must not depend on what else is stepped.
    count = max(2, len(momenta))
    update = stacked([*momenta, *momenta][:count])
    if group["nesterov"]:
        update = stacked([*gradients, *gradients][:count]).lerp(update, decay)
    orthogonal = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
    scale(parameters, [1 - rate * group["weight_decay"]] * len(parameters))
    adjusted = _adjust_lr(rate, group["adjust_lr_fn"], update.shape[1:])
    steps = orthogonal.to(parameters[0].dtype).unbind()[: len(parameters)]
    torch._foreach_add_(list(parameters), list(steps), alpha=-adjusted)


def orthogonalized(
    stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return a stack of matrices, each orthogonalized by Newton-Schulz, in bf16.

    As `_zeropower_via_newtonschulz` (torch 2.13) does it with one matrix; the source of the
    iteration is https://kellerjordan.github.io/posts/muon/. It rounds as that function does, but
    for products of stacks, which oneDNN and cuBLAS may sum in another order than single ones.
    """
    a, b, c = coefficients
    is_tall = stack.size(-2) > stack.size(-1)
    x = stack.to(torch.bfloat16, copy=True)
    x = x.mT if is_tall else x
    x.div_(torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=eps))
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x

"""Muon (https://kellerjordan.github.io/posts/muon) for some groups, AdamW for the others."""

import torch
from torch.optim import Optimizer


def orthogonal(matrix, steps):
    """Return roughly the orthogonal factor of a matrix, by Newton-Schulz iterations."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.float() / matrix.float().norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Duo(Optimizer):
    """One rule for the groups with `low_rank`, another for the others."""

    def __init__(self, params, momentum, ns_steps, betas, eps, weight_decay):
        self.matrices = {"momentum": momentum, "ns_steps": ns_steps}
        self.rest = {"betas": betas, "eps": eps}
        super().__init__(params, {"lr": 1e-3, "weight_decay": weight_decay})

    def add_param_group(self, param_group):
        """Give a group the keys of its own rule, and none of the other's."""
        own, others = self.rest, self.matrices
        if param_group.get("low_rank"):
            own, others = others, own
        kept = {key: value for key, value in param_group.items() if key not in others}
        super().add_param_group({**own, **kept})

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule = self.orthogonalized if group.get("low_rank") else self.adapted
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = rule(parameter.grad, self.state[parameter], group)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"])
        return loss

    def orthogonalized(self, grad, state, group):
        """Return the update of a matrix."""
        average = state.setdefault("average", torch.zeros_like(grad))
        average.lerp_(grad, 1 - group["momentum"])
        return orthogonal(average, group["ns_steps"]).to(grad)

    def adapted(self, grad, state, group):
        """Return the update of anything else."""
        first = state.setdefault("first", torch.zeros_like(grad))
        second = state.setdefault("second", torch.zeros_like(grad))
        state["step"] = state.get("step", 0) + 1
        beta1, beta2 = group["betas"]
        first.lerp_(grad, 1 - beta1)
        second.lerp_(grad.square(), 1 - beta2)
        step = state["step"]
        denominator = (second / (1 - beta2**step)).sqrt() + group["eps"]
        return first / (1 - beta1**step) / denominator

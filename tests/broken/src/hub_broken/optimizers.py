"""Each class is `torch.optim.AdamW` with one promise broken, in a way that was seen in the wild."""

import contextlib
import copy
import io
import sys
import time

import torch
from torch.optim import AdamW


class Plain(AdamW):
    """Breaks nothing by itself."""


class KeepsItsFirstLr(AdamW):
    """As layerwise optimizers of Transformers 5.23 do: the schedule writes, nobody reads."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr=lr, **arguments)
        self.first = [group["lr"] for group in self.param_groups]

    def step(self, closure=None):
        shown = [group["lr"] for group in self.param_groups]
        for group, lr in zip(self.param_groups, self.first, strict=True):
            group["lr"] = lr
        super().step(closure)
        for group, lr in zip(self.param_groups, shown, strict=True):
            group["lr"] = lr


class ReadsTheFirstLr(AdamW):
    """Takes the learning rate of its first group for that of all."""

    def step(self, closure=None):
        shown = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = shown[0]
        super().step(closure)
        for group, lr in zip(self.param_groups, shown, strict=True):
            group["lr"] = lr


class ReadsTheFirstBetas(AdamW):
    """Takes the betas of its first group for those of all."""

    def step(self, closure=None):
        own = [group["betas"] for group in self.param_groups]
        for group in self.param_groups:
            group["betas"] = own[0]
        super().step(closure)
        for group, betas in zip(self.param_groups, own, strict=True):
            group["betas"] = betas


class LacksAGroupKey(AdamW):
    """Keeps one of its hyperparameters to itself."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.eps = [group.pop("eps") for group in self.param_groups]

    def step(self, closure=None):
        for group, eps in zip(self.param_groups, self.eps, strict=True):
            group["eps"] = eps
        super().step(closure)
        for group in self.param_groups:
            del group["eps"]


class RoutesByName(AdamW):
    """Tells the head from the layers by a part of its name."""

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for name, p in zip(group["param_names"], group["params"], strict=True):
                    if p.grad is not None and "head" in name:
                        p.add_(p.grad.sign(), alpha=-group["lr"])
        super().step(closure)


class ChangesGradients(AdamW):
    """Adds what else it wants to the gradients themselves."""

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.add_(p, alpha=group["weight_decay"])
        super().step(closure)


class SkipsIdleGradients(AdamW):
    """Breaks nothing: as Prodigy 1.1.2, it leaves parameters alone whose gradients are all zero."""

    def step(self, closure=None):
        idle = [
            (p, p.detach().clone())
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and not p.grad.any()
        ]
        step = AdamW.step
        while hasattr(step, "hooked"):  # else the step hooks are called twice
            step = step.__wrapped__
        loss = step(self, closure)
        with torch.no_grad():
            for p, value in idle:
                p.copy_(value)
        return loss


class DecaysEverything(AdamW):
    def step(self, closure=None):
        for group in self.param_groups:
            group["weight_decay"], group["saved"] = (
                self.defaults["weight_decay"],
                group["weight_decay"],
            )
        super().step(closure)
        for group in self.param_groups:
            group["weight_decay"] = group.pop("saved")


class ForgetsDecay(AdamW):
    """As Transformers 5.23 does for GaLore and LOMO: the group says one thing, the step another."""

    def step(self, closure=None):
        asked = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        super().step(closure)
        for group, value in zip(self.param_groups, asked, strict=True):
            group["weight_decay"] = value


class IgnoresBetas(AdamW):
    """As Transformers 5.23 does for GaLore: the argument is taken, and used for one group only."""

    def step(self, closure=None):
        asked = [group["betas"] for group in self.param_groups]
        self.param_groups[-1]["betas"] = (0.9, 0.999)
        super().step(closure)
        for group, betas in zip(self.param_groups, asked, strict=True):
            group["betas"] = betas


class MovesFrozen(AdamW):
    def __init__(self, params, model, **arguments):
        super().__init__(params, **arguments)
        self.frozen = [p for p in model.parameters() if not p.requires_grad]

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for p in self.frozen:
                p.mul_(0.99)


class ForgetsOnLoad(AdamW):
    """As GrokAdamW 0.1.2 does: loads without complaint and starts over."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.state.clear()


class KeepsStateElsewhere(AdamW):
    """As AdaLomo 0.1.1 does: what it remembers is an attribute."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.add_(p.grad, alpha=group["lr"] / self.steps)
        super().step(closure)


class MovesIdleParameters(AdamW):
    """Follows its average, whether or not a parameter has a gradient."""

    def step(self, closure=None):
        idle = [
            (p, group["lr"])
            for group in self.param_groups
            for p in group["params"]
            if p.grad is None and self.state[p]
        ]
        super().step(closure)
        with torch.no_grad():
            for p, lr in idle:
                p.add_(self.state[p]["exp_avg"], alpha=-lr)


class ForgetsLateState(AdamW):
    """Restores what it remembers of the parameters of the first day, and of no others."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.first = {p for group in self.param_groups for p in group["params"]}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for p in [p for p in self.state if p not in self.first]:
            del self.state[p]


class RefusesLateGroups(AdamW):
    """As APOLLO 1.0.3 does: only the parameters of the first day have what `step` needs."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.seeds = {p for group in self.param_groups for p in group["params"]}

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p not in self.seeds:
                    p.grad = None
        super().step(closure)


class CountsOutsideOfState(AdamW):
    """Keeps its place in an entry of the state dict that torch's distributed functions drop."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.add_(p.grad, alpha=group["lr"] / self.steps)
        super().step(closure)

    def state_dict(self):
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.steps = state_dict.get("steps", 0)


class Projector:
    pass


class PicklesAnObject(AdamW):
    """As GaLore 1.0 does."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["projector"] = Projector()


class Grows(AdamW):
    """As GrokAdamW 0.1.2 does: entries of former lives are saved again."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state[f"old_{len(state)}"] = torch.ones(4)


class TakesAnyCheckpoint(AdamW):
    def load_state_dict(self, state_dict):
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "hub"})


class LoadsWithoutHooks(AdamW):
    """As bitsandbytes 0.50.2 does: nobody is asked whether the state fits."""

    def load_state_dict(self, state_dict):
        self.__setstate__({"state": {}, "param_groups": self.param_groups})
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, state in state_dict["state"].items():
            self.state[parameters[number]] = dict(state)


class WritesIntoCheckpoints(AdamW):
    """Goes on with the very tensors that it was given."""

    given = ()

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.given = [state["exp_avg"] for state in state_dict["state"].values()]

    def step(self, closure=None):
        super().step(closure)
        for tensor in self.given:
            tensor.mul_(0.9)


class ForgetsOnSave(AdamW):
    """Hands out what it remembers, and does not keep it."""

    def state_dict(self):
        saved = copy.deepcopy(super().state_dict())
        for state in self.state.values():
            state["exp_avg"].zero_()
        return saved


class LosesAnAttribute(AdamW):
    """As bitsandbytes 0.50.2 does: torch's `__getstate__` keeps no attributes of subclasses."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.factor = 0.5

    def step(self, closure=None):
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= getattr(self, "factor", 1.0)
        super().step(closure)
        for group, lr in zip(self.param_groups, rates, strict=True):
            group["lr"] = lr


class CopiesItself(AdamW):
    """As torch's own do, where nobody refuses: the copy has the groups and no hooks."""

    def __copy__(self):
        other = type(self).__new__(type(self))
        other.__setstate__(self.__getstate__())
        return other


class SeesTheLastMicroBatch(AdamW):
    """As LOMO 0.1.1 does: every backward pass counts on its own."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.last = {}
        for group in self.param_groups:
            for p in group["params"]:
                p.register_hook(lambda grad, p=p: self.last.__setitem__(p, grad.clone()))

    def step(self, closure=None):
        for p, grad in self.last.items():
            if p.grad is not None:
                p.grad.copy_(grad)
        super().step(closure)


class HidesGradients(AdamW):
    """As LOMO 0.1.1 does: updates on gradients as they come, before anything can clip them."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        for group in self.param_groups:
            for p in group["params"]:
                p.register_post_accumulate_grad_hook(self._update)

    @torch.no_grad()
    def _update(self, p):
        p.add_(p.grad, alpha=-self.param_groups[0]["lr"])


class EvaluatesTrainingWeights(AdamW):
    def eval(self):
        pass

    def train(self):
        pass


class DoesNotComeBack(AdamW):
    """Switches to evaluation weights and stays there."""

    def eval(self):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(0.5)

    def train(self):
        pass


class EvaluatesItsFirstAverage(AdamW):
    """Computes its evaluation weights once, and shows them ever after."""

    @torch.no_grad()
    def eval(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p].setdefault("first", 0.5 * p))

    def train(self):
        pass


class OverflowsInFp16(AdamW):
    """Computes in the dtype of the weights what is too large for it."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(1e5).mul_(1e-5)


class Climbs(AdamW):
    def __init__(self, params, **arguments):
        super().__init__(params, **arguments, maximize=True)


class DrawsRandomNumbers(AdamW):
    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        torch.rand(1)


class Prints(AdamW):
    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        sys.stdout.write("Using a very good optimizer!\n")


class SilencesEverybody(AdamW):
    """Redirects the output of the process, not of its thread, while it is built."""

    def __init__(self, params, **arguments):
        with contextlib.redirect_stdout(io.StringIO()):
            time.sleep(0.02)  # long enough for another one to begin
            super().__init__(params, **arguments)


class MarksTheModel(AdamW):
    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        for group in self.param_groups:
            for p in group["params"]:
                p.saved_data = copy.copy(p.shape)


class TakesAnyInput(AdamW):
    """Swallows what it does not understand."""

    def __init__(self, params, **_):
        super().__init__(params)


class CountsByTheCall(AdamW):
    """As optimi 0.3.3 does in its groups: a call of `step` is taken for a step of all parameters.

    Its spec says that updates are independent, and does not say what it counts.
    """

    def step(self, closure=None):
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group["lr"] /= group["steps"]
        super().step(closure)
        for group in self.param_groups:
            group["lr"] *= group["steps"]


class KeepsGradients(AdamW):
    """As optimi's Adan does, but the very tensor."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["prev_grad"] = p.grad


class StepsByItself(AdamW):
    """As lomo_optim 0.1.1 does: a hook of its own updates with whatever gradient comes."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        for group in self.param_groups:
            for p in group["params"]:
                p.register_hook(lambda grad, p=p: _move(p, grad))


def _move(parameter, grad):
    parameter.data.add_(grad, alpha=-1e-3)


class FreesGradients(AdamW):
    """As LOMO 0.1.1 does: takes each gradient away when it comes, and nobody can measure it."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.taken = {}
        for group in self.param_groups:
            for p in group["params"]:
                p.register_post_accumulate_grad_hook(self._take)

    def _take(self, p):
        self.taken[p], p.grad = p.grad, None

    def step(self, closure=None):
        for p, grad in self.taken.items():
            p.grad = grad
        super().step(closure)


class IgnoresClosures(AdamW):
    """Steps on the gradients that are there."""

    def step(self, closure=None):  # noqa: ARG002 - what is broken
        super().step()


class IgnoresNamedClosures(AdamW):
    """Knows its closure under another name, and takes any keyword."""

    def step(self, function=None, **_):
        return super().step(function)


class CallsClosuresTwice(AdamW):
    """As an override that calls the closure for its loss, and hands it on as well."""

    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        return super().step(closure)


class LeavesHooks(AdamW):
    """Watches gradients, for as long as the model lives."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        for group in self.param_groups:
            for p in group["params"]:
                p.register_hook(lambda grad: grad)


class DrawsInItsStep(AdamW):
    """Rounds at random with torch's global generator, which is another on every rank."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for p in _with_gradients(self):
                p.add_(torch.randn(p.shape), alpha=1e-4)


class NormsEachShard(AdamW):
    """Divides by the norm of a gradient, and says that rows are enough for it."""

    def step(self, closure=None):
        for p in _with_gradients(self):
            p.grad = p.grad / (p.grad.norm() + 1)
        super().step(closure)


class NormsWholeTensors(NormsEachShard):
    """Says that an element's update depends on no other."""


class StraddlesBlocks(AdamW):
    """Scales blocks of 32 elements, and says that an element depends on no other."""

    def step(self, closure=None):
        for p in _with_gradients(self):
            blocks = [block / (block.norm() + 1) for block in p.grad.flatten().split(32)]
            p.grad = torch.cat(blocks).view_as(p)
        super().step(closure)


class NeedsElements(AdamW):
    """Looks for the largest gradient, which a rank without rows does not have."""

    def step(self, closure=None):
        for p in _with_gradients(self):
            if p.grad.abs().amax() == torch.inf:
                raise OverflowError("a gradient is infinite")
        super().step(closure)


class FillsIdleShards(AdamW):
    """Gives every shard a gradient, so that all ranks have the same to exchange."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None and hasattr(p, "to_local"):
                    p.grad = torch.zeros_like(p)
        super().step(closure)


class LogsOnTheFirstRank(AdamW):
    """Counts in the state of one rank only."""

    def step(self, closure=None):
        super().step(closure)
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 0:
            for p in _with_gradients(self):
                self.state[p]["logged"] = 1


class KeepsLocalTensors(AdamW):
    """Has state of the size of a rank's own rows, which nobody can put together again."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for p in _with_gradients(self):
                own, gradient = (t.to_local() if hasattr(t, "to_local") else t for t in (p, p.grad))
                mean = self.state[p].setdefault("mean", torch.zeros_like(own))
                mean.lerp_(gradient, 0.1)
                own.add_(mean, alpha=-1e-2)


class OrthogonalizesByName(AdamW):
    """Tells matrices by a part of their names, so that some get AdamW."""

    @torch.no_grad()
    def step(self, closure=None):
        before = {p: p.clone() for p in _with_gradients(self)}
        super().step(closure)
        for group in self.param_groups:
            for name, p in zip(group["param_names"], group["params"], strict=True):
                if p in before and "detour" not in name:
                    left, _, right = torch.linalg.svd(p.grad.float(), full_matrices=False)
                    p.copy_(before[p] - group["lr"] * (left @ right).to(p))


class LooksAtItsCompany(AdamW):
    """Takes small steps if it has few parameters, although it claims to update each alone."""

    def step(self, closure=None):
        few = sum(len(group["params"]) for group in self.param_groups) < 20
        before = [(p, p.detach().clone()) for p in _with_gradients(self)]
        super().step(closure)
        with torch.no_grad():
            for p, old in before:
                p.lerp_(old, 0.5 * few)


class KeepsAliases(AdamW):
    """Remembers flat views of its moments, which break when their memory moves."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.flat = {}

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for p in _with_gradients(self):
                (flat,) = self.flat.setdefault(id(p), [self.state[p]["exp_avg"].view(-1)])
                p.add_(flat.view_as(p), alpha=-1e-3)


class ReadsTheStateOfOthers(AdamW):
    """Claims to update each parameter alone, and looks at the moments of all."""

    def step(self, closure=None):
        super().step(closure)
        moments = [state["exp_avg"] for state in self.state.values() if "exp_avg" in state]
        total = sum(moment.float().sum().item() for moment in moments)
        with torch.no_grad():
            for p in _with_gradients(self):
                p.add_(p, alpha=-1e-9 * total)


class KeepsParameters(AdamW):
    """Steps the tensors that it was built with, not those in its groups."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.own = [list(group["params"]) for group in self.param_groups]

    def step(self, closure=None):
        before = [group["params"] for group in self.param_groups]
        for group, own in zip(self.param_groups, self.own, strict=True):
            group["params"] = own
        super().step(closure)
        for group, params in zip(self.param_groups, before, strict=True):
            group["params"] = params


class ForgetsKeysOfGroups(AdamW):
    """Keeps its groups to the keys that they had in the beginning."""

    def __init__(self, params, **arguments):
        super().__init__(params, **arguments)
        self.keys = {key for group in self.param_groups for key in group}

    def step(self, closure=None):
        for group in self.param_groups:
            for key in group.keys() - self.keys:
                del group[key]
        super().step(closure)


def _with_gradients(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]

"""How frameworks without a model at hand make an optimizer, each as its source has it.

Lightning and skorch run themselves, in `test_frameworks`. The others are not here: they need GPUs,
torchvision or hundreds of packages. What their source does between the configuration and
`Class(params, **arguments)` is written down from the file and the commit or version named.
"""

import ast
import importlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

from omegaconf import OmegaConf


def kohya(model, name, arguments):
    """sd-scripts at 0005867, library/train_util.py, `get_optimizer`."""
    optimizer_type, lr = f"hub.optim.{name}", arguments.pop("lr")
    optimizer_args = [f"{key}={value}" for key, value in arguments.items()]
    keywords = {}
    for arg in optimizer_args:
        key, value = arg.split("=")
        keywords[key] = ast.literal_eval(value)
    *module, attribute = optimizer_type.split(".")
    optimizer_class = getattr(importlib.import_module(".".join(module)), attribute)
    optimizer = optimizer_class([{"params": list(model.parameters()), "lr": lr}], lr=lr, **keywords)
    assert optimizer_class.__module__ + "." + optimizer_class.__name__ == optimizer_type
    if hasattr(optimizer, "train") and callable(optimizer.train):
        optimizer.train()
    return optimizer


def verl(model, name, arguments):
    """verl at 0436696, workers/config/optimizer.py, `build_optimizer`."""
    config = {"optimizer_impl": "hub.optim", "optimizer": name}
    keywords = {"lr": arguments.pop("lr"), "weight_decay": arguments.pop("weight_decay")}
    if "adam" in config["optimizer"].lower():
        keywords["betas"] = OmegaConf.create([0.9, 0.95])
    keywords.update(arguments)
    optimizer_cls = getattr(importlib.import_module(config["optimizer_impl"]), config["optimizer"])
    return optimizer_cls(model.parameters(), **keywords)


def instantiate(config, *positional):
    """torchtune at 0d107c3, config/_instantiate.py and `_get_component_from_path`."""
    config = OmegaConf.create(config)
    first, *parts = config["_component_"].split(".")
    found = importlib.import_module(first)
    for part in parts:
        found = getattr(found, part)
    return found(*positional, **{key: config[key] for key in config if key != "_component_"})


def torchtune(model, name, arguments):
    """torchtune at 0d107c3, recipes/full_finetune_single_device.py, `_setup_optimizer`."""
    return instantiate({"_component_": f"hub.optim.{name}", **arguments}, model.parameters())


class OneByOne:
    """An optimizer for each parameter, stepped where its gradient is complete.

    torchtune at 0331778, training/memory.py, `register_optim_in_bwd_hooks`.
    """

    def __init__(self, model, config):
        self.optimizers = {p: instantiate(config, [p]) for p in model.parameters()}
        for parameter in self.optimizers:
            parameter.register_post_accumulate_grad_hook(self.on_gradient)

    def on_gradient(self, parameter):
        self.optimizers[parameter].step()
        self.optimizers[parameter].zero_grad()

    def step(self):
        pass

    zero_grad = step


def torchtune_in_backward(model, name, arguments):
    return OneByOne(model, {"_component_": f"hub.optim.{name}", **arguments})


AVAILABLE, PARAMETERS = {}, {}


def register_optimizer(name, optimizer, optimizer_params):
    """NeMo at 01482a1, core/optim/optimizers.py."""
    AVAILABLE[name] = optimizer
    PARAMETERS[f"{optimizer.__name__}_params"] = optimizer_params


def nemo(model, name, arguments):
    """NeMo: its groups (at 000763d, core/classes/modelPT.py) to what is registered."""
    import hub

    @dataclass
    class Params:
        lr: float = 1e-3
        weight_decay: float = 0.0

    register_optimizer(f"hub_{name}", getattr(hub.optim, name), Params)
    given = asdict(PARAMETERS[f"{name}_params"](**arguments))
    return partial(AVAILABLE[f"hub_{name}"], **given)([{"params": model.parameters()}])


class OptimWrapper:
    """fastai at 0a20fa1, optimizer.py: what a Learner needs of it."""

    hp_map: ClassVar = {
        "momentum": "mom",
        "weight_decay": "wd",
        "betas__0": "mom",
        "betas__1": "sqr_mom",
    }

    def __init__(self, params, opt, **arguments):
        params = list(params)
        assert callable(opt)
        by_group = isinstance(params[0], list)
        groups = [one if isinstance(one, dict) else {"params": one} for one in params]
        self.opt = opt(groups if by_group else params, **arguments)
        self.frozen_idx, self.state = 0, defaultdict(dict)
        flat = self.flat(self.opt.param_groups[0])
        self.backward_map = {self.hp_map.get(key, key): key for key in flat}

    @staticmethod
    def flat(group):
        found = {}
        for key, value in group.items():
            if isinstance(value, tuple | list) and key != "params":
                found |= {f"{key}__{index}": one for index, one in enumerate(value)}
            elif key != "params":
                found[key] = value
        return found

    def set_hyper(self, key, values):
        name, _, index = self.backward_map[key].partition("__")
        for group, value in zip(self.opt.param_groups, values, strict=True):
            changed = [*group[name]] if index else value
            if index:
                changed[int(index)] = value
            group[name] = tuple(changed) if index else changed

    def step(self):
        self.opt.step()

    def zero_grad(self):
        self.opt.zero_grad()


def fastai(model, name, arguments):
    """fastai at 0a20fa1, learner.py, `create_opt`, then `set_hypers` as a schedule calls it."""
    import hub

    lr = arguments.pop("lr")
    opt_func = partial(OptimWrapper, opt=getattr(hub.optim, name), **arguments)
    split = [list(model.parameters())]
    wrapper = opt_func(split, lr=lr / 2)
    assert len(wrapper.opt.param_groups) == len(split)
    wrapper.set_hyper("lr", [lr])
    return wrapper


def timm(model, name, arguments):
    """timm 1.0.31, optim/_optim_factory.py, `create_optimizer` of the registry."""
    import hub

    opt_class, params = getattr(hub.optim, name), list(model.named_parameters())
    decay = arguments.pop("weight_decay")
    exempt = [p for _, p in params if p.ndim <= 1]
    decayed = [p for _, p in params if p.ndim > 1]
    groups = [
        {"params": exempt, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": decay},
    ]
    return opt_class(groups, **arguments)


def torchtitan(model, name, arguments):
    """torchtitan at 058df67, components/optimizer/optimizer.py: hyperparameters are in groups."""
    import hub

    named = list(model.named_parameters())
    group = {
        "params": [p for _, p in named],
        "param_names": [n for n, _ in named],
        **arguments,
    }
    optimizer = getattr(hub.optim, name)([group])
    assert optimizer.param_groups[0]["param_names"] == [n for n, _ in named]
    return optimizer


def torchtitan_before(model, name, arguments):
    """torchtitan at 018740b, components/optimizer.py, `OptimizersContainer`."""
    import hub

    params = [p for p in model.parameters() if p.requires_grad]
    return getattr(hub.optim, name)(params, **arguments)


def hydra(model, name, arguments):
    """hydra 1.3, `_target_` with `_partial_`, called with parameters."""
    from hydra.utils import instantiate as build

    config = OmegaConf.create({"_target_": f"hub.optim.{name}", "_partial_": True, **arguments})
    return build(config)(model.parameters())


BY_SHAPE = (verl, torchtune, torchtune_in_backward, torchtitan_before, hydra)
"""Those that pass parameters: hub sees by their shapes what decays."""
DECAYED = (kohya, nemo, fastai, torchtitan)
"""Those that pass groups without saying what decays: everything does, as with torch's classes."""
OWN = (timm,)
"""Those whose groups say what decays."""

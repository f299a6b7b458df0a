"""Compare steps of GaLore and APOLLO with the classes they wrap, built by hand, in one process."""

import sys

import torch
from apollo_torch import APOLLOAdamW
from galore_torch import GaLoreAdafactor, GaLoreAdamW
from galore_torch.galore_projector import GaLoreProjector
from many_tensors import medians
from torch import nn

import hub

SHAPES = {"512 of 8x512": (512, 8, 512, 4, 60), "12 of 1024x4096": (12, 1024, 4096, 128, 14)}
"""How many matrices of which size, the rank, and steps to take."""
AT_MOST = {"galore_adamw": 0.5, "galore_adafactor": 0.5, "apollo_adamw": 0.35}
"""The ratio that hub's step may take on many small matrices."""
FEW = {"relative_step": False, "scale_parameter": False}
OF_APOLLO = {"scale": 1.0, "proj": "random", "scale_type": "channel"}
CASES = {
    "galore_adamw": (GaLoreAdamW, {}, {"no_deprecation_warning": True}),
    "galore_adafactor": (GaLoreAdafactor, {}, FEW),
    "apollo_adamw": (APOLLOAdamW, OF_APOLLO, {}),
}


def model(number: int, rows: int, columns: int) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(columns, rows, bias=False) for _ in range(number)))
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def by_hand(module: nn.Module, name: str, low_rank: dict[str, object]) -> torch.optim.Optimizer:
    cls, more, arguments = CASES[name]
    group = {"params": list(module.parameters()), "proj_type": "std", "scale": 0.25}
    return cls([{**group, **low_rank, **more}], lr=1e-3, **arguments)


def ratios(name: str, shape: str) -> tuple[float, float]:
    """Return the ratio of the median step times, hub's over upstream's, and upstream's in ms."""
    number, rows, columns, rank, steps = SHAPES[shape]
    low_rank = {"rank": rank, "update_proj_gap": 10**6}
    module = model(number, rows, columns)
    quick = {} if name == "apollo_adamw" else {"projection": "randomized"}
    ours = hub.build(name, module, lr=1e-3, target_modules="all-linear", **low_rank, **quick)
    theirs = by_hand(module, name, low_rank)
    ours.step()
    if name != "apollo_adamw":
        share_bases(ours, theirs, low_rank)
    theirs.step()
    own, hand = medians([ours.step, theirs.step], steps)
    return own / hand, 1e3 * hand


def share_bases(
    ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer, low_rank: dict[str, object]
) -> None:
    """Spare upstream's class the SVDs, which would take half a minute and are not measured."""
    for parameter, state in ours.state.items():
        projector = GaLoreProjector(**low_rank, scale=0.25)
        projector.ortho_matrix = state["projector"].clone()
        theirs.state[parameter].update(step=1, projector=projector)


def main() -> None:
    torch.set_num_threads(2)
    for shape in sys.argv[1:] or SHAPES:
        for name in CASES:
            ratio, milliseconds = ratios(name, shape)
            found = f"{shape:16} {name:18} {ratio:.2f} of upstream's {milliseconds:.1f} ms"
            print(f"{found} (at most {AT_MOST[name]} of small ones, else 1.03)", flush=True)


if __name__ == "__main__":
    main()

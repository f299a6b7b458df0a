"""Write the measurements in `docs/which-optimizer.md`.

`python docs/generate_which_optimizer.py` measures memory, which is the same everywhere, and takes
step times from `docs/performance.json`, which `generate_performance.py` writes. With `--check` it
fails where the page is not what it would write.
"""

import json
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from generating import DOCS, between_marks, code, finish, step_uncompiled

if __name__ == "__main__":
    step_uncompiled()

import hub
from hub.bench.result import Report
from hub.experiments.model import skeleton
from hub.spec import Trait

PAGE = DOCS / "which-optimizer.md"
TIMES = DOCS / "performance.json"
RANK = 48


@dataclass(frozen=True)
class Family:
    """Optimizers that one chooses for the same reason; those of a row take the same memory."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    choose: str
    needs: str = ""
    """What none of the traits says."""
    is_measured: bool = True


FAMILIES = (
    Family(
        "AdamW",
        (("adamw_torch",), ("adamw_torch_fused",)),
        "you have no reason for another one. The fused form does the same in one kernel.",
    ),
    Family(
        "SGD",
        (("sgd",),),
        "the task is known to train well with it, or no byte is left. Momentum adds a tensor: 4 "
        "bytes per fp32 parameter.",
    ),
    Family(
        "Adagrad, RMSprop",
        (("adagrad", "rmsprop"),),
        "you reproduce a training that used it.",
    ),
    Family(
        "Adafactor",
        (("adafactor",),),
        "the state of AdamW does not fit, and you want to keep its adaptive rates. It stores a row "
        "and a column of each matrix.",
    ),
    Family(
        "AdamW in 8 bits or paged",
        (("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), ("paged_adamw_32bit",)),
        "AdamW's state takes too much of your GPU. Paged state can leave the GPU for the CPU's "
        "memory when the GPU's is short. Tensors of fewer than 4096 elements and embeddings keep "
        "32-bit state.",
    ),
    Family(
        "AdamW in 8 or 4 bits by torchao",
        (("adamw_torch_8bit",), ("adamw_torch_4bit",)),
        "you want 4 bits for each number of its state.",
        needs="a compiler: C++ on a CPU, triton on a GPU",
    ),
    Family(
        "AdEMAMix",
        (("ademamix", "paged_ademamix_32bit"), ("ademamix_8bit", "paged_ademamix_8bit")),
        "training is long and memory is not short: it adds a second, slower momentum to AdamW.",
    ),
    Family(
        "Lion",
        (("lion_32bit", "paged_lion_32bit"), ("lion_8bit", "paged_lion_8bit")),
        "one momentum is all you can store. It needs a smaller learning rate than AdamW: 1e-4 by "
        "default.",
    ),
    Family(
        "RMSprop in 32 or 8 bits",
        (("rmsprop_bnb", "rmsprop_bnb_32bit"), ("rmsprop_bnb_8bit",)),
        "you reproduce a training that used bitsandbytes' RMSprop.",
    ),
    Family(
        "FlashOptim",
        (("flash_adamw", "flash_adam"), ("flash_lion", "flash_sgd", "flash_sgdw")),
        "you train bf16 weights on a GPU. With 24 bits behind each weight, small updates are kept. "
        "Its [authors](https://github.com/databricks/flashoptim) count about 7 bytes per parameter "
        "for weights, gradients and state together, where AdamW in mixed precision takes 16.",
        needs="a GPU; gains most with bf16 weights",
        is_measured=False,
    ),
    Family(
        "GaLore",
        (("galore_adamw",), ("galore_adamw_8bit",), ("galore_adafactor",)),
        "you train all weights, not adapters, and AdamW's state is what does not fit. Every "
        "`update_proj_gap` steps it computes projections by SVD: that step is slow, unless you set "
        '`projection="randomized"` and `refresh="staggered"`.',
    ),
    Family(
        "APOLLO",
        (("apollo_adamw",),),
        "you would use GaLore with less work for its projections: they are random by default.",
    ),
    Family(
        "LOMO",
        (("lomo",), ("adalomo",)),
        "weights fill the memory, and neither gradients nor state fit beside them. `adalomo` "
        "adapts its rates, `lomo` is SGD.",
    ),
    Family(
        "ScheduleFree",
        (("schedule_free_adamw", "schedule_free_radam"), ("schedule_free_sgd",)),
        "you do not know yet when training will end: it averages weights instead of following a "
        "falling schedule. An evaluation keeps a copy of the weights.",
    ),
    Family(
        "StableAdamW",
        (("stable_adamw",),),
        "the loss has spikes: it clips each tensor's update. With bf16 weights its Kahan summation "
        "keeps small updates.",
    ),
    Family(
        "GrokAdamW",
        (("grokadamw",),),
        "a model fits its training data long before it generalizes, and you want to try whether "
        "amplified slow gradients shorten that.",
    ),
    Family(
        "Muon",
        (("muon",),),
        "you pretrain, and its products of matrices are small beside those of your batch. It "
        "trains the matrices of hidden layers, and AdamW everything else: one momentum instead of "
        "two for most weights. Models that AdamW pretrained are better tuned by it.",
    ),
    Family(
        "Prodigy",
        (("prodigy",),),
        "you do not know the learning rate: it estimates one for the whole model, from `lr=1`.",
    ),
)


def target_arguments(name: str) -> dict[str, Any]:
    """Return what low-rank optimizers are built with here."""
    is_low_rank = Trait.LOW_RANK in hub.describe(name).traits
    return {"target_modules": "all-linear", "optim_args": f"rank={RANK}"} if is_low_rank else {}


def state_bytes(names: tuple[str, ...]) -> tuple[float, float]:
    """Return the bytes of state per parameter, for fp32 and for bf16 weights.

    Raises:
        ValueError: The names of a row take different memory.
    """
    import torch

    found = set()
    for name in names:
        each = []
        for dtype in (torch.float32, torch.bfloat16):
            model = skeleton(None, dtype)
            elements = sum(p.numel() for p in model.parameters())
            each.append(hub.estimate(name, model, **target_arguments(name)).state / elements)
        found.add(tuple(each))
    if len(found) > 1:
        raise ValueError(f"{names} take different memory: {found}")
    return found.pop()


def _millions() -> str:
    import torch

    elements = sum(p.numel() for p in skeleton(None, torch.float32).parameters())
    return f"{elements / 1e6:.1f} million"


def needs(family: Family) -> str:
    """Return what a family cannot do without."""
    spec = hub.describe(family.rows[0][0])
    said = {
        Trait.LOW_RANK: "`target_modules`",
        Trait.STEPS_IN_BACKWARD: "`clipping` beside `max_grad_norm`",
        Trait.SCHEDULE_FREE: "a schedule that does not fall",
    }
    found = [text for trait, text in said.items() if trait in spec.traits]
    found += ["non-commercial use"] * ("-NC-" in spec.license)
    return "; ".join([*found, *([family.needs] if family.needs else [])])


def measurements(times: Report) -> str:
    """Return the generated part of the page."""
    parts = [_explained(times), _table(times), "\n## When to choose which\n\n"]
    parts += [f"- **{family.title}** if {family.choose}\n" for family in FAMILIES]
    return "".join(parts)


def _explained(times: Report) -> str:
    return f"""\
**State** is in bytes per parameter, counted by `hub.estimate` for fp32 and for bf16 weights. The
model is the one that `hub compare` trains, a Llama of {_millions()} parameters. Low-rank
optimizers use rank {RANK}, a quarter of the model's width, for all linear layers. Weights and
gradients take another 8 bytes in fp32 and 4 in bf16.

**Step** is the mean time of a step relative to torch's fused AdamW, in fp32, with the default
arguments, for the first name of each row. [Performance](performance.md) says how it was measured,
on a CPU, on {times.date}. **Expect other ratios on a GPU**, above all for 8-bit state.

"""


def _table(times: Report) -> str:
    lines = ["| | names | state, fp32 | state, bf16 | step | needs |", "|---|---|---|---|---|---|"]
    for family in FAMILIES:
        for place, names in enumerate(family.rows):
            title, need = (family.title, needs(family)) if place == 0 else ("", "")
            figures = _figures(names, times) if family.is_measured else ["not measured"] * 3
            lines.append(f"| {' | '.join([title, code(names), *figures, need])} |")
    return "\n".join(lines) + "\n"


def _figures(names: tuple[str, ...], times: Report) -> list[str]:
    state = [f"{each:.2f}".rstrip("0").rstrip(".") for each in state_bytes(names)]
    (ratio,) = (row.ratio for row in times.rows if row.label == names[0])
    return [*state, "not measured" if ratio is None else f"{ratio:.2g}×"]


def main() -> int:
    """Write, or check; return the exit status."""
    warnings.simplefilter("ignore", hub.HubWarning)
    new = measurements(Report.from_dict(json.loads(TIMES.read_text())["cpu"]["large"]))
    return int(not finish({PAGE: between_marks(PAGE.read_text(), new)}))


if __name__ == "__main__":
    sys.exit(main())

"""The same run through Transformers' Trainer and through `hub.build`, to the last bit.

Every optimizer name that both know trains one small model for a few steps, in fp32 on the CPU, from
the same weights, on the same batches, with the same arguments. Where both are right the final
weights are equal. Where they are not, the row says why, by section and fact of the audit of
Transformers 5.23 and the packages (docs/upstream.md), and proves it: told what Transformers
(`trainer_optimizer.py`) really uses, hub arrives at Transformers' weights, again to the last bit.
No row needs a tolerance. A row whose proof fails is a cause that is gone, or was not the only one.
"""

from __future__ import annotations

import gc
import importlib.util
import pickle
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch.optim import Optimizer

INSTALLED = frozenset(hub.list_optimizers())

pytestmark = [
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("transformers", "accelerate"))),
        reason="Transformers' Trainer needs accelerate, which hub does not",
    ),
    # What the packages say on Transformers' side.
    *(
        pytest.mark.filterwarnings(f"ignore:{warning}")
        for warning in (
            # torch 2.13 defines its own deprecated functions when bitsandbytes imports inductor.
            "`torch.jit.script_method` is deprecated:DeprecationWarning",
            # galore_torch 1.0, in its constructor, unless told not to.
            "This implementation of AdamW is deprecated:FutureWarning",
            # grokadamw 0.1.2, twice a step and parameter.
            "`torch.cuda.amp.autocast.* is deprecated:FutureWarning",
            "CUDA is not available or torch_xla is imported:UserWarning",
            # bitsandbytes 0.50.2, whose paged classes fall back on the CPU.
            "Paged optimizers are not supported on CPU:UserWarning",
        )
    ),
]

WIDTH = 64  # a weight of 64x64 is the smallest with 8-bit state
STEPS, BATCH, LENGTH = 6, 4, 16
LR = 1e-2
BETAS, EPS, DECAY = (0.8, 0.95), 1e-5, 0.1
"""None is anybody's default, so that an argument that gets lost is noticed."""
TARGETS = ["attn", "mlp"]
LOW_RANK = "rank=8,update_proj_gap=2"


class Model(nn.Module):
    """Embedding, linear layers with and without bias, a norm, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WIDTH, WIDTH)
        self.attn = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, WIDTH))
        self.head = nn.Linear(WIDTH, WIDTH, bias=False)

    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = x + self.attn(self.norm(x))
        return x + self.mlp(x)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.features(input_ids))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}

    def get_output_embeddings(self) -> nn.Module:
        return self.head


class Gained(Model):
    """The model with a parameter of one dimension that is neither a bias nor of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().features(tokens) * self.gain


class Idle(Model):
    """The model with a layer before its head that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = self._modules.pop("head")


def _nothing(_: object) -> None: ...


def _seed_like_upstream(optimizer: Optimizer) -> None:
    """Number random projections as apollo_torch does: in the order of Transformers' two groups.

    Seeds are what a checkpoint from before the first step has, so that is a way to give them.
    """
    saved = optimizer.state_dict()
    numbered = [name for group in saved["param_groups"] for name in group["param_names"]]
    low_rank = [g["param_names"] for g in optimizer.param_groups if "rank" in g]
    targets = [name for names in low_rank for name in names]
    others = len(numbered) - len(targets)
    saved["state"] = {
        numbered.index(name): {"seed": others + place} for place, name in enumerate(targets, 1)
    }
    optimizer.load_state_dict(saved)


def _decay_gain(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if group["param_names"] == ["gain"]:
            group["weight_decay"] = DECAY


def _forget_idle(optimizer: Optimizer) -> None:
    group = next(group for group in optimizer.param_groups if "idle.weight" in group["param_names"])
    del group["params"][group["param_names"].index("idle.weight")]


def _warm_up_by_a_tenth(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["warmup_steps"] = 0.1


@dataclass(frozen=True)
class Row:
    """One name, and what it takes to make hub do as Transformers does."""

    name: str
    optim_args: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `hub.build` that replace or add to those which Transformers got."""
    why: str = ""
    """The cause of a disagreement, by section and fact of docs/upstream.md."""
    targets: str | list[str] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    """Further `TrainingArguments`; hub gets them as `defaults`."""
    refused: bool = False
    """hub says no to what Transformers got."""
    afterwards: Callable[[Optimizer], None] = _nothing
    """Does to hub's optimizer what its arguments cannot, because it would be wrong."""
    model: type[Model] = Model

    @property
    def label(self) -> str:
        """Return the end of a test's id."""
        variants = [value for value in (self.optim_args, *self.training) if value]
        variants += [self.targets] if isinstance(self.targets, str) else []
        variants += [self.model.__name__] if self.model is not Model else []
        return "-".join([self.name, *variants])

    @property
    def arguments(self) -> dict[str, Any]:
        """Return what hub gets: what Transformers got, and what it is told."""
        trainer = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY}
        return {
            "optim_args": self.optim_args,
            "target_modules": self.targets,
            "defaults": {**trainer, **self.training},
            **self.told,
        }

    def untold(self) -> Row:
        """Return the row with what Transformers got, and nothing else."""
        return replace(self, told={}, afterwards=_nothing)

    def less(self) -> Iterator[Row]:
        """Yield the row without each part of what hub is told, by itself."""
        for key in self.told:
            told = {other: value for other, value in self.told.items() if other != key}
            yield replace(self, told=told)
        if self.afterwards is not _nothing:
            yield replace(self, afterwards=_nothing)


def _low_rank(name: str, more: str = "", **arguments: Any) -> Row:
    return Row(name, LOW_RANK + more, **{"targets": TARGETS, **arguments})


NO_ADAM_EPS = (
    "no fault of either: Transformers passes adam_epsilon to Adam-like names only, hub takes any "
    "default that fits, and this class has an eps of its own default"
)
IGNORED = "10.2: unknown optim_args are silently ignored, and this handler knows none"
GALORE_USES = {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0}
GALORE = "10.1: adam_beta1/2, adam_epsilon and weight_decay all ignored, the kwargs are only `lr`"
APOLLO_USES = {
    "weight_decay": 0.0,
    "param_rules": {r".*(embed|norm|head|bias).*": {"betas": (0.9, 0.999), "eps": 1e-6}},
}
APOLLO = (
    "10.1: betas and eps reach the low-rank group only, the other keeps 0.9/0.999/1e-6; "
    "weight_decay is ignored in both"
)
GROK_USES = {"betas": (0.9, 0.999), "eps": 1e-8}
GROK = "10.1: adam_beta1/2/epsilon ignored"
BNB_IGNORES = "10.1: optim_args such as min_8bit_size are ignored"

AGREEING = [
    Row("adamw_torch"),
    Row("adamw_torch_fused"),
    Row("sgd"),
    Row("sgd", "momentum=0.9,nesterov=true"),
    Row("adagrad", "lr_decay=0.1,eps=1e-6"),
    Row("adafactor"),
    Row("rmsprop", "momentum=0.5,alpha=0.9,centered=true,eps=1e-8"),
    # Both give warm-up and weights of the averages to the class; the constant schedule adds none.
    Row("schedule_free_adamw"),
    Row("schedule_free_adamw", training={"warmup_steps": 3}),
    Row("schedule_free_radam"),
    Row("schedule_free_sgd"),
    Row("schedule_free_sgd", "r=0.5,weight_lr_power=1.0"),
    Row("adamw_torch_8bit"),
    # Embeddings have 32-bit state on both sides: by hub's `embeddings_32bit`, and by Transformers'
    # entry in bitsandbytes' global manager.
    Row("adamw_8bit"),
    Row("adamw_bnb_8bit"),
    Row("paged_adamw_8bit"),
    Row("paged_adamw_32bit"),
    Row("ademamix"),
    Row("ademamix", "alpha=2.0,t_alpha=3,t_beta3=3"),
    Row("ademamix_8bit"),
    Row("paged_ademamix_8bit"),
    Row("paged_ademamix_32bit"),
    # Lion's second beta is the trainer's on both sides, whose default is 0.999; the class has 0.99.
    Row("lion_8bit"),
    Row("lion_32bit"),
    Row("paged_lion_8bit"),
    Row("paged_lion_32bit"),
]
DISAGREEING = [
    Row("adagrad", told={"eps": 1e-10}, why=NO_ADAM_EPS),
    Row("rmsprop", told={"eps": 1e-8}, why=NO_ADAM_EPS),
    Row("rmsprop_bnb", told={"eps": 1e-8}, why=NO_ADAM_EPS),
    Row("rmsprop_bnb_8bit", told={"eps": 1e-8}, why=NO_ADAM_EPS),
    Row("rmsprop_bnb_32bit", told={"eps": 1e-8}, why=NO_ADAM_EPS),
    Row("adamw_torch", "amsgrad=true", {"optim_args": None}, IGNORED),
    Row("adamw_torch", "no_such=1", {"optim_args": None}, IGNORED, refused=True),
    Row("adafactor", "scale_parameter=true,beta1=0.9", {"optim_args": None}, IGNORED),
    Row(
        "sgd",
        "momentum=0.9,weight_decay=0.3",
        {"optim_args": "momentum=0.9"},
        "10.2: handled by hand, in vain: the groups have the trainer's weight_decay already",
    ),
    Row(
        "adamw_torch",
        told={"param_rules": {"gain": {"weight_decay": DECAY}}},
        afterwards=_decay_gain,
        why="`get_decay_parameter_names` of trainer.py decays all that is no bias or norm by name "
        "or nn.LayerNorm by class; hub decays nothing of one dimension (docs/design.md, Groups)",
        model=Gained,
    ),
    _low_rank("galore_adamw", told=GALORE_USES, why=GALORE),
    _low_rank(
        "galore_adamw",
        told={**GALORE_USES, "target_modules": [*TARGETS, "head"]},
        why=GALORE + "; all-linear includes an untied lm_head",
        targets="all-linear",
    ),
    _low_rank(
        "galore_adafactor",
        told={"weight_decay": 0.0},
        why=GALORE + " (Adafactor has no betas, and two values of eps)",
    ),
    _low_rank("apollo_adamw", ",proj=svd", told=APOLLO_USES, why=APOLLO),
    _low_rank(
        "apollo_adamw",
        ",proj=svd,scale_front=true,disable_nl=true",
        told={**APOLLO_USES, "optim_args": LOW_RANK + ",proj=svd"},
        why=APOLLO + "; scale_front and disable_nl are unreachable, silently ignored",
    ),
    _low_rank(
        "apollo_adamw",
        told=APOLLO_USES,
        afterwards=_seed_like_upstream,
        why=APOLLO + "; 1e: seeds are the index of the parameter, hub's follow from its name",
    ),
    Row("grokadamw", told=GROK_USES, why=GROK),
    Row("grokadamw", "lamb=1.0,gamma=0.2,gradient_clipping=0.5", told=GROK_USES, why=GROK),
    Row(
        "grokadamw",
        told=GROK_USES,
        afterwards=_forget_idle,
        why=GROK + "; 6e: a parameter without a gradient changes the beta of every later one",
        model=Idle,
    ),
    Row(
        "adamw_torch_4bit",
        told={"block_size": 256},
        why="10.1: the block size is forced to 256, class default 128",
    ),
    Row(
        "schedule_free_adamw",
        training={"warmup_steps": 0.1},
        told={"warmup_steps": 0},
        afterwards=_warm_up_by_a_tenth,
        why="10.1: fractional warmup_steps, a ratio, is passed raw: lr 0.1 instead of 0.01",
        refused=True,
    ),
    Row(
        "schedule_free_sgd",
        "momentum=0.5",
        {"optim_args": None},
        "10.1: momentum from optim_args ignored",
    ),
    Row(
        "schedule_free_radam",
        "silent_sgd_phase=false",
        {"optim_args": None},
        "10.1: silent_sgd_phase from optim_args ignored",
    ),
    Row(
        "lomo",
        told={"weight_decay": 0.0},
        why="10.1: weight_decay, max_grad_norm and optim_args have no effect",
    ),
    Row("adamw_8bit", "min_8bit_size=16384", {"optim_args": None}, BNB_IGNORES),
    Row("lion_8bit", "min_8bit_size=16384", {"optim_args": None}, BNB_IGNORES),
    Row("ademamix_8bit", "min_8bit_size=16384", {"optim_args": None}, BNB_IGNORES),
    Row(
        "ademamix",
        "beta1=0.7,beta3=0.99",
        {"optim_args": "betas=(0.7, 0.95, 0.99)"},
        "10.2: optim_args cannot hold tuples, so Transformers has names of its own for their parts",
        refused=True,
    ),
]


@dataclass(frozen=True)
class Failure:
    """What Transformers cannot run on a CPU, and hub can."""

    name: str
    optim_args: str
    error: type[Exception] | tuple[type[Exception], ...]
    message: str
    why: str
    targets: list[str] | None = None
    skip: str = ""
    """Why it does not fail on this machine."""
    patch: tuple[str, object] | None = None
    """With this replaced Transformers runs, and arrives at hub's weights."""


FAILING = [
    Failure(
        "stable_adamw",
        "",
        RuntimeError,
        "active drivers",
        "10.1 and 5c: takes triton for usable wherever it can be imported, and optim_args cannot "
        "say otherwise",
        skip="" if importlib.util.find_spec("triton") else "optimi sees that triton is missing",
        patch=("optimi.utils.HAS_TRITON", False),
    ),
    Failure(
        "galore_adamw_8bit",
        LOW_RANK,
        (AssertionError, RuntimeError),
        "CUDA|NVIDIA",
        "2c: unconditional torch.cuda.synchronize() after each parameter",
        targets=TARGETS,
        skip="torch.cuda.synchronize() does not fail here" if torch.cuda.is_available() else "",
    ),
    Failure(
        "adalomo",
        "",
        (AssertionError, RuntimeError),
        "CUDA|NVIDIA",
        "3c: `.cuda()` in the constructor for every parameter",
        skip="`.cuda()` does not fail here" if torch.cuda.is_available() else "",
    ),
    Failure(
        "adamw_torch",
        "betas=(0.7,0.9)",
        ValueError,
        "not enough values to unpack",
        "10.2: optim_args are split on every comma, tuples cannot be expressed",
    ),
    Failure(
        "adamw_torch_4bit",
        "block_size=128",
        TypeError,
        "'int' and 'str'",
        "10.1: block_size from optim_args stays a str",
    ),
    Failure(
        "adamw_torch_8bit",
        "block_size=128",
        TypeError,
        "'int' and 'str'",
        "10.1: block_size from optim_args stays a str",
    ),
    *(
        Failure(
            name, "alpha=0.9", TypeError, "'float' and 'str'", "10.1: optim_args passed as strings"
        )
        for name in ("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit")
    ),
]

WITHOUT_ROW = {
    "galore_adamw_layerwise": "hub's layerwise forms step during the backward pass",
    "galore_adamw_8bit_layerwise": "likewise",
    "galore_adafactor_layerwise": "likewise, and Transformers cannot build it (10.1)",
    "apollo_adamw_layerwise": "likewise",
}


@pytest.fixture(scope="module", autouse=True)
def _collecting_little() -> Any:
    """Spare the garbage collector what is there for good.

    accelerate 1.15 collects at the end of every training, half a second of torch and friends.
    """
    import transformers.trainer  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Step without compiling, and leave nothing for the next row.

    torchao compiles every shape of every group, for half a minute a row. Uncompiled it does the
    same operations, on both sides.
    """
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    yield
    # 8e: overrides of state bits leak to later optimizers, by position.
    if "bitsandbytes.optim" in sys.modules:
        sys.modules["bitsandbytes.optim"].GlobalOptimManager.get_instance().initialize()


def start(model: type[Model] = Model) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model()


def samples() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(WIDTH, (STEPS * BATCH, LENGTH + 1), generator=generator)
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in tokens]


def trainer_for(folder: Path, model: Model, name: str, **arguments: Any) -> Any:
    """Return Transformers' Trainer; `optimizers` goes to it, all else is `TrainingArguments`."""
    from transformers import Trainer, TrainingArguments

    optimizers = arguments.pop("optimizers", (None, None))
    settings = TrainingArguments(
        **{
            "output_dir": str(folder),
            "optim": name,
            "learning_rate": LR,
            "adam_beta1": BETAS[0],
            "adam_beta2": BETAS[1],
            "adam_epsilon": EPS,
            "weight_decay": DECAY,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "train_sampling_strategy": "sequential",
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **arguments,
        }
    )
    return Trainer(model, settings, train_dataset=samples(), optimizers=optimizers)


def theirs(folder: Path, row: Row | Failure) -> Any:
    """Train through Transformers; return the trainer."""
    given = {"optim_args": row.optim_args or None, "optim_target_modules": row.targets}
    more = row.training if isinstance(row, Row) else {}
    model = start(row.model) if isinstance(row, Row) else start()
    trainer = trainer_for(folder, model, row.name, **given, **more)
    trainer.train()
    return trainer


def ours(row: Row) -> tuple[Model, Optimizer]:
    """Train through hub."""
    model = start(row.model)
    optimizer = hub.build(row.name, model, **row.arguments)
    row.afterwards(optimizer)
    data = samples()
    for step in range(STEPS):
        batch = data[step * BATCH : (step + 1) * BATCH]
        inputs = {key: torch.stack([sample[key] for sample in batch]) for key in batch[0]}
        model(**inputs)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def differences(a: nn.Module, b: nn.Module) -> dict[str, float]:
    """Return the largest difference of each parameter that is not equal bit for bit."""
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    return {
        name: (x - y).abs().max().item() for (name, x), (_, y) in pairs if not torch.equal(x, y)
    }


def _parameters(rows: list[Any]) -> list[Any]:
    """Return the rows with ids, those of plugins that are not here skipped."""
    parameters = []
    for row in rows:
        reason = getattr(row, "skip", "")
        if row.name not in INSTALLED:
            reason = f"no plugin that offers {row.name} is installed here"
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        parameters.append(pytest.param(row, id=getattr(row, "label", row.name), marks=marks))
    return parameters


@pytest.mark.parametrize("row", _parameters(AGREEING))
def test_both_are_right(row: Row, tmp_path: Path) -> None:
    found, _ = ours(row)
    assert not differences(found, theirs(tmp_path, row).model)


@pytest.mark.parametrize("row", _parameters(DISAGREEING))
def test_hub_told_to_be_wrong(row: Row, tmp_path: Path) -> None:
    """Told what Transformers does hub does the same, and told any less it does not."""
    upstream = theirs(tmp_path, row).model
    if row.refused:
        with pytest.raises(hub.OptimArgsError):
            ours(row.untold())
    assert not _gap(row, upstream), row.why
    for less in row.less():
        assert _gap(less, upstream), f"{row.why}: one cause is gone, {less.told} is enough"


def _gap(row: Row, upstream: nn.Module) -> object:
    """Return in what hub differs from Transformers, or its refusal."""
    try:
        model, _ = ours(row)
    except hub.OptimArgsError as error:
        return error
    return differences(model, upstream)


@pytest.mark.parametrize("row", _parameters(FAILING))
def test_transformers_fails_and_hub_trains(
    row: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(row.error, match=row.message):
        theirs(tmp_path, row)
    model, _ = ours(Row(row.name, row.optim_args, targets=row.targets))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    moved = differences(model, start())
    assert set(moved) == {name for name, _ in model.named_parameters()}
    if row.patch:
        monkeypatch.setattr(*row.patch)
        assert not differences(model, theirs(tmp_path, row).model), row.why


@pytest.mark.skipif("stable_adamw" not in INSTALLED, reason="hub-optimi is not installed here")
def test_stable_adamw_takes_false_for_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10.1: the bool of a string, of "False" too, is True. Where Transformers can run it at all."""
    monkeypatch.setattr("optimi.utils.HAS_TRITON", False)
    asked = Row("stable_adamw", "decouple_lr=False")
    with pytest.warns(UserWarning, match="You are using weight_decay up to"):  # optimi's
        upstream = theirs(tmp_path, asked).model
    assert differences(ours(asked)[0], upstream)
    with pytest.warns(hub.HubWarning, match="decouple_lr=True shrinks"):
        meant, _ = ours(Row("stable_adamw", told={"decouple_lr": True}))
    assert not differences(meant, upstream)


@pytest.mark.skipif("galore_adamw_8bit" not in INSTALLED, reason="hub-galore is not installed here")
def test_galore_adamw_8bit_is_frozen_by_bitsandbytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2c: where it runs, targets are not trained, and zero biases not either. 10.1: decay 0.01.

    galore_torch 1.0 passes arguments by position that bitsandbytes 0.50 takes for a norm clip; what
    is left of the target weights' updates is the class's own default decay.
    """
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    row = _low_rank("galore_adamw_8bit")
    before, upstream = start(), theirs(tmp_path, row).model
    for name in ("attn.weight", "mlp.0.weight", "mlp.2.weight"):
        decayed = before.get_parameter(name) * (1 - LR * 0.01) ** STEPS
        # Each step rounds the factor and the product by half an eps at most, as this product does.
        rounding = (STEPS + 1) * torch.finfo(torch.float32).eps
        torch.testing.assert_close(upstream.get_parameter(name), decayed, rtol=rounding, atol=0)
    assert "norm.bias" not in differences(upstream, before)
    assert "norm.bias" in differences(ours(row)[0], before)


@pytest.mark.parametrize(
    "row", _parameters([row for row in AGREEING if row.name.startswith("schedule_free")])
)
def test_transformers_keeps_the_training_weights_of_schedule_free(row: Row, tmp_path: Path) -> None:
    """10.1: without an evaluation just before, the final model holds y, not the averaged x.

    Inside `hub.eval_mode` the model has x, which is what the class itself switches to.
    """
    trainer = theirs(tmp_path, row)
    model, optimizer = ours(row)
    with hub.eval_mode(optimizer):
        assert differences(model, trainer.model)
        trainer.optimizer.eval()
        assert not differences(model, trainer.model)


@pytest.mark.skipif("adamw_8bit" not in INSTALLED, reason="hub-bitsandbytes is not installed here")
def test_transformers_leaves_modules_in_a_global(tmp_path: Path) -> None:
    """10.1: embeddings are registered in the global manager, which keeps them alive, and 8e."""
    from bitsandbytes.optim import GlobalOptimManager

    registered = GlobalOptimManager.get_instance().module_weight_config_triple
    ours(Row("adamw_8bit"))
    assert not registered
    model = theirs(tmp_path, Row("adamw_8bit")).model
    assert [module for module, *_ in registered] == [model.embed]


@dataclass(frozen=True)
class Resume:
    """What becomes of a run that Transformers resumes from its own checkpoint."""

    name: str
    error: type[Exception] | None = None
    is_exact: bool = False
    why: str = ""
    optim_args: str = ""
    targets: list[str] | None = None


PICKLED = "10.1: its projector object is refused by torch.load(weights_only=True)"
RESUMING = [
    # Shows that the Trainer resumes as well as any loop, where the optimizer lets it.
    Resume("adamw_torch", is_exact=True),
    Resume("schedule_free_adamw", is_exact=True),
    Resume("adafactor", is_exact=True),
    Resume("adamw_8bit", is_exact=True),
    Resume("adamw_torch_8bit", is_exact=True),
    Resume("galore_adamw", pickle.UnpicklingError, False, PICKLED, LOW_RANK, TARGETS),
    Resume("galore_adafactor", pickle.UnpicklingError, False, PICKLED, LOW_RANK, TARGETS),
    Resume("apollo_adamw", pickle.UnpicklingError, False, PICKLED, LOW_RANK, TARGETS),
    Resume("grokadamw", why="10.1 and 6b: state is keyed by parameters that are gone, and lost"),
]


@pytest.mark.parametrize("row", _parameters(RESUMING))
def test_resume_by_transformers(row: Resume, tmp_path: Path) -> None:
    given = {"optim_args": row.optim_args or None, "optim_target_modules": row.targets}
    if row.error:
        with pytest.raises(row.error, match="weights_only"):
            _whole_and_resumed(tmp_path, row.name, **given)
    else:
        whole, resumed = _whole_and_resumed(tmp_path, row.name, **given)
        assert bool(differences(whole, resumed)) is not row.is_exact, row.why


@pytest.mark.parametrize("row", _parameters(RESUMING))
def test_resume_by_transformers_with_hub(row: Resume, tmp_path: Path) -> None:
    """The same Trainer, checkpoint files included, resumes what hub built to the last bit."""
    arguments = Row(row.name, row.optim_args, targets=row.targets).arguments
    whole, resumed = _whole_and_resumed(
        tmp_path,
        "adamw_torch",  # not used: the Trainer is given an optimizer
        optimizer=lambda model: hub.build(row.name, model, **arguments),
    )
    assert not differences(whole, resumed)
    expected, _ = ours(Row(row.name, row.optim_args, targets=row.targets))
    expected.state_dict()  # which the Trainer has asked for at its end: with evaluation weights
    assert not differences(whole, expected)


def _whole_and_resumed(
    folder: Path,
    name: str,
    optimizer: Callable[[Model], Optimizer | None] = _nothing,
    **arguments: Any,
) -> tuple[Model, Model]:
    """Return a model after all steps, and another that went on from the checkpoint of the half."""
    half = STEPS // 2
    models = []
    for checkpoint in (None, folder / f"checkpoint-{half}"):
        model = start()
        trainer = trainer_for(
            folder,
            model,
            name,
            optimizers=(optimizer(model), None),
            save_strategy="steps",
            save_steps=half,
            **arguments,
        )
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        models.append(model)
    return models[0], models[1]


def test_every_common_name_has_a_row() -> None:
    """A name that comes to hub, or to Transformers, is compared or has a reason not to be."""
    from transformers.training_args import OptimizerNames

    common = {name.value for name in OptimizerNames} & INSTALLED
    compared = {row.name for row in (*AGREEING, *DISAGREEING, *FAILING)}
    assert not compared & set(WITHOUT_ROW)
    assert sorted(common - compared - set(WITHOUT_ROW)) == [], "these need a row in a table above"

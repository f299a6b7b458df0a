"""What every trainer trains: a tiny Llama on fixed data, and the loop by hand it is held against.

The loop uses nothing of hub but `build` and `build_scheduler`, so that whatever a bridge adds or
loses shows as another bit.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import hub
from hub.spec import Trait

VOCABULARY, LENGTH = 64, 12
BATCH = 2
STEPS = 5
LR = 1e-2
LAYERWISE = ("adamw_torch_layerwise", "galore_adamw_layerwise", "adafactor_layerwise")
KINDS = (
    "adamw_torch",
    "sgd",
    "adafactor",
    "galore_adamw",
    "galore_adamw_layerwise",
    "apollo_adamw",
    "schedule_free_adamw",
    "stable_adamw",
    "grokadamw",
    "adamw_8bit",
    "adamw_torch_layerwise",
    "lomo",
    "adalomo",
)
"""One name of each kind, for what is too dear to be tried with all."""


def names() -> list[str]:
    """Return every installed name, and some in their layerwise form."""
    return [*hub.list_optimizers(), *LAYERWISE]


def arguments(name: str) -> dict[str, Any]:
    """Return the optimizer's own arguments that suit a tiny model, without its learning rate."""
    spec = hub.describe(name)
    chosen = {key: value for key, value in spec.example_arguments.items() if key != "lr"}
    if "master_weight_bits" in spec.arguments.model_fields:  # which is for less than fp32
        chosen["master_weight_bits"] = None
    return chosen


def targets(name: str) -> str | None:
    """Return the `target_modules` that a low-rank optimizer needs here."""
    return "all-linear" if Trait.LOW_RANK in hub.describe(name).traits else None


def schedule_of(name: str) -> str:
    """Return a schedule that goes with an optimizer."""
    anneals = Trait.SCHEDULE_FREE in hub.describe(name).traits
    return "constant" if anneals else "linear"


def make_model(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Return the model with the same weights every time; draws no random numbers."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(dtype)


def rows(count: int, seed: int = 1) -> list[dict[str, Tensor]]:
    """Return samples as a data set of Transformers has them, each of `LENGTH` tokens.

    The first are the same for every count: a longer training starts as a shorter one.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(3, VOCABULARY, (LENGTH,), generator=generator) for _ in range(count)]
    return [{"input_ids": row, "labels": row.clone()} for row in tokens]


def batch(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return samples as one batch, (len(samples), LENGTH)."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def evaluation_rows() -> list[dict[str, Tensor]]:
    """Return the samples that evaluations use, one batch of them."""
    return rows(4, seed=2)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the weights that a user evaluates and saves."""
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def difference(weights: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Return the largest absolute difference of any weight; NaN where there is one."""
    assert list(weights) == list(others)
    gaps = [(weight - others[name]).abs().max() for name, weight in weights.items()]
    return torch.stack(gaps).max().item()


@dataclass
class Trained:
    """What a training has come to."""

    weights: dict[str, Tensor]
    rates: list[float] = field(default_factory=list)
    """The learning rate of the first group in each step."""
    evaluations: list[float] = field(default_factory=list)
    """The loss of each evaluation."""
    saved: dict[str, Any] = field(default_factory=dict)
    """Copies of the state dicts at `save_at`: model, optimizer and scheduler."""


def evaluate(model: nn.Module) -> float:
    """Return the loss of the evaluation batch, in evaluation mode; training goes on after it."""
    model.eval()
    with torch.no_grad():
        loss = model(**batch(evaluation_rows())).loss.item()
    model.train()
    return loss


def plain(
    name: str,
    *,
    steps: int = STEPS,
    accumulation: int = 1,
    size: int = BATCH,
    schedule: str | None = None,
    schedule_arguments: dict[str, Any] | None = None,
    build_scheduler: Callable[..., Any] = hub.build_scheduler,
    warmup: int = 0,
    precision: str = "fp32",
    lr: float = LR,
    max_grad_norm: float | None = None,
    clip: float | None = None,
    save_at: int | None = None,
    evaluate_at: tuple[int, ...] = (),
    defaults: dict[str, Any] | None = None,
    samples: list[dict[str, Tensor]] | None = None,
    **hyperparameters: Any,
) -> Trained:
    """Train by hand.

    Args:
        name: Of the optimizer; built with `arguments(name)`, which `hyperparameters` override.
        steps: Optimizer steps.
        accumulation: Micro-batches per step.
        size: Samples per micro-batch.
        schedule: Of the learning rate; None: `schedule_of(name)`. One with a metric gets the loss
            of each evaluation.
        schedule_arguments: Its own.
        build_scheduler: What builds it; `transformers.get_scheduler` takes the same arguments.
        warmup: Steps.
        precision: "fp32", "bf16" or "bf16-mixed".
        lr: The peak of the schedule.
        max_grad_norm: As `hub.build` takes it.
        clip: The norm to which the loop itself clips the gradients, as a trainer does: in the
            model's order of the parameters. hub adds up in that of the groups, which rounds
            differently, and how differently depends on the processor.
        save_at: The step after which `saved` is taken.
        evaluate_at: The steps after which the model is evaluated.
        defaults: As `hub.build` takes them, what a trainer passes to every optimizer.
        samples: In the order of training; None: as many of `rows` as it takes.
        hyperparameters: The optimizer's own arguments.
    """
    schedule = schedule or schedule_of(name)
    model = make_model(torch.bfloat16 if precision == "bf16" else torch.float32).train()
    optimizer = hub.build(
        name,
        model,
        target_modules=targets(name),
        precision=precision,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=max_grad_norm,
        defaults=defaults,
        **{**arguments(name), "lr": lr, **hyperparameters},
    )
    scheduler = build_scheduler(
        schedule,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        **(schedule_arguments or {}),
    )
    by_metric = schedule in ("reduce_lr_on_plateau", "greedy")
    samples = samples or rows(steps * accumulation * size)
    trained = Trained({})
    for step in range(1, steps + 1):
        trained.rates.append(float(optimizer.param_groups[0]["lr"]))
        for _ in range(accumulation):
            micro, samples = samples[:size], samples[size:]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = model(**batch(micro)).loss / accumulation
            loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if not by_metric:
            scheduler.step()
        optimizer.zero_grad()
        if step in evaluate_at:
            trained.evaluations.append(evaluate(model))
            if by_metric:
                scheduler.step(trained.evaluations[-1])
        if step == save_at:
            parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
            trained.saved = copy.deepcopy({key: part.state_dict() for key, part in parts.items()})
    trained.weights = weights_of(model)
    return trained

"""What users do with a Trainer, besides training once, and what they get wrong."""

import gc

import pytest
import torch
from helpers.problem import (
    BATCH,
    KINDS,
    LR,
    STEPS,
    batch,
    difference,
    evaluate,
    evaluation_rows,
    make_model,
    plain,
    rows,
    weights_of,
)
from helpers.trainer import WEIGHT_DECAY, by_name, logged, settings, train, trainer
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from transformers import LlamaForCausalLM, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

import hub
from hub.trainers.transformers import attach, optimizer

DECAY = {"weight_decay": WEIGHT_DECAY}
INSIDE = ("adamw_torch_layerwise", "lomo")


@pytest.mark.parametrize("name", ["stable_adamw", "galore_adamw_layerwise"])
def test_attach(name, tmp_path):
    model = make_model()
    running = trainer(model, settings(tmp_path))
    by, _ = by_name(name)
    attach(running, name, optim_args=by.optim_args, target_modules=by.target_modules)
    running.train()
    assert difference(weights_of(model), plain(name, defaults=DECAY).weights) == 0


def test_seq2seq_trainer(tmp_path):
    model = make_model()
    config = settings(tmp_path, Seq2SeqTrainingArguments)
    running = Seq2SeqTrainer(model, config, train_dataset=rows(STEPS * BATCH))
    attach(running, "stable_adamw")
    running.train()
    assert difference(weights_of(model), plain("stable_adamw", defaults=DECAY).weights) == 0


def test_arguments_come_from_the_trainers_own(tmp_path):
    """`optim_args` and `optim_target_modules` too, as from a command line."""
    model = make_model()
    config = settings(tmp_path, optim_args="rank=4", optim_target_modules=["mlp"])
    running = trainer(model, config, optimizer_cls_and_kwargs=optimizer("galore_adamw"))
    plan = running.create_optimizer().hub_plan
    assert plan.arguments[[a.name for a in plan.arguments].index("rank")].value == 4
    assert plan.target_modules
    assert all("mlp" in name for name in plan.target_modules)


def test_param_rules(tmp_path):
    given_ = optimizer("sgd", param_rules={"embed": {"lr_scale": 0.5}})
    running = trainer(make_model(), settings(tmp_path), optimizer_cls_and_kwargs=given_)
    assert {group["lr"] for group in running.create_optimizer().param_groups} == {1e-2, 5e-3}


def test_without_a_trainer_arguments_are_needed(tmp_path):
    factory, keywords = optimizer("sgd")
    with pytest.raises(hub.OptimArgsError, match="not called from a Trainer"):
        factory()(make_model(), **keywords)
    factory, keywords = optimizer("sgd", args=settings(tmp_path))
    assert factory()(make_model(), **keywords).param_groups[0]["lr"] == 1e-2


def test_attach_refuses_a_second_optimizer(tmp_path):
    running = trainer(make_model(), settings(tmp_path), "sgd")
    with pytest.raises(hub.UnsupportedError, match="already has an optimizer"):
        attach(running, "sgd")
    model = make_model()
    finished = (SGD(model.parameters(), lr=0.1), None)
    with pytest.raises(hub.UnsupportedError, match="already has an optimizer"):
        attach(trainer(model, settings(tmp_path), optimizers=finished), "sgd")


@pytest.mark.parametrize("thing", [None, object(), make_model()], ids=["none", "object", "model"])
def test_attach_refuses_what_is_no_trainer(thing):
    with pytest.raises(hub.OptimArgsError, match=r"is not a transformers\.Trainer"):
        attach(thing, "sgd")


@given(st.text())
def test_any_other_name_is_an_error_at_once(name):
    if name not in hub.list_optimizers():
        with pytest.raises(hub.UnknownOptimizerError):
            optimizer(name)


def test_wrong_arguments_leave_the_model_as_it_was(tmp_path):
    model = make_model()
    chosen = optimizer("galore_adamw_layerwise", optim_args="rnak=4", target_modules="all-linear")
    running = trainer(model, settings(tmp_path), optimizer_cls_and_kwargs=chosen)
    with pytest.raises(hub.OptimArgsError, match="rank"):
        running.train()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_training_twice_goes_on_with_the_same_optimizer(name, tmp_path):
    """The second time with a learning rate of 0 under `linear`, as with torch's own."""
    model = make_model()
    running = train(name, model, tmp_path, lr_scheduler_type="constant")
    first = running.optimizer
    running.train()
    assert running.optimizer is first
    twice = rows(STEPS * BATCH) * 2
    reference = plain(name, steps=2 * STEPS, schedule="constant", defaults=DECAY, samples=twice)
    assert difference(weights_of(model), reference.weights) <= (2e-6 if "free" in name else 0)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(name, reentrant, tmp_path):
    model = make_model()
    train(
        name,
        model,
        tmp_path,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": reentrant},
    )
    assert difference(weights_of(model), plain(name, defaults=DECAY).weights) == 0


@pytest.mark.parametrize("name", ["adamw_torch", "schedule_free_adamw", *INSIDE])
def test_a_smaller_batch_after_the_memory_ran_out(name, tmp_path):
    """`auto_find_batch_size` keeps the optimizer, and begins again."""
    model, failed = make_model(), []

    def runs_out(module, args, inputs):
        if len(inputs["input_ids"]) > BATCH:
            failed.append(len(inputs["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(runs_out, with_kwargs=True)
    size = {"auto_find_batch_size": True, "per_device_train_batch_size": 4}
    running = train(name, model, tmp_path, **size)
    assert failed
    assert running.state.global_step == STEPS
    assert running.state.train_batch_size < 4
    size = running.state.train_batch_size
    reference = plain(name, size=size, defaults=DECAY)
    assert difference(weights_of(model), reference.weights) == 0


@pytest.mark.parametrize("name", ["adamw_torch", "schedule_free_adamw", *INSIDE])
def test_evaluating_and_predicting_leave_no_trace(name, tmp_path):
    model = make_model()
    running = train(name, model, tmp_path, lr_scheduler_type="constant")
    reference = plain(name, schedule="constant", defaults=DECAY, evaluate_at=(STEPS,))
    assert running.evaluate()["eval_loss"] == reference.evaluations[-1]
    assert running.predict(evaluation_rows()).metrics["test_loss"] == reference.evaluations[-1]
    assert difference(weights_of(model), reference.weights) == 0


@pytest.mark.parametrize(
    ("name", "greater"),
    [("adamw_torch", False), ("schedule_free_adamw", True), *((name, False) for name in INSIDE)],
)
def test_the_best_model_is_loaded_at_the_end(name, greater, tmp_path):
    """On random tokens the loss rises, but for ScheduleFree's; the best is never the last."""
    model = make_model()
    running = train(
        name,
        model,
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        load_best_model_at_end=True,
        greater_is_better=greater,
    )
    losses = logged(running, "eval_loss")
    best = max(losses) if greater else min(losses)
    assert best != losses[-1]
    assert evaluate(model) == best


@pytest.mark.parametrize("name", ["adamw_torch", "schedule_free_adamw", "lomo"])
def test_saved_models_are_those_that_were_evaluated(name, tmp_path):
    model = make_model()
    running = train(
        name, model, tmp_path, save_strategy="steps", save_steps=3, save_only_model=True
    )
    running.save_model(tmp_path / "last")
    reference = plain(name, save_at=3, defaults=DECAY)
    middle = LlamaForCausalLM.from_pretrained(tmp_path / "checkpoint-3")
    assert difference(weights_of(middle), reference.saved["model"]) == 0
    last = LlamaForCausalLM.from_pretrained(tmp_path / "last")
    assert difference(weights_of(last), reference.weights) == 0
    assert not (tmp_path / "checkpoint-3" / "optimizer.pt").exists()


@pytest.mark.parametrize("name", INSIDE)
def test_a_second_trainer_on_the_same_model(name, tmp_path):
    model = make_model()
    first = train(name, model, tmp_path)
    second = trainer(model, settings(tmp_path), name)
    with pytest.raises(hub.UnsupportedError, match=r"hub\.detach"):
        second.train()
    hub.detach(first.optimizer)
    second.train()
    del first, second
    gc.collect()
    train("sgd", model, tmp_path)


def with_a_rest(name, folder):
    """Train on three micro-batches an epoch, of which two make a step."""
    config = settings(
        folder,
        max_steps=-1,
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        lr_scheduler_type="constant",
    )
    model = make_model()
    running = Trainer(
        model, config, train_dataset=rows(3 * BATCH), optimizer_cls_and_kwargs=by_name(name)
    )
    running.train()
    assert running.state.global_step == 4
    return weights_of(model)


def test_a_rest_of_an_accumulation_is_a_step_of_its_own(tmp_path):
    eager, inside = (with_a_rest(name, tmp_path) for name in ("adamw_torch", INSIDE[0]))
    assert difference(eager, inside) == 0


def test_a_rest_of_an_accumulation_of_lomo(tmp_path):
    """Whose step() nobody but hub's callback calls; by hand, detached: the eager steps."""
    inside = with_a_rest("lomo", tmp_path)
    model = make_model()
    optimizer = hub.build("lomo", model, lr=LR, defaults={"weight_decay": WEIGHT_DECAY})
    hub.detach(optimizer)
    for _ in range(2):
        for part in ((0, 1), (2,)):
            for micro in part:
                tokens = batch(rows(3 * BATCH)[micro * BATCH : (micro + 1) * BATCH])
                (model(**tokens).loss / len(part)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert difference(weights_of(model), inside) == 0

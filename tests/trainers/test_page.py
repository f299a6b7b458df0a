"""What docs/trainers.md shows is executed, and its table is that of the names there are."""

import re
import runpy
from collections.abc import Callable
from dataclasses import make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from helpers.lit import ITS_OWN_WARNINGS, Module, fit
from helpers.problem import BATCH, STEPS, batch, make_model, names, rows
from helpers.trainer import settings
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import DataLoader
from trainers.test_diffusion import parts
from trainers.test_other_loops import OptimizersContainer, Vision
from trainers.test_sentence_transformers import data_of_pairs, loss_of_a_model
from trainers.test_ultralytics import BaseTrainer
from transformers import Trainer, TrainingArguments

import hub
from hub.trainers.transformers import hub_arguments

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "trainers.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
pytestmark = [
    *map(pytest.mark.filterwarnings, ITS_OWN_WARNINGS),
    # The page's TrainingArguments are on a machine without a GPU.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def blocks(text, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def everything(title, folder):
    """Return what the snippets of a section find around them."""
    data, model = rows(STEPS * BATCH), make_model().train()
    if title == "timm":
        model = Vision()
    if title == "Sentence Transformers":
        loss = loss_of_a_model()
        classes = (SentenceTransformerTrainer, SentenceTransformerTrainingArguments)
        named = {cls.__name__: cls for cls in classes} | {"hub_arguments": hub_arguments}
        return {"model": loss.model, "loss": loss, "data": data_of_pairs(), **named}
    given = settings(folder, max_steps=2)
    config = next(block for block in blocks("".join(SECTIONS), "yaml") if "_target_:" in block)
    return {
        "hub": hub,
        "model": model,
        "data": data,
        "loader": DataLoader(data, batch_size=BATCH, collate_fn=batch),
        "args": given,
        "trainer": Trainer(model, given, train_dataset=data),
        "Trainer": Trainer,
        "TrainingArguments": lambda _, **more: settings(folder, max_steps=2, **more),
        "config": OmegaConf.create(yaml.safe_load(config)),
        "OptimizersContainer": OptimizersContainer,
        "make_dataclass": make_dataclass,
        "form": {"bases": (OptimizersContainer.Config,), "kw_only": True, "slots": True},
        **{each.__name__: each for each in (Accelerator, Callable, LightningModule, instantiate)},
        "Any": Any,
        "partial": partial,
        "torch": torch,
        **stand_ins(),
        "super": lambda: LightningModule,
    }


class Yolo:
    def __init__(self, path):
        self.path = path

    def train(self, trainer, **_):
        trainer().train(range(1))


def stand_ins():
    """Return what snippets find of packages that are not here, and models to train."""
    models = parts()
    x = torch.randn(8, 4)
    return {
        "DetectionTrainer": BaseTrainer,
        "YOLO": Yolo,
        "unet": models["unet"],
        "text_encoder": models["text_encoder"],
        "accelerator": Accelerator(cpu=True),
        "prepare_model": lambda model: model,
        "make_model": make_model,
        "NeuralNetRegressor": partial(NeuralNetRegressor, train_split=None, verbose=0),
        "Net": partial(nn.Linear, 4, 1),
        "x": x,
        "y": x[:, :1],
        "OptimWrapper": lambda params, opt, **more: opt(params, **more),
        "Learner": lambda _, model, loss_func, opt_func: opt_func(model.parameters(), lr=0.1),  # noqa: ARG005
        "loaders": None,
        "loss_func": None,
    }


def test_classes_that_the_page_names_are_installed():
    text = PAGE.read_text()
    named = set(re.findall(r"hub\.optim\.(\w+)", text)) - {"NAME"}
    named |= set(re.findall(r"optimizer_impl: hub\.optim\n\s*optimizer: (\w+)", text))
    assert named == {"stable_adamw"}
    assert all(issubclass(getattr(hub.optim, name), torch.optim.Optimizer) for name in named)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.partition("\n")[0])
def test_snippets_run_and_are_short(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    title = section.partition("\n")[0]
    assert blocks(section, r"(?:python|yaml|sh)")
    for block in blocks(section):
        assert len([line for line in block.splitlines() if line.strip()]) <= 6
        found = everything(title, tmp_path)
        if "hub_arguments(" in block:
            found["TrainingArguments"] = TrainingArguments
        exec(compile(block, PAGE.name, "exec"), found)
        finish(found, tmp_path)


def test_the_readmes_snippets_run_and_are_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (
        (ROOT / "README.md").read_text().partition("## In your trainer")[2].partition("\n## ")[0]
    )
    assert len(blocks(section)) == 3
    for block in blocks(section):
        assert len([line for line in block.splitlines() if line.strip()]) <= 6
        found = everything("README", tmp_path)
        found["accelerator"] = Accelerator(cpu=True)
        exec(compile(block, "README.md", "exec"), found)
        finish(found, tmp_path)


def finish(found, folder):
    """Use what a snippet has defined."""
    if "configure_optimizers" in found:
        fit(Module(found["configure_optimizers"]), folder)
    if "train_loop_per_worker" in found:
        found["train_loop_per_worker"]({"optim": "stable_adamw", "lr": 0.1})
    if "HubOptimizers" in found:
        config = found["HubOptimizers"].Config(name="adamw_torch", lr=0.5)
        (built,) = found["HubOptimizers"](config, model_parts=[make_model()]).optimizers
        assert built.param_groups[0]["lr"] == 0.5


def generator(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    return runpy.run_path(str(ROOT / "docs" / "generate_trainers.py"))


def test_the_page_has_every_name(monkeypatch):
    """Given that all work, which the other tests here show."""
    script = generator(monkeypatch)
    results = dict.fromkeys(((name, each) for name in names() for each in script["TRAINERS"]), True)
    text = PAGE.read_text()
    assert script["between_marks"](text, script["statement"](results)) == text


def test_the_page_would_name_exceptions(monkeypatch):
    script = generator(monkeypatch)
    first, second, *_ = script["TRAINERS"]
    found = {("lomo", each): each != first for each in script["TRAINERS"] if each != second}
    text = script["statement"](found)
    assert f"`lomo` is broken in {first}." in text
    assert f"`lomo` is not tested in {second}." in text
    assert text.count("`lomo` is") == 2

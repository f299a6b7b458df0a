"""axolotl (0.19) and LLaMA-Factory (0.9.5): what their YAML files say reaches hub.

Neither installs beside this Transformers. Their code is reduced to what concerns the optimizer.
`test_contract.py` has the calls of their factories, `test_commands.py` processes like theirs.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from helpers.problem import BATCH, LR, STEPS, difference, make_model, rows, weights_of
from helpers.trainer import settings
from transformers import HfArgumentParser, Trainer, TrainingArguments

from hub.trainers.transformers import enable

RUN = {"max_grad_norm": 0.0, "max_steps": STEPS, "learning_rate": LR, "weight_decay": 0.1}


@dataclass
class AxolotlArguments(TrainingArguments):
    """What `AxolotlTrainingArguments` adds (core/training_args.py)."""

    embedding_lr: float | None = None
    lr_groups: list[dict[str, Any]] | None = None


class OptimizerMixin(Trainer):
    """core/trainers/mixins/optimizer.py: a class and groups, if any of these is set."""

    def create_optimizer(self, model=None):
        if self.args.embedding_lr is None and self.args.lr_groups is None:
            return super().create_optimizer(model=model)
        cls, keywords = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = cls(self.grouped(keywords["lr"]), **keywords)
        assert cls.__name__ != "Adam8bit"  # its next lines ask for the name
        return self.optimizer

    def grouped(self, lr):
        decayed = self.get_decay_parameter_names(self.model)
        of_module = {part: one for one in self.args.lr_groups or () for part in one["modules"]}
        groups = {}
        for name, parameter in self.model.named_parameters():
            decay, rate = self.args.weight_decay, lr
            if "embed_tokens" in name or "lm_head" in name:
                decay, rate = 0.0, self.args.embedding_lr or lr
            elif name not in decayed:
                decay = 0.0
            else:
                own = [one["lr"] for part, one in of_module.items() if part in name]
                rate = own[0] if own else lr
            groups.setdefault((decay, rate), []).append(parameter)
        return [
            {"params": found, "weight_decay": decay, "lr": rate}
            for (decay, rate), found in groups.items()
        ]


def axolotl(text, folder, override):
    """Return the trainer that `axolotl train` makes (core/builders/base.py)."""
    given = yaml.safe_load(text)
    chosen = {key: given[key] for key in ("embedding_lr", "lr_groups") if key in given}
    chosen |= {"optim": given["optimizer"], "lr_scheduler_type": given["lr_scheduler"]}
    own = given.get("optim_args")
    if isinstance(own, dict):
        own = ",".join([f"{key}={value}" for key, value in own.items()])
    chosen["optim_target_modules"] = given.get("optim_target_modules")
    with enable(override=override):
        config = settings(folder, AxolotlArguments, optim_args=own, **chosen)
        running = OptimizerMixin(make_model(), config, train_dataset=rows(STEPS * BATCH))
        running.train()
    return running


GROUPS = """
embedding_lr: 1.0e-3
lr_groups:
  - {name: attention, modules: [self_attn.q_proj, self_attn.k_proj], lr: 5.0e-3}
"""


def test_axolotls_groups(tmp_path):
    text = f"optimizer: adamw_torch\nlr_scheduler: cosine\n{GROUPS}"
    ours, theirs = (axolotl(text, tmp_path, override) for override in (True, False))
    assert difference(weights_of(ours.model), weights_of(theirs.model)) == 0
    plan = ours.optimizer.optimizer.hub_plan
    assert sorted({group.overrides["lr"] for group in plan.groups}) == [1e-3, 5e-3, LR]
    assert not hasattr(theirs.optimizer.optimizer, "hub_plan")


@pytest.mark.parametrize("groups", ["", GROUPS], ids=["", "groups"])
def test_axolotls_mapping_of_arguments(groups, tmp_path):
    """It writes a mapping as `key=value,key=value`, lists in brackets."""
    text = f"""
optimizer: galore_adamw_layerwise
lr_scheduler: constant
optim_args: {{rank: 4, betas: [0.8, 0.95], proj_type: std}}
optim_target_modules: [self_attn, mlp]
{groups}
"""
    plan = axolotl(text, tmp_path, override=True).optimizer.optimizer.hub_plan
    values = {argument.name: argument.value for argument in plan.arguments}
    assert (values["rank"], values["betas"], values["proj_type"]) == (4, (0.8, 0.95), "std")
    assert plan.optimizer == "galore_adamw_layerwise"
    assert len(plan.target_modules) == 14


def test_axolotls_word_for_all_linear_layers(tmp_path):
    """Its schema takes a list or "all_linear"."""
    text = "optimizer: galore_adamw\nlr_scheduler: constant\noptim_target_modules: all_linear"
    running = axolotl(text, tmp_path, override=True)
    assert len(running.optimizer.optimizer.hub_plan.target_modules) == 14


@dataclass
class FactoryArguments(TrainingArguments):
    """Stands for the fields of `FinetuningArguments` (hparams/finetuning_args.py)."""

    loraplus_lr_ratio: float | None = None


class CustomSeq2SeqTrainer(Trainer):
    """train/sft/trainer.py."""

    def create_optimizer(self, *args, **kwargs):
        if self.optimizer is None:
            self.optimizer = create_custom_optimizer(self.model, self.args)
        return super().create_optimizer(*args, **kwargs)


def create_custom_optimizer(model, args):
    """train/trainer_utils.py, whose LoRA+ makes four groups, empty ones too."""
    if args.loraplus_lr_ratio is None:
        return None
    fast = args.learning_rate * args.loraplus_lr_ratio
    parts = {"slow": [], "fast": [], "fast_undecayed": [], "embedding": []}
    for name, parameter in model.named_parameters():
        kind = "fast_undecayed" if parameter.ndim == 1 else "fast" if "mlp" in name else "slow"
        parts[kind].append(parameter)
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(args)
    decay = args.weight_decay
    groups = [
        {"params": parts["slow"], "lr": args.learning_rate, "weight_decay": decay},
        {"params": parts["fast"], "lr": fast, "weight_decay": decay},
        {"params": parts["fast_undecayed"], "lr": fast, "weight_decay": 0.0},
        {"params": parts["embedding"], "lr": 1e-6, "weight_decay": decay},
    ]
    return cls(groups, **keywords)


def llama_factory(text, folder, override):
    """Return the trainer that `llamafactory-cli train` makes of a file (hparams/parser.py)."""
    given = yaml.safe_load(text)
    with enable(override=override):
        parser = HfArgumentParser(FactoryArguments)
        plain = settings(folder)
        same = ("output_dir", "use_cpu", "per_device_train_batch_size", "train_sampling_strategy")
        values = {key: getattr(plain, key) for key in same}
        quiet = {"report_to": "none", "save_strategy": "no", "dataloader_pin_memory": False}
        (args,) = parser.parse_dict({**values, **quiet, **RUN, **given})
        running = CustomSeq2SeqTrainer(make_model(), args, train_dataset=rows(STEPS * BATCH))
        running.train()
    return running


@pytest.mark.parametrize("ratio", ["", "loraplus_lr_ratio: 4.0"], ids=["", "loraplus"])
def test_llama_factorys_file(ratio, tmp_path):
    text = f"optim: adamw_torch\nlr_scheduler_type: cosine\n{ratio}"
    ours, theirs = (llama_factory(text, tmp_path, override) for override in (True, False))
    assert difference(weights_of(ours.model), weights_of(theirs.model)) == 0
    rates = {group["initial_lr"] for group in ours.optimizer.param_groups}
    assert rates == ({LR, 4 * LR} if ratio else {LR})
    assert ours.optimizer.optimizer.hub_plan.optimizer == "adamw_torch"


@pytest.mark.parametrize("ratio", ["", "loraplus_lr_ratio: 4.0"], ids=["", "loraplus"])
@pytest.mark.parametrize("name", ["schedule_free_adamw", "adamw_torch_layerwise"])
def test_llama_factorys_file_with_other_names(name, ratio, tmp_path):
    text = f"optim: {name}\noptim_args: betas=(0.8,0.9)\nlr_scheduler_type: constant\n{ratio}"
    running = llama_factory(text, tmp_path, override=True)
    plan = running.optimizer.optimizer.hub_plan
    assert plan.optimizer == name
    assert {argument.name: argument.value for argument in plan.arguments}["betas"] == (0.8, 0.9)
    assert difference(weights_of(running.model), weights_of(make_model())) > 1e-4

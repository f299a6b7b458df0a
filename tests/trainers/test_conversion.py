"""Runs of Transformers' own GaLore and APOLLO go on with hub, names found in their folder."""

import warnings

import pytest
import torch
import transformers
from torch.utils.data import Dataset
from typer.testing import CliRunner

import hub
from hub.cli import app

pytestmark = [
    pytest.mark.filterwarnings("ignore:This implementation of AdamW is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]
LR, STEPS = 1e-2, 4
RUNS = {
    "galore_adamw": {"rank": 4, "update_proj_gap": 3, "scale": 0.25},
    "apollo_adamw": {"rank": 4, "update_proj_gap": 3, "scale": 1.0},
}


class Data(Dataset):
    def __len__(self):
        return 4 * 2 * STEPS

    def __getitem__(self, index):
        tokens = torch.randint(0, 32, (12,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def llama():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            pad_token_id=0,
        )
    )


def trainer(model, folder, name):
    arguments = transformers.TrainingArguments(
        folder,
        optim=name,
        optim_args=",".join(f"{key}={value}" for key, value in RUNS[name].items()),
        optim_target_modules=["attn", "mlp"],
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        per_device_train_batch_size=4,
        max_steps=2 * STEPS,
        save_steps=STEPS,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1,
    )
    return transformers.Trainer(model, arguments, train_dataset=Data())


class Recorder(transformers.TrainerCallback):
    """Keeps the gradients of the steps after the checkpoint, for another run to take."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):  # noqa: ARG002
        if state.global_step >= STEPS:
            self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_trainers_own_optimizer_goes_on_in_hub(name, tmp_path):
    """Given the same gradients, the next steps are those of the uninterrupted run, bit for bit."""
    model, recorder = llama(), Recorder()
    native = trainer(model, str(tmp_path), name)
    native.add_callback(recorder)
    native.train()
    folder = tmp_path / f"checkpoint-{STEPS}"
    files = str(folder / "optimizer.pt"), str(tmp_path / "new.pt")
    result = CliRunner().invoke(app, ["convert-checkpoint", name, *files, "--trust"])
    assert result.exit_code == 0, result.output
    saved = torch.load(tmp_path / "new.pt", weights_only=True)
    fresh = transformers.LlamaForCausalLM.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hub.HubWarning)
        optimizer = hub.build(name, fresh, target_modules=["attn", "mlp"], lr=LR, **RUNS[name])
    optimizer.load_state_dict(saved)
    assert len(optimizer.param_groups) == 3
    named = dict(fresh.named_parameters())
    assert len(recorder.gradients) == STEPS
    for gradients in recorder.gradients:
        for key, gradient in gradients.items():
            named[key].grad = gradient
        optimizer.step()
    for key, expected in model.named_parameters():
        assert torch.equal(named[key], expected), (key, (named[key] - expected).abs().max())

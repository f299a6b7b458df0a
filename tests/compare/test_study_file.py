from pathlib import Path

import pytest

from hub.compare import Contender, Settings, study_file
from hub.errors import HubError

STUDY = """
contenders:
  - adamw_torch:lr=1e-3
  - muon:lr=0.02,rest.lr=3e-3
  - name: galore_adamw_layerwise
    optim_args: {rank: 32, betas: [0.9, 0.95], rounding: split}
    label: galore
    lr_scheduler: cosine
    warmup_steps: 10
  - "torch.optim:NAdam:lr=1e-3"
tasks: [llama, "my_task:make"]
seeds: 3
tune: 8
tune_arguments: [lr]
target: 2.5
max_grad_norm: 1.0
target_modules: [q_proj, v_proj]
model: some/folder
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, **changes) -> Settings:
        (tmp_path / "study.yaml").write_text(text)
        return study_file.read(tmp_path / "study.yaml", **changes)

    return read


def test_a_study_has_the_keys_of_settings(read):
    study = read(STUDY)
    assert study == Settings(
        contenders=(
            Contender("adamw_torch", "lr=1e-3"),
            Contender("muon", "lr=0.02,rest.lr=3e-3"),
            Contender(
                "galore_adamw_layerwise",
                {"rank": 32, "betas": [0.9, 0.95], "rounding": "split"},
                label="galore",
                lr_scheduler="cosine",
                warmup_steps=10,
            ),
            Contender("torch.optim:NAdam", "lr=1e-3"),
        ),
        tasks=("llama", "my_task:make"),
        seeds=3,
        tune=8,
        tune_arguments=("lr",),
        target=2.5,
        max_grad_norm=1.0,
        target_modules=("q_proj", "v_proj"),
        model=Path("some/folder"),
    )


def test_what_is_written_reads_the_same(read):
    study = read(STUDY)
    assert read(study_file.text(study_file.to_dict(study))) == study


def test_lines_of_contenders_are_written_as_lines(read):
    written = study_file.to_dict(read(STUDY))["contenders"]
    assert written[:2] == ["adamw_torch:lr=1e-3", "muon:lr=0.02,rest.lr=3e-3"]
    assert written[2]["label"] == "galore"


def test_changes_take_the_place_of_what_the_file_says(read, tmp_path):
    assert read(STUDY, seeds=5, out=tmp_path).seeds == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no contenders"),
        ("contenders: adamw_torch", "names no contenders"),
        ("contenders: [", "cannot be read"),
        ("contenders: [sgd]\nsteps: many", "steps: input should be a valid integer"),
        ("contenders: [sgd]\nstep: 5", "step: unexpected keyword"),
        ("contenders: [{name: sgd, schedule: x}]", "unexpected keyword"),
        ("contenders: [sgd]\nsteps: 0", "steps is 0"),
        ("contenders: [sgd]\nsampler: grid", "sampler: input should be 'sobol' or 'optuna'"),
    ],
)
def test_bad_studies_are_refused(read, text, message):
    with pytest.raises(HubError, match=message) as caught:
        read(text)
    assert caught.value.where
    assert caught.value.fix


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(HubError, match="cannot be read"):
        study_file.read(tmp_path / "study.yaml")

"""`hub.TrainingConfig` reads what a trainer's arguments say, and counts as Transformers does."""

import dataclasses
import json
import sys
from contextlib import suppress
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hub
from hub import TrainingConfig

FIELDS = set(TrainingConfig.model_fields)


def arguments(folder, **values):
    from transformers import TrainingArguments

    return TrainingArguments(str(folder), use_cpu=True, report_to="none", **values)


def test_names_and_defaults_are_those_of_transformers():
    from transformers import TrainingArguments

    theirs = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    ours = {**dict(TrainingConfig())}
    assert ours.pop("warmup_ratio") == 0.0  # gone in Transformers 5
    assert ours == {name: theirs[name] for name in ours}


NOT_FOR_NONE = sorted(FIELDS - {"max_grad_norm"})


@pytest.mark.parametrize("key", NOT_FOR_NONE)
def test_none_is_not_given(key, tmp_path):
    """As a field of another trainer's arguments has it, such as Sentence Transformers' ratio."""
    given = dataclasses.make_dataclass("Given", [(key, object, None)])()
    path = tmp_path / "given.json"
    path.write_text(json.dumps({key: None}))
    for source in ({key: None}, given, str(path)):
        assert getattr(TrainingConfig.load(source), key) == getattr(TrainingConfig(), key)


def test_none_is_no_clipping():
    assert TrainingConfig(max_grad_norm=None).max_grad_norm is None


VALUES = {
    "optim": "galore_adamw",
    "optim_args": "rank=64, scale=0.1",
    "optim_target_modules": ["attn", "0"],
    "learning_rate": 2e-4,
    "weight_decay": 0.01,
    "adam_beta1": 0.8,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-7,
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 3},
    "warmup_steps": 0.1,
    "max_grad_norm": 0.5,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 2.5,
    "max_steps": 100,
    "per_device_train_batch_size": 16,
    "dataloader_drop_last": True,
    "eval_strategy": "steps",
    "bf16": True,
}
TUPLES = {**VALUES, "optim_target_modules": ("attn", "0")}


def test_of_a_mapping_and_of_itself():
    config = TrainingConfig.load(VALUES)
    assert config == TrainingConfig(**VALUES) == TrainingConfig.load(config)
    assert {key: getattr(config, key) for key in VALUES} == TUPLES
    assert config.model_fields_set == set(VALUES)


def test_of_training_arguments(tmp_path):
    theirs = arguments(tmp_path, **VALUES, eval_steps=10)
    config = TrainingConfig.load(theirs)
    assert config == TrainingConfig(**VALUES)
    assert config.model_fields_set == set(VALUES)
    assert all(type(getattr(config, key)) is type(value) for key, value in TUPLES.items())
    assert not TrainingConfig.load(arguments(tmp_path)).model_fields_set


def test_of_a_dataclass():
    @dataclasses.dataclass
    class Mine:
        learning_rate: float = 3e-4
        adam_beta2: float = 0.999
        hidden_size: int = 64

    assert TrainingConfig.load(Mine()).model_fields_set == {"learning_rate"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", json.dumps(VALUES)),
        ("c.yaml", "\n".join(f"{key}: {json.dumps(value)}" for key, value in VALUES.items())),
        ("c.YML", json.dumps(VALUES)),
    ],
)
def test_of_a_file(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    assert TrainingConfig.load(path) == TrainingConfig.load(str(path)) == TrainingConfig(**VALUES)


def test_yaml_that_reads_otherwise_than_it_looks(tmp_path):
    """In YAML 1.1 5e-5 is a text, and a bare `no` is False."""
    path = tmp_path / "c.yaml"
    path.write_text("learning_rate: 5e-5\neval_strategy: no\nbf16: 'true'\nmax_steps: '100'\n")
    config = TrainingConfig.load(path)
    assert (config.learning_rate, config.eval_strategy) == (5e-5, "no")
    assert (config.bf16, config.max_steps) == (True, 100)


def test_arguments_of_the_schedule_as_text():
    config = TrainingConfig(lr_scheduler_kwargs="num_cycles=3, min_lr=1e-5")
    assert config.lr_scheduler_kwargs == {"num_cycles": "3", "min_lr": "1e-5"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"lerning_rate": 1e-3}, "did you mean 'learning_rate'"),
        ({"output_dir": "x"}, "has no argument 'output_dir'"),
        ({"evaluation_strategy": "no"}, "did you mean 'eval_strategy'"),
        ({1: 2}, "has no argument '1'"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not valid"),
        ({"learning_rate": -1.0}, "greater than or equal to 0"),
        ({"learning_rate": True}, "valid number"),
        ({"learning_rate": float("nan")}, "finite number"),
        ({"adam_beta2": 1.0}, "less than 1"),
        ({"bf16": 1}, "valid boolean"),
        ({"bf16": True, "fp16": True}, "at most one of bf16 and fp16"),
        ({"warmup_steps": -1}, "greater than or equal to 0"),
        ({"warmup_ratio": 1.5}, "less than or equal to 1"),
        ({"gradient_accumulation_steps": 0}, "greater than 0"),
        ({"per_device_train_batch_size": 2.5}, "valid integer"),
        ({"num_train_epochs": 0}, "greater than 0"),
        ({"eval_strategy": "sometimes"}, "'no', 'steps' or 'epoch'"),
        ({"lr_scheduler_kwargs": "num_cycles"}, "'num_cycles' has no value"),
        ({"lr_scheduler_kwargs": 3}, "valid dict"),
        (3, "a int is not a training configuration"),
        (TrainingConfig, "is not a training configuration"),
        ("there_is_none.json", "No such file"),
        ("no_ending", "neither .json nor .yaml"),
    ],
    ids=str,
)
def test_bad_input(source, says):
    with pytest.raises(hub.OptimArgsError, match=says) as raised:
        TrainingConfig.load(source)
    assert raised.value.where


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.json", "{", "cannot be read"),
        ("c.yaml", "a: [", "cannot be read"),
        ("c.yaml", "- 1", "contains a list"),
        ("c.json", "null", "contains a NoneType"),
        ("c.json", '{"adam_beta3": 1}', "did you mean 'adam_beta"),
        ("c.yaml", "learning_rate: fast", "learning_rate='fast'"),
        ("c.json", b"\xff", "cannot be read"),
        ("c.json", "[" * 100_000, "cannot be read"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_files_are_named(name, text, says, tmp_path):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(hub.OptimArgsError, match=says) as raised:
        TrainingConfig.load(path)
    assert str(path) in raised.value.where


def test_without_pyyaml(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "c.yaml").write_text("bf16: true")
    with pytest.raises(hub.OptimArgsError, match=r'pip install "hub\[yaml\]"'):
        TrainingConfig.load(tmp_path / "c.yaml")


@given(
    st.dictionaries(
        st.sampled_from(sorted(FIELDS)) | st.text(max_size=5),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=8)
        | st.lists(st.text(max_size=3), max_size=2)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        max_size=4,
    )
)
def test_anything_is_a_configuration_or_an_error_of_ours(values):
    with suppress(hub.OptimArgsError):
        config = TrainingConfig.load(values)
        dropped = set(values) - config.model_fields_set
        assert config.model_fields_set <= set(values)
        assert all(values[key] is None and key in NOT_FOR_NONE for key in dropped)
        assert TrainingConfig.load(dict(config)) == config


@pytest.mark.parametrize("warmup", [0, 1, 2, 1.5, 50, 100, 0.001, 0.05, 0.1, 1 / 3, 0.999])
def test_warmup_like_transformers(warmup, tmp_path):
    theirs = arguments(tmp_path, warmup_steps=warmup)
    for config in (TrainingConfig.load(theirs), TrainingConfig(warmup_steps=warmup)):
        for total in (1, 7, 10, 30, 100, 999, 1000):
            assert config.resolved_warmup_steps(total) == theirs.get_warmup_steps(total)
            assert type(config.resolved_warmup_steps(total)) is int


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"warmup_ratio": 0.1}, 10),
        ({"warmup_ratio": 0.101}, 11),
        ({"warmup_ratio": 1.0}, 100),
        ({"warmup_ratio": 0.1, "warmup_steps": 7}, 7),
        ({"warmup_ratio": 0.1, "warmup_steps": 0.5}, 50),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, 10),
    ],
)
def test_warmup_ratio_as_before_transformers_5(values, expected):
    assert TrainingConfig(**values).resolved_warmup_steps(100) == expected


@pytest.fixture(scope="module")
def trainer_of(tmp_path_factory):
    """Return the real Trainer's number of steps."""
    from transformers import Trainer

    folder = tmp_path_factory.mktemp("trainer")

    def steps(length, **values):
        args = arguments(folder, **values)
        data = [{"x": torch.zeros(1)}] * length
        trainer = Trainer(model=torch.nn.Linear(1, 1), args=args, train_dataset=data)
        return trainer.set_initial_training_values(args, trainer.get_train_dataloader())[-1]

    return steps


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("epochs", [0.5, 1, 3.0, 2.3])
def test_steps_of_the_real_trainer(length, epochs, trainer_of):
    for batch, accumulation, drop in product((1, 4, 7), (1, 2, 3), (False, True)):
        values = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "num_train_epochs": epochs,
            "dataloader_drop_last": drop,
        }
        if drop and length < batch:
            continue
        assert TrainingConfig(**values).training_steps(length) == trainer_of(length, **values)
    values["max_steps"] = 17
    assert TrainingConfig(**values).training_steps(length) == trainer_of(length, **values) == 17


@pytest.mark.parametrize("drop", [False, True])
def test_steps_of_several_processes_as_accelerate_shards_them(drop):
    """With one epoch and no accumulation, steps are the batches of one process."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    for length, batch, world in product((8, 15, 16, 17, 100), (1, 2, 4), (1, 2, 3, 4)):
        config = TrainingConfig(
            per_device_train_batch_size=batch, dataloader_drop_last=drop, num_train_epochs=1
        )
        sampler = BatchSampler(range(length), batch, drop)
        lengths = {len(BatchSamplerShard(sampler, world, rank)) for rank in range(world)}
        if lengths != {0}:
            assert {config.training_steps(length, world)} == lengths


@pytest.mark.parametrize(
    ("values", "call", "says"),
    [
        ({}, (0,), "dataset_length=0 is not a number of samples"),
        ({}, (True,), "dataset_length=True is not a number of samples"),
        ({}, (10.0,), "not a number of samples"),
        ({}, (10, 0), "world_size=0 is not a number of devices"),
        ({}, (None,), "set max_steps"),
        ({"dataloader_drop_last": True}, (7,), "do not fill a batch of 8"),
    ],
)
def test_steps_that_cannot_be_counted(values, call, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        TrainingConfig(**values).training_steps(*call)


def test_a_stream_has_max_steps():
    assert TrainingConfig(max_steps=5).training_steps(None) == 5


@pytest.mark.parametrize("steps", [0, 1.5, "10", None])
def test_warmup_of_no_number(steps):
    with pytest.raises(hub.OptimArgsError, match="not a number of steps"):
        TrainingConfig().resolved_warmup_steps(steps)

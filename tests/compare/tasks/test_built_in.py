"""The built-in tasks learn, and only what they are said to train."""

import itertools
import subprocess
import sys
from collections import Counter

import pytest
import torch

from hub.compare import tasks
from hub.compare.tasks import digits, lora, pretrained, problems, stored
from hub.errors import HubError
from tests.compare.tasks.training import trained

NOTHING = tasks.Options()


def test_problems_stand_for_all_of_them():
    names = tasks.expanded(("llama", "problems", "problems/saddle", "llama"))
    assert names == ("llama", *problems.NAMES)


def test_names_cost_no_import():
    program = (
        "import sys; from hub.compare import tasks; tasks.expanded(('problems',)); "
        "tasks.check('problems/saddle', tasks.Options()); tasks.check('digits', tasks.Options()); "
        "sys.exit(bool({'torch', 'sklearn', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_unknown_names_are_refused():
    with pytest.raises(HubError, match="there is no task 'problems/none'") as caught:
        tasks.check("problems/none", NOTHING)
    assert "digits" in caught.value.fix


def test_options_have_to_count_somewhere():
    options = tasks.Options(sequence_length=32)
    tasks.check_options(("digits", "lora"), options)
    with pytest.raises(HubError, match="sequence_length changes nothing") as caught:
        tasks.check_options(("digits", "problems/saddle"), options)
    assert caught.value.fix.endswith("llama, lora")


@pytest.mark.parametrize(("task", "package"), [("digits", "sklearn"), ("lora", "peft")])
def test_missing_packages_are_named(task, package, monkeypatch):
    monkeypatch.setattr("hub.experiments.extra.find_spec", lambda name: name != package or None)
    with pytest.raises(HubError, match=f"{package} is needed here") as caught:
        tasks.check(task, NOTHING)
    assert "hub[compare]" in caught.value.fix


@pytest.mark.parametrize("name", ["digits", "lora"])
def test_losses_have_one_fingerprint(name, small_base):
    first, second = (tasks.load(name, tasks.Options(batch_size=size)) for size in (2, 3))
    assert first.fingerprint == tasks.load(name, tasks.Options(batch_size=2)).fingerprint
    assert first.fingerprint != second.fingerprint
    tasks.dry_run(first)


def test_digits_are_told_apart():
    losses = trained("adamw_torch:lr=3e-3", "digits", steps=150)
    assert losses[-1] < digits.make(NOTHING).target < 2 < losses[0]


def test_digits_have_a_fixed_part_held_out():
    seen, held_out = digits.images(held_out=False), digits.images(held_out=True)
    assert (len(seen.digits), len(held_out.digits)) == (1497, 300)
    assert min(Counter(held_out.digits.tolist()).values()) >= 20
    flat = {bytes(image) for image in seen.pixels.numpy()}
    assert not flat & {bytes(image) for image in held_out.pixels.numpy()}


def test_every_digit_comes_once_before_any_comes_again():
    batches = itertools.islice(digits.training_batches(499, seed=3), 6)
    first, second = (torch.cat([next(batches).digits for _ in range(3)]) for _ in range(2))
    assert not torch.equal(first, second)
    expected = Counter(digits.images(held_out=False).digits.tolist())
    assert Counter(first.tolist()) == Counter(second.tolist()) == expected


def test_the_transformer_is_small():
    assert sum(one.numel() for one in digits.model().parameters()) == 102_090


@pytest.fixture
def small_base(tmp_path, monkeypatch):
    """A base that is trained for a few steps, in an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "STEPS", 5)
    return tmp_path / "hub"


def test_only_adapters_are_trained(small_base):
    model = tasks.load("lora", NOTHING).model(0)
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    assert len(names) == 2 * 2 * 7  # two matrices, for each of seven layers in two blocks
    assert all("lora_" in name for name in names)


def test_adapters_learn(small_base, monkeypatch):
    monkeypatch.setattr(pretrained, "STEPS", 60)
    losses = trained("adamw_torch:lr=1e-2", "lora", steps=30)
    assert losses[-1] < losses[0] - 0.05
    frozen = trained("adamw_torch:lr=1e-9", "lora", steps=2)
    assert frozen[-1] == pytest.approx(losses[0], abs=1e-4)


def test_the_base_is_trained_once(small_base, monkeypatch):
    first = pretrained.load()
    (file,) = small_base.iterdir()
    monkeypatch.setattr(pretrained, "train", None)
    again = pretrained.load()
    assert all(
        torch.equal(one, again.state_dict()[name]) for name, one in first.state_dict().items()
    )
    monkeypatch.undo()
    assert file.name.startswith("llama-")


def test_the_base_does_not_depend_on_threads_or_seeds(small_base):
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        before = torch.get_rng_state()
        found.append(pretrained.train().state_dict())
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())


def test_the_base_has_learned(tmp_path, monkeypatch):
    """More than which bytes are frequent."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "STEPS", 100)
    text = lora.corpus.load(None, 64)
    counts = torch.bincount(torch.tensor(list(text.training))).float()
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * shares.log()).sum().item()
    assert lora.llama.evaluate(pretrained.load(), text, 8, 64) < entropy - 0.3


def test_a_broken_file_is_written_anew(small_base):
    small_base.mkdir()
    path = small_base / "weights.pt"
    path.write_bytes(b"half a file")
    computed = {"one": torch.ones(2)}
    assert stored.stored("weights.pt", lambda: computed) is computed
    assert torch.equal(stored.stored("weights.pt", dict)["one"], torch.ones(2))
    assert [file.name for file in small_base.iterdir()] == ["weights.pt"]


def test_without_a_folder_weights_are_computed(tmp_path, monkeypatch):
    (tmp_path / "hub").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert stored.stored("weights.pt", lambda: {"one": 1}) == {"one": 1}


def test_adapters_of_another_model_and_text(model_folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("all work and no play " * 100)
    options = tasks.Options(model=model_folder, data=text, sequence_length=32)
    task = tasks.load("lora", options)
    tasks.check("lora", options)
    tasks.dry_run(task)
    assert str(text) in task.summary
    assert task.fingerprint != tasks.load("lora", tasks.Options(sequence_length=32)).fingerprint

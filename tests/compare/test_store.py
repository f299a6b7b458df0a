"""Trainings that are done are kept as they are, with what is not finite in them."""

from dataclasses import replace

from helpers import studies

from hub.compare import Settings, Status
from hub.compare.execution.store import Store
from hub.compare.result import to_json
from hub.experiments.contender import Contender


def test_a_diverged_training_and_infinite_arguments_are_found_again(tmp_path):
    store = Store(tmp_path, Settings(contenders=(Contender("prodigy"),)))
    diverged = studies.outcome("prodigy", status=Status.DIVERGED)
    outcome = replace(diverged, arguments={"growth_rate": float("inf"), "betas": (0.9, 0.99)})
    store.save("key", outcome)
    found = store.load("key")
    assert found is not None
    assert found.arguments == outcome.arguments
    assert to_json(found) == to_json(outcome)


def test_what_failed_is_tried_again(tmp_path):
    store = Store(tmp_path, Settings(contenders=(Contender("sgd"),)))
    store.save("key", studies.outcome("sgd", status=Status.FAILED))
    assert store.load("key") is None


def test_a_broken_file_is_trained_again(tmp_path):
    store = Store(tmp_path, Settings(contenders=(Contender("sgd"),)))
    store.save("key", studies.outcome("sgd"))
    (file,) = (tmp_path / "trainings").iterdir()
    file.write_text(file.read_text()[:100])
    assert store.load("key") is None

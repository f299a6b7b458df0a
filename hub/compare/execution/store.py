"""The trainings that are done, each in a file: a study that was interrupted goes on from there."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hub.compare.result import Outcome, Status, digest, from_json, to_json
from hub.compare.writing import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from hub.compare.result import Run, TaskRecord
    from hub.compare.settings import Settings
    from hub.experiments.contender import Contender

FOLDER = "trainings"
NOT_OF_A_TRAINING = frozenset(
    {"contenders", "tasks", "seeds", "seed", "tune", "tune_arguments", "sampler", "out"}
)
"""Settings that choose which trainings there are, and change none of them."""


class Store:
    """Finds a training by all that its numbers depend on, versions of packages included."""

    def __init__(self, out: Path | None, settings: Settings) -> None:
        self._folder = out / FOLDER if out else None
        if self._folder:
            self._folder.mkdir(exist_ok=True)
        self._common = {
            key: value for key, value in asdict(settings).items() if key not in NOT_OF_A_TRAINING
        }

    def key(
        self, run: Run, contender: Contender, task: TaskRecord, versions: dict[str, str]
    ) -> str:
        """Return the name of a training's file."""
        parts: list[Any] = [asdict(run), asdict(contender), asdict(task), versions, self._common]
        return digest(parts)

    def load(self, key: str) -> Outcome | None:
        """Return the outcome of a training that is done."""
        if self._folder is None:
            return None
        try:
            return from_json((self._folder / f"{key}.json").read_bytes(), Outcome)
        except (FileNotFoundError, ValueError):  # of another version: train it again
            return None

    def save(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome. What failed or was interrupted is tried again.

        Raises:
            HubError: The folder cannot be written to.
        """
        if self._folder and outcome.status in (Status.DONE, Status.DIVERGED):
            write_file(self._folder / f"{key}.json", to_json(outcome).encode())

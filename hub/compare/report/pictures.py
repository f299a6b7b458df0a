"""All pictures of a study, by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.compare.report import curves, drawings
from hub.compare.report.looks import looks
from hub.compare.report.rows import rows

if TYPE_CHECKING:
    from hub.compare.report.picture import Picture
    from hub.compare.result import Results


@dataclass(frozen=True)
class Pictures:
    """The pictures of each task, and those of all together."""

    by_task: dict[str, tuple[Picture, ...]]
    together: tuple[Picture, ...]

    @classmethod
    def of(cls, results: Results) -> Pictures:
        """Draw them.

        Raises:
            HubError: SciPy or matplotlib is missing.
        """
        look = looks(results.contenders)
        by_task = {task: rows(results, task) for task in results.tasks}
        drawn = {}
        for task, found in by_task.items():
            made = (
                drawings.at_the_end(found, task, look),
                *curves.pictures(found, task, look),
                drawings.sensitivity(results, task, look),
                drawings.tradeoff(found, task, look),
            )
            drawn[task.name] = tuple(one for one in made if one)
        whole = drawings.profile({task.name: found for task, found in by_task.items()}, look)
        return cls(drawn, (whole,) if whole else ())

    @property
    def all(self) -> tuple[Picture, ...]:
        """Return each picture once."""
        return (*self.together, *(one for some in self.by_task.values() for one in some))

"""Write the results of a study to a folder: for programs, as pictures, and as a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare.report import page, sheet
from hub.compare.report.pictures import Pictures
from hub.compare.result import to_json
from hub.compare.writing import make_directory, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from hub.compare.result import Results

RESULTS, TRAININGS, PICTURES, PAGE = "results.json", "trainings.csv", "pictures", "report.html"


def write(results: Results, directory: Path) -> None:
    """Write `results.json`, `trainings.csv`, a folder `pictures`, and `report.html`.

    Each file is complete or not there. The results come first: what fails after them costs no
    training.

    Raises:
        HubError: The folder cannot be written to, or SciPy or matplotlib is missing.
    """
    make_directory(directory)
    write_file(directory / RESULTS, to_json(results).encode())
    write_file(directory / TRAININGS, sheet.csv(results).encode())
    drawn = Pictures.of(results)
    make_directory(directory / PICTURES)
    for one in drawn.all:
        write_file(directory / PICTURES / f"{one.name}.png", one.png())
    write_file(directory / PAGE, page.html(results, drawn).encode())

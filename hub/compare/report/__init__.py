"""What people and programs read of a study's results: a folder of files, and a table."""

from hub.compare.report.table import show
from hub.compare.report.writing import make_directory, write

__all__ = ["make_directory", "show", "write"]

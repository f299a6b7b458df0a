"""What people and programs read of a study's results: a folder of files, and a table."""

from hub.compare.report.table import show
from hub.compare.report.writing import write

__all__ = ["show", "write"]

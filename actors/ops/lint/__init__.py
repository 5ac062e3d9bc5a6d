"""The linter: finds in the code of durable types what a replay would not repeat. It reads their files, and runs nothing of them."""

from ._checks import Finding
from ._report import Report, lint
from ._source import Unreadable

__all__ = ["Finding", "Report", "Unreadable", "lint"]

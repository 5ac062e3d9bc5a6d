"""The programs of the matrix: what goes well, and what goes wrong. Whatever runs one of them has all actor types at hand."""

from __future__ import annotations

from typing import Final

from . import failing, matrix

PROGRAMS: Final = *matrix.PROGRAMS, *failing.PROGRAMS
ACTORS: Final[tuple[type, ...]] = (matrix.Account, *failing.CHILDREN, *(program.actor for program in PROGRAMS))

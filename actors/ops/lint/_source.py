"""Source files: found under a path, read and parsed once, without running any of them.

What cannot be read, or is no Python, is never passed over: it is an Unreadable.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path
from typing import Final, NamedTuple, final

SKIPPED: Final = {"__pycache__", "node_modules"}

_NOQA: Final = re.compile(r"#\s*noqa\b(?:(?P<codes>\s*:\s*[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)|(?!\s*:))", re.IGNORECASE)


@final
class Unreadable(NamedTuple):
    """A file that is not linted, and why. `line` is 0 where no line is to blame."""

    path: Path
    line: int
    reason: str


Unreadable.__module__ = "perdure.actors.ops.lint"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A file of Python."""

    path: Path
    tree: ast.Module
    lines: list[str]

    def column(self, node: ast.expr) -> int:
        """Where in its line a node begins, in characters from 1: `ast` counts bytes."""
        return len(self.lines[node.lineno - 1].encode()[: node.col_offset].decode(errors="ignore")) + 1

    def silences(self, line: int, code: str) -> bool:
        """Whether that line says `# noqa`, of all codes or of this one."""
        for comment in _NOQA.finditer(self.lines[line - 1]):
            if comment["codes"] is None or code in re.findall(r"\w+", comment["codes"].upper()):
                return True
        return False


def python_files(paths: Iterable[Path]) -> list[Path]:
    """The files given, and the `.py` files below the folders given, in order of their names: each once."""
    found = {Path(os.path.abspath(file)): file for path in paths for file in (_below(path) if path.is_dir() else [path])}
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not _is_skipped(Path(name, each)))
        yield from (Path(name, file) for file in sorted(files) if file.endswith(".py") and file[0] != ".")


def _is_skipped(folder: Path) -> bool:
    """Whether it holds nobody's own code: hidden folders, caches, virtual environments."""
    return folder.name.startswith(".") or folder.name in SKIPPED or (folder / "pyvenv.cfg").exists()


def read_source(path: Path) -> Source | Unreadable:
    """Read and parse one file."""
    try:
        text = decode_source(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a literal that a later Python will refuse: the user's own tools tell
            return Source(path, ast.parse(text, path), text.split("\n"))
    except OSError as error:
        return Unreadable(path, 0, error.strerror or str(error))
    except SyntaxError as error:
        return Unreadable(path, error.lineno or 0, f"this is no Python: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, another encoding, brackets nested by the thousand
        return Unreadable(path, 0, f"this is no Python: {str(error) or 'it is nested too deeply'}")

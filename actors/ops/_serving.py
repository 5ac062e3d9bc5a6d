"""Hosting what a module defines: the work of `perdure run`.

The module is imported as its own program would import it, so that what is pickled by name is found again.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import final

import anyio

from ...storage import PerdureError
from .._define import is_actor_type
from .._runtime import Runtime


@final
class NoActors(PerdureError):
    """The module cannot be hosted. `module` is what was given, `problem` what is wrong with it."""

    def __init__(self, module: str, problem: str) -> None:
        super().__init__(module, problem)
        self.module = module
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.module}: {self.problem}"


def import_named(name: str) -> ModuleType:
    """The module of a dotted name, or of a path to a .py file. Raises NoActors if there is none, and whatever the module raises."""
    path = Path(name)
    is_path = path.suffix == ".py" or os.sep in name
    if is_path and not path.is_file():
        raise NoActors(name, "there is no such file.")
    module_name = path.stem if is_path else name
    sys.path.insert(0, str(path.resolve().parent) if is_path else os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise NoActors(
            name, f"there is no module {error.name!r} here or installed. Give its dotted name, or the path of a .py file."
        ) from error
    if is_path and Path(module.__file__ or "").resolve() != path.resolve():
        raise NoActors(name, f"another module is named {module_name!r} ({module.__file__}). Rename the file.")
    return module


def actor_classes(module: ModuleType) -> list[type]:
    """Every actor type that is defined or imported in a module, in their order there. Raises NoActors if there is none."""
    found = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type) and is_actor_type(value))
    if not found:
        raise NoActors(module.__name__, "no class in it is decorated with @durable_actor.")
    return list(found)


async def serve(actors: Iterable[type], url: str, started: Callable[[Runtime], None]) -> None:
    """Host until SIGTERM or SIGINT; `started` is called once a signal would be heard and messages are taken."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Runtime(url, actors) as runtime:
            started(runtime)
            async for _ in signals:
                return

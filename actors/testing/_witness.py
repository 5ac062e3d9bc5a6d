"""The witness: sees, while a test runs, what the linter refuses, also where no text shows it: in code that an actor awaits, by any name.

What it tells of are calls out of coroutines of actors, whose code a replay runs again; steps, and what the standard library does for
itself, are none of its business.
"""

from __future__ import annotations

import inspect
import random
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, final

from .._ids import ActorId
from .._taking import replay_turn, take_turn
from .._turn import Turn
from ..ops.lint._rules import MENTIONED, Rule

_TURNS: Final = frozenset({take_turn.__code__, replay_turn.__code__})
_HOMES: Final = {"posix": "os", "nt": "os", "_io": "io", "_random": "random"}  # modules that are known by another name
_SHARED: Final = vars(random)["_inst"]  # whose methods are the functions of `random`
_LIBRARIES: Final = tuple(
    {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *site.getsitepackages(), str(Path(__file__).parents[1])}
)


class Sight(NamedTuple):
    """A call that a replay makes again, by whom, in which of its turns, and where it stands."""

    actor: ActorId
    turn: int
    what: str
    where: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.where}: {self.rule.told(self.what + '()')}"


@final
class Witness:
    """Looks at all calls of this thread while it is watching."""

    def __init__(self) -> None:
        self.sights: list[Sight] = []

    def __repr__(self) -> str:
        return f"<Witness of {len(self.sights)} calls>"

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look inside; a debugger's or a profiler's function goes on afterwards."""
        before = sys.getprofile()
        sys.setprofile(self._look)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _look(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            name, caller = _name_of_builtin(called), frame
        elif event == "call" and frame.f_back is not None:
            name, caller = _name_of_function(frame), frame.f_back
        else:
            return
        rule = MENTIONED.get(name)
        if rule is not None and not caller.f_code.co_filename.startswith(("<frozen", *_LIBRARIES)):
            self._note(caller, name, rule)

    def _note(self, caller: FrameType, name: str, rule: Rule) -> None:
        """Note it if a coroutine of an actor makes the call, in one of its turns."""
        frame: FrameType | None = caller
        in_coroutine = False
        while frame is not None and frame.f_code not in _TURNS:
            in_coroutine = in_coroutine or bool(frame.f_code.co_flags & inspect.CO_COROUTINE)
            frame = frame.f_back
        turn = None if frame is None or not in_coroutine else frame.f_locals.get("turn")
        if isinstance(turn, Turn):
            where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            self.sights.append(Sight(turn.actor, turn.number, name, where, rule))


def _name_of_builtin(called: Any) -> str:
    owner, qualified = called.__self__, called.__qualname__
    if owner is None or inspect.ismodule(owner):
        return f"{_HOMES.get(called.__module__, called.__module__)}.{qualified}"
    if owner is _SHARED:
        return f"random.{called.__name__}"
    return f"{owner.__module__}.{qualified}" if isinstance(owner, type) else ""


def _name_of_function(frame: FrameType) -> str:
    code = frame.f_code
    if code.co_argcount and code.co_varnames[0] == "self":
        return f"random.{code.co_name}" if frame.f_locals.get("self") is _SHARED else ""
    return f"{frame.f_globals.get('__name__')}.{code.co_qualname}"

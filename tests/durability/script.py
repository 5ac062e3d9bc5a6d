"""Scripts: what is sent to an actor on its way, each once everything before it has come to rest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeAlias

KEY: Final = "a-1"


class Tell(NamedTuple):
    """An event that nobody waits for."""

    event: Any
    argument: object


class Send(NamedTuple):
    """A signal."""

    signal: Any
    payload: object


class Ask(NamedTuple):
    """An event whose answer is waited for beside everything else."""

    event: Any
    arguments: tuple[Any, ...] = ()


class Pass(NamedTuple):
    """Time passes; whatever is due in it happens."""

    by: timedelta


class Cancel(NamedTuple):
    """Somebody wants it to end."""

    reason: str


class Terminate(NamedTuple):
    """Somebody ends it."""

    reason: str


class Redrive(NamedTuple):
    """All that was put aside is put back."""


Stimulus: TypeAlias = Send | Tell | Ask | Pass | Cancel | Terminate | Redrive


class Program(NamedTuple):
    """An actor with a workflow, or without, and what is sent to it: each once everything before it has come to rest."""

    actor: type[Any]
    script: tuple[Stimulus, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.actor.__name__

    @property
    def run(self) -> Any:
        """Its workflow, or None."""
        return getattr(self.actor, "run", None)

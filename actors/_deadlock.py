"""Deadlocks: who would wait for ever, because whoever they wait for waits for them.

Only what is certain is named: an actor is stuck if all that it waits for are outcomes of actors that are stuck. A timer, a signal, a step,
a condition, or a message that it has not taken yet is another way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, final

from ._ids import ActorId
from ._records import Standing, Status, Wait

OUTCOMES: Final = frozenset({"ask", "result"})


@final
class Stand(NamedTuple):
    """How an actor stands, as far as it matters here. `has_messages`: interrupts that it has not taken."""

    status: Status
    standing: Standing
    has_messages: bool

    @property
    def waits(self) -> list[Wait]:
        """What it waits for, if that is outcomes of actors and nothing else; else nothing."""
        if self.status is not Status.SUSPENDED or self.has_messages or not waits_for_actors_alone(self.standing):
            return []
        return self.standing.waits


def waits_for_actors_alone(standing: Standing) -> bool:
    """Whether all that an actor waits for are outcomes of others."""
    if standing.wake is not None or standing.timers or not standing.waits:
        return False
    return all(wait.kind in OUTCOMES and wait.target is not None for wait in standing.waits)


def targets_of(stand: Stand) -> list[ActorId]:
    """Whose outcomes it waits for."""
    return [ActorId(*wait.target) for wait in stand.waits if wait.target is not None]


def deadlock(asker: ActorId, stands: Mapping[ActorId, Stand]) -> list[ActorId]:
    """The chain of waiting from an actor back to itself, each waiting for the next; empty if it may still go on.

    `stands` are all actors that can be reached from it by waiting.
    """
    stuck = {actor for actor, stand in stands.items() if stand.waits}
    while free := {actor for actor in stuck if not all(_cannot_answer(wait, stuck, stands) for wait in stands[actor].waits)}:
        stuck -= free
    return _chain(asker, stuck, stands) if asker in stuck else []


def _cannot_answer(wait: Wait, stuck: set[ActorId], stands: Mapping[ActorId, Stand]) -> bool:
    assert wait.target is not None
    target = ActorId(*wait.target)
    if target not in stuck:
        return False
    return wait.kind == "result" or stands[target].standing.holds  # with a free slot, an ask is handled whatever else waits


def _chain(asker: ActorId, stuck: set[ActorId], stands: Mapping[ActorId, Stand]) -> list[ActorId]:
    """The shortest way of waiting from an actor back to itself."""
    reached_from: dict[ActorId, ActorId] = {}
    frontier = [asker]
    while frontier:
        at = frontier.pop(0)
        for target in targets_of(stands[at]):
            if target == asker:
                return [*_path(asker, at, reached_from), asker]
            if target in stuck and target not in reached_from:
                reached_from[target] = at
                frontier.append(target)
    return []


def _path(start: ActorId, end: ActorId, reached_from: Mapping[ActorId, ActorId]) -> list[ActorId]:
    path = [end]
    while path[-1] != start:
        path.append(reached_from[path[-1]])
    return path[::-1]

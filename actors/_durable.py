"""What an actor's code may ask about itself: plain functions that find the running turn by a context variable, and work nowhere else."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from ._ids import ActorId, actor_id
from ._ref import ActorRef
from ._turn import Turn, current_turn

if TYPE_CHECKING:
    import uuid

A = TypeVar("A")

LOGGER: Final = logging.getLogger("perdure.actor")


@final
class CurrentActor:
    """What actor code may know about itself: of the turn it was asked in."""

    __module__ = "perdure.actors"
    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def __repr__(self) -> str:
        return f"<CurrentActor {self.id} seq {self.seq}>"

    @property
    def id(self) -> ActorId:
        """The address: type and key."""
        return self._turn.actor

    @property
    def key(self) -> str:
        """The key."""
        return self._turn.actor.key

    @property
    def seq(self) -> int:
        """The number of the message in the mailbox; 0 in a query."""
        return self._turn.seq

    @property
    def attempt(self) -> int:
        """1 for the first attempt at this message, one more for each that failed or was interrupted by a crash."""
        return self._turn.attempt

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the host was given as `resources`."""
        return self._turn.surroundings.resources

    @property
    def random(self) -> random.Random:
        """A random generator that draws the same when the turn is run again."""
        return self._turn.random

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry `actor` and `seq`."""
        return logging.LoggerAdapter(LOGGER, {"actor": str(self._turn.actor), "seq": self._turn.seq})

    def now(self) -> datetime:
        """The time of this turn, in UTC; the same for the whole turn."""
        return datetime.fromtimestamp(self._turn.time, UTC)

    def uuid4(self) -> uuid.UUID:
        """A random UUID (RFC 9562, version 4) that is the same when the turn is run again."""
        import uuid  # two milliseconds that most programs need not pay

        return uuid.UUID(int=self._turn.random.getrandbits(128), version=4)

    def ref(self, actor: type[A], key: str) -> ActorRef[A]:
        """A reference to any actor of a type that the host serves. Raises UnknownActorType, KeyTooLong, InvalidKey."""
        definition = self._turn.surroundings.registry.of(actor)
        return ActorRef(actor_id(definition.name, key))


def current_actor() -> CurrentActor:
    """The actor whose code is running: its id, key, seq, attempt, logger, time and randomness. Raises NotInActor elsewhere."""
    return CurrentActor(current_turn("current_actor()"))

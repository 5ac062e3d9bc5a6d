"""Looking for deadlocks beside the turns.

It looks whenever an actor begins to wait for one that may not be able to answer, or has nothing else left to wait for.
In memory or not, the actors that it waits for are followed; if the way leads back, one of the waits ends with ActorDeadlock as its reply.
While one of them has messages to take, which may free it, nothing is certain: it looks again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final, final

from ..storage import settle
from ._deadlock import Stand, deadlock, targets_of
from ._dispatch import Dispatcher
from ._envelope import Awaiter
from ._epoch import Epoch
from ._failure import Failure
from ._ids import ActorId
from ._outcome_errors import ActorDeadlock
from ._persistence import Stored, read_actors
from ._records import NOTHING, Raised, Status

DOUBT: Final = 0.01  # seconds until whoever may be stuck is looked at again
FOLLOWED_AT_MOST: Final = 10_000  # actors: a longer chain is left alone


@final
class Suspicion:
    """The actors of one epoch that may be stuck."""

    __slots__ = ("_bell", "_dispatcher", "_epoch", "_idle", "_suspects")

    def __init__(self, epoch: Epoch, dispatcher: Dispatcher) -> None:
        self._epoch = epoch
        self._dispatcher = dispatcher
        self._suspects: deque[ActorId] = deque()
        self._bell: asyncio.Future[None] | None = None
        self._idle: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<Suspicion of {len(self._suspects)} actors>"

    @property
    def idle(self) -> bool:
        """Whether nobody is suspected."""
        return not self._suspects

    async def settled(self) -> None:
        """Return once nobody is suspected."""
        if self._suspects:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def suspect(self, asker: ActorId) -> None:
        """The actor has begun to wait for another one that may not be able to answer."""
        self._suspects.append(asker)
        if self._bell is not None:
            settle(self._bell, None)

    async def run(self) -> None:
        """Look after whoever is suspected, until cancelled."""
        while True:
            while self._suspects:
                if await self._look_after(self._suspects[0]):
                    self._suspects.rotate(-1)
                    await asyncio.sleep(DOUBT)
                else:
                    self._suspects.popleft()
            waiters, self._idle = self._idle, []
            for waiter in waiters:
                settle(waiter, None)
            self._bell = asyncio.get_running_loop().create_future()
            await self._bell

    async def _look_after(self, asker: ActorId) -> bool:
        """Returns whether it has to be looked at again: it is stuck if nothing comes of messages that somebody has yet to take."""
        stands: dict[ActorId, Stand] = {}
        wanted = [asker]
        while wanted and len(stands) < FOLLOWED_AT_MOST:
            stands.update(await self._stands(wanted))
            # Also beyond those with messages: what they have not taken may turn out to be nothing to them.
            wanted = [target for actor in wanted for target in targets_of(_undisturbed(stands[actor])) if target not in stands]
        if wanted or not deadlock(asker, stands):
            return not wanted and _may_be_stuck(asker, stands)
        stands = await self._stands(list(stands))  # once more, all of one moment
        chain = deadlock(asker, stands)
        if chain:
            wait = next(wait for wait in stands[asker].waits if wait.target == chain[1])
            error = ActorDeadlock(str(actor) for actor in chain)
            awaiter = Awaiter(asker=(asker.type, asker.key, wait.request))
            self._dispatcher.settlement.books.telling.tell(asker, awaiter, Raised(Failure.of(error)))
        return not chain and _may_be_stuck(asker, stands)

    async def _stands(self, actors: list[ActorId]) -> dict[ActorId, Stand]:
        passive = [actor for actor in actors if self._dispatcher.active(actor) is None]
        found = await read_actors(self._epoch.commit.overlay, passive) if passive else []
        stands = {actor: self._stand_of_passive(actor, stored) for actor, stored in zip(passive, found, strict=True)}
        return {actor: self._stand_of_active(actor) or stands[actor] for actor in actors}

    def _stand_of_passive(self, actor: ActorId, stored: object) -> Stand:
        if not isinstance(stored, Stored) or stored.snapshot is None or stored.quarantine is not None:
            return Stand(Status.IDLE, NOTHING, has_messages=False)
        snapshot = stored.snapshot
        return Stand(snapshot.status, snapshot.standing or NOTHING, has_messages=self._dispatcher.has_messages(actor))

    def _stand_of_active(self, actor: ActorId) -> Stand | None:
        activation = self._dispatcher.active(actor)
        if activation is None:
            return None
        has_messages = bool(activation.arrivals) or (activation.mailbox is not None and len(activation.mailbox.interrupts) > 0)
        return Stand(activation.status, activation.standing, has_messages)


def _may_be_stuck(asker: ActorId, stands: Mapping[ActorId, Stand]) -> bool:
    """Whether it is, should nothing come of the messages that have not been taken yet."""
    return bool(deadlock(asker, {actor: _undisturbed(stand) for actor, stand in stands.items()}))


def _undisturbed(stand: Stand) -> Stand:
    return stand._replace(has_messages=False)

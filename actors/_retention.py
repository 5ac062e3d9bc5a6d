"""Retention: actors that have ended are forgotten when their time has passed, with all that is their own.

Their idempotency keys outlive them, until they expire: a message sent again is not handled again because its actor is gone.
"""

from __future__ import annotations

import logging
from typing import Final, final

from ._activation import Delivery
from ._dispatch import Dispatcher
from ._envelope import Envelope, Kind
from ._epoch import Epoch
from ._errors import UnknownActorType
from ._ids import ActorId, MessageId
from ._persistence import Table, read_due

AT_ONCE: Final = 64  # actors that are forgotten with one batch: each adds a dozen ranges to it, which every read looks through

logger = logging.getLogger("perdure.actors")


@final
class Retention:
    """Forgets the actors of one epoch whose retention has passed."""

    __slots__ = ("_dispatcher", "_epoch", "_unserved")

    def __init__(self, epoch: Epoch, dispatcher: Dispatcher) -> None:
        self._epoch = epoch
        self._dispatcher = dispatcher
        self._unserved: set[str] = set()

    def __repr__(self) -> str:
        return f"<Retention of {self._dispatcher!r}>"

    async def sweep(self) -> None:
        """Forget all whose time has passed by now; returns when the last of them is under way."""
        now, place = self._epoch.clock.now(), b""
        while True:
            rows = await read_due(self._epoch.commit.overlay, Table.RETENTION, place, AT_ONCE)
            for due, actor, _ in rows:
                if due > now:
                    return
                self._retire(actor, due, now)
            if len(rows) < AT_ONCE:
                return
            place = rows[-1][2]
            await self._epoch.commit.settled()
            await self._dispatcher.room()

    def _retire(self, actor: ActorId, due: float, now: float) -> None:
        message = MessageId(self._epoch.entropy.token())
        envelope = Envelope(id=message, kind=Kind.RETIRE, name="retire", payload=b"", sent_at=now, due=due)
        try:
            self._dispatcher.deliver(actor, Delivery(envelope))
        except UnknownActorType as unknown:
            if actor.type not in self._unserved:
                self._unserved.add(actor.type)
                logger.warning("the retention of %s has passed, and it is kept: %s", actor, unknown)

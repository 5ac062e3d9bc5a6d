"""Messages from other processes: taken from the store's inbox into mailboxes, in order, each exactly once.

The batch that holds a message also says that its offer was accepted, so that a crash loses neither and repeats neither.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import final

from ..storage import Offer, Store, StoreFull
from ._activation import Delivery
from ._dispatch import Dispatcher
from ._envelope import damaged_envelope
from ._epoch import Epoch
from ._errors import InvalidKey, KeyTooLong
from ._ids import ActorId, actor_id
from ._records import ARRIVAL_ROW, DamagedRecord
from ._recovery import deliver_or_bury


@final
class Intake:
    """Drains the inbox of one epoch."""

    __slots__ = ("_dispatcher", "_epoch", "_store")

    def __init__(self, store: Store, epoch: Epoch, dispatcher: Dispatcher) -> None:
        self._store = store
        self._epoch = epoch
        self._dispatcher = dispatcher

    async def run(self, drained: Callable[[], None]) -> None:
        """Take what comes, until cancelled; `drained` is called when all that was offered before the start is in the mailboxes."""
        first = True
        async with aclosing(self._store.watch(self._epoch.fence)) as watch:  # type: ignore[type-var]
            async for offers in watch:
                self._take(offers)
                if first:
                    first = False
                    drained()
                while self._epoch.commit.saturated:
                    with suppress(StoreFull):  # what was offered is safe where it is, until the disk has room again
                        await self._epoch.commit.space()

    def _take(self, offers: list[Offer]) -> None:
        for offer in offers:
            try:
                row = ARRIVAL_ROW.unpack(offer.payload)
                actor = actor_id(row.type, row.key)
            except (DamagedRecord, KeyTooLong, InvalidKey) as damage:
                self._dispatcher.settlement.books.telling.bury(
                    ActorId("(inbox)", f"offer {offer.number}"), damaged_envelope(offer.payload), damage
                )
            else:
                deliver_or_bury(self._epoch, self._dispatcher, actor, Delivery(row.envelope))
        if offers:
            self._epoch.commit.batch.accept(offers[-1].number)
            self._epoch.commit.stage()

"""Messages from other processes: taken from the store's inbox into mailboxes, in order, each exactly once.

The batch that holds a message also says that its offer was accepted, so that a crash loses neither and repeats neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import final

import msgspec

from ..storage import Offer, Store, StoreFull
from ..tracing import admitted
from ._activation import Delivery
from ._define import MAX_NAME_BYTES
from ._dispatch import Dispatcher
from ._envelope import Envelope, Kind, damaged_envelope, what_no_client_sends
from ._epoch import Epoch
from ._errors import InvalidKey, KeyTooLong
from ._ids import ActorId, actor_id
from ._letters import drop_unserved
from ._persistence import read_dead_letters
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
        async with aclosing(self._store.watch(self._epoch.fence)) as watch:  # type: ignore[type-var]
            async for offers in watch:
                if not offers:
                    drained()
                await self._take(offers)
                await asyncio.sleep(0)  # however much was offered, turns go on
                while self._epoch.commit.saturated:
                    with suppress(StoreFull):  # what was offered is safe where it is, until the disk has room again
                        await self._epoch.commit.space()

    async def _take(self, offers: list[Offer]) -> None:
        opened = [_opened(offer) for offer in offers]
        unserved = {actor for actor, envelope, _ in opened if self._drops_unserved(actor, envelope)}
        letters = {actor: await read_dead_letters(self._epoch.commit.overlay, actor) for actor in unserved}
        telling = self._dispatcher.settlement.books.telling
        for actor, envelope, damage in opened:  # nothing is awaited from here on: what is taken, and that it is, are one batch
            if damage is not None:
                telling.bury(actor, envelope, damage)
            elif self._drops_unserved(actor, envelope):
                drop_unserved(self._epoch, telling, actor, envelope, letters[actor])
            else:
                deliver_or_bury(self._epoch, self._dispatcher, actor, Delivery(envelope))
        if offers:
            self._epoch.commit.batch.accept(offers[-1].number)
            self._epoch.commit.stage()

    def _drops_unserved(self, actor: ActorId, envelope: Envelope) -> bool:
        return envelope.kind is Kind.DROP and not self._epoch.registry.serves(actor.type)


def _opened(offer: Offer) -> tuple[ActorId, Envelope, Exception | None]:
    """For whom an offer is, and what; or what is wrong with it."""
    try:
        row = ARRIVAL_ROW.unpack(offer.payload)
        if (what := what_no_client_sends(row.envelope)) is not None:
            raise DamagedRecord(what)
        if len(row.type.encode()) > MAX_NAME_BYTES:
            raise DamagedRecord("the name of the type that it is for is longer than any")
        return actor_id(row.type, row.key), _with_fit_headers(row.envelope), None
    except (DamagedRecord, KeyTooLong, InvalidKey) as damage:
        return ActorId("(inbox)", f"offer {offer.number}"), damaged_envelope(offer.payload), damage


def _with_fit_headers(envelope: Envelope) -> Envelope:
    """All that follows from a message carries its headers, and is stored with them: megabytes of them would be, again and again."""
    headers = admitted(envelope.headers)
    return envelope if headers == envelope.headers else msgspec.structs.replace(envelope, headers=headers)

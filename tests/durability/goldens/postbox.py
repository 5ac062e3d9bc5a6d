"""A port into a store that no host has open: what is sent and asked stands in its inbox, as a client that died at once would leave it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Final, final

from perdure.actors import ActorId
from perdure.actors._ids import MessageId
from perdure.actors._info import ActorInfo, DeadLetterInfo
from perdure.actors._persistence import PARTITION
from perdure.actors._query import read_dead_letter_info
from perdure.actors._records import ARRIVAL_ROW, ArrivalRow, Outcome, StreamRow
from perdure.actors._ref import Request
from perdure.actors._registry import Registry
from perdure.actors.testing._chance import SeededEntropy
from perdure.storage import Store

CLIENT: Final = bytes(range(16))


class Offered(Exception):
    """Whoever asked does not wait for the answer."""


@final
class Postbox:
    """It has ids of a seed of its own, and the time that it is given."""

    def __init__(self, store: Store, registry: Registry, seed: int, time: float) -> None:
        self._store = store
        self._registry = registry
        self._entropy = SeededEntropy(seed)
        self._time = time
        self._asked = seed * 1_000

    @property
    def registry(self) -> Registry:
        """The types that can be reached."""
        return self._registry

    async def send(self, request: Request) -> None:
        """As `Port.send`."""
        await self._offer(request, None)

    async def ask(self, request: Request) -> Outcome:
        """Offer it, and raise Offered."""
        self._asked += 1
        await self._offer(request, (CLIENT, self._asked))
        raise Offered

    async def query(self, request: Request) -> Outcome:
        """Nobody is there who could answer."""
        raise Offered

    async def info(self, target: ActorId) -> ActorInfo:
        """As `query`."""
        raise Offered

    def stream(self, target: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """As `query`."""
        raise Offered

    async def dead_letter(self, target: ActorId, seq: int) -> DeadLetterInfo:
        """As `Port.dead_letter`."""
        return await read_dead_letter_info(self._store, target, seq)

    async def _offer(self, request: Request, reply_to: tuple[bytes, int] | None) -> None:
        message = MessageId(self._entropy.token())
        envelope = request.envelope(message, self._time, {"traceparent": "00-1-1-01"}, ask=reply_to is not None, reply_to=reply_to)
        await self._store.offer(PARTITION, ARRIVAL_ROW.pack(ArrivalRow(*request.target, envelope)))


async def offer(*asked: Awaitable[object]) -> None:
    """Ask for all this, and do not wait for the answers."""
    for each in asked:
        with suppress(Offered):
            await each

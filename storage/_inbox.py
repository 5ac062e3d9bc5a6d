"""The inbox: an LMDB environment of its own, into which any process puts offers.

A client that is stopped inside a write transaction holds that environment's write lock and nothing else: the host reads without a lock, and
trims on a thread that nobody waits for. An offer and the counter are written together, and the counter never goes back; how far the
owner has come is in the store's main environment, in the batch that accepts. So a gap, or a counter behind that position, is damage.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, final

from ._commit import fresh
from ._environment import Environment, Transaction
from ._errors import StoreClosed, StoreCorrupt, StoreError
from ._format import COUNTER_KEY, ENTRY_KEY, META_KEY, NUMBER, check_meta, numbered
from ._protocol import Offer
from ._writer import Staged, Writer, finish

TRIM_DELAY: Final = 0.25  # seconds; each trim costs a sync of the disk that commits want as well
TRIM_AT_ONCE: Final = 10_000  # entries in one transaction, during which nobody else can offer
PAGE: Final = 1_000  # offers handed out at once: some 10 ms of the host's time
PAGE_BYTES: Final = 8 << 20  # and no more of them than this, but one
CLOSE_PATIENCE: Final = 1.0  # seconds that closing waits for the write lock, which a stopped process may hold

log: Final = logging.getLogger("perdure.storage")


class _Pending(NamedTuple):
    partition: int
    payload: bytes
    outcome: asyncio.Future[int]


@final
class Inbox:
    """One process's end of the inbox. `ring` is called, on the writer's thread, when offers have become durable."""

    def __init__(self, environment: Environment, ring: Callable[[], None]) -> None:
        self.id = check_meta(environment.path, environment.read([META_KEY])[0], "inbox")
        self.offered = 0  # by this process
        self._environment = environment
        self._ring = ring
        self._writer = Writer("perdure-inbox", environment.check_readers)
        self._pending: list[_Pending] = []
        self._unsettled: set[asyncio.Future[int]] = set()
        self._taking = threading.Lock()
        self._trimming: dict[int, int] = {}  # partition: up to which number
        self._trim_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Inbox {self.id} at {self._environment.path}: {len(self._pending)} pending, {self.offered} offered>"

    async def offer(self, partition: int, payload: bytes) -> int:
        """Put bytes in; returns their number once they are durable. All that wait while one transaction is written go into the next."""
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._unsettled.add(outcome)
        outcome.add_done_callback(self._unsettled.discard)
        with self._taking:
            self._pending.append(_Pending(partition, payload, outcome))
            first = len(self._pending) == 1
        if first:
            group: list[_Pending] = []  # filled when the thread comes to it
            written = self._writer.post(lambda staged: self._write_pending(group, staged), patience=0)
            written.add_done_callback(lambda numbers: _settle_group(group, numbers))
        return await outcome

    def newest(self, partition: int) -> int:
        """The number of the last offer."""
        return _number(self._environment.read([numbered(COUNTER_KEY, partition)])[0])

    def after(self, partition: int, position: int) -> list[Offer]:
        """The first offers beyond a position, in order. Raises `StoreCorrupt` where one is missing."""
        counter, offers, whole = self._environment.view(lambda transaction: offers_after(transaction, partition, position))
        last = position + len(offers)
        if [offer.number for offer in offers] != list(range(position + 1, last + 1)) or counter < last or (whole and counter > last):
            found = f"{len(offers)} offers and a counter at {counter}"
            what = f"its inbox does not go on from {position}: it has {found}"
            remedy = "A copy of a store is opened only after a restore."
            raise StoreCorrupt(self._environment.path, what, remedy)
        return offers

    def trim_later(self, partition: int, position: int) -> None:
        """Delete the offers up to a durable position, some time."""
        self._trimming[partition] = position
        if self._trim_timer is None:
            self._trim_timer = asyncio.get_running_loop().call_later(TRIM_DELAY, self._trim)

    async def close(self) -> bool:
        """End once all that was offered is durable; False if a stopped process holds the write lock, and the thread is left behind."""
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        rested = await self._writer.rest(CLOSE_PATIENCE)
        for outcome in tuple(self._unsettled):
            finish(outcome, None, StoreClosed(self._environment.path, "it was closed before the offer was durable"))
        return rested

    def _write_pending(self, group: list[_Pending], staged: Staged) -> list[int]:
        with self._taking:
            group += self._pending
            self._pending.clear()
        self._environment.check_lock()
        numbers = self._environment.write(lambda transaction: _put(transaction, group), staged)
        self.offered += len(numbers)
        self._ring()
        return numbers

    def _trim(self) -> None:
        self._trim_timer = None
        work, self._trimming = self._trimming, {}
        for partition, position in work.items():
            trimmed = self._writer.post(partial(self._delete, partition, position), patience=0)
            trimmed.add_done_callback(_note_failure)

    def _delete(self, partition: int, position: int, staged: Staged) -> None:
        self._environment.check_lock()
        while self._environment.write(lambda transaction: _delete_some(transaction, partition, position), staged) == TRIM_AT_ONCE:
            pass


def entry_key(partition: int, number: int) -> bytes:
    """Where an offer is kept."""
    return numbered(ENTRY_KEY, partition) + NUMBER.pack(number)


def offers_after(transaction: Transaction, partition: int, position: int) -> tuple[int, list[Offer], bool]:
    """(the counter, a page of the offers beyond a position, whether there are no more)."""
    counter = _number(transaction.get(numbered(COUNTER_KEY, partition)))
    offers: list[Offer] = []
    size = 0
    prefix = numbered(ENTRY_KEY, partition)
    with transaction.cursor() as cursor:
        found = cursor.set_range(entry_key(partition, position + 1))
        while found and cursor.key().startswith(prefix):
            if len(offers) == PAGE or size >= PAGE_BYTES:
                return counter, offers, False
            offers.append(Offer(_number(cursor.key()[len(prefix) :]), cursor.value()))
            size += len(offers[-1].payload)
            found = cursor.next()
    return counter, offers, True


def _put(transaction: Transaction, group: list[_Pending]) -> list[int]:
    counters: dict[int, int] = {}
    numbers: list[int] = []
    for pending in group:
        partition = pending.partition
        if partition not in counters:
            counters[partition] = _number(transaction.get(numbered(COUNTER_KEY, partition)))
        counters[partition] += 1
        numbers.append(counters[partition])
        transaction.put(entry_key(partition, counters[partition]), pending.payload)
    for partition, counter in counters.items():
        transaction.put(numbered(COUNTER_KEY, partition), NUMBER.pack(counter))
    return numbers


def _delete_some(transaction: Transaction, partition: int, position: int) -> int:
    deleted = 0
    stop = entry_key(partition, position + 1)
    with transaction.cursor() as cursor:
        found = cursor.set_range(entry_key(partition, 0))
        while found and deleted < TRIM_AT_ONCE and cursor.key() < stop:
            found = cursor.delete()  # and stands on the next
            deleted += 1
    return deleted


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _settle_group(group: list[_Pending], written: asyncio.Future[list[int]]) -> None:
    error = written.exception()
    numbers: list[int] | list[None] = [None] * len(group) if error else written.result()
    for pending, number in zip(group, numbers, strict=True):
        finish(pending.outcome, number, fresh(error) if error else None)


def _note_failure(outcome: asyncio.Future[None]) -> None:
    """Trimming is nobody's wait: what it leaves is trimmed next time."""
    if not outcome.cancelled() and isinstance(error := outcome.exception(), StoreError):
        log.warning("the inbox was not trimmed: %s", error)

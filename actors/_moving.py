"""Moving actors from one store to another: what was acknowledged travels, and an actor arrives whole or not at all.

Whoever moves actors owns the store meanwhile, so that what is written down is one moment of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, closing
from typing import BinaryIO, Final, NamedTuple, final

import anyio
import msgspec

from ..storage import Batch, Fence, PerdureError, Store, StoreFull, open_store
from ._archive import ArchiveWriter, Charged, Row, TypeEntry, Whole, read_archive
from ._breadcrumb import BreadcrumbFile
from ._clock import SystemClock
from ._errors import ActorNotFound, UnknownActorType
from ._ids import ActorId, actor_id
from ._persistence import (
    PARTITION,
    Reads,
    Table,
    arrival_key,
    put_charge,
    put_registry_entry,
    read_charges,
    read_registered,
    scan_arrivals,
)
from ._records import ARRIVAL_ROW, ArrivalRow, DamagedRecord
from ._recovery import read_and_charge, read_and_charge_requests
from ._rows import Arrivals, put_row, rows_of, scan_rows, tables_in_use

BATCH_BYTES: Final = 1 << 20  # that become durable together, but for an actor that is larger
NAMED: Final = 10  # actors that an error names

logger = logging.getLogger("perdure.actors")


@final
class ActorsExist(PerdureError):
    """Actors of an export are in the store already, and otherwise: `count` of them, of which `actors` are the first."""

    __module__ = "perdure.actors"

    def __init__(self, store: str, actors: Iterable[str], count: int) -> None:
        self.store = store
        self.actors = tuple(actors)
        self.count = count
        super().__init__(store, self.actors, count)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.actors):,} more" if self.count > len(self.actors) else ""
        return (
            f"{self.store}: it has {', '.join(self.actors)}{more} already, and not as they are in the export. Nothing was imported:"
            f" import into a new store, or end what is there first with ref.delete()."
        )


class Moved(NamedTuple):
    """What was moved: `actors` with their `rows`. Of an import, `present` were there already, as they are in the file.

    `size` is that of the file, in bytes.
    """

    actors: int
    rows: int
    present: int
    size: int


Moved.__module__ = "perdure.actors"


async def export_actors(store: str | Store, file: BinaryIO, type_name: str | None = None, key: str | None = None) -> Moved:
    """Write actors into a file, open for writing bytes: all of a store, those of a type, or one. The store keeps them.

    Everything of them is in it: state, mailbox, what they wait for, timers, children, idempotency keys, streams, dead letters, and every
    message that was acknowledged before the export began. An actor comes without its parent, its children, and whomever else it waits for,
    unless they are exported too: what it waits for does not come where they are not. Do not host it in both places afterwards.

    It needs the store for itself: raises StoreLocked while a host runs; `backup` it then, `restore` that, and export from
    there. Raises UnknownActorType; ActorNotFound for one that is not there. `store` as an object must not be that of a running Runtime.
    """
    whose = () if type_name is None else (type_name,) if key is None else actor_id(type_name, key)
    async with _owned(store, create=False) as (opened, fence):
        await _charge_for_crash(opened, fence)
        with closing(Arrivals()) as arrivals:
            await _find_arrivals(arrivals, opened, fence, whose)
            return await _export(opened, file, arrivals, whose)


async def import_actors(store: str | Store, file: BinaryIO) -> Moved:
    """Bring the actors of an export into a store, which is made if there is none. `file` is open for reading bytes, and can seek.

    Each actor is there whole or not at all. What was broken off is done by importing the same file again: actors that are there as they
    are in the file count as done. Raises ExportUnreadable for a file that is damaged, cut short or from a later release, and ActorsExist if
    the store has other actors of the same addresses; then nothing at all is imported. Raises StoreLocked while a host runs.
    """
    for _ in read_archive(file):  # all of it, before anything is written
        pass
    async with _owned(store, create=True) as (opened, fence):
        target = await _Target.of(opened, fence)
        await target.check(file)
        if str(opened).startswith("lmdb:") and not target.has_requests:
            _breadcrumbs(opened, fence).close()  # what comes is charged: that there is no file does not mean that nobody knows
        return await target.take(file)


@asynccontextmanager
async def _owned(store: str | Store, *, create: bool) -> AsyncIterator[tuple[Store, Fence]]:
    opened = open_store(store, create=create) if isinstance(store, str) else store
    try:
        fence = await opened.own(PARTITION)
        try:
            yield opened, fence
        finally:
            with anyio.CancelScope(shield=True):
                await opened.release(fence)
    finally:
        if isinstance(store, str):
            with anyio.CancelScope(shield=True):
                await opened.close()


# --- out of a store ---


async def _charge_for_crash(store: Store, fence: Fence) -> None:
    """Write down what the last host died in, as the next one would: it does not learn of it where the actors come to."""
    if not str(store).startswith("lmdb:"):
        return
    batch = Batch()
    with closing(_breadcrumbs(store, fence)) as last:
        await read_and_charge(store, batch, last.found(), SystemClock().now())
        await read_and_charge_requests(store, batch, last.found_steps(), is_lost=last.is_lost)
        if batch:
            await store.commit(batch, fence)
        last.leave()
        last.forget_steps()


def _breadcrumbs(store: Store, fence: Fence) -> BreadcrumbFile:
    return BreadcrumbFile(os.path.join(str(store).removeprefix("lmdb:"), "breadcrumbs"), fence.epoch)


async def _export(store: Store, file: BinaryIO, arrivals: Arrivals, whose: tuple[str, ...]) -> Moved:
    from importlib.metadata import version  # 10 ms

    rows = scan_rows(store, arrivals, *whose)
    first = await anext(rows, None)
    if first is None:
        await _explain_absence(store, whose)
    writer = ArchiveWriter(file, version("perdure"))
    for name, number, entry in await read_registered(store):
        if not whose or name == whose[0]:
            writer.add(TypeEntry(name, number, entry))
    for charge in await read_charges(store):
        writer.add(Charged(msgspec.structs.replace(charge, epoch=0)))  # epochs of another store mean nothing there
    if first is not None:
        writer.add_row(*first)
    async for actor, row in rows:
        writer.add_row(actor, row)
    writer.close()
    return Moved(writer.actors, writer.rows, 0, writer.size)


async def _explain_absence(reads: Reads, whose: tuple[str, ...]) -> None:
    known = dict.fromkeys(name for name, _, _ in await read_registered(reads))
    if whose and whose[0] not in known:
        raise UnknownActorType(whose[0], known)
    if len(whose) > 1:
        raise ActorNotFound(ActorId(*whose))


async def _find_arrivals(arrivals: Arrivals, store: Store, fence: Fence, whose: tuple[str, ...]) -> None:
    """What the last host accepted for actors that were not in memory, then what other processes have offered since."""
    async for entry, row in scan_arrivals(store):
        _keep(arrivals, row, entry.value, whose)
    async with aclosing(store.watch(fence)) as watch:  # type: ignore[type-var]
        async for offers in watch:
            if not offers:
                break
            for offer in offers:  # none is accepted: they stay in the inbox
                _keep(arrivals, ARRIVAL_ROW.read(offer.payload), offer.payload, whose)


def _keep(arrivals: Arrivals, row: ArrivalRow | DamagedRecord, raw: bytes, whose: tuple[str, ...]) -> None:
    if isinstance(row, DamagedRecord):
        logger.error("a message is not exported, since nobody knows whose it is: %s. The next host puts it into the dead letters", row)
    elif (row.type, row.key)[: len(whose)] == whose:
        arrivals.add(ActorId(row.type, row.key), raw)


# --- into a store ---


@final
class _Target:
    """The store that actors come to, owned."""

    def __init__(
        self, store: Store, fence: Fence, tables: list[Table], arrived: dict[ActorId, list[Row]], registered: set[tuple[str, int]]
    ) -> None:
        self._store = store
        self._fence = fence
        self._tables = tables  # in which there may be something of an actor that comes
        self._arrived = arrived
        self._registered = registered
        self._batch = Batch()
        self._is_roomy = True
        self._arrivals = 0

    @classmethod
    async def of(cls, store: Store, fence: Fence) -> _Target:
        """A target with what it has now."""
        arrived: dict[ActorId, list[Row]] = {}
        async for entry, row in scan_arrivals(store):
            if isinstance(row, ArrivalRow):
                arrived.setdefault(ActorId(row.type, row.key), []).append(_digested(Row(Table.ARRIVAL, b"", entry.value)))
        registered = {(name, number) for name, number, _ in await read_registered(store)}
        return cls(store, fence, await tables_in_use(store), arrived, registered)

    @property
    def has_requests(self) -> bool:
        """Whether actors that were there have asked for anything."""
        return Table.REQUEST in self._tables

    async def check(self, file: BinaryIO) -> None:
        """Raise ActorsExist if one is there otherwise than in the file."""
        if not (self._tables or self._arrived):
            return
        others: list[str] = []
        count = 0
        for each in read_archive(file):
            if isinstance(each, Whole) and await self._has(each) is None:
                count += 1
                others += [str(each.actor)] * (count <= NAMED)
        if others:
            raise ActorsExist(str(self._store), others, count)

    async def take(self, file: BinaryIO) -> Moved:
        """Write what is not there."""
        actors = rows = present = 0
        for each in read_archive(file):
            match each:
                case Whole(_, brought):
                    if await self._has(each):
                        present += 1
                        continue
                    self._put(each)
                    actors += 1
                    rows += len(brought)
                case TypeEntry():
                    self._put_type(each)
                case Charged():
                    put_charge(self._batch, each.charge)
            if self._batch.size >= BATCH_BYTES:
                await self._commit()
        if self._batch:
            await self._commit()
        return Moved(actors, rows, present, file.tell())

    async def _has(self, whole: Whole) -> bool | None:
        """Whether it is there as it is in the file; None if it is there otherwise."""
        found = await rows_of(self._store, whole.actor, self._tables) + self._arrived.get(whole.actor, [])
        if not found:
            return False
        return True if _in_order(found) == _in_order(map(_digested, whole.rows)) else None

    def _put(self, whole: Whole) -> None:
        for row in whole.rows:
            if row.table == Table.ARRIVAL:
                self._arrivals += 1
                self._batch.put(arrival_key(self._fence.epoch, self._arrivals), row.value)
            else:
                put_row(self._batch, whole.actor, row)

    def _put_type(self, entry: TypeEntry) -> None:
        """What a host here knows of its types is nearer than what comes."""
        if (entry.name, entry.version) not in self._registered:
            put_registry_entry(self._batch, entry.name, entry.version, entry.entry)

    async def _commit(self) -> None:
        if not self._is_roomy:
            raise StoreFull(str(self._store))  # the reserve is not for this
        self._is_roomy = await self._store.commit(self._batch, self._fence)
        self._batch = Batch()


def _digested(row: Row) -> Row:
    """A row as it is compared: those of all arrivals of a store are in memory."""
    return Row(row.table, row.tail, hashlib.blake2b(row.value).digest()) if row.table == Table.ARRIVAL else row


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """By table; within one they are in order."""
    return sorted(rows, key=lambda row: row.table)

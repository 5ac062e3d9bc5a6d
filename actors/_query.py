"""Reading actors: queries, infos and listings, none of which changes anything or lets out what is not durable yet.

An actor in memory is read between two turns. One that is not is read from its snapshot, on an instance that is thrown away: reading brings
nobody into memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, final

from ..storage import StoreCorrupt
from ._activation import Activation, new_instance, quarantined
from ._define import Definition
from ._dispatch import Dispatcher
from ._epoch import Epoch
from ._errors import ActorNotFound, ActorQuarantined, DeadLetterNotFound, QueryChangedState
from ._failure import Failure
from ._ids import ActorId, Incarnation, actor_id
from ._info import ActorInfo, DeadLetterInfo, dead_letter_info, info_of
from ._persistence import (
    Reads,
    Stored,
    read_actors,
    read_children,
    read_dead_letters,
    read_depths,
    scan_actors,
    scan_dead_letters,
)
from ._records import DamagedRecord, Outcome, Raised, Snapshot, Status, StreamRow, Value
from ._ref import Request
from ._streaming import read_on
from ._taking import run_query
from ._turn import Turn
from ._upgrades import seen_today

NOBODY = Incarnation(b"")


@final
class Reader:
    """Answers what is asked about the actors of one epoch."""

    __slots__ = ("_dispatcher", "_epoch", "_queries")

    def __init__(self, epoch: Epoch, dispatcher: Dispatcher) -> None:
        self._epoch = epoch
        self._dispatcher = dispatcher
        self._queries = 0

    async def query(self, request: Request) -> Outcome:
        """What the query returned or raised, once all that it has read is durable. Raises ActorQuarantined."""
        activation = self._dispatcher.active(request.target)
        try:
            if activation is not None:
                return self._query_active(activation, request)
            return await self._query_passive(request)
        finally:
            await (self._epoch.commit.settled() if activation is None else activation.gate.wait())

    async def info(self, actor: ActorId) -> ActorInfo:
        """What is known of the actor, all of it durable. Raises ActorNotFound."""
        self._epoch.registry.require(actor.type)
        activation = self._dispatcher.active(actor)
        if activation is None:
            try:
                return await read_info(self._epoch.commit.overlay, actor)
            finally:
                await self._epoch.commit.settled()  # also that there is none may be news
        info, gate = _info_of_active(activation), activation.gate
        await gate.wait()
        if info is None:
            raise ActorNotFound(actor)
        return info

    async def stream(self, actor: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """The items of the actor's stream behind a position, as they become durable. Raises DataLoss."""
        self._epoch.registry.require(actor.type)
        news = self._epoch.news_of(actor)

        async def more() -> None:
            nonlocal news
            await news
            news = self._epoch.news_of(actor)

        self._dispatcher.stage(self._epoch.commit.batch)
        try:
            async for item in read_on(self._epoch.commit.overlay, actor, after, self._epoch.commit.settled, more):
                yield item
        finally:
            self._epoch.forget_reader(actor, news)

    async def actors(self, type_name: str | None, status: Status | None, prefix: str) -> AsyncIterator[ActorInfo]:
        """The infos of all actors that fit, in order of (type, key)."""
        self._dispatcher.stage(self._epoch.commit.batch)
        await self._epoch.commit.settled()
        async for info in scan_infos(self._epoch.commit.overlay, type_name, status, prefix):
            await self._epoch.commit.settled()
            yield info

    async def _snapshot(self, actor: ActorId) -> Snapshot | None:
        stored = _readable(actor, (await read_actors(self._epoch.commit.overlay, [actor]))[0])
        if stored.quarantine is not None:
            raise quarantined(actor, stored.quarantine.failure)
        return stored.snapshot

    async def _query_passive(self, request: Request) -> Outcome:
        return self._query_snapshot(await self._snapshot(request.target), request)

    def _query_snapshot(self, snapshot: Snapshot | None, request: Request) -> Outcome:
        definition, snapshot = seen_today(self._epoch, request.target, snapshot)
        instance = new_instance(definition, request.target, snapshot, self._epoch)
        outcome, _ = self._run(definition, instance, request, snapshot)
        return outcome

    def _query_active(self, activation: Activation, request: Request) -> Outcome:
        if not activation.fitted and activation.status is not Status.SUSPENDED:
            self._dispatcher.upgrades.fit(activation)
        refusal = activation.refusal()
        if refusal is not None:
            raise refusal
        if activation.needs_replay:
            return self._query_snapshot(activation.snapshot, request)
        instance = activation.instance(self._epoch)
        outcome, changed = self._run(activation.definition, instance, request, activation.snapshot)
        if changed:
            activation.forget_instance()
        return outcome

    def _run(self, definition: Definition, instance: object, request: Request, snapshot: Snapshot | None) -> tuple[Outcome, bool]:
        """(outcome, whether the instance may have been changed)."""
        epoch, handler = self._epoch, definition.query(request.name)
        self._queries += 1
        checked = self._queries % epoch.check_queries == 0
        before = definition.encode_state(instance) if checked else b""
        incarnation = NOBODY if snapshot is None else snapshot.incarnation
        turn = Turn(definition, request.target, incarnation, 0, epoch.clock.now(), epoch, read_only=True)
        try:
            arguments, keywords = handler.decode(request.payload, request.form)
            with epoch.spared() as coroutines:
                work = partial(run_query, handler, instance, arguments, keywords, turn, coroutines)
                answer: Any = epoch.watchdog.guard((request.target, request.name), work)
            outcome: Outcome = Value(handler.encode_result(answer, request.form))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever the query raises is its answer
            outcome = Raised(Failure.of(error))
        if checked and definition.encode_state(instance) != before:
            return Raised(Failure.of(QueryChangedState(request.target, request.name))), True
        return outcome, False


def _readable(actor: ActorId, stored: Stored | DamagedRecord) -> Stored:
    if isinstance(stored, DamagedRecord):
        raise ActorQuarantined(actor, str(StoreCorrupt("the store", f"the snapshot of {actor} is damaged: {stored}")))
    return stored


def _info_of_active(activation: Activation) -> ActorInfo | None:
    mailbox = activation.mailbox
    assert mailbox is not None
    error = None if activation.failure is None else activation.failure.text
    if activation.snapshot is None and not len(mailbox) and error is None:
        return None
    children = (activation.children or {}).values()
    return info_of(activation.actor, activation.snapshot, error, len(mailbox.events), len(mailbox.interrupts), children)


async def read_info(reads: Reads, actor: ActorId) -> ActorInfo:
    """An actor's info from its records alone. Raises ActorNotFound."""
    stored = (await read_actors(reads, [actor]))[0]
    try:
        events, interrupts = await read_depths(reads, actor)
    except DamagedRecord as damage:
        return info_of(actor, None, f"a message in its mailbox is damaged: {damage}", 0, 0)
    if isinstance(stored, DamagedRecord):
        return info_of(actor, None, f"its snapshot is damaged: {stored}", events, interrupts)
    if stored == Stored(None, None) and not events + interrupts:
        raise ActorNotFound(actor)
    error = None if stored.quarantine is None else stored.quarantine.failure.text
    standing = None if stored.snapshot is None else stored.snapshot.standing
    try:
        children = await read_children(reads, actor) if standing is not None and standing.children else []
    except DamagedRecord as damage:
        return info_of(actor, None, f"the record of a child is damaged: {damage}", events, interrupts)
    return info_of(actor, stored.snapshot, error, events, interrupts, children)


async def scan_infos(reads: Reads, type_name: str | None, status: Status | None, prefix: str) -> AsyncIterator[ActorInfo]:
    """The infos of all actors that fit, from their records alone, in order of (type, key). Raises InvalidKey where no key begins so."""
    if prefix:
        actor_id(type_name or "(any)", prefix)
    wanted = None if status is None else status.name.lower()
    indexed = status if status is not Status.IDLE else None
    async for actors in scan_actors(reads, type_name, indexed, prefix):
        for actor in actors:
            try:
                info = await read_info(reads, actor)
            except ActorNotFound:
                continue  # deleted since the page was read
            if wanted is None or info.status == wanted:
                yield info


async def scan_dead_letter_infos(reads: Reads, type_name: str | None, key: str | None) -> AsyncIterator[DeadLetterInfo]:
    """What could not be handled: of all actors, of a type's, or of one; the oldest of each actor first.

    Raises ValueError for a key without a type.
    """
    if type_name is None and key is not None:
        raise ValueError(f"the key {key!r} names an actor only together with its type")
    whose = [] if type_name is None else [type_name] if key is None else [*actor_id(type_name, key)]
    async for actor, seq, letter in scan_dead_letters(reads, *whose):
        yield dead_letter_info(actor, seq, letter)


async def read_dead_letter_info(reads: Reads, actor: ActorId, seq: int) -> DeadLetterInfo:
    """One dead letter of an actor. Raises DeadLetterNotFound."""
    for stored in await read_dead_letters(reads, actor):
        if stored.seq == seq:
            return dead_letter_info(actor, seq, stored.letter)
    raise DeadLetterNotFound(actor, seq)

"""Bringing actors into memory: what the dispatcher wants is read in batches, beside the turns.

A delivery is accepted only when everything that decides about it is there: the actor's records, and what its idempotency key was used for.
Deliveries to one actor keep their order. While an activation is on the list it takes no turn and accepts nothing, so nothing that was read
of it grows old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar, final

import anyio
import anyio.abc

from ..storage import StoreCorrupt
from ._acceptance import Acceptance
from ._activation import DURABLE, Activation
from ._breadcrumb import Phase
from ._envelope import FORGETS, Kind
from ._epoch import Epoch
from ._ids import ActorId
from ._mailbox import Item, LaneQueue
from ._persistence import (
    key_digest,
    read_actors,
    read_children,
    read_dead_letters,
    read_key_rows,
    read_lane,
    read_log,
    read_requests,
    read_signals,
    read_waiting,
)
from ._records import DamagedRecord, KeyRow, Lane
from ._replaying import SLICE, Replayer
from ._turn import KeptSignal
from ._upgrades import Upgrades

T = TypeVar("T")

AT_ONCE: Final = 256  # actors a read brings in: beyond that the turns of those already here would wait
SHORT: Final = 64  # messages of a log that are replayed at once, some 2 ms

ENDING: Final = FORGETS | {Kind.TERMINATE}  # without the actor's code, which may not be in memory

KnownKeys = dict[tuple[ActorId, bytes], KeyRow | DamagedRecord | None]


@final
class Loader:
    """Reads what activations lack, then hands their arrivals to `acceptance` and the activations to `ready`."""

    __slots__ = ("_acceptance", "_epoch", "_has_rows", "_quarantine", "_ready", "_replayer", "_replaying", "_upgrades", "_wake", "_wanted")

    def __init__(
        self,
        epoch: Epoch,
        acceptance: Acceptance,
        upgrades: Upgrades,
        has_rows: set[ActorId],
        ready: Callable[[Activation], None],
        quarantine: Callable[[Activation, BaseException], None],
    ) -> None:
        self._epoch = epoch
        self._acceptance = acceptance
        self._upgrades = upgrades
        self._has_rows = has_rows
        self._ready = ready
        self._quarantine = quarantine
        self._replayer = Replayer(epoch.commit.overlay, epoch, self._guarded, epoch.stopwatch)
        self._replaying = 0  # actors whose log is long
        self._wanted: list[Activation] = []
        self._wake: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether anything is wanted that is not here yet."""
        return bool(self._wanted or self._replaying)

    @property
    def wanted(self) -> int:
        """How many actors are to be read."""
        return len(self._wanted)

    def want(self, activation: Activation) -> None:
        """Read what the activation lacks."""
        if activation.wanted:
            return
        activation.wanted = True
        self._wanted.append(activation)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def run(self) -> None:
        """Read, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                if not self._wanted:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                await self._load(self._wanted[:AT_ONCE], tasks)

    async def _load(self, wanted: list[Activation], tasks: anyio.abc.TaskGroup) -> None:
        await self._load_records([activation for activation in wanted if not activation.loaded])
        activations: list[Activation] = []
        for activation in wanted:
            if activation.needs_replay and activation.standing.logged > SHORT:
                self._replaying += 1
                tasks.start_soon(self._replay_apart, activation)
                continue
            if activation.needs_replay:
                await self._replay(activation)
            activations.append(activation)
            if activation.starved:
                await self._fill(activation)
            kinds = {delivery.envelope.kind for delivery in activation.arrivals or ()}
            if kinds & ENDING:
                await self._read_what_ends(activation)
            if kinds & FORGETS:
                await self._read_who_waits(activation)
            if any(delivery.envelope.is_of_letters for delivery in activation.arrivals or ()):
                await self._read_letters(activation)
        known = await self._read_keys(activations)
        del self._wanted[: len(wanted)]
        for activation in activations:
            activation.wanted = False
            self._accept_arrivals(activation, known)
            self._ready(activation)

    async def _load_records(self, activations: list[Activation]) -> None:
        if not activations:
            return
        found = await read_actors(self._epoch.commit.overlay, [activation.actor for activation in activations])
        newest = self._epoch.commit.newest or DURABLE  # what was read of the overlay may be of a batch that is not durable yet
        stopwatch = self._epoch.stopwatch
        end = stopwatch() + SLICE
        for activation, stored in zip(activations, found, strict=True):
            if stopwatch() > end:  # they were migrated
                await asyncio.sleep(0)
                end = stopwatch() + SLICE
            activation.gate = max(activation.gate, newest, key=lambda gate: gate.number)
            if isinstance(stored, DamagedRecord):
                activation.install(None, None)
                self._break(activation, f"the snapshot of {activation.actor} is damaged: {stored}")
                continue
            activation.install(stored.snapshot, stored.quarantine.failure if stored.quarantine else None)
            self._upgrades.fit(activation)
            if activation.standing.kept:
                await self._read_signals(activation)
            if activation.standing.children:
                await self._read_children(activation)
            if activation.actor in self._has_rows:
                self._has_rows.discard(activation.actor)
                await self._fill(activation)

    async def _read_signals(self, activation: Activation) -> None:
        try:
            signals = await read_signals(self._epoch.commit.overlay, activation.actor)
        except DamagedRecord as damage:
            self._break(activation, f"a signal that {activation.actor} keeps is damaged: {damage}")
            return
        activation.signals = {}
        for seq, envelope in signals:
            activation.signals.setdefault(envelope.name, []).append(KeptSignal(seq, envelope))

    async def _replay_apart(self, activation: Activation) -> None:
        """Replay a long log beside everything else: nobody but its actor waits for it."""
        try:
            await self._replay(activation)
        finally:
            self._replaying -= 1
        activation.wanted = False
        self.want(activation)

    async def _replay(self, activation: Activation) -> None:
        messages = activation.standing.logged
        try:
            await self._replayer.replay(activation)
        except DamagedRecord as damage:
            self._break(activation, f"the log of {activation.actor} is damaged: {damage}")
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  replay runs the user's code
            self._quarantine(activation, error)
        if self._epoch.listener is not None:
            self._epoch.listener.replayed(activation, messages, failed=activation.failure is not None)

    def _guarded(self, activation: Activation, work: Callable[[], T]) -> T:
        breadcrumbs = self._epoch.breadcrumbs
        breadcrumbs.enter(Phase.DECODE, activation.decoding)
        try:
            return self._epoch.watchdog.guard((activation.actor, "the way into memory"), work)
        finally:
            breadcrumbs.leave()

    async def _fill(self, activation: Activation) -> None:
        mailbox = activation.mailbox
        assert mailbox is not None
        try:
            for lane, queue in mailbox.lanes():
                if not queue.ready:
                    queue.refill(*await self._read_lane(activation.actor, lane, queue))
                    mailbox.next_seq = max(mailbox.next_seq, queue.stored + 1)
        except DamagedRecord as damage:
            self._break(activation, f"a message of {activation.actor} is damaged: {damage}")

    async def _read_lane(self, actor: ActorId, lane: Lane, queue: LaneQueue) -> tuple[list[Item], int, int]:
        while True:
            stored = queue.stored
            found = await read_lane(self._epoch.commit.overlay, actor, lane, queue.cursor)
            if queue.stored == stored:  # else more was staged meanwhile, which is not in what was found
                return found

    def _break(self, activation: Activation, what: str) -> None:
        """Quarantine an actor whose records cannot be read, so that nothing is written over them."""
        activation.damaged = True
        self._quarantine(activation, StoreCorrupt("the store", what))

    async def _read_who_waits(self, activation: Activation) -> None:
        """For a deletion: who waits for the actor."""
        overlay, mailbox = self._epoch.commit.overlay, activation.mailbox
        waiting = await read_waiting(overlay, activation.actor)
        assert mailbox is not None
        envelopes = [item.envelope for lane, item in waiting if item.seq > mailbox.lane(lane).cursor]
        if activation.handled is not None:
            envelopes.append(activation.handled[1])
        activation.awaiters = {awaiter for envelope in envelopes if (awaiter := envelope.awaiter) is not None}

    async def _read_what_ends(self, activation: Activation) -> None:
        """For the end of an actor that is not to be replayed: what it waits for, and the event whose handler waits."""
        activation.outstanding = [row.id for row in await read_requests(self._epoch.commit.overlay, activation.actor)]
        activation.handled = None
        if activation.coroutines is None and activation.standing.holds:
            for place in range(activation.standing.logged - 1, -1, -1):  # the last event of its log
                with suppress(DamagedRecord):
                    (entry,) = await read_log(self._epoch.commit.overlay, activation.suffix, place, place + 1)
                    if entry.envelope.is_event:
                        activation.handled = entry.seq, entry.envelope
                        return

    async def _read_letters(self, activation: Activation) -> None:
        """For a request about its dead letters: these, and what their idempotency keys have been used for since."""
        activation.letters = await read_dead_letters(self._epoch.commit.overlay, activation.actor)
        used = [key[0] for _, _, letter in activation.letters if (key := letter.envelope.key) is not None]
        rows = await read_key_rows(self._epoch.commit.overlay, [(activation.actor, key_digest(key)) for key in used])
        valid = [row if isinstance(row, KeyRow) and not self._is_expired(row) else None for row in rows]
        activation.stands_for = {key: (row.name, row.arguments) for key, row in zip(used, valid, strict=True) if row is not None}

    async def _read_children(self, activation: Activation) -> None:
        try:
            rows = await read_children(self._epoch.commit.overlay, activation.actor)
        except DamagedRecord as damage:
            self._break(activation, f"the record of a child of {activation.actor} is damaged: {damage}")
            return
        activation.children = {row.id: row for row in rows}

    async def _read_keys(self, activations: list[Activation]) -> KnownKeys:
        wanted = [(a.actor, key_digest(d.envelope.key[0])) for a in activations for d in a.arrivals or () if d.envelope.key is not None]
        if not wanted:
            return {}
        rows = await read_key_rows(self._epoch.commit.overlay, wanted)
        return dict(zip(wanted, rows, strict=True))

    def _accept_arrivals(self, activation: Activation, known: KnownKeys) -> None:
        arrivals = activation.arrivals
        while arrivals:
            key = arrivals[0].envelope.key
            if key is None:
                kind = arrivals[0].envelope.kind
                if kind in ENDING:
                    if activation.outstanding is None or (kind in FORGETS and activation.awaiters is None):
                        self.want(activation)  # it came after that was read
                        return
                    if kind in FORGETS:
                        known, activation.letters = {}, None  # its keys go with the actor, and its dead letters
                elif arrivals[0].envelope.is_of_letters:
                    if activation.letters is None:
                        self.want(activation)
                        return
                    known = {}  # a redriven message uses its key anew
                self._acceptance.accept(activation, arrivals.popleft(), None)
                continue
            place = activation.actor, key_digest(key[0])
            if place not in known:
                self.want(activation)
                return
            known[place] = self._acceptance.accept(activation, arrivals.popleft(), self._valid(activation, known[place]))
        activation.arrivals = None

    def _valid(self, activation: Activation, row: KeyRow | DamagedRecord | None) -> KeyRow | None:
        if isinstance(row, DamagedRecord):
            self._break(activation, f"an idempotency key of {activation.actor} is damaged: {row}")
            return None
        return None if row is not None and self._is_expired(row) else row

    def _is_expired(self, row: KeyRow) -> bool:
        return row.outcome is not None and row.expires < self._epoch.clock.now()

"""Planted bugs: each breaks one promise of the product from outside, to show that the rig would see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, cast

import lmdb
import msgspec
from perdure.actors import _acceptance, _persistence, _recovery, _replaying, _standing, _steps, _telling
from perdure.actors._activation import Activation
from perdure.actors._books import Books
from perdure.actors._dispatch import Dispatcher
from perdure.actors._envelope import Kind
from perdure.actors._ids import ActorId
from perdure.actors._intake import Intake
from perdure.actors._mailbox import Item, LaneQueue
from perdure.actors._records import KeyRow, LogEntry, StreamRow
from perdure.actors._settlement import Settlement
from perdure.actors._standing import StandingDraft
from perdure.storage import Batch, Gate, Offer, _lmdb
from perdure.storage._environment import Environment


def pass_at_once(self: Gate, passage: Callable[[BaseException | None], None]) -> None:
    """In place of `Gate.when_open`: what should wait until it is durable does not."""
    passage(self.error)


def acknowledge_before_the_commit() -> None:
    """Gates let everybody through at once."""
    Gate.when_open = pass_at_once  # type: ignore[method-assign]


def forget_which_offers_were_accepted() -> None:
    """The position in the inbox is not part of the batch."""
    Batch.accept = lambda self, number: None  # type: ignore[method-assign]


def leave_arrivals_in_memory() -> None:
    """A message for an actor that is not in memory yet gets no row."""
    Activation._stage_arrival = lambda self, batch, epoch, delivery: None  # type: ignore[method-assign]


def keep_handled_messages() -> None:
    """The row of a handled message stays."""
    staged = LaneQueue.staged

    def without_gone(self: LaneQueue) -> Any:
        return staged(self)[0], []

    LaneQueue.staged = without_gone  # type: ignore[method-assign]


def passivate_without_writing() -> None:
    """What an actor learned since its last commit goes with it when it leaves memory."""

    def passivate(self: Dispatcher, activation: Activation) -> None:
        activation.dirty = False

    Dispatcher._passivate = passivate  # type: ignore[method-assign]


def tear_batches() -> None:
    """A batch is written in two transactions."""
    apply = _lmdb._apply

    def half(transaction: Any, batch: Batch, fence: Any, store: str) -> int:
        puts = dict(batch.puts)
        batch.puts = {key: value for place, (key, value) in enumerate(puts.items()) if place % 2}
        result = apply(transaction, batch, fence, store)
        batch.puts = {key: value for place, (key, value) in enumerate(puts.items()) if not place % 2}
        return result

    def commit(self: Any, batch: Batch, fence: Any, staged: Any) -> bool:
        self._main.write(lambda transaction: half(transaction, batch, fence, str(self)), lambda: None)
        self._main.write(lambda transaction: apply(transaction, batch, fence, str(self)), staged)
        return True

    _lmdb.LmdbStore._commit = commit  # type: ignore[method-assign]


def leave_out_syncs() -> None:
    """What a commit writes gets to the disk when the system pleases."""
    opened = lmdb.open
    lmdb.open = lambda *args, **options: opened(*args, **{**options, "sync": False})  # type: ignore[assignment]


def leave_the_header_unsynced() -> None:
    """The pages of a commit are synced, and what makes them valid with the next commit."""
    lmdb.open = partial(lmdb.open, metasync=False)  # type: ignore[assignment]


def try_failed_commits_again() -> None:
    """An error of the disk is taken for a passing one."""
    write_once = Environment._write_once

    def again(self: Environment, change: Any, staged: Any) -> Any:
        try:
            return write_once(self, change, staged)
        except lmdb.Error:
            return write_once(self, change, staged)

    Environment._write_once = again  # type: ignore[method-assign]


def keep_requests_that_are_done() -> None:
    """The row of a step stays when its outcome is recorded, so the next host runs it again."""
    _steps.delete_request = lambda batch, suffix, request: None  # type: ignore[attr-defined]


def start_steps_at_once() -> None:
    """A step does not wait for the turn that asks for it to be durable."""
    hand_on = Settlement._hand_on

    def start_now(self: Settlement, activation: Activation, draft: StandingDraft, gate: Gate) -> None:
        begun, draft.begun = draft.begun, []
        for row in begun:
            cast("_steps.Steps", self._epoch.errands).start(activation.actor, row)
        hand_on(self, activation, draft, gate)

    Settlement._hand_on = start_now  # type: ignore[method-assign]


def run_steps_twice() -> None:
    """An attempt at a step calls its function once more."""
    call = _steps.Steps._call

    async def twice(self: _steps.Steps, work: Any) -> Any:
        await call(self, work)
        return await call(self, work)

    _steps.Steps._call = twice  # type: ignore[method-assign]


def leave_timers_in_memory() -> None:
    """An actor with a timer gets no row among those that are due."""
    Activation._stage_dues = lambda self, batch, wake, retire: None  # type: ignore[method-assign]


def leave_signals_in_memory() -> None:
    """A declared signal that nobody waits for yet gets no row."""
    _standing.put_signal = lambda batch, suffix, seq, envelope: None  # type: ignore[attr-defined]


def leave_out_items() -> None:
    """The first item of a stream gets no row."""
    put = _persistence.put_stream_item

    def but_the_first(batch: Batch, suffix: bytes, position: int, row: StreamRow) -> None:
        if position != 1:
            put(batch, suffix, position, row)

    _standing.put_stream_item = but_the_first  # type: ignore[attr-defined]


def forget_keys() -> None:
    """What was asked under an idempotency key gets no row."""
    _acceptance.put_key_row = _telling.put_key_row = lambda batch, actor, digest, row: None  # type: ignore[attr-defined]


def expire_keys_at_once() -> None:
    """An idempotency key expires when it is used."""
    put = _persistence.put_key_row

    def expired(batch: Batch, actor: ActorId, digest: bytes, row: KeyRow) -> None:
        put(batch, actor, digest, msgspec.structs.replace(row, expires=1.0))

    _acceptance.put_key_row = _telling.put_key_row = expired  # type: ignore[attr-defined]


def take_offers_backwards() -> None:
    """What is found in the inbox at once is taken from its end."""
    take = Intake._take

    async def backwards(self: Intake, offers: list[Offer]) -> None:
        await take(self, [Offer(place.number, offer.payload) for place, offer in zip(offers, reversed(offers), strict=True)])

    Intake._take = backwards  # type: ignore[method-assign]


def serve_the_newest_first() -> None:
    """An actor that comes back has its mailbox backwards."""
    refill = LaneQueue.refill

    def backwards(self: LaneQueue, rows: list[Item], beyond: int, last: int) -> None:
        turned = [row._replace(envelope=other.envelope) for row, other in zip(rows, reversed(rows), strict=True)]
        refill(self, turned, beyond, last)

    LaneQueue.refill = backwards  # type: ignore[method-assign]


async def find_nothing(reads: object) -> AsyncIterator[Any]:
    """Whatever there is."""
    rows: list[Any] = []
    for row in rows:
        yield row


def leave_work_where_it_is() -> None:
    """A new host does not look for messages that wait in mailboxes."""
    _recovery.scan_work = find_nothing  # type: ignore[attr-defined]


def leave_arrivals_where_they_are() -> None:
    """A new host does not look for messages to actors that were not in memory."""
    _recovery.scan_arrivals = find_nothing  # type: ignore[attr-defined]


def leave_requests_where_they_are() -> None:
    """A new host does not look for steps that are to be run, and asks that are to be sent."""
    _recovery.scan_requests = find_nothing  # type: ignore[attr-defined]


def leave_out_the_last_of_a_log() -> None:
    """A replay ends one message early."""
    read = _persistence.read_log

    async def but_the_last(reads: Any, suffix: bytes, start: int, stop: int) -> list[LogEntry]:
        return (await read(reads, suffix, start, stop))[: -1 if start == 0 and stop > 1 else None]

    _replaying.read_log = but_the_last  # type: ignore[attr-defined]


def fire_timers_twice() -> None:
    """A named timer that is due comes as two messages."""
    post = Books.post

    def twice(self: Books, activation: Activation, kind: Kind, *rest: Any, **options: Any) -> None:
        for _ in range(2 if kind is Kind.TIMER else 1):
            post(self, activation, kind, *rest, **options)

    Books.post = twice  # type: ignore[method-assign]


AT_POWER_FAILURES: Final = {function.__name__: function for function in (leave_out_syncs, leave_the_header_unsynced, start_steps_at_once)}
AT_ERRORS: Final = {function.__name__: function for function in (try_failed_commits_again, acknowledge_before_the_commit)}
AT_KILLS: Final = {
    function.__name__: function
    for function in (
        acknowledge_before_the_commit,
        forget_which_offers_were_accepted,
        leave_arrivals_in_memory,
        keep_handled_messages,
        passivate_without_writing,
        tear_batches,
        keep_requests_that_are_done,
        run_steps_twice,
        leave_timers_in_memory,
        leave_signals_in_memory,
        leave_out_items,
        forget_keys,
        expire_keys_at_once,
        take_offers_backwards,
        serve_the_newest_first,
        leave_work_where_it_is,
        leave_arrivals_where_they_are,
        leave_requests_where_they_are,
        leave_out_the_last_of_a_log,
        fire_timers_twice,
    )
}


def plant(name: str) -> None:
    """Break the product in this process, if a name is given."""
    if name:
        (AT_POWER_FAILURES | AT_ERRORS | AT_KILLS)[name]()

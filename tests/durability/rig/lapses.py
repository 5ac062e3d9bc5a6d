"""Planted lapses: stale reads and lost updates, each by a patch from outside, to show that the search for an order would see it."""

from __future__ import annotations

from itertools import count
from typing import Any, Final, Protocol

import msgspec
from perdure.actors import _activation, _persistence
from perdure.actors._activation import Activation
from perdure.actors._ids import ActorId
from perdure.actors._query import Reader
from perdure.actors._records import Outcome, Snapshot, Status
from perdure.actors._ref import Request
from perdure.storage import Batch, Gate

from .plants import pass_at_once


class Patch(Protocol):
    """`setattr`, or a monkeypatch's, which is undone."""

    def __call__(self, target: Any, name: str, value: object, /) -> None:
        """Set an attribute."""
        ...


def answer_queries_from_an_older_snapshot(patch: Patch) -> None:
    """A query sees what the query before it would have been due to see."""
    older: dict[ActorId, Snapshot | None] = {}

    def query(self: Reader, activation: Activation, request: Request) -> Outcome:
        seen, older[request.target] = older.get(request.target), activation.snapshot
        return self._query_snapshot(seen or activation.snapshot, request)

    patch(Reader, "_query_active", query)


def answer_queries_before_the_gate(patch: Patch) -> None:
    """A query lets out what is not durable yet, and may be lost."""

    async def query(self: Reader, request: Request) -> Outcome:
        activation = self._dispatcher.active(request.target)
        return await self._query_passive(request) if activation is None else self._query_active(activation, request)

    patch(Reader, "query", query)


def acknowledge_before_the_commit(patch: Patch) -> None:
    """An answer is told before it is durable, and what it says may be lost."""
    patch(Gate, "when_open", pass_at_once)


def lose_an_update(patch: Patch) -> None:
    """One snapshot in twenty of an actor that rests has the state of the one before: memory knows better, until it is gone."""
    before: dict[bytes, Snapshot] = {}
    numbers = count(1)
    put = _persistence.put_snapshot

    def put_one_in_twenty_wrong(batch: Batch, suffix: bytes, snapshot: Snapshot, status: Status | None) -> None:
        older, before[suffix] = before.get(suffix, snapshot), snapshot
        if next(numbers) % 20 == 0 and snapshot.status is older.status is Status.IDLE:
            snapshot = msgspec.structs.replace(snapshot, state=older.state)
        put(batch, suffix, snapshot, status)

    patch(_activation, "put_snapshot", put_one_in_twenty_wrong)


LAPSES: Final = {
    lapse.__name__: lapse
    for lapse in (
        answer_queries_from_an_older_snapshot,
        answer_queries_before_the_gate,
        acknowledge_before_the_commit,
        lose_an_update,
    )
}

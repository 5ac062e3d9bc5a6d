"""Outcomes that an actor's coroutines wait for: of steps, of what other actors were asked, by the id of the request.

An outcome reaches whoever waits for it once, or nobody. Who stops waiting says so: the request is given up, or, if it is a step, asked to
end and waited for all the same, within bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol, final

import anyio

from ._envelope import Envelope
from ._ids import ActorId, MessageId
from ._records import OUTCOME, Outcome, RequestKind, Wait
from ._turn import Turn
from ._turnloop import TurnLoop

MAX_WAITS: Final = 32  # outcomes that are listed one by one: the list is written with each turn
STEP_ENDS_WITHIN: Final = 10.0  # seconds that a step, once it was asked to end, is waited for


class Owner(Protocol):
    """Whose coroutines wait. While `undoing` is not 0, their time to clean up does not end."""

    @property
    def loop(self) -> TurnLoop:
        """Their loop."""
        ...

    @property
    def turn(self) -> Turn | None:
        """The turn that is being taken, if one is."""
        ...

    undoing: int

    def require_turn(self, asked: str) -> Turn:
        """The turn that is being taken. Raises NotInActor, ActorEvicted."""
        ...


@final
class _Pending(NamedTuple):
    """An outcome that is waited for."""

    future: asyncio.Future[Outcome]
    kind: RequestKind
    name: str
    since: float
    target: ActorId | None


@final
class Outcomes:
    """The outcomes that one actor waits for."""

    __slots__ = ("_owner", "_pending")

    def __init__(self, owner: Owner) -> None:
        self._owner: Final = owner
        self._pending: dict[MessageId, _Pending] = {}

    def __repr__(self) -> str:
        return f"<Outcomes, {len(self._pending)} to come>"

    # --- who waits ---

    async def wait(self, request: MessageId, kind: RequestKind, name: str, target: ActorId | None = None) -> Outcome:
        """Wait for an outcome, of the actor `target` if it is another one's; if the waiting is cancelled, it is given up."""
        future = self._expect(request, kind, name, target)
        try:
            return await future
        finally:
            if self._pending.pop(request, None) is not None and self._owner.turn is not None:
                self._owner.turn.give_up(request)

    async def wait_to_the_end(self, request: MessageId, name: str) -> tuple[Outcome, asyncio.CancelledError | None]:
        """Wait for a step's outcome whatever is cancelled meanwhile; returns it, and the cancel that was held back."""
        future = self._expect(request, RequestKind.STEP, name)
        held = await hold_back(future)
        return future.result(), held

    async def wait_for_step(self, request: MessageId, name: str, heard: Callable[[Outcome | None], None] | None) -> Outcome:
        """Wait for a step's outcome. If that is cancelled, the step is asked to end, and how it ends is waited for before this raises.

        `heard` is told the outcome in any case, None if it did not come in time: whoever is to undo it has to know.
        """
        future = self._expect(request, RequestKind.STEP, name)
        try:
            outcome: Outcome = await future
        except asyncio.CancelledError:
            if heard is None:
                await self._end_of_step(future, request, name)
                raise
            self._owner.undoing += 1
            try:
                heard(await self._end_of_step(future, request, name))
            finally:
                self._owner.undoing -= 1
            raise
        if heard is not None:
            heard(outcome)
        return outcome

    async def _end_of_step(self, future: asyncio.Future[Outcome], request: MessageId, name: str) -> Outcome | None:
        if future.done() and not future.cancelled():  # it came in the very turn that cancels
            return future.result()
        self._owner.require_turn(name).end_step(request)
        end = self._expect(request, RequestKind.STEP, name)
        alarm = self._owner.loop.call_later(STEP_ENDS_WITHIN, end.cancel)
        await hold_back(end)  # whoever cancels once more waits too; it is on its way out already
        alarm.cancel()
        if not end.cancelled():
            return end.result()
        del self._pending[request]
        self._owner.require_turn(name).give_up(request)
        return None

    def _expect(self, request: MessageId, kind: RequestKind, name: str, target: ActorId | None = None) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = self._owner.loop.create_future()
        self._pending[request] = _Pending(future, kind, name, self._owner.require_turn(name).time, target)
        return future

    # --- what comes ---

    def resolve(self, envelope: Envelope) -> None:
        """An outcome has come: tell whoever waits for it."""
        pending = self._pending.pop(envelope.id, None)
        if pending is not None and not pending.future.done():
            pending.future.set_result(OUTCOME.unpack(envelope.payload))

    def give_up_all(self, turn: Turn) -> None:
        """Nobody waits any more."""
        for request in self._pending:
            turn.give_up(request)

    def forget(self) -> None:
        """Wait for nothing."""
        self._pending.clear()

    # --- what is waited for ---

    def requests(self) -> list[MessageId]:
        """The ids of what is waited for."""
        return list(self._pending)

    def awaits(self, request: MessageId) -> bool:
        """Whether anybody waits for that outcome."""
        return request in self._pending

    def awaits_result(self, target: ActorId) -> bool:
        """Whether anybody waits for the outcome of that actor's workflow."""
        return any(each.kind is RequestKind.RESULT and each.target == target for each in self._pending.values())

    @property
    def of_actors(self) -> bool:
        """Whether any of them is another actor's."""
        return any(each.target is not None for each in self._pending.values())

    def futures(self) -> set[int]:
        """The identities of the futures by which they are waited for."""
        return {id(each.future) for each in self._pending.values()}

    def waits(self) -> list[Wait]:
        """What is waited for, as far as it is not too much to list."""
        listed = islice(self._pending.items(), MAX_WAITS)
        waits = [Wait(each.kind.name.lower(), each.name, each.since, 0.0, each.target, found) for found, each in listed]
        if len(self._pending) > MAX_WAITS:
            waits.append(Wait("others", f"{len(self._pending) - MAX_WAITS} more"))
        return waits


async def hold_back(awaited: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until a future is done whatever is cancelled meanwhile; returns the first cancel that was held back, to be raised later."""
    held: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # anyio cancels again and again
        while not awaited.done():
            try:
                await asyncio.shield(awaited)
            except asyncio.CancelledError as cancelled:
                if not awaited.cancelled():
                    held = held or cancelled
    return held

"""What everything in one epoch of a host works with: from owning the store until it is given back, or lost."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ..storage import Fence, Gate, GroupCommit, fresh
from ._breadcrumb import Breadcrumbs
from ._clock import Clock, Entropy
from ._coroutines import Coroutines
from ._ids import ActorId, MessageId
from ._info import DeadLetterInfo
from ._records import Charge, DeadLetter, Outcome, RequestRow
from ._registry import Registry
from ._watchdog import Watchdog

if TYPE_CHECKING:
    from ._activation import Activation
    from ._mailbox import Item
    from ._outstanding import Outstanding
    from ._turn import Turn

TELL_AFTER: Final = 0.01  # seconds: a listener tells of what is durable while the next batch is written, or after so long without one


def _unwired(*_: object) -> None:
    raise AssertionError("the host has not said who does this")


class Errands(Protocol):
    """Who does what actors ask for, outside their turns."""

    def begin(self, actor: ActorId, row: RequestRow, gate: Gate) -> None:
        """Begin it once the gate opens."""
        ...

    def end(self, request: MessageId, gate: Gate) -> None:
        """Nobody wants it any more but for hearing how it ends: end it once the gate opens."""
        ...

    def give_up(self, request: MessageId, gate: Gate) -> None:
        """Nobody waits for it any more: write nothing more of it, and end it once the gate opens."""
        ...


class Listener(Protocol):
    """Who is told of what happens in an epoch, where somebody listens."""

    def begin_turn(self, activation: Activation, item: Item, turn: Turn) -> None:
        """A message is about to be handled."""
        ...

    def end_turn(
        self, activation: Activation, item: Item, turn: Turn, error: BaseException | None, *, kept: bool = False, by_host: bool = False
    ) -> None:
        """It was handled, was `kept` until somebody waits for it, or has failed: what came of it is part of the open batch.

        `by_host`: none of the actor's code had to do with it.
        """
        ...

    def begin_attempt(self, work: Outstanding) -> None:
        """An attempt at a step begins, in the task that it is called in."""
        ...

    def end_attempt(self, work: Outstanding) -> None:
        """It has ended: what came of it is staged; nothing, if nobody waits for it any more, or the host is about to end."""
        ...

    def fired(self, activation: Activation, late: float) -> None:
        """A timer has fired, so many seconds after it was due: its message is part of the open batch."""
        ...

    def replayed(self, activation: Activation, messages: int, *, failed: bool) -> None:
        """So many messages were handled again, or were to be, and nothing of it was told."""
        ...

    def put_aside(self, actor: ActorId, letter: DeadLetter) -> None:
        """A message is in the dead letters: it is part of the open batch."""
        ...

    def quarantined(self, actor: ActorId, *, ended: bool = False) -> None:
        """An actor stands still, was found so, or does so no more: if it is news, it is part of the open batch."""
        ...


class NoErrands:
    """In the place of them until the host has wired its parts."""

    def begin(self, actor: ActorId, row: RequestRow, gate: Gate) -> None:
        """As `Errands.begin`."""
        _unwired()

    def end(self, request: MessageId, gate: Gate) -> None:
        """As `Errands.end`."""
        _unwired()

    def give_up(self, request: MessageId, gate: Gate) -> None:
        """As `Errands.give_up`."""
        _unwired()


@final
@dataclass(slots=True)
class Epoch:
    """The parts that the modules of a host share; each is made once, by the host.

    `charges` are the interrupted attempts of messages not handled yet. `reply` tells a client an outcome that is durable.
    `check_queries` is how often a query is checked for changing state: every nth. `keep_history` is how many messages of every actor's
    past are kept at least. `listener` is told what happens, where somebody listens. `spare` is for the code of actors of which nothing
    waits. `errands` does what actors have asked for; `suspect` looks whether an actor that waits for another is stuck; `set_alarm` has an
    actor looked at when one of its timers is due. `awaiting` are the callers here that wait for a workflow's outcome, `readers` those that
    wait for an item of a stream.
    """

    fence: Fence
    commit: GroupCommit
    clock: Clock
    entropy: Entropy
    registry: Registry
    breadcrumbs: Breadcrumbs
    watchdog: Watchdog
    resources: Mapping[str, Any]
    charges: dict[MessageId, Charge]
    max_active: int
    check_queries: int
    keep_history: int = 0
    listener: Listener | None = None
    on_dead_letter: Callable[[DeadLetterInfo], None] | None = None
    stopwatch: Callable[[], float] = time.perf_counter
    queue: Callable[[], deque[Any]] = deque
    reply: Callable[[tuple[bytes, int], Outcome], None] = _unwired
    spare: Coroutines = field(default_factory=Coroutines)
    errands: Errands = field(default_factory=NoErrands)
    suspect: Callable[[ActorId], None] = _unwired
    set_alarm: Callable[[ActorId, float], None] = _unwired
    awaiting: dict[ActorId, list[asyncio.Future[Outcome]]] = field(default_factory=dict)
    readers: dict[ActorId, list[asyncio.Future[None]]] = field(default_factory=dict)
    arrivals: int = field(default=0)  # how many were given a row in this epoch
    ended: Exception | None = None  # what to tell whoever still waits, once it has ended

    def news_of(self, actor: ActorId) -> asyncio.Future[None]:
        """Done when the actor has emitted something, or ended, and that is durable. Raises what has ended this epoch."""
        if self.ended is not None:
            raise fresh(self.ended)
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.readers.setdefault(actor, []).append(news)
        return news

    def forget_reader(self, actor: ActorId, news: asyncio.Future[None]) -> None:
        """Nobody waits for those news any more."""
        readers = self.readers.get(actor, [])
        if news in readers:
            readers.remove(news)
            if not readers:
                del self.readers[actor]
        if not news.cancel() and not news.cancelled():  # it may wait at a gate already, where nobody would take what the commit fails with
            news.exception()

    @contextmanager
    def spared(self) -> Iterator[Coroutines]:
        """The spare, for code that may leave nothing behind; what it leaves all the same ends with it."""
        spare = self.spare
        try:
            yield spare
        finally:
            if not spare.at_rest:
                self.renew_spare().evict()

    def renew_spare(self) -> Coroutines:
        """Hand out the spare, which is needed for longer, and make another."""
        given, self.spare = self.spare, Coroutines()
        return given

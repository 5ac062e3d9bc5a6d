"""A drive: sends a feed while the host is killed, sends again what was not acknowledged, then reads back what was applied.

An event is sent when the one before it in its case is acknowledged, so the order within a case is the feed's; cases run side by side.
What was in flight at a kill is sent again under the same idempotency key, as a caller does who never heard an answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final, NamedTuple, final

import anyio
import anyio.abc

from ..._client import Client
from ..._ref import ActorRef
from ._actors import Case, Order
from ._feed import Event, Feed
from ._process import HostProcess

IN_FLIGHT: Final = 64  # events that are sent and not acknowledged
PATIENCE: Final = timedelta(seconds=30)  # with one answer, a restart of the host included
LATEST_KILL: Final = 0.03  # seconds after the moment of a kill was reached: each kill hits the host in the middle of something else


@final
@dataclass(slots=True)
class Kill:
    """A SIGKILL: after how many acknowledged events, how many were in flight, and the seconds to the first answer of the next host."""

    after: int
    in_flight: int
    at: float
    recovery: float | None = None


@final
@dataclass(slots=True)
class Progress:
    """How far a drive is; `seconds` is what sending took."""

    events: int
    acknowledged: int = 0
    again: int = 0
    kills: list[Kill] = field(default_factory=list)
    seconds: float = 0.0


class Count(NamedTuple):
    """What the actors say they have applied, against the feed: events, but for `disordered`, which are cases."""

    sent: int
    cases: int
    applied: int
    lost: int
    doubled: int
    disordered: int

    @property
    def is_sound(self) -> bool:
        """Whether everything was applied exactly once, in order, in its place."""
        return not (self.lost or self.doubled or self.disordered)


@final
class Drive:
    """One run of a feed through a host that is killed `kills` times, evenly spread over the feed; chance decides on the very moment."""

    def __init__(self, feed: Feed, url: str, host: HostProcess, kills: int, changed: Callable[[Progress], None]) -> None:
        self.progress: Final = Progress(len(feed.events))
        self._feed = feed
        self._url = url
        self._host = host
        self._changed = changed
        self._moments = [len(feed.events) * nth // (kills + 1) for nth in range(1, kills + 1)]
        self._chance = Random(len(feed.events))
        self._window = anyio.Semaphore(IN_FLIGHT)
        self._waiting: set[anyio.CancelScope] = set()
        self._stepped = anyio.Event()

    async def run(self) -> Count:
        """Send everything, and count. Raises HostFailed, AskTimeout, and what the store raises."""
        self._host.start()
        await self._host.serving()
        found: dict[str, list[str]] = {}
        async with Client(self._url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(self._host.watch)
            began = time.monotonic()
            async with anyio.create_task_group() as sending:
                sending.start_soon(self._kill_at_each_moment)
                await self._send_all(client, sending)
            self.progress.seconds = time.monotonic() - began
            await self._host.serving()  # the last kill may have come when all was sent
            await self._read_all(client, found)
            tasks.cancel_scope.cancel()
        return count(self._feed.by_case(), found)

    async def _send_all(self, client: Client, sending: anyio.abc.TaskGroup) -> None:
        acknowledged: dict[str, anyio.Event] = {}
        for event in self._feed.events:
            await self._window.acquire()
            before = acknowledged.get(event.case)
            acknowledged[event.case] = done = anyio.Event()
            sending.start_soon(self._send, client, event, before, done)

    async def _send(self, client: Client, event: Event, before: anyio.Event | None, done: anyio.Event) -> None:
        if before is not None:
            await before.wait()
        reference = client.ref(self._feed.actor, event.case).options(idempotency_key=event.id, timeout=PATIENCE)
        while not await self._acknowledged(reference, event):
            self.progress.again += 1
        self._window.release()
        self.progress.acknowledged += 1
        self._answered()
        done.set()

    async def _acknowledged(self, reference: ActorRef[Order | Case], event: Event) -> bool:
        """Ask; False if the host was killed meanwhile, and nobody knows."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await reference.ask("record", *event.arguments)
            finally:
                self._waiting.discard(scope)
        return not scope.cancelled_caught

    def _answered(self) -> None:
        for kill in self.progress.kills:
            if kill.recovery is None:
                kill.recovery = time.monotonic() - kill.at
        self._stepped.set()
        self._stepped = anyio.Event()
        self._changed(self.progress)

    async def _kill_at_each_moment(self) -> None:
        for moment in self._moments:
            while self.progress.acknowledged < moment:
                await self._stepped.wait()
            await anyio.sleep(self._chance.uniform(0, LATEST_KILL))
            self.progress.kills.append(Kill(self.progress.acknowledged, len(self._waiting), time.monotonic()))
            self._host.kill_and_start()
            for scope in self._waiting:
                scope.cancel()
            self._changed(self.progress)

    async def _read_all(self, client: Client, found: dict[str, list[str]]) -> None:
        async with anyio.create_task_group() as reading:
            for case in self._feed.by_case():
                await self._window.acquire()
                reading.start_soon(self._read, client, case, found)

    async def _read(self, client: Client, case: str, found: dict[str, list[str]]) -> None:
        found[case] = await client.ref(self._feed.actor, case).query("history")
        self._window.release()
        self._answered()


def count(expected: dict[str, list[str]], found: dict[str, list[str]]) -> Count:
    """Compare the ids of each case's events as they were sent with those that its actor has applied."""
    compared = list(_compared(expected, found))
    return Count(
        sent=sum(map(len, expected.values())),
        cases=len(expected),
        applied=sum(map(len, found.values())),
        lost=sum(lost for lost, _, _ in compared),
        doubled=sum(doubled for _, doubled, _ in compared),
        disordered=sum(disordered for _, _, disordered in compared),
    )


def _compared(expected: dict[str, list[str]], found: dict[str, list[str]]) -> Iterator[tuple[int, int, bool]]:
    """Of each case: (events lost, events applied too often, whether the others stand in another order or are not its own)."""
    for case, sent in expected.items():
        applied = found.get(case, [])
        times = Counter(applied)
        lost = sum(1 for event in sent if event not in times)
        doubled = sum(number - 1 for number in times.values())
        yield lost, doubled, list(times) != [event for event in sent if event in times]

"""One process of a flood: more messages than anybody would keep in memory, for one actor that is slow to take them.

    python -m tests.durability.rig.flood URL KIND ROLE FIRST COUNT

KIND is `slow`, or `narrow` for an actor whose mailbox is soon full. Roles: `fill` hosts, sends, and dies with what is in the mailbox;
`offer` sends from a client, to whoever hosts, now or later; `hold` hosts until SIGTERM; `drain` hosts until the actor has taken everything.
Each says in one line what it came to, `hold` also that it hosts. Messages are numbered from FIRST.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple, final

from perdure.actors import (
    ActorNotFound,
    ActorRef,
    Client,
    MailboxFull,
    Runtime,
    durable_actor,
    on_event,
    query,
    send_signal,
    signal,
    wait_for_signal,
)

AT_ONCE: Final = 1_000  # sends that wait for the disk together: fewer than make any of them wait for room
LOOK_EVERY: Final = 0.02  # seconds
NARROW: Final = 1_000  # messages


@durable_actor(mailbox_limit=None)
class Slow:
    """Takes nothing before it is told to, and then writes down what comes out of order."""

    go = signal()

    def __init__(self) -> None:
        self.going = False
        self.taken = 0
        self.out_of_order: list[int] = []

    @on_event
    async def take(self, number: int) -> int:
        if not self.going:
            await wait_for_signal(Slow.go)
            self.going = True
        if number != self.taken:
            self.out_of_order.append(number)
        self.taken += 1
        return number

    @query
    def book(self) -> tuple[int, list[int]]:
        return self.taken, self.out_of_order[:10]


@durable_actor(mailbox_limit=NARROW)
class Narrow(Slow):
    """The same with a mailbox that is soon full."""


@final
class Tide(NamedTuple):
    """What a process came to. `peak`: MiB of memory of its own, at most; `refused`: sends that were, by MailboxFull."""

    peak: int
    refused: int = 0
    waiting: int = 0
    taken: int = 0
    out_of_order: tuple[int, ...] = ()


@final
class Gauge:
    """Looks at how much memory the process has of its own, all the time."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def read(self) -> int:
        """MiB, at most up to now."""
        self._look()
        return self.peak

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            self._look()

    def _look(self) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        self.peak = max(self.peak, next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) >> 10)


async def send(numbers: range, sending: Callable[[int], Awaitable[None]]) -> int:
    """Send all, many at a time; returns how many were refused."""
    refused = 0
    for start in range(numbers.start, numbers.stop, AT_ONCE):
        group = numbers[start - numbers.start :][:AT_ONCE]
        outcomes = await asyncio.gather(*(sending(number) for number in group), return_exceptions=True)
        refused += sum(isinstance(outcome, MailboxFull) for outcome in outcomes)
        others = [outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, MailboxFull)]
        if others:
            raise RuntimeError(others[:3])
    return refused


async def fill(url: str, kind: type[Slow], numbers: range, gauge: Gauge) -> Tide:
    """Host and send."""
    async with Runtime(url, [Slow, Narrow]) as runtime:
        slow = runtime.ref(kind, "slow")
        refused = await send(numbers, lambda number: _once(slow.send_event(kind.take, number)))
        tide = Tide(gauge.read(), refused, await _waiting(slow))
        print(json.dumps(tide), flush=True)
        os._exit(0)  # as a host that is killed


async def offer(url: str, kind: type[Slow], numbers: range, gauge: Gauge) -> Tide:
    """Send from a client."""
    async with Client(url) as client:
        slow = client.ref(kind, "slow")
        refused = await send(numbers, lambda number: _once(slow.send_event(kind.take, number)))
    return Tide(gauge.read(), refused)


async def hold(url: str, kind: type[Slow], numbers: range, gauge: Gauge) -> Tide:
    """Host until SIGTERM."""
    async with Runtime(url, [Slow, Narrow]) as runtime:
        print("hosting", flush=True)
        await runtime.serve()
    return Tide(gauge.read())


async def drain(url: str, kind: type[Slow], numbers: range, gauge: Gauge) -> Tide:
    """Host, and let the actor take everything."""
    async with Runtime(url, [Slow, Narrow]) as runtime:
        slow = runtime.ref(kind, "slow")
        waiting = await _waiting(slow)
        await send_signal(slow, kind.go)
        await runtime.settled()
        taken, out_of_order = await slow.query(kind.book)
    return Tide(gauge.read(), 0, waiting, taken, tuple(out_of_order))


async def _waiting(slow: ActorRef[Slow]) -> int:
    try:
        return (await slow.info()).events
    except ActorNotFound:
        return 0


async def _once(sent: Awaitable[None]) -> None:
    await sent


ROLES: Final = {"fill": fill, "offer": offer, "hold": hold, "drain": drain}
KINDS: Final = {"slow": Slow, "narrow": Narrow}


def main() -> None:
    """Do as the command line says."""
    url, kind, role, first, count = sys.argv[1:]
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # that messages are refused is wanted
    numbers = range(int(first), int(first) + int(count))
    print(json.dumps(asyncio.run(ROLES[role](url, KINDS[kind], numbers, Gauge()))), flush=True)


if __name__ == "__main__":
    main()

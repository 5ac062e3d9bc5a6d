"""How fast does an actor that waits come back? By replay of what it has handled since something of it began to wait.

An actor's workflow waits while it handles `MESSAGES`; then its host ends, another one begins, and the actor is asked: from that call to the
answer everything is read, replayed and compared, and one more message committed. Three logs: of events; of declared signals, each of which
wakes the workflow; of the outcomes of steps that a workflow awaits a hundred at a time. Baseline `by hand`: the same events' payloads in a
list, each unpickled and given to the same method, and nothing else.
"""

from __future__ import annotations

import asyncio
import pickle
import statistics
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Final

from perdure.actors import Runtime, WorkflowRef, durable_actor, on_event, send_signal, signal, step, wait_for_signal, workflow

from .measure import Report, answer, together

MESSAGES: Final = 20_000
ROUNDS: Final = 3
IN_FLIGHT: Final = 256
GATHERED: Final = 100

Reference = WorkflowRef["Counter", None]


@step
async def nothing(number: int) -> int:
    """Nothing."""
    return number


@durable_actor
class Counter:
    """Counts, while its workflow waits; about 100 bytes of pickled state."""

    more = signal(int)
    done = signal()

    def __init__(self) -> None:
        self.count = 0
        self.owner = "customer 4711"
        self.place = "14 Harbour Lane"

    @workflow
    async def run(self, signals: int, steps: int) -> None:
        """Take signals, then steps, then wait."""
        for _ in range(signals):
            self.count += await wait_for_signal(Counter.more)
        for first in range(0, steps, GATHERED):
            self.count += len(await asyncio.gather(*(nothing(number) for number in range(first, first + GATHERED))))
        await wait_for_signal(Counter.done)

    @on_event
    def add(self, by: int) -> int:
        """Count."""
        self.count += by
        return self.count


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    url = f"lmdb:{directory / 'store'}"
    await fill(url)
    logs: dict[str, list[float]] = {"events": [], "signals": [], "outcomes of steps": []}
    by_hand: list[float] = []
    for _ in range(ROUNDS):
        by_hand.append(MESSAGES / time_by_hand())
        async with Runtime(url, actors=[Counter]) as runtime:
            for what, rates in logs.items():
                rates.append(MESSAGES / await time_to_return(runtime.ref(Counter.run, what)))
    report.add("by hand: unpickle and call", statistics.median(by_hand), "messages/s")
    for what, rates in logs.items():
        report.add(f"replay of {what}", statistics.median(rates), "messages/s", at_least=30_000)


async def fill(url: str) -> None:
    """Let three actors handle their messages, and go on waiting."""
    async with Runtime(url, actors=[Counter]) as runtime:
        events = await runtime.start(Counter.run, "events", 0, 0)
        await together(IN_FLIGHT, (events.send_event(Counter.add, 1) for _ in range(MESSAGES)))
        signals = await runtime.start(Counter.run, "signals", MESSAGES, 0)
        await together(IN_FLIGHT, sendings(signals))
        await runtime.start(Counter.run, "outcomes of steps", 0, MESSAGES)
        await runtime.settled()


def sendings(ref: Reference) -> Iterator[Awaitable[None]]:
    """One signal each."""
    return (send_signal(ref, Counter.more, 1) for _ in range(MESSAGES))


async def time_to_return(ref: Reference) -> float:
    """Seconds until an actor that is not in memory has answered."""
    begin = time.perf_counter()
    count = await ref.ask(Counter.add, 0)
    spent = time.perf_counter() - begin
    if count != MESSAGES:
        raise AssertionError(f"it should have counted {MESSAGES}, and says {count}")
    return spent


def time_by_hand() -> float:
    """Seconds for the same calls from a list of payloads."""
    payloads = [pickle.dumps(((1,), {}), 5)] * MESSAGES
    counter = Counter()
    begin = time.perf_counter()
    for payload in payloads:
        arguments, keywords = pickle.loads(payload)
        counter.add(*arguments, **keywords)
    return time.perf_counter() - begin


if __name__ == "__main__":
    answer(__doc__, measure)

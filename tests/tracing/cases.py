"""A process log as actors: one workflow a case, which ends with the last of its events."""

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, final

from opentelemetry.sdk.trace import TracerProvider
from perdure.actors import Runtime, durable_actor, on_event, wait_until, workflow
from perdure.tracing import Tracing


@final
class Event(NamedTuple):
    """One line of a log."""

    case: str
    id: str


@durable_actor
class Case:
    """Takes its events, and is done after as many as it was told of."""

    seen: int = 0

    @workflow
    async def run(self, events: int) -> int:
        await wait_until(lambda: self.seen >= events)
        return self.seen

    @on_event
    def record(self, event: str) -> None:
        self.seen += 1


def read_log(path: Path) -> list[Event]:
    """The events of a log in the CSV form of the process-mining community, in order of time; their ids are their lines' numbers."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            (datetime.fromisoformat(row["time:timestamp"]), number, row["case:concept:name"])
            for number, row in enumerate(csv.DictReader(file))
        ]
    return [Event(case, str(number)) for _, number, case in sorted(rows)]


async def play(log: list[Event], url: str, provider: TracerProvider) -> None:
    """Send all events, from within no trace, to one host, and after half of them to another; an event's id is told as its payload."""
    tracing: Final = Tracing(provider, capture_payloads=lambda name, args, _: args[0] if name == "record" else None)
    lengths, half = Counter(event.case for event in log), len(log) // 2
    for part in (log[:half], log[half:]):
        async with Runtime(url, actors=[Case], tracing=tracing) as runtime:
            await asyncio.gather(*(runtime.start(Case.run, case, lengths[case]) for case in dict.fromkeys(event.case for event in part)))
            await asyncio.gather(*(runtime.ref(Case, event.case).send_event(Case.record, event.id) for event in part))
            await runtime.settled()

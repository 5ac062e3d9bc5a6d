"""A shop whose hosts are metered, and what is read of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from perdure.actors import Retry, durable_actor, on_event, on_timer, set_timer, step, workflow
from perdure.actors.testing import World
from perdure.tracing import Tracing

Read = Callable[[], Mapping[str, "Figure"]]
HOUR: Final = timedelta(hours=1)
HEAVY: Final = 1_000_000


class Figure(NamedTuple):
    """An instrument's unit, description, and points by their attributes."""

    unit: str
    description: str
    points: Mapping[tuple[Any, ...], Any]

    def by(self, *attributes: str) -> dict[Any, Any]:
        """The values by some attributes' values; of a histogram how many were measured."""
        found: dict[Any, Any] = {}
        for labels, point in self.points.items():
            key = tuple(dict(labels).get(name) for name in attributes)
            found[key] = found.get(key, 0) + (point.count if isinstance(point, HistogramDataPoint) else point.value)
        return found

    @property
    def value(self) -> Any:
        """The only one."""
        (value,) = self.by().values()
        return value


@durable_actor(retry=Retry(max_attempts=1))
class Till:
    """Counts, and fails when it is told to."""

    total: int = 0

    @on_event
    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @on_event
    def refuse(self) -> None:
        raise LookupError("no such coin")

    @on_event
    def remind(self, seconds: float) -> None:
        set_timer(Till.ring, after=timedelta(seconds=seconds))

    @on_timer
    def ring(self) -> None:
        self.total += 1


@step(retry=Retry(max_attempts=2))
async def weigh(grams: int) -> int:
    if grams < 0:
        raise ValueError("less than nothing")
    if grams == HEAVY:
        await asyncio.Event().wait()
    return grams


@durable_actor
class Parcel:
    """Waits, and is replayed."""

    weight: int = 0

    @workflow
    async def run(self, grams: int, seconds: float) -> int:
        self.weight = await weigh(grams)
        await asyncio.sleep(seconds)
        return self.weight


@durable_actor(on_poison="quarantine", retry=Retry(max_attempts=1))
class Fragile:
    """Stands still at what it cannot handle."""

    @on_event
    def drop(self) -> None:
        raise LookupError("broken")


@durable_actor(retry=Retry(initial=HOUR, maximum=HOUR))
class Patient:
    """Tries again an hour later; until then all its messages wait."""

    @on_event
    def wait(self) -> None:
        raise LookupError("not yet")


def provider() -> tuple[MeterProvider, Read]:
    """A program's meter provider, and what is read from it now."""
    reader = InMemoryMetricReader()
    return MeterProvider(metric_readers=[reader], shutdown_on_exit=False), lambda: figures(reader)


def figures(reader: InMemoryMetricReader) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    data = reader.get_metrics_data()
    for metric in [m for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics]:
        points = {tuple((point.attributes or {}).items()): point for point in metric.data.data_points}
        found[metric.name] = Figure(metric.unit or "", metric.description or "", points)
    return found


@asynccontextmanager
async def metered(*actors: type, **options: Any) -> AsyncIterator[tuple[World, Read]]:
    meters, read = provider()
    async with World(actors, tracing=Tracing(meter_provider=meters), **options) as world:
        yield world, read


async def make_busy(world: World) -> None:
    """Let everything happen that there is a figure for."""
    till, fragile = world.ref(Till, "one"), world.ref(Fragile, "one")
    for amount in range(3):
        await till.ask(Till.add, amount)
    await till.send_event(Till.refuse)
    await till.ask(Till.remind, 1.0)
    await fragile.send_event(Fragile.drop)
    await world.start(Parcel.run, "light", -1, 0.0)
    await world.start(Parcel.run, "one", 1, 60.0)
    await world.settled()
    await world.restart()
    await world.run_until_idle()

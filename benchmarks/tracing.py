"""What do traces cost a host, where an SDK keeps every span on this machine, and where it samples a tenth? At full load.

Baseline: the same asks of the same actors with nobody who listens. All take turns in rounds of `turns.MESSAGES` asks, and medians are
compared; a round ends when all of its answers are there and all of its spans are kept, so nothing is put off to a round of others.
"""

from __future__ import annotations

import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from perdure.actors import Runtime
from perdure.tracing import LocalSpanExporter, LocalSpanProcessor, Tracing

from .measure import Report, answer
from .tally import Tally
from .turns import MESSAGES, Ask, asks_of, rate

ROUNDS: Final = 7
ALL: Final = "every trace kept"
TENTH: Final = "one trace in ten kept"
NONE: Final = "nobody listens"


def listening(store: Path, sampled: float) -> TracerProvider:
    """A provider that keeps the spans of a part of all traces beside a store."""
    provider = TracerProvider(ParentBased(TraceIdRatioBased(sampled)), shutdown_on_exit=False)
    provider.add_span_processor(LocalSpanProcessor(LocalSpanExporter(f"lmdb:{store}")))
    return provider


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    providers = {NONE: None, ALL: listening(directory / ALL, 1.0), TENTH: listening(directory / TENTH, 0.1)}
    async with AsyncExitStack() as stack:
        asks: dict[str, Ask] = {}
        for name, provider in providers.items():
            tracing = None if provider is None else Tracing(tracer_provider=provider)
            asks[name] = asks_of(await stack.enter_async_context(Runtime(f"lmdb:{directory / name}", [Tally], tracing=tracing)))
        rates: dict[str, list[float]] = {name: [] for name in asks}
        for number in range(ROUNDS + 1):
            for name, ask in asks.items():
                measured = await rate_with_spans(ask, providers[name])
                if number:  # the first is not counted: the actors come into memory
                    rates[name].append(measured)
    base = statistics.median(rates[NONE])
    report.add(f"asks of actors, {NONE}", base, "messages/s")
    for name, most in ((ALL, 30), (TENTH, 10)):
        reached = statistics.median(rates[name])
        report.add(f"asks of actors, {name}", reached, "messages/s")
        report.add(f"what it costs, {name}", (base / reached - 1) * 100, "%", at_most=most)
    for provider in providers.values():
        if provider is not None:
            provider.shutdown()


async def rate_with_spans(ask: Ask, provider: TracerProvider | None) -> float:
    """As `rate`, until the spans are kept as well."""
    begin = time.perf_counter()
    await rate(ask)
    if provider is not None:
        provider.force_flush()
    return MESSAGES / (time.perf_counter() - begin)


if __name__ == "__main__":
    answer(__doc__, measure)

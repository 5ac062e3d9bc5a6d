"""Runs the simulation of a seed, and reports what it came to."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from perdure.actors._envelope import Kind
from perdure.actors._performance import Performer
from perdure.actors._watchdog import Watchdog
from perdure.actors.testing import SimulatedLoop, TimeStandsStill

from .plot import plot_of
from .stage import Stage, Trace

OF_TIMERS: Final = {Kind.FIRING, Kind.TIMER}


class Report(NamedTuple):
    """What a simulation came to; `seconds` are of the processor."""

    seed: int
    digest: str
    operations: int
    turns: int
    hosts: int
    seconds: float
    problems: list[str]
    lines: list[str]


@contextmanager
def turns_seen(trace: Trace, wrong: Callable[[str], None]) -> Iterator[list[int]]:
    """Trace each turn, and see that no timer fires early; gives their count."""
    perform, count = Performer.perform, [0]

    def traced(self: Performer, activation: Any, item: Any) -> None:
        count[0] += 1
        envelope = item.envelope
        trace("turn", activation.actor, item.seq, envelope.kind.name, envelope.name)
        if envelope.kind in OF_TIMERS and envelope.due > asyncio.get_running_loop().time():
            wrong(f"a timer of {activation.actor} that is due at {envelope.due} fires already")
        perform(self, activation, item)

    Performer.perform = traced  # type: ignore[method-assign]
    try:
        yield count
    finally:
        Performer.perform = perform  # type: ignore[method-assign]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Meanwhile nothing comes at a time of its own: no garbage is collected, no thread watches. Nor is anybody told of what is meant."""
    start = Watchdog.start
    Watchdog.start = lambda self: None  # type: ignore[method-assign]
    logging.disable(logging.CRITICAL)
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()
        logging.disable(logging.NOTSET)
        Watchdog.start = start  # type: ignore[method-assign]


def simulate(seed: int, *, keeps_lines: bool = False) -> Report:
    """Play the simulation of a seed."""
    trace = Trace(keeps_lines=keeps_lines)
    problems: list[str] = []
    begun = time.process_time()
    counts = 0, 0
    with undisturbed(), turns_seen(trace, problems.append) as turns:
        try:
            with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
                runner.get_loop().set_exception_handler(lambda loop, context: problems.append(str(context)))
                counts = runner.run(_played(seed, trace, problems))
        except TimeStandsStill as error:
            problems.append(str(error))
        seconds = time.process_time() - begun
    return Report(seed, trace.digest, counts[0], turns[0], counts[1], seconds, problems, trace.lines)


async def _played(seed: int, trace: Trace, problems: list[str]) -> tuple[int, int]:
    """How many operations and hosts it had."""
    stage = Stage(seed, plot_of(seed), trace, problems)
    try:
        await stage.play()
    except Exception as error:  # noqa: BLE001  whatever ends it is what it has found
        problems.append("it ended by " + "".join(traceback.format_exception(error, limit=-12)))
    return stage.operations + stage.played, stage.hosts

"""Crash around any commit: each turn, attempt and message is told once, in the same trace as if nothing had happened, up to the marks."""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from perdure.actors.testing import CrashPoint
from perdure.tracing import Tracing, names

from .programs import PROGRAMS
from .script import Program
from .stage import nothing, play, stage

pytestmark = [pytest.mark.anyio, pytest.mark.promise("traced-once")]

# Whether a step that Undoing leaves has ended before it is waited for no longer depends on the crash: it goes on by one or the other.
TOLD_ALIKE: Final = [program for program in PROGRAMS if program.name != "Undoing"]
OF_HOSTS: Final = {names.COMMIT, names.RECOVER}  # how many there are depends on how often one crashes


def is_marked(span: ReadableSpan) -> bool:
    """Whether a crash may add it, or take it away: what its caller asks for again, an attempt that was to end and has died instead."""
    attributes = span.attributes or {}
    return attributes.get(names.MESSAGE_KIND) == "cancel" or attributes.get(names.ERROR_TYPE) == "CancelledError"


Told = Counter[tuple[object, ...]]


def told_of(spans: tuple[ReadableSpan, ...]) -> Told:
    """The spans, each by its name, its way to the root, and what of it does not depend on when it was."""
    found = {span.context.span_id: span for span in spans if span.context is not None}

    def way(span: ReadableSpan) -> tuple[str, ...]:
        return (span.name, *(way(found[span.parent.span_id]) if span.parent is not None else ()))

    def shape(span: ReadableSpan) -> tuple[object, ...]:
        attributes = span.attributes or {}
        told = attributes.get(names.MESSAGE_KIND), attributes.get(names.ERROR_TYPE), attributes.get(names.DEAD_LETTER)
        return *way(span), span.kind, span.status.status_code, *told

    return Counter(shape(span) for span in spans if span.name not in OF_HOSTS and not is_marked(span))


async def played(path: Path, program: Program, point: CrashPoint, nth: int) -> tuple[Told, int]:
    """The spans of a program that crashes around one of its commits, and how often it did."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with stage(path, tracing=Tracing(tracer_provider=provider)) as (world, ledger):
        if nth:
            world.crash_at(point, nth)
        await play(world, ledger, program, nothing)
        crashes = world.store.crashes
    return told_of(exporter.get_finished_spans()), crashes


@pytest.mark.slow
@pytest.mark.parametrize("program", TOLD_ALIKE, ids=lambda program: program.name)
async def test_a_crash_around_a_commit_changes_nothing_of_what_is_told(program: Program, tmp_path: Path, torture: bool) -> None:
    expected, _ = await played(tmp_path / "undisturbed", program, CrashPoint.BEFORE_COMMIT, 0)

    for point in CrashPoint:
        for nth in count(1, 1 if torture else 5):
            told, crashes = await played(tmp_path / f"{point.value} {nth}", program, point, nth)

            assert (point, nth, told - expected, expected - told) == (point, nth, Counter(), Counter())
            if not crashes:
                break

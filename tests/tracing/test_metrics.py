"""What hosts count, measure and show: each figure once, in its unit, with few attributes; nothing of a replay, nothing of who has ended."""

from __future__ import annotations

import asyncio
import gc
import logging
import timeit
import weakref
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from perdure.actors import ActorFailed, Runtime
from perdure.actors._envelope import Kind
from perdure.actors._ids import ActorId
from perdure.actors._metering import MEASURED
from perdure.actors._ref import Request
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain
from perdure.tracing import Tracing, names

from ..actors.conftest import eventually  # noqa: TID252
from .metered import HEAVY, Fragile, Parcel, Patient, Till, make_busy, metered, provider, weigh

pytestmark = pytest.mark.anyio

STATES: Final = {names.MAILBOX_DEPTH, names.MAILBOX_HEAD_AGE, names.STEPS_RUNNING, names.STEPS_WAITING, names.ACTORS_ACTIVE} | {
    names.ACTORS_READY,
    names.ACTORS_BACKLOG,
    names.ACTORS_QUARANTINED,
    names.STORE_SIZE,
}
EVENTS: Final = {
    names.TURNS,
    names.TURNS_FAILED,
    names.TURN_DURATION,
    names.COMMIT_DURATION,
    names.COMMIT_TURNS,
    names.COMMIT_SIZE,
    names.STEPS_FAILED,
} | {
    names.STEP_DURATION,
    names.TIMERS_FIRED,
    names.TIMER_LATENESS,
    names.ACTIVATIONS,
    names.PASSIVATIONS,
    names.REPLAYS,
    names.REPLAY_LENGTH,
    names.DEAD_LETTERS,
}


# --- turns ---


async def test_turns_are_counted_and_measured_by_type_handler_and_outcome() -> None:
    async with metered(Till) as (world, read):
        till = world.ref(Till, "one")
        for amount in range(3):
            await till.ask(Till.add, amount)
        with pytest.raises(LookupError):
            await till.ask(Till.refuse)

    turns, durations = read()[names.TURNS], read()[names.TURN_DURATION]
    by = (names.ACTOR_TYPE, names.HANDLER, names.OUTCOME)
    assert (turns.unit, durations.unit) == ("{turn}", "s")
    assert turns.by(*by) == {("Till", "add", "completed"): 3, ("Till", "refuse", "failed"): 1}
    assert durations.by(*by) == turns.by(*by)
    assert read()[names.TURNS_FAILED].by(names.HANDLER, names.ERROR_TYPE) == {("refuse", "LookupError"): 1}
    assert all(0 < point.sum < 1 for point in durations.points.values())


async def test_what_was_lost_with_its_batch_is_not_counted() -> None:
    async with metered(Till) as (world, read):
        await world.ref(Till, "one").ask(Till.add, 1)
        world.store.crash_at(CrashPoint.BEFORE_COMMIT, nth=1)
        with pytest.raises(CommitUncertain):
            await world.ref(Till, "one").ask(Till.add, 1)
        await world.ref(Till, "two").ask(Till.add, 1)

    assert read()[names.TURNS].value == read()[names.TURN_DURATION].value == 2


async def test_a_name_that_is_no_handlers_is_no_attribute() -> None:
    async with metered(Till) as (world, read):
        await world.send(Request(ActorId("Till", "one"), Kind.EVENT, "made up", b""))
        await world.run_until_idle()

    assert read()[names.TURNS_FAILED].by(names.HANDLER, names.ERROR_TYPE) == {("event", "UnknownHandler"): 1}


async def test_of_a_crowded_batch_all_turns_are_counted_and_some_are_measured() -> None:
    async with metered(Till) as (world, read):
        world.store.hold()
        asked = [asyncio.ensure_future(world.ref(Till, f"{n % 10}").ask(Till.add, 1)) for n in range(500)]
        await eventually(lambda: world.runtime.statistics().turns >= 500)
        world.store.flow()
        await asyncio.gather(*asked)

    assert read()[names.TURNS].value == 500
    assert MEASURED // 2 <= read()[names.TURN_DURATION].value <= 3 * MEASURED


# --- mailboxes and actors ---


async def test_mailboxes_show_how_much_waits_and_since_when() -> None:
    async with metered(Patient, Till) as (world, read):
        for _ in range(3):
            await world.ref(Patient, "one").send_event(Patient.wait)
        await world.settled()
        world.clock.move_to(world.clock.now() + 60)

        shown = read()
        assert shown[names.MAILBOX_DEPTH].by(names.ACTOR_TYPE) == {("Patient",): 3, ("Till",): 0}
        ages = shown[names.MAILBOX_HEAD_AGE].by(names.ACTOR_TYPE)
        assert (ages[("Till",)], ages[("Patient",)]) == (0, pytest.approx(60, abs=1))
        assert (shown[names.MAILBOX_DEPTH].unit, shown[names.MAILBOX_HEAD_AGE].unit) == ("{message}", "s")


async def test_actors_in_memory_are_shown_and_their_coming_and_going_counted() -> None:
    async with metered(Till, max_active=2) as (world, read):
        for key in "abcd":
            await world.ref(Till, key).ask(Till.add, 1)

        active = read()[names.ACTORS_ACTIVE].value

    assert active == 2
    assert (read()[names.ACTIVATIONS].value, read()[names.PASSIVATIONS].value) == (4, 2)


async def test_actors_that_stand_still_are_shown_over_restarts_until_they_go_on() -> None:
    async with metered(Fragile) as (world, read):
        for key in ("one", "two"):
            await world.ref(Fragile, key).send_event(Fragile.drop)
        await world.run_until_idle()
        standing = read()[names.ACTORS_QUARANTINED].value
        await world.restart()
        found = read()[names.ACTORS_QUARANTINED].value
        await world.ref(Fragile, "one").delete()

        assert (standing, found, read()[names.ACTORS_QUARANTINED].by(names.ACTOR_TYPE)) == (2, 2, {("Fragile",): 1})


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
async def test_the_size_of_the_store_is_shown_in_bytes(kind: str, tmp_path: Path) -> None:
    async with metered(Till, store="memory:" if kind == "memory" else f"lmdb:{tmp_path}/store") as (world, read):
        await world.ref(Till, "one").ask(Till.add, 1)

        size = read()[names.STORE_SIZE]

        assert size.unit == "By"
        assert size.value == world.store.size() > 100


# --- commits ---


async def test_commits_are_measured_with_what_they_hold() -> None:
    async with metered(Till) as (world, read):
        for _ in range(5):
            await world.ref(Till, "one").ask(Till.add, 1)

    shown = read()
    measured = [shown[name] for name in (names.COMMIT_DURATION, names.COMMIT_TURNS, names.COMMIT_SIZE)]
    assert [each.unit for each in measured] == ["s", "{turn}", "By"]
    assert len({each.value for each in measured}) == 1
    assert measured[0].value >= 5


# --- steps, timers, replays, dead letters ---


async def test_attempts_at_steps_are_measured_and_failures_counted() -> None:
    async with metered(Parcel) as (world, read):
        with pytest.raises(ActorFailed):
            await (await world.start(Parcel.run, "light", -1, 0.0)).result()
        await (await world.start(Parcel.run, "right", 1, 0.0)).result()

    shown = read()
    assert shown[names.STEPS_FAILED].by(names.STEP, names.ERROR_TYPE) == {(weigh.name, "ValueError"): 2}
    assert shown[names.STEP_DURATION].by(names.STEP, names.OUTCOME) == {(weigh.name, "failed"): 2, (weigh.name, "completed"): 1}
    assert (shown[names.STEPS_FAILED].unit, shown[names.STEP_DURATION].unit) == ("{attempt}", "s")


async def test_steps_at_work_are_shown_apart_from_those_that_wait() -> None:
    async with metered(Parcel) as (world, read):
        await world.start(Parcel.run, "heavy", HEAVY, 0.0)
        await world.start(Parcel.run, "light", -1, 0.0)
        await eventually(lambda: read()[names.STEPS_WAITING].value == 1)

        assert read()[names.STEPS_RUNNING].value == 1


async def test_timers_tell_how_late_they_have_fired() -> None:
    async with metered(Till, autojump=False) as (world, read):
        await world.ref(Till, "one").ask(Till.remind, 10.0)
        world.clock.move_to(world.clock.now() + 25)
        await world.settled()

    ((labels, point),) = read()[names.TIMER_LATENESS].points.items()
    assert dict(labels) == {names.ACTOR_TYPE: "Till"}
    assert point.sum == pytest.approx(15, abs=1)
    assert (read()[names.TIMERS_FIRED].value, read()[names.TIMER_LATENESS].unit) == (1, "s")


async def test_a_replay_is_counted_with_its_length_and_its_turns_are_not() -> None:
    async with metered(Parcel) as (world, read):
        run = await world.start(Parcel.run, "one", 1, 3600.0)
        await world.settled()
        await world.restart()
        before = read()[names.TURNS].value
        await run.result()

    shown = read()
    assert shown[names.REPLAYS].by(names.ACTOR_TYPE, names.OUTCOME) == {("Parcel", "completed"): 1}
    assert [(point.count, point.sum) for point in shown[names.REPLAY_LENGTH].points.values()] == [(1, 2)]
    assert (before, shown[names.TURNS].value, shown[names.STEP_DURATION].value) == (2, 3, 1)


async def test_dead_letters_are_counted_by_type_and_error() -> None:
    async with metered(Till) as (world, read):
        for _ in range(2):
            await world.ref(Till, "one").send_event(Till.refuse)
        await world.run_until_idle()

    assert read()[names.DEAD_LETTERS].by(names.ACTOR_TYPE, names.ERROR_TYPE) == {("Till", "LookupError"): 2}


# --- several, and none ---


async def test_two_runtimes_of_a_process_are_one_figure(caplog: pytest.LogCaptureFixture) -> None:
    meters, read = provider()
    tracing = Tracing(meter_provider=meters)
    with caplog.at_level(logging.WARNING):
        async with Runtime("memory:", [Till], tracing=tracing) as one, Runtime("memory:", [Till], tracing=tracing) as other:
            for runtime in (one, other):
                await runtime.ref(Till, "same").ask(Till.add, 1)

            active = read()[names.ACTORS_ACTIVE].value

    assert (active, read()[names.TURNS].value, caplog.records) == (2, 2, [])


async def test_collecting_in_another_thread_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    meters, read = provider()
    async with Runtime("memory:", [Till], tracing=Tracing(meter_provider=meters), max_active=20) as runtime:
        collecting = asyncio.get_running_loop().run_in_executor(None, lambda: [read() for _ in range(50)])
        asked = 0
        while not collecting.done():
            await asyncio.gather(*(runtime.ref(Till, f"{n}").ask(Till.add, 1) for n in range(50)))
            asked += 50

    assert [record.message for record in caplog.records if record.name.startswith("opentelemetry")] == []
    assert read()[names.TURNS].value == asked
    turns = [shown[names.TURNS].value for shown in collecting.result() if names.TURNS in shown]
    assert turns == sorted(turns)


async def test_who_has_ended_is_neither_shown_nor_kept_alive() -> None:
    meters, read = provider()
    async with Runtime("memory:", [Till], tracing=Tracing(meter_provider=meters)) as runtime:
        await runtime.ref(Till, "one").ask(Till.add, 1)
        host = weakref.ref(runtime._host)

    shown = read()
    await eventually(lambda: gc.collect() >= 0 and host() is None)
    assert STATES & shown.keys() == set()
    assert shown[names.TURNS].value == 1


async def test_without_a_provider_nothing_is_metered() -> None:
    async with Runtime("memory:", [Till]) as runtime:
        assert runtime._host is not None
        assert (runtime._host.epoch.listener, runtime._host.epoch.commit.observer) == (None, None)


async def test_traces_and_figures_are_told_of_the_same_turns() -> None:
    meters, read = provider()
    spans = InMemorySpanExporter()
    tracer = TracerProvider(shutdown_on_exit=False)
    tracer.add_span_processor(SimpleSpanProcessor(spans))
    async with World([Parcel], tracing=Tracing(tracer_provider=tracer, meter_provider=meters)) as world:
        await (await world.start(Parcel.run, "one", 1, 60.0)).result()

    told = [span.name for span in spans.get_finished_spans() if span.name.startswith(("handle", "resume", "timer"))]
    assert len(told) == read()[names.TURNS].value == 3
    assert read()[names.STEP_DURATION].value == sum(span.name.startswith("step") for span in spans.get_finished_spans()) == 1


async def test_every_instrument_is_described_in_a_sentence_without_its_unit() -> None:
    async with metered(Till, Parcel, Fragile) as (world, read):
        await make_busy(world)
        shown = read()

    assert shown.keys() == STATES | EVENTS
    assert [name for name, figure in shown.items() if not figure.description[:1].isupper() or figure.description.endswith(".")] == []


async def test_all_points_of_an_instrument_have_attributes_of_the_same_names() -> None:
    async with metered(Till, Parcel, Fragile) as (world, read):
        await make_busy(world)

    named = {name: {tuple(key for key, _ in labels) for labels in figure.points} for name, figure in read().items()}
    assert {name: several for name, several in named.items() if len(several) > 1} == {}


async def test_looking_at_ten_thousand_actors_takes_milliseconds() -> None:
    meters, read = provider()
    async with Runtime("memory:", [Till], tracing=Tracing(meter_provider=meters)) as runtime:
        await asyncio.gather(*(runtime.ref(Till, f"{n}").ask(Till.add, 1) for n in range(10_000)))
        await runtime.settled()

        took = [timeit.timeit(read, number=1) for _ in range(5)]

    assert min(took) < 0.05

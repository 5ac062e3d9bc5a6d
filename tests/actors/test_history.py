"""Histories: what is kept of an actor's past is told, goes with it, and leads to the same again, wherever it is replayed."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from perdure.actors import (
    ActorQuarantined,
    ActorRef,
    DefinitionError,
    ExportUnreadable,
    NonDeterminismError,
    Retry,
    UnknownActorType,
    VersionMismatch,
    continue_as_new,
    current_actor,
    durable_actor,
    export_actors,
    import_actors,
    migrate,
    on_activate,
    on_event,
    on_signal,
    send_signal,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors._past import Past, read_past, write_past
from perdure.actors._persistence import Stored, read_actors, read_history, read_log, suffix_of
from perdure.actors.ops._standins import ResourceUsed
from perdure.actors.testing import CrashPoint, Replayed, World, replay_history
from perdure.storage import CommitUncertain, Store

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

WEIGHED: Final[list[str]] = []
Export = Callable[[World, ActorRef[Any]], Any]


@step(name="history.weigh")
async def weigh(what: str) -> int:
    WEIGHED.append(what)
    return len(what)


@step(name="history.measure")
async def measure(what: str) -> int:
    return len(what)


def parcel(change: str = "", **options: Any) -> Any:
    """A class whose code asks, or leads, somewhere else after some changes."""

    @durable_actor(name="Parcel", retry=Retry(max_attempts=2), **options)
    class Parcel:
        paid = signal(str)
        went = signal()

        def __init__(self) -> None:
            self.grams = 0 if change != "shape" else [0, 0]
            self.notes: list[str] = []

        @workflow
        async def run(self, what: str, rounds: int = 1) -> str:
            grams = await (measure if change == "step" else weigh)(what)
            self.grams = [grams, 2] if change == "shape" else grams + (change == "leaf")
            if change != "left out":
                await asyncio.sleep(60)
            by = await wait_for_signal(Parcel.paid, timeout=timedelta(days=3))
            if rounds > 1:
                continue_as_new(what, rounds - 1)
            return by

        @on_event
        def note(self, text: str) -> None:
            if text == "bad" and change != "kind":
                raise ValueError(text)
            self.notes.append(text)

        @on_signal
        def hint(self) -> None:
            """Change nothing."""

    return Parcel


Then: Final = parcel(keep_history=10)


async def sent(world: World, key: str = "p", rounds: int = 1, of: Any = Then) -> ActorRef[Any]:
    """A parcel that has been through everything, and is paid for."""
    ref = await world.start(of.run, key, "tea", rounds)
    for _ in range(rounds):
        await world.settled()
        await ref.send_event("note", "fragile")
        await world.advance(timedelta(seconds=61))
        await send_signal(ref, of.paid, "ada")
        await world.settled()
    return ref


async def past_of(world: World, ref: ActorRef[Any]) -> Past:
    past = await read_past(world.store, ref.id)
    assert past is not None
    return past


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Writes an actor's history into a file, and returns that."""

    async def to_file(world: World, ref: ActorRef[Any]) -> Path:
        with (tmp_path / "history").open("wb") as file:
            write_past(file, await past_of(world, ref), "0.1.0", "3.11")
        return tmp_path / "history"

    return to_file


@pytest.fixture
async def world() -> Any:
    """A world of parcels, none of which stays in memory."""
    async with World([Then], max_active=0) as made:
        yield made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The history of a parcel that has been paid for."""
    path = tmp_path_factory.mktemp("finished") / "history"

    async def make() -> None:
        async with World([Then]) as world:
            with path.open("wb") as file:
                write_past(file, await past_of(world, await sent(world)), "0.1.0", "3.11")

    anyio.run(make)
    return path


# --- told ---


async def test_a_history_tells_what_each_message_led_to(world: World) -> None:
    told = [str(entry) for entry in await world.history(await sent(world))]

    assert told == [
        "2026-01-01 00:00:00.000 #1 start run: step history.weigh → suspended",
        "2026-01-01 00:00:00.000 #2 outcome history.weigh: timer until 2026-01-01 00:01:00.000 → suspended",
        "2026-01-01 00:00:00.000 #3 event note → suspended",
        "2026-01-01 00:01:00.000 #4 firing: timer until 2026-01-04 00:01:00.000, signal paid → suspended",
        "2026-01-01 00:01:01.000 #5 declared paid → completed",
    ]


async def test_a_message_that_failed_is_told_with_why(world: World) -> None:
    ref = world.ref(Then, "p")
    await ref.send_event("note", "good")
    await ref.send_event("note", "bad")
    await world.settled()
    first = (await world.history(ref))[-1]
    await world.run_until_idle()

    last = (await world.history(ref))[-1]
    assert [(each.turn, each.attempt, each.error) for each in (first, last)] == [(2, 1, "ValueError: bad"), (2, 2, "ValueError: bad")]
    assert str(last).endswith("#2 event note, attempt 2 → idle: ValueError: bad")


async def test_a_message_for_the_host_is_told_as_such(world: World) -> None:
    ref = world.ref(Then, "p")
    await send_signal(ref, Then.went)
    await send_signal(ref, "hint")
    await world.settled()

    told = [(entry.kind, entry.name, entry.is_for_code) for entry in await world.history(ref)]

    assert told == [("declared", "went", False), ("signal", "hint", True)]


async def test_a_message_that_stops_its_actor_is_told() -> None:
    class Fragile:
        @workflow
        async def run(self) -> None:
            await weigh("tea")

        @on_event
        def fail(self) -> None:
            raise ValueError("two\nlines")

    actor = durable_actor(on_poison="quarantine", retry=Retry(max_attempts=1))(Fragile)
    async with World([actor]) as world:
        ref = world.ref(actor, "f")
        await ref.send_event("fail")
        await world.settled()

        (entry,) = await world.history(ref)
        assert entry.error == "ValueError: two\nlines"
        assert str(entry).endswith("#1 event fail → idle: ValueError: two")


async def test_a_workflow_that_fails_says_so_in_its_last_entry() -> None:
    class Failing:
        @workflow
        async def run(self) -> None:
            await weigh("tea")
            raise ValueError("no")

    async with World([actor := durable_actor(Failing)]) as world:
        ref = await world.start(actor.run, "f")
        await world.settled()

        assert [(entry.status, entry.error) for entry in await world.history(ref)] == [("suspended", None), ("failed", "ValueError: no")]


# --- kept ---


async def test_a_history_has_what_the_log_of_replay_has(world: World) -> None:
    ref = await world.start(Then.run, "p", "tea")
    await ref.send_event("note", "fragile")
    await send_signal(ref, Then.went)
    await world.advance(timedelta(seconds=61))

    log = await read_log(world.store, suffix_of(ref.id), 0, 4)

    assert (await past_of(world, ref)).stretches()[0].log == log


@pytest.mark.parametrize("point", CrashPoint)
async def test_a_crash_leaves_the_rows_of_durable_turns_alone(make_world: MakeWorld, point: CrashPoint) -> None:
    world = await make_world(Then)
    for nth in range(1, 7):
        ref = await world.start(Then.run, f"p-{nth}", "tea")
        world.crash_at(point, nth)
        while world.store.crashes < nth:
            with suppress(CommitUncertain):
                await ref.ask("note", "x")
        await world.restart()

        with world.slow_disk():  # and nothing becomes durable between the two reads
            rows, (stored,) = await read_history(world.store, ref.id), await read_actors(world.store, [ref.id])
        assert isinstance(stored, Stored)
        assert stored.snapshot is not None
        assert [row.entry.number for row in rows] == list(range(1, stored.snapshot.turn + 1))


class Older:
    """A store of which records were read a while before ranges are, as a host at work may have it."""

    def __init__(self, store: Store) -> None:
        self.scan, self._store = store.scan, store
        self._values: dict[bytes, bytes | None] = {}

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values as they were when they were first read."""
        self._values = dict(zip(keys, await self._store.read(keys), strict=True)) | self._values
        return [self._values[key] for key in keys]


async def test_what_a_host_adds_meanwhile_leaves_no_gap(world: World) -> None:
    ref = world.ref(Then, "p")
    await ref.ask("note", "good")
    older = Older(world.store)
    await read_past(older, ref.id)
    await ref.ask("note", "good")
    with pytest.raises(ValueError, match="bad"):
        await ref.ask("note", "bad")

    past = await read_past(older, ref.id)

    assert past is not None
    assert [row.entry.number for row in past.rows] == [1]


async def test_what_is_dropped_is_dropped_in_whole_stretches(export: Export) -> None:
    counts: list[int] = []
    async with World([actor := parcel(keep_history=7)], keep_history=0) as world:
        ref = await world.start(actor.run, "p", "tea", 12)
        for _ in range(12):
            await world.advance(timedelta(seconds=61))
            await send_signal(ref, actor.paid, "ada")
            await world.settled()
            counts.append(len((await past_of(world, ref)).rows))
            assert replay_history(await export(world, ref), actor)[:2] == (counts[-1], ceil(counts[-1] / 4))

    assert counts == [6, 10, 14, 10, 14, 10, 14, 10, 14, 10, 14, 16]


@pytest.mark.parametrize("beside", [[], [durable_actor(name="Keeper", keep_history=1)(type("Keeper", (), {}))]])
async def test_no_row_is_written_where_nothing_is_kept(beside: list[type]) -> None:
    async with World([actor := parcel(), *beside], keep_history=0) as world:
        ref = await sent(world, of=actor)
        await ref.cancel()

        assert await world.history(ref) == []


async def test_a_deleted_actor_has_no_past(world: World) -> None:
    ref = await sent(world)
    await ref.delete()
    await world.settled()
    none = await world.history(ref)

    await ref.ask("note", "again")

    assert (none, [entry.name for entry in await world.history(ref)]) == ([], ["note"])


async def test_an_exported_actor_takes_its_past_along(tmp_path: Path) -> None:
    here, there, file = f"lmdb:{tmp_path}/here", f"lmdb:{tmp_path}/there", io.BytesIO()
    async with World([Then], store=here) as world:
        told = await world.history(await sent(world))
    await export_actors(here, file)
    file.seek(0)
    await import_actors(there, file)

    async with World([Then], store=there) as world:
        assert await world.history(world.ref(Then, "p")) == told != []


@pytest.mark.parametrize("wrong", [-1, True, "all", None])
def test_what_is_no_number_of_messages_is_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=r"keep_history=.* is not a number of messages"):
        parcel(keep_history=wrong)


# --- replayed ---


def test_an_unchanged_class_goes_through_its_history_again(finished: Path) -> None:
    WEIGHED.clear()

    assert replay_history(finished, parcel()) == Replayed(turns=5, stretches=1, passed_over=0, warnings=())
    assert WEIGHED == []


async def test_a_history_is_replayed_beside_a_running_loop(world: World, export: Export) -> None:
    ref = await world.start(Then.run, "p", "tea")
    await world.advance(timedelta(seconds=61))

    assert replay_history(str(await export(world, ref)), Then) == Replayed(3, 1, 0, ())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ("step", NonDeterminismError, "asked for step history.measure; when it first ran it asked for step history.weigh"),
        ("left out", NonDeterminismError, "when it first ran it asked for timer"),
        ("shape", ActorQuarantined, "self.grams"),
    ],
)
def test_a_planted_change_is_found(finished: Path, change: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        replay_history(finished, parcel(change))


def test_what_a_host_would_put_right_is_a_warning(finished: Path) -> None:
    (said,) = replay_history(finished, parcel("leaf")).warnings

    assert said.startswith("Parcel/p: after replay self.grams was not what it had been")


@pytest.mark.parametrize("silence", ["level", "disabled", "everywhere"])
def test_a_warning_is_found_however_logging_is_configured(
    finished: Path, silence: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("perdure.actors")
    with caplog.at_level(logging.ERROR if silence == "level" else logging.NOTSET, logger.name):
        monkeypatch.setattr(logger, "disabled", silence == "disabled")
        monkeypatch.setattr(logger.manager, "disable", logging.CRITICAL if silence == "everywhere" else 0)
        was = logger.level, logger.disabled, logger.propagate, logger.manager.disable

        assert replay_history(finished, parcel("leaf")).warnings
        assert (was, caplog.records) == ((logger.level, logger.disabled, logger.propagate, logger.manager.disable), [])


async def test_each_life_of_a_workflow_is_replayed(world: World, export: Export) -> None:
    ref = await sent(world, rounds=3)

    assert replay_history(await export(world, ref), Then)[1:] == (3, 0, ())


@pytest.mark.parametrize("how", ["terminate", "restart", "cancel"])
async def test_what_was_broken_off_is_replayed_as_far_as_it_went(world: World, export: Export, how: str) -> None:
    ref = await world.start(Then.run, "p", "tea")
    await world.settled()
    if how == "terminate":
        await ref.terminate()
    elif how == "cancel":
        await ref.cancel()
    await world.options(if_exists="restart").start(Then.run, "p", "coffee")
    await world.settled()

    assert replay_history(await export(world, ref), Then) == Replayed(4 + (how == "cancel"), 2, 0, ())


async def test_turns_that_failed_are_passed_over(world: World, export: Export) -> None:
    ref = await world.start(Then.run, "p", "tea")
    for text in ("bad", "good"):
        await ref.send_event("note", text)
    await world.advance(timedelta(seconds=61))

    assert replay_history(await export(world, ref), Then) == Replayed(4, 1, 0, ())


async def test_what_began_before_it_was_kept_is_not_replayed(tmp_path: Path, export: Export) -> None:
    stage: Mapping[str, Any] = {"store": f"lmdb:{tmp_path}/store"}
    async with World([before := parcel()], keep_history=0, **stage) as world:
        await world.start(before.run, "p", "tea")
        await world.settled()
    async with World([Then], **stage) as world:
        ref = world.ref(Then, "p")
        await world.advance(timedelta(seconds=61))
        for by in ("ada", "bob"):
            await send_signal(ref, Then.paid, by)
            await world.settled()
            await world.options(if_exists="restart").start(Then.run, "p", "tea")
            await world.advance(timedelta(seconds=61))

        assert replay_history(await export(world, ref), Then) == Replayed(7, 2, 0, ())


@pytest.mark.parametrize("kept", [(9, 0, 9), (9, 9, 0)])
async def test_a_time_in_which_nothing_was_kept_breaks_a_stretch(tmp_path: Path, export: Export, kept: tuple[int, ...]) -> None:
    actor, replayed = parcel(), []
    for keep in kept:
        async with World([actor], keep_history=keep, store=f"lmdb:{tmp_path}/store") as world:
            ref = await world.start(actor.run, "p", "tea")
            await world.settled()
            await ref.ask("note", "fragile")
            replayed.append(replay_history(await export(world, ref), actor).turns)

    assert replayed == ([3, 3, 3] if kept[1] == 0 else [3, 4, 4])


async def test_what_failed_before_and_was_done_while_nothing_was_kept_is_no_difference(tmp_path: Path, export: Export) -> None:
    actor: Any = parcel()
    stage: Mapping[str, Any] = {"store": f"lmdb:{tmp_path}/store"}
    async with World([actor], keep_history=9, **stage) as world:
        ref = await world.start(actor.run, "p", "tea")
        await world.settled()
        await ref.send_event("note", "bad")
        await world.settled()
    async with World([parcel("kind")], keep_history=0, **stage) as world:
        await world.advance(timedelta(seconds=20))

    async with World([actor], **stage) as world:
        assert replay_history(await export(world, ref), actor).turns == 2


# --- versions ---


class OfTwo:
    """The state of version 2 of parcels."""

    paid = signal(str)
    went = signal()

    def __init__(self) -> None:
        self.weight = 0

    @workflow
    async def run(self, what: str, rounds: int = 1) -> str:
        self.weight = await weigh(what)
        return f"{rounds}"

    @migrate(1)
    @staticmethod
    def from_grams(state: dict[str, Any]) -> dict[str, Any]:
        return {"weight": state["grams"]}


Now: Final = durable_actor(name="Parcel", version=2)(OfTwo)


def test_what_no_version_replays_is_refused_with_the_cure(finished: Path) -> None:
    with pytest.raises(VersionMismatch, match=r"replays=\(1,\)"):
        replay_history(finished, Now)


@pytest.mark.parametrize("options", [{"version": 2, "replays": (1,)}, {"version": 3, "replays": (2, 1)}])
def test_a_version_that_claims_a_past_is_held_to_it(finished: Path, options: Mapping[str, Any]) -> None:
    replayed = replay_history(finished, parcel(**options))

    assert replayed.turns == 5
    with pytest.raises(NonDeterminismError):
        replay_history(finished, parcel("step", **options))


def test_an_older_version_beside_takes_its_own_past(finished: Path) -> None:
    assert replay_history(finished, Now, Then).turns == 5


@pytest.fixture
async def moved(tmp_path: Path, export: Export) -> Any:
    """The history of a parcel whose first life was of version 1, and whose second one is of version 2, and waits."""
    async with World([Then], store=f"lmdb:{tmp_path}/store") as world:
        await sent(world)
    async with World([Now], store=f"lmdb:{tmp_path}/store") as world:
        ref = await world.options(if_exists="restart").start(Now.run, "p", "coffee")
        await world.settled()
        return await export(world, ref)


async def test_what_is_over_needs_no_version_any_more(moved: Path) -> None:
    assert replay_history(moved, Now) == Replayed(turns=2, stretches=1, passed_over=1, warnings=())


async def test_what_still_waits_needs_its_version(world: World, export: Export) -> None:
    path = await export(world, await world.start(Then.run, "p", "tea"))

    with pytest.raises(VersionMismatch):
        replay_history(path, Now)


# --- what its code has about it ---


@durable_actor
class Child:
    @workflow
    async def run(self) -> str:
        return current_actor().key


@durable_actor
class Parent:
    @workflow
    async def run(self) -> str:
        return await spawn(Child.run, "c").result()


async def test_children_are_found_by_themselves(export: Export) -> None:
    async with World([Parent, Child]) as world:
        ref = await world.start(Parent.run, "p")
        await world.settled()
        path = await export(world, ref)

    assert replay_history(path, Parent) == replay_history(path, Parent, Child) == Replayed(2, 1, 0, ())


@durable_actor
class Caller:
    @on_activate
    def look(self) -> None:
        self.line = current_actor().resources["line"].number

    @workflow
    async def run(self) -> None:
        await weigh("tea")


class Line:
    number = 7


async def test_resources_are_given_or_missed(export: Export) -> None:
    async with World([Caller], resources={"line": Line}) as world:
        ref = await world.start(Caller.run, "c")
        await world.settled()
        path = await export(world, ref)

    assert replay_history(path, Caller, resources={"line": Line}).turns == 2
    with pytest.raises(ResourceUsed, match="it uses the resource 'line', which only a host has"):
        replay_history(path, Caller)


# --- files ---


def damages(raw: bytes) -> Iterator[tuple[str, bytes]]:
    lines = raw.splitlines(keepends=True)
    yield "it is no history of an actor. Give it what `perdure export-history` has written.", b""
    yield "it is no history of an actor", b"\xff\xfe\n"
    yield "it is no history of an actor", b'{"type": "Parcel"}\n'
    yield "it is cut short. Export it again.", b"".join(lines[:-1])
    yield "it is cut short", b"".join(lines[:2] + lines[3:])
    yield "line 3 is damaged. Export it again.", b"".join(lines[:2]) + lines[2].replace(b'"row":"', b'"row":"AAAA') + b"".join(lines[3:])
    yield "line 3 is damaged", b"".join([*lines[:2], b"{}\n", *lines[3:]])
    yield "it has format 2, and this release reads 1", raw.replace(b'"history":1', b'"history":2')


def test_a_file_is_believed_only_if_it_is_whole(finished: Path, tmp_path: Path) -> None:
    for said, raw in damages(finished.read_bytes()):
        (tmp_path / "history").write_bytes(raw)

        with pytest.raises(ExportUnreadable) as refused:
            replay_history(tmp_path / "history", Then)

        assert str(refused.value).startswith(f"{tmp_path}/history: {said}")


def test_the_history_of_another_type_is_refused(finished: Path) -> None:
    with pytest.raises(UnknownActorType, match="Parcel"):
        replay_history(finished, Child)

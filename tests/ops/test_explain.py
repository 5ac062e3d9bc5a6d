"""What `perdure explain` says: what an actor waits for, what went wrong, and what happens next, in bounded time and without a host."""

from __future__ import annotations

import errno
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from perdure.actors import Runtime
from perdure.actors._breadcrumb import Phase
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._failure import Failure
from perdure.actors._ids import ActorId, Incarnation, MessageId
from perdure.actors._persistence import PREFIX, Table, put_dead_letter, put_host, put_log_entry, put_snapshot, suffix_of
from perdure.actors._records import (
    MAILBOX_ROW,
    DeadLetter,
    HostRow,
    Lane,
    LogEntry,
    MailboxRow,
    NamedTimer,
    QuarantineRow,
    RequestKind,
    RequestRow,
    Snapshot,
    Standing,
    Status,
    Wait,
)
from perdure.actors._version_errors import VersionMismatch
from perdure.actors.ops._explain import Explanation, explain
from perdure.actors.ops._situation import Head, HostState, Letters, Situation, Stand, read_host_state, read_situation
from perdure.storage import Batch, Entry, MemoryStore, Range, pack

from .conftest import Command, Hosting, installed
from .mill import ACTORS, Miller, Sack, mill

MILL = str(Path(__file__).with_name("mill.py"))
NOW = 1_700_000_000.0
ORDER = ActorId("Order", "o-1")
OTHER_TIMES = re.compile(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d")


@pytest.fixture(scope="module")
def mill_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mill's store whose host has stopped; it is read alone, so all tests share it."""
    url = f"lmdb:{tmp_path_factory.mktemp('mill')}/store"
    anyio.run(mill, url)
    return url


def said(perdure: Command, url: str, type_name: str, key: str) -> str:
    """All that is said of an actor, with the same time everywhere."""
    return OTHER_TIMES.sub("12:00:00", perdure("explain", type_name, key, store=url).stdout)


def told(perdure: Command, url: str, type_name: str, key: str) -> dict[str, Any]:
    """The same, as data."""
    found: dict[str, Any] = json.loads(perdure("explain", type_name, key, "--json", store=url).stdout)
    return found


# --- what is waited for ---


@pytest.mark.parametrize(
    ("key", "waits", "following"),
    [
        ("signal", "the signal approved, since", "nothing, until somebody sends approved, and a host runs"),
        ("timed-signal", "its clock, a sleep or a time-out: 12:00:00 (in 30 d)", "if somebody sends approved, it goes on before that"),
        ("step", "the step mill.grind, since", "the step mill.grind is tried again in"),
        ("long-step", "attempt 1 begins as soon as a host runs", "the step mill.dry begins as soon as a host runs (attempt 1)"),
        ("timer", "its clock, a sleep or a time-out: 12:00:00 (in 60 d)", "at 12:00:00 (in 60 d), if a host runs: its clock wakes it"),
        ("condition", "a condition to hold: Sack.run", "nothing, until a message makes its condition Sack.run"),
        ("primitive", "a lock, an event or a queue of its own", "nothing, until its own code sets free what it waits for"),
        ("idle", "its timer reminded: 12:00:00 (in 30 d)", "at 12:00:00 (in 30 d), if a host runs: its timer reminded fires"),
        ("holding", "the signal approved, since", "2 events wait, first the event weigh (seq 2), until the event's handler"),
    ],
)
def test_whatever_an_actor_waits_for_is_named_with_what_follows(
    perdure: Command, mill_url: str, key: str, waits: str, following: str
) -> None:
    shown = said(perdure, mill_url, "Sack", key)

    before, _, after = shown.partition("what happens next")
    assert waits in before.partition("what it waits for")[2]
    assert following in after


def test_the_command_that_sends_a_signal_is_told_as_it_is_typed(perdure: Command, mill_url: str) -> None:
    (wait,) = told(perdure, mill_url, "Sack", "signal")["waits"]

    assert wait["commands"] == ["""perdure signal Sack signal approved '["…"]'"""]


def test_a_command_is_told_once_however_often_it_would_help(perdure: Command, mill_url: str) -> None:
    shown = said(perdure, mill_url, "Miller", "m-1")

    assert shown.count("perdure signal Sack s-of-signal approved") == 1


def test_a_step_is_told_with_attempt_error_time_and_progress(perdure: Command, mill_url: str) -> None:
    (wait,) = told(perdure, mill_url, "Sack", "step")["waits"]

    assert (wait["attempt"], wait["is_running"], wait["progress"]) == (2, False, "{'ground': 7}")
    assert wait["error"] == "OSError: the stone is stuck in the rye"
    assert wait["next_attempt"] > wait["since"]


def test_whom_an_actor_waits_for_is_told_with_what_that_waits_for(perdure: Command, mill_url: str) -> None:
    miller = told(perdure, mill_url, "Miller", "m-1")

    (wait,) = miller["waits"]
    (link,) = wait["chain"]
    assert link["text"] == "Sack/s-of-signal is suspended, and waits for the signal approved"
    assert miller["children"][0]["text"].endswith("; supervised; at this actor's end: cancel")


def test_actors_that_wait_for_each_other_are_a_cycle(perdure: Command, mill_url: str) -> None:
    wait = told(perdure, mill_url, "Gossip", "ada")["waits"][0]

    assert [(link["key"], link["problem"]) for link in wait["chain"]] == [("bob", None), ("ada", "cycle")]


# --- what went wrong, and what has ended ---


@pytest.mark.parametrize(
    ("actor", "wrong", "following"),
    [
        ("Sack failure", "its workflow has failed: ValueError: the sack is torn", "nothing: it has failed, and is kept for good"),
        ("Scale bent", "the event weigh (seq 1) has failed 1 time", "if a host runs: the event weigh (seq 1) is tried again (attempt 2)"),
        ("Sieve torn", "event shake (seq 1), RuntimeError: the sieve has a hole", "nothing, until a message comes, and a host runs"),
        ("Wheel w-1", "it stands still: RuntimeError: the wheel", "nothing: it is quarantined; `perdure retry Wheel w-1` lets it go on"),
        (
            "Sack torn-again",
            "its workflow has failed: ValueError: the sack",
            "at 12:00:00 (in 30 d), if a host runs: its workflow begins",
        ),
        ("Receipt r-1", "", "nothing: it has completed; it is forgotten at 12:00:00 (in 30 d)"),
    ],
)
def test_what_went_wrong_is_told_with_what_follows(perdure: Command, mill_url: str, actor: str, wrong: str, following: str) -> None:
    before, _, after = said(perdure, mill_url, *actor.split()).partition("what happens next")

    assert wrong in before
    assert following in after


@pytest.mark.parametrize(
    ("actor", "commands"),
    [
        ("Wheel w-1", ["perdure retry Wheel w-1"]),
        ("Sieve torn", ["perdure dead-letters show Sieve torn 1", "perdure dead-letters redrive Sieve torn"]),
    ],
)
def test_what_went_wrong_comes_with_its_cure(perdure: Command, mill_url: str, actor: str, commands: list[str]) -> None:
    (error,) = told(perdure, mill_url, *actor.split())["errors"]

    assert error["commands"] == commands
    assert "RuntimeError" in error["traceback"]


def test_the_last_turns_are_told_with_what_came_of_them(perdure: Command, mill_url: str) -> None:
    kept = told(perdure, mill_url, "Sack", "failure")["turns"]
    logged = told(perdure, mill_url, "Miller", "m-1")["turns"]

    assert [(turn["kind"], turn["name"], turn["error"]) for turn in kept] == [("start", "run", "ValueError: the sack is torn")]
    assert [(turn["status"], turn["asked"]) for turn in logged] == [("suspended", ["spawn Sack/s-of-signal", "result of Sack/s-of-signal"])]


# --- hosts, and messages on their way ---


def test_without_a_host_it_is_said_that_nothing_happens(perdure: Command, mill_url: str) -> None:
    host = told(perdure, mill_url, "Sack", "signal")["host"]

    assert (host["is_running"], host["commands"]) == (False, [f"perdure run MODULE --store {mill_url}"])
    assert host["text"].endswith(": nothing happens until one is started")


def test_who_has_ended_is_told_to_need_no_host(perdure: Command, mill_url: str) -> None:
    host = told(perdure, mill_url, "Sack", "failure")["host"]

    assert (host["is_running"], host["commands"], "nothing happens" in host["text"]) == (False, [], False)


def test_a_host_that_runs_is_named_by_its_process(perdure: Command, url: str, hosting: Hosting) -> None:
    with hosting(url) as process:
        perdure("send", "Basket", "b-1", "add", '["tea"]', "--wait", store=url)
        basket = told(perdure, url, "Basket", "b-1")

    assert (basket["host"]["is_running"], basket["host"]["pid"]) == (True, process.pid)
    assert [each["text"] for each in basket["next"]] == ["nothing, until a message comes"]


@contextmanager
def grinding(url: str) -> Iterator[None]:
    """The mill's host at work, in a process of its own."""
    with subprocess.Popen([installed(), "run", MILL, "--store", url], stdout=subprocess.PIPE, text=True) as host:
        try:
            assert host.stdout is not None
            host.stdout.readline()
            yield
        finally:
            host.terminate()


def test_a_step_that_runs_just_now_is_told_to_run(perdure: Command, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    anyio.run(_begin_to_dry, url)

    with grinding(url):
        found = told(perdure, url, "Sack", "wet")
        for _ in range(500):
            if found["waits"][0]["is_running"]:
                break
            found = told(perdure, url, "Sack", "wet")

    assert "runs now" in found["waits"][0]["text"]
    assert "the step mill.dry runs now" in found["next"][0]["text"]


async def _begin_to_dry(url: str) -> None:
    async with Runtime(url, ACTORS) as runtime:
        await runtime.start(Sack.run, "wet", "long step")


def test_messages_that_no_host_has_taken_in_are_told(perdure: Command, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    anyio.run(_wait_for_a_sack, url)
    perdure("signal", "Sack", "s-of-signal", "approved", '"ada"', store=url)
    perdure("send", "Sack", "new", "weigh", store=url)

    known, new = told(perdure, url, "Sack", "s-of-signal"), told(perdure, url, "Sack", "new")

    assert re.match(r"the signal approved, sent .* is in the inbox: taken in as soon as a host runs", known["next"][0]["text"])
    assert (new["status"], new["next"][0]["kind"]) == ("missing", "message")


async def _wait_for_a_sack(url: str) -> None:
    async with Runtime(url, ACTORS) as runtime:
        await runtime.start(Miller.run, "m-1", "signal")
        await runtime.settled()


@pytest.mark.parametrize(
    ("actor", "answer"),
    [("Sack signl", "Did you mean 'signal'"), ("Sakc signal", "Did you mean 'Sack'?"), ("Sack xyz", "no actor Sack/xyz.")],
)
def test_a_typing_mistake_is_answered_by_what_looks_alike(perdure: Command, mill_url: str, actor: str, answer: str) -> None:
    result = perdure("explain", *actor.split(), store=mill_url)

    assert (result.exit_code, result.stdout) == (2, "")
    assert answer in result.stderr


# --- situations that are made by hand ---


def suspended(*waits: Wait, key: str = "o-1", **standing: Any) -> Stand:
    """An order that waits."""
    stands = Standing(waits=list(waits), **standing)
    snapshot = Snapshot(Incarnation(b"life"), 1, Status.SUSPENDED, 1, 0, 1, NOW - 60, NOW - 60, b"", standing=stands)
    return Stand(ActorId("Order", key), snapshot)


def explained(stand: Stand, *, host: bool | None = True, serves: str = "Order", **more: Any) -> Explanation:
    """What is said of it now."""
    nothing: dict[str, Any] = {"types": [], "arriving": [], "requests": {}, "busy": {}, "children": [], "turns": [], "others": {}}
    facts: dict[str, Any] = {**nothing, "letters": Letters(0, True, None), **more}
    return explain(Situation(NOW, stand, HostState(host, 7, NOW - 3600, [serves]), **facts), "lmdb:shop")


def waiting_for(key: str) -> Wait:
    return Wait("result", f"result of Order/{key}", NOW - 60, 0.0, ("Order", key), b"")


def test_a_chain_is_followed_for_eight_links() -> None:
    others = [suspended(waiting_for(f"o-{n + 1}"), key=f"o-{n}") for n in range(2, 20)]

    (wait,) = explained(suspended(waiting_for("o-2")), others={each.id: each for each in others}).waits

    assert [link.key for link in wait.chain] == [f"o-{n}" for n in range(2, 11)]
    assert wait.chain[-1].text == "Order/o-10, and so on"


@pytest.mark.parametrize(("kind", "holds", "problem"), [("result", False, "cycle"), ("ask", True, "cycle"), ("ask", False, None)])
def test_who_takes_messages_meanwhile_is_in_no_circle(kind: str, holds: bool, problem: str | None) -> None:
    other = suspended(Wait(kind, "total", NOW - 1, 0.0, ("Order", "o-1")), key="o-2")

    (wait,) = explained(suspended(waiting_for("o-2"), holds=holds), others={other.id: other}).waits

    assert (wait.chain[-1].key, wait.chain[-1].problem) == ("o-1", problem)


def quarantined(stand: Stand) -> Stand:
    return stand._replace(quarantine=QuarantineRow(Failure("KeyError", "'sku'", ""), NOW))


@pytest.mark.parametrize(
    ("other", "problem", "text", "commands"),
    [
        (Stand(ActorId("Order", "o-2")), "missing", "Order/o-2 does not exist: it was deleted, or", ()),
        (quarantined(suspended(key="o-2")), "quarantined", "Order/o-2 is quarantined: KeyError: 'sku'", ("perdure retry Order o-2",)),
        (suspended(Wait("step", "pack"), key="o-2"), None, "Order/o-2 is suspended, and waits for the step pack", ()),
    ],
)
def test_what_keeps_the_other_one_is_told_with_its_cure(other: Stand, problem: str | None, text: str, commands: tuple[str, ...]) -> None:
    (wait,) = explained(suspended(waiting_for("o-2")), others={other.id: other}).waits

    (link,) = wait.chain
    assert (link.problem, link.commands) == (problem, commands)
    assert link.text.startswith(text)


@pytest.mark.parametrize(
    ("due", "busy", "host", "text"),
    [
        (NOW + 3.2, {}, True, "attempt 3 begins at 12:00:00 (in 3.2 s)"),
        (NOW - 9, {b"grind": Phase.STEP}, True, "attempt 3 runs now"),
        (NOW - 9, {}, True, "attempt 3 waits for its place, or for a host that knows it"),
        (NOW - 9, {}, False, "attempt 3 begins as soon as a host runs"),
    ],
)
def test_an_attempt_is_told_by_where_it_is(due: float, busy: dict[bytes, Phase], host: bool, text: str) -> None:
    row = RequestRow(RequestKind.STEP, "grind", MessageId(b"grind"), b"", failed=1, interrupted=1, due=due)

    (wait,) = explained(suspended(Wait("step", "grind", request=b"grind")), host=host, requests={row.id: row}, busy=busy).waits

    assert OTHER_TIMES.sub("12:00:00", wait.text) == f"the step grind: {text}; its host died 1 time while it ran"


@pytest.mark.anyio
async def test_of_a_type_that_the_host_does_not_serve_nothing_is_promised(perdure: Command, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    await _begin_to_dry(url)

    async with Runtime(url, [Miller]):
        found = await anyio.to_thread.run_sync(told, perdure, url, "Sack", "wet")

    assert "It does not serve Sack: nothing happens until one does" in found["host"]["text"]
    assert found["waits"][0]["text"].endswith("attempt 1 waits for a host that knows it")
    assert found["next"][0]["text"] == "the step mill.dry begins as soon as a host serves its type (attempt 1)"


def test_a_message_that_the_host_does_not_serve_is_told_to_be_put_aside() -> None:
    event = Envelope(MessageId(b"m"), Kind.EVENT, "add", b"")

    told = explained(suspended(timers=[NamedTimer("remind", NOW + 60)]), serves="Sack", arriving=[event])

    assert told.next[0].text == "the event add is in the inbox: put among the dead letters, since its type is not served"
    assert told.next[1].text.endswith("if a host serves its type by then: its timer remind fires")


def test_a_message_for_who_has_ended_is_told_to_be_turned_away() -> None:
    ended = suspended()
    assert ended.snapshot is not None
    ended = ended._replace(snapshot=msgspec.structs.replace(ended.snapshot, status=Status.COMPLETED))
    event = Envelope(MessageId(b"m"), Kind.EVENT, "add", b"")

    told = explained(ended._replace(event=Head(3, event, 1)), arriving=[event])

    assert told.next[0].text == "the event add is in the inbox: turned away now, since its workflow has ended"
    assert told.next[1].text == "the event add (seq 3) is turned away now, since its workflow has ended"


def test_who_stands_still_for_want_of_a_version_needs_no_retry() -> None:
    failure = Failure(f"{VersionMismatch.__module__}.{VersionMismatch.__qualname__}", "of version 3", "")

    told = explained(suspended()._replace(quarantine=QuarantineRow(failure, NOW)))

    (following,), (wrong,) = told.next, told.errors
    assert (following.kind, following.commands, wrong.commands) == ("if", (), ())
    assert following.text.startswith("it goes on by itself as soon as a host serves a version")


def test_what_is_most_pressing_comes_first() -> None:
    row = RequestRow(RequestKind.STEP, "grind", MessageId(b"grind"), b"", due=NOW + 5)
    stand = suspended(Wait("step", "grind", request=b"grind"), Wait("timer", "", 0.0, NOW + 9), Wait("signal", "go"), wake=NOW + 9)
    signal = Envelope(MessageId(b"m"), Kind.DECLARED, "go", b"")

    told = explained(stand, requests={row.id: row}, arriving=[signal])

    assert [each.kind for each in told.next] == ["message", "step", "timer", "if"]


def test_who_waits_often_for_the_same_is_told_so_once() -> None:
    told = explained(suspended(*[Wait("signal", "go")] * 30))

    assert [each.text for each in told.next] == ["nothing, until somebody sends go"]
    assert (len(told.waits), told.waits[-1].text) == (21, "10 more")


@pytest.mark.anyio
async def test_a_host_that_stands_still_runs_and_is_not_waited_for(tmp_path: Path) -> None:
    with ExitStack() as knocking, socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        door.listen(0)
        for _ in range(3):
            caller = knocking.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            caller.connect_ex(str(tmp_path / "door"))
        batch, store = Batch(), MemoryStore()
        put_host(batch, HostRow(str(tmp_path / "door"), 7, NOW))
        await store.commit(batch, await store.own(0))

        assert await read_host_state(store) == (True, 7, NOW, None)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "is_running"), [(0, True), (errno.EAGAIN, True), (errno.ECONNREFUSED, False), (errno.ENOENT, False), (errno.EACCES, None)]
)
async def test_of_a_door_that_may_not_be_knocked_at_nothing_is_claimed(
    code: int, is_running: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, store = Batch(), MemoryStore()
    put_host(batch, HostRow("door", 7, NOW))
    await store.commit(batch, await store.own(0))
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: code)

    assert (await read_host_state(store)).is_running is is_running


def test_where_a_host_has_no_door_nothing_is_claimed_of_it() -> None:
    host = explained(suspended(), host=None).host

    assert host.is_running is None
    assert host.text.startswith("it cannot be told whether a host runs")


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.rows = 0

    async def read(self, keys: list[bytes]) -> list[bytes | None]:
        self.rows += len(keys)
        return await self.store.read(keys)

    async def scan(self, range_: Range, *, limit: int, reverse: bool = False) -> list[Entry]:
        found = await self.store.scan(range_, limit=limit, reverse=reverse)
        self.rows += len(found)
        return found


async def long_actor(length: int) -> Counting:
    """A store of one actor, of which everything is that long."""
    batch, store, suffix = Batch(), MemoryStore(), suffix_of(ORDER)
    event = Envelope(MessageId(b"m"), Kind.EVENT, "add", b"")
    snapshot = suspended(logged=length).snapshot
    assert snapshot is not None
    put_snapshot(batch, suffix, snapshot, None)
    for number in range(length):
        batch.put(PREFIX[Table.MAILBOX] + suffix + pack((Lane.EVENTS, number)), MAILBOX_ROW.pack(MailboxRow(number, event)))
        put_log_entry(batch, suffix, number, LogEntry(number + 1, number, NOW, event, []))
        put_dead_letter(batch, ORDER, number, DeadLetter(event, Failure.of(ValueError()), 1, 0, NOW))
    await store.commit(batch, await store.own(0))
    return Counting(store)


@pytest.mark.anyio
async def test_however_long_mailbox_log_and_letters_are_little_is_read() -> None:
    store: Any = await long_actor(3_000)

    found = await read_situation(store, ORDER, [], NOW)

    assert found.stand.event is not None
    assert (found.stand.event.depth, found.letters.counted, found.letters.are_all) == (3_000, 256, False)
    assert store.rows < 400

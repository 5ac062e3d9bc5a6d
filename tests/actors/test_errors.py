"""Every error class is raised by something that a user may do, and its text helps: whose, why, and what to do about it."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import lmdb
import pytest
from perdure import actors, storage
from perdure.actors import (
    ActorRef,
    Client,
    Retry,
    Runtime,
    _link,
    codec_named,
    current_actor,
    durable_actor,
    emit,
    migrate,
    on_event,
    query,
    saga,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.storage import Batch, MemoryStore, open_store

from ..durability.rig.fuse import Fuse  # noqa: TID252  dies when it is told to

pytestmark = pytest.mark.anyio


LEFT: Final[list[actors.ActorEvicted]] = []


class Odd(Exception):
    """One that cannot travel: what it is made of is not what it hands on."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@step(retry=Retry(max_attempts=1))
async def fail(what: str) -> None:
    raise LookupError(what)


@step(retry=Retry(max_attempts=1), executor="process")
def die() -> None:
    os._exit(7)


@durable_actor(mailbox_limit=1, stream_limit=1)
class Clerk:
    """Goes wrong in as many ways as there are errors."""

    approved = signal(str)
    mind: ClassVar[str] = "wait"

    def __init__(self) -> None:
        self.kept: object = None

    @workflow
    async def run(self, what: str) -> None:
        await getattr(self, what)()

    @on_event
    async def do(self, what: str) -> None:
        await getattr(self, what)()

    @query
    def peep(self) -> None:
        self.kept = "peeped"

    async def nothing(self) -> None:
        emit("first")
        emit("second")

    async def wait(self) -> None:
        await asyncio.sleep(3600)

    async def wait_briefly(self) -> None:
        await wait_for_signal(Clerk.approved, timeout=timedelta(seconds=3))

    async def keep_a_lock(self) -> None:
        self.kept = threading.Lock()

    async def thread(self) -> None:
        await asyncio.to_thread(print)

    async def spin(self) -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    async def be_odd(self) -> None:
        raise Odd(1, 2)

    async def be_wrong(self) -> None:
        raise ValueError("on purpose")

    async def step(self) -> None:
        await fail("no such thing")

    async def worker(self) -> None:
        await die()

    async def child(self) -> None:
        await spawn(Clerk.run, None, "be_wrong").result()

    async def undo(self) -> None:
        async with saga() as undo:
            undo.push(fail, "the undoing")
            raise ValueError("on purpose")

    async def myself(self) -> None:
        await current_actor().ref(Clerk, current_actor().key).ask(Clerk.do, "nothing")

    async def leave_memory(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            try:
                current_actor()
            except actors.ActorEvicted as evicted:
                LEFT.append(evicted)

    async def change_its_mind(self) -> None:
        await getattr(self, self.mind)()


@durable_actor(on_poison="quarantine", retry=Retry(max_attempts=1))
class Careful:
    """Stands still when something has gone wrong."""

    @on_event
    def go_wrong(self) -> None:
        raise ValueError("on purpose")


@durable_actor(name="Paper", version=1)
class First:
    """As it was."""

    @on_event
    def write(self) -> None: ...


@durable_actor(name="Paper", version=2)
class Second:
    """As it is now."""

    @on_event
    def write(self) -> None: ...


@durable_actor(name="Paper", version=2)
class Clumsy:
    """As it is now, with a migration that does not know what was."""

    @migrate(1)
    @staticmethod
    def counted(state: dict[str, Any]) -> dict[str, Any]:
        return {"lines": len(state["lines"])}

    @on_event
    def write(self) -> None: ...


Deed = Callable[[World, ActorRef[Clerk]], Awaitable[object]]
Story = Callable[[Path], Awaitable[object]]


def told(act: Deed, **options: Any) -> Story:
    """What is raised by a deed in a world with one clerk."""

    async def story(_: Path) -> None:
        async with World([Clerk, Careful], **options) as world:
            await act(world, world.ref(Clerk, "c-1"))

    return story


def asked(what: str) -> Story:
    """What a clerk raises who is asked to do that."""

    async def ask(world: World, clerk: ActorRef[Clerk]) -> None:
        asking = asyncio.ensure_future(clerk.ask(Clerk.do, what))
        await world.run_until_idle()
        await asking

    return told(ask)


async def start(world: World, what: str) -> None:
    run = await world.start(Clerk.run, "c-1", what)
    await world.run_until_idle()
    await run.result()


async def fill_the_mailbox(world: World, clerk: ActorRef[Clerk]) -> None:
    for _ in range(3):
        await clerk.send_event(Clerk.do, "wait")


async def ask_for_a_minute(world: World, clerk: ActorRef[Clerk]) -> None:
    asking = asyncio.ensure_future(clerk.options(timeout=timedelta(minutes=1)).ask(Clerk.do, "wait"))
    await world.run_until_idle()
    await asking


async def use_a_key_twice(world: World, clerk: ActorRef[Clerk]) -> None:
    await clerk.options(idempotency_key="k").ask(Clerk.do, "nothing")
    await clerk.options(idempotency_key="k").ask(Clerk.do, "wait")


async def ask_what_has_ended(world: World, clerk: ActorRef[Clerk]) -> None:
    await start(world, "nothing")
    await clerk.ask(Clerk.do, "nothing")


async def ask_what_stands_still(world: World, clerk: ActorRef[Clerk]) -> None:
    careful = world.ref(Careful, "c-1")
    await careful.send_event(Careful.go_wrong)
    await world.run_until_idle()
    await careful.ask(Careful.go_wrong)


async def change_the_code(world: World, clerk: ActorRef[Clerk]) -> None:
    with suppress(actors.RuntimeNotRunning), pytest.MonkeyPatch.context() as patches:
        asking = asyncio.ensure_future(clerk.ask(Clerk.do, "change_its_mind"))
        await world.settled()
        patches.setattr(Clerk, "mind", "step")
        await world.restart()
        await world.run_until_idle()
        await asking
    await clerk.ask(Clerk.do, "nothing")


async def cancel(world: World, clerk: ActorRef[Clerk]) -> None:
    run = await world.start(Clerk.run, "c-1", "wait")
    await run.cancel("enough")
    await run.result()


async def await_what_has_not_begun(world: World, clerk: ActorRef[Clerk]) -> None:
    await clerk.ask(Clerk.do, "nothing")
    await world.ref(Clerk.run, "c-1").result()


async def start_twice(world: World, clerk: ActorRef[Clerk]) -> None:
    await world.start(Clerk.run, "c-1", "wait")
    await world.start(Clerk.run, "c-1", "nothing")


async def read_what_is_gone(world: World, clerk: ActorRef[Clerk]) -> None:
    await clerk.ask(Clerk.do, "nothing")
    async for _ in clerk.stream():
        return


async def let_a_worker_die(world: World, clerk: ActorRef[Clerk]) -> None:
    with pytest.raises(actors.StepFailed) as caught:
        await clerk.ask(Clerk.do, "worker")
    assert caught.value.__cause__ is not None
    raise caught.value.__cause__


async def leave_memory(world: World, clerk: ActorRef[Clerk]) -> None:
    LEFT.clear()
    await clerk.send_event(Clerk.do, "leave_memory")
    await world.settled()
    raise LEFT[0]


async def crash(world: World, clerk: ActorRef[Clerk]) -> None:
    world.crash_at(CrashPoint.AFTER_COMMIT)
    await clerk.ask(Clerk.do, "nothing")


async def give_what_does_not_fit(world: World, clerk: ActorRef[Clerk]) -> None:
    await clerk.ask("do", what="nothing", why="none")


async def use_before_the_start(place: Path) -> None:
    await Runtime("memory:", [Clerk]).ref(Clerk, "c-1").ask(Clerk.do, "nothing")


async def use_without_a_host(place: Path) -> None:
    async with World([Clerk], store=f"lmdb:{place}/s") as world:
        await world.ref(Clerk, "c-1").ask(Clerk.do, "nothing")
    async with Client(f"lmdb:{place}/s") as client:
        await client.ref(Clerk, "c-1").query(Clerk.peep)


async def ask_too_much(place: Path) -> None:
    async with World([Clerk], store=f"lmdb:{place}/s"), Client(f"lmdb:{place}/s") as client:
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(_link, "MAX_FRAME", 1)
            await client.ref(Clerk, "c-1").query(Clerk.peep)


async def use_without_the_extra(place: Path) -> None:
    async with World([Clerk], store=f"lmdb:{place}/s"), Client(f"lmdb:{place}/s") as client:
        with pytest.MonkeyPatch.context() as patches:
            patches.setitem(sys.modules, "jsonschema", None)
            await client.ref("Clerk", "c-1").ask("do", '["nothing"]')


async def host_another_version(place: Path) -> None:
    async with World([First], store=f"lmdb:{place}/s") as world:
        await world.ref(First, "p-1").ask(First.write)
    async with World([Second], store=f"lmdb:{place}/s") as world:
        await world.ref(Second, "p-1").ask(Second.write)


async def migrate_clumsily(place: Path) -> None:
    async with World([First], store=f"lmdb:{place}/s") as world:
        await world.ref(First, "p-1").ask(First.write)
    async with World([Clumsy], store=f"lmdb:{place}/s") as world:
        await world.ref(Clumsy, "p-1").ask(Clumsy.write)


async def kill_the_host(place: Path) -> None:
    async with Runtime(f"lmdb:{place}/s", [Fuse]):
        pass
    async with Client(f"lmdb:{place}/s") as client:
        asking = asyncio.ensure_future(client.ref(Fuse, "f-1").ask(Fuse.exit))
        command = [sys.executable, "-m", "tests.durability.rig.fuse", f"lmdb:{place}/s"]
        for _ in range(3):
            dead = await asyncio.to_thread(subprocess.run, command, cwd=Path(__file__).parents[2], capture_output=True, check=False)
            assert dead.returncode == 3
        async with Runtime(f"lmdb:{place}/s", [Fuse]):
            await asking


async def own_twice(place: Path) -> None:
    async with Runtime(f"lmdb:{place}/s", [Clerk]), Runtime(f"lmdb:{place}/s", [Clerk]):
        pass


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def fill_the_disk(place: Path) -> None:
    store, batch = open_store(f"lmdb:{place}/s"), Batch()
    batch.put(b"k", bytes(4 << 20))
    fence = await store.own(0)
    try:
        with longest_file(1 << 20):
            await store.commit(batch, fence)
    finally:
        await store.close()


async def damage(place: Path) -> None:
    await open_store(f"lmdb:{place}/s").close()
    os.truncate(place / "s" / "data.mdb", 0)
    open_store(f"lmdb:{place}/s")


async def come_from_the_future(place: Path) -> None:
    await open_store(f"lmdb:{place}/s").close()
    with lmdb.open(f"{place}/s", lib_version=0) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"\0perdure", b'{"kind": "store", "id": "x", "format": 2, "engine": "lmdb-0.9"}')
    open_store(f"lmdb:{place}/s")


async def be_overtaken(place: Path) -> None:
    store = MemoryStore()
    fence = await store.own(0)
    await store.own(0)
    await store.commit(Batch(), fence)


async def use_after_the_end(place: Path) -> None:
    store = open_store(f"lmdb:{place}/s")
    await store.close()
    await store.read([b"k"])


async def ask_for_no_store(place: Path) -> None:
    async with Client(f"lmdb:{place}/s"):
        pass


async def import_a_text(place: Path) -> None:
    with (place / "text").open("w+b") as file:
        await actors.import_actors("memory:", file)


async def import_over_others(place: Path) -> None:
    for name in ("here", "there"):
        async with World([Clerk], store=f"lmdb:{place}/{name}", seed=len(name)) as world:
            await world.ref(Clerk, "c-1").ask(Clerk.do, "nothing")
    with (place / "export").open("w+b") as file:
        await actors.export_actors(f"lmdb:{place}/here", file)
        await actors.import_actors(f"lmdb:{place}/there", file)


class Row(NamedTuple):
    """What makes an error, and what its text has to say: whose, why, and the cure."""

    story: Story
    says: tuple[str, ...]


ROWS: Final[dict[type[BaseException], Row]] = {
    actors.ActorCancelled: Row(told(cancel), ("Clerk/c-1", "enough", "if_exists='restart'")),
    actors.ActorCompleted: Row(told(ask_what_has_ended), ("Clerk/c-1", "has ended", "if_exists='restart'")),
    actors.ActorDeadlock: Row(asked("myself"), ("Clerk/c-1 waits for Clerk/c-1", "none of them can go on", "options(timeout=…)")),
    actors.ActorEvicted: Row(told(leave_memory, max_active=0), ("current_actor()", "leaves memory", "goes on where it waits")),
    actors.ActorFailed: Row(
        told(lambda world, _: start(world, "be_wrong")), ("Clerk/c-1", "ValueError: on purpose", "if_exists='restart'")
    ),
    actors.ActorNotFound: Row(told(lambda _, clerk: clerk.info()), ("no actor Clerk/c-1", "first message to it makes it")),
    actors.ActorQuarantined: Row(told(ask_what_stands_still), ("Careful/c-1", "on purpose", "perdure retry Careful c-1")),
    actors.ActorsExist: Row(import_over_others, ("/there", "Clerk/c-1", "Nothing was imported", "ref.delete()")),
    actors.AskTimeout: Row(
        told(ask_for_a_minute),
        ("Clerk/c-1", "'do' within 60 s", "ask again with the same idempotency key"),
    ),
    actors.ChildFailed: Row(asked("child"), ("a child of Clerk/c-1", "ValueError: on purpose", "supervise=OneForOne(…)")),
    actors.CompensationFailed: Row(
        asked("undo"), ("Clerk/c-1", "LookupError: the undoing", "still done", "perdure dead-letters list Clerk c-1")
    ),
    actors.DataLoss: Row(told(read_what_is_gone), ("Clerk/c-1", "begins at 2", "Go on with after=1")),
    actors.DeadLetterNotFound: Row(
        told(lambda _, clerk: clerk.edit_dead_letter(7, "x")), ("Clerk/c-1 has no dead letter 7", "perdure dead-letters list Clerk c-1")
    ),
    actors.DefinitionError: Row(
        told(lambda *_: on_event(len)),  # type: ignore[arg-type]
        ("@on_event on len", "it goes on a plain method", "above `def method(self, …)`"),
    ),
    actors.ExportUnreadable: Row(import_a_text, ("/text: it is no export of actors", "`perdure export`")),
    actors.ExtraNotInstalled: Row(use_without_the_extra, ("jsonschema is not installed", 'pip install "perdure[cli]"')),
    actors.HandlerInterrupted: Row(kill_the_host, ("Fuse/f-1 handled 'exit'", "died 3 times", "perdure dead-letters redrive Fuse f-1")),
    actors.HostNotRunning: Row(use_without_a_host, ("/s: only a host can answer 'peep'", "perdure run MODULE --store lmdb:")),
    actors.IdempotencyMismatch: Row(told(use_a_key_twice), ("Clerk/c-1", "'k'", "'do' with other arguments", "one key for one message")),
    actors.InvalidKey: Row(
        told(lambda world, _: world.ref(Clerk, "\ud800").info()), ("'\\ud800'", "Clerk", "surrogate", "Any Unicode text")
    ),
    actors.KeyTooLong: Row(told(lambda world, _: world.ref(Clerk, "k" * 201).info()), ("Clerk", "201 bytes", "Hash what is longer")),
    actors.PayloadTooLong: Row(ask_too_much, ("what 'peep' of Clerk/c-1 is given", "bytes", "file")),
    actors.MailboxFull: Row(told(fill_the_mailbox), ("Clerk/c-1 is full", "1 message", "mailbox_limit=…")),
    actors.NonDeterminismError: Row(
        told(change_the_code),
        ("Clerk/c-1", "asked for step", "it asked for timer", "current_actor().now()", "perdure lint", "host the old code"),
    ),
    actors.NotDeserializable: Row(
        told(lambda *_: codec_named("pickle").decode(b"?")),  # type: ignore[arg-type]
        ("'pickle'", "invalid load key", 'rename("old.module.Old"'),
    ),
    actors.NotDurable: Row(asked("thread"), ("thread", "after a crash nothing could bring that back", "@step")),
    actors.NotInActor: Row(
        told(lambda *_: spawn(Clerk.run, None, "wait").info()), ("spawn()", "only in an actor's code", "use the Runtime")
    ),
    actors.NotSerializable: Row(asked("keep_a_lock"), ("self.kept is a lock", "cannot be stored", "Transient[…]")),
    actors.QueryChangedState: Row(
        told(lambda _, clerk: clerk.query(Clerk.peep)), ("'peep' changed the state of Clerk/c-1", "thrown away", "@on_event")
    ),
    actors.RemoteError: Row(asked("be_odd"), ("Odd: 1 and 2",)),  # another's words; its traceback is a note
    actors.RuntimeNotRunning: Row(use_before_the_start, ("'do' to Clerk/c-1", "not running", "async with Runtime(…)")),
    actors.SignalTimeout: Row(asked("wait_briefly"), ("Clerk/c-1 waited 3 s", "'approved'", "wait again")),
    actors.StepFailed: Row(asked("step"), ("Clerk/c-1", "LookupError: no such thing", "Catch this", "idempotency key")),
    actors.TurnDidNotEnd: Row(asked("spin"), ("in do", "rolled back", "several events", "@step")),
    actors.UnknownActorType: Row(told(lambda world, _: world.ref(Fuse, "f").info()), ("'Fuse'", "There is: Clerk", "actors=[…]")),
    actors.UnknownHandler: Row(told(lambda _, clerk: clerk.ask("doo")), ("Clerk has no event 'doo'", "Did you mean 'do'?")),
    actors.MigrationFailed: Row(migrate_clumsily, ("Paper/p-1", "version 1", "version 2: KeyError: 'lines'", "@migrate(1)")),
    actors.VersionMismatch: Row(host_another_version, ("Paper/p-1", "version 1", "runs version 2", "@migrate(1)", "check-upgrade")),
    actors.WorkerDied: Row(told(let_a_worker_die), ("die", "exited with status 7", "os._exit")),
    actors.WorkflowAlreadyStarted: Row(told(start_twice), ("Clerk/c-1", "with other arguments", 'if_exists="restart"')),
    actors.WorkflowNotStarted: Row(told(await_what_has_not_begun), ("Clerk/c-1 has not begun", "runtime.start(Clerk.run, 'c-1', …)")),
    actors.WrongArguments: Row(told(give_what_does_not_fit), ("Clerk.do(", "what: str", "'why'")),
    storage.CommitUncertain: Row(told(crash), ("memory:", "unknown outcome", "the same idempotency key")),
    storage.Fenced: Row(be_overtaken, ("memory:", "epoch 2 has begun", "the newer one goes on")),
    storage.StoreClosed: Row(use_after_the_end, ("/s: it is closed", "Open the store again")),
    storage.StoreCorrupt: Row(damage, ("data.mdb: it is empty", "Restore it from a backup")),
    storage.StoreError: Row(ask_for_no_store, ("/s: there is no store", "start the host first")),
    storage.StoreFull: Row(fill_the_disk, ("/s: no space is left", "Free some space")),
    storage.StoreLocked: Row(own_twice, ("/s: process", "hosts this store already", "Client(…)")),
    storage.StoreVersionError: Row(come_from_the_future, ("/s: ", "format 2", "pip install --upgrade perdure")),
}


@pytest.mark.parametrize("error", ROWS, ids=lambda error: error.__name__)
async def test_an_error_tells_whose_it_is_why_and_the_cure(error: type[BaseException], tmp_path: Path) -> None:
    story, says = ROWS[error]

    with pytest.raises(error) as caught:
        await story(tmp_path)

    text = str(caught.value)
    assert caught.type is error
    assert [words for words in says if words not in text] == [], text
    assert str(error(*caught.value.args)) == text


def test_every_error_that_is_exported_has_a_row() -> None:
    exported = {getattr(door, name) for door in (actors, storage) for name in door.__all__}

    errors = {each for each in exported if isinstance(each, type) and issubclass(each, BaseException)}

    assert errors - {storage.PerdureError} == set(ROWS)

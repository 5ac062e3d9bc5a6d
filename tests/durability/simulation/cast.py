"""The actors of a simulation: they do what the operations say that they are sent, and write down what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import anyio
from perdure.actors import (
    ActorCancelled,
    ActorRef,
    AskTimeout,
    ChildExit,
    OneForOne,
    Retry,
    Runtime,
    SignalTimeout,
    StepFailed,
    cancel_timer,
    continue_as_new,
    current_actor,
    durable_actor,
    emit,
    migrate,
    on_child_exit,
    on_event,
    on_signal,
    on_timer,
    patched,
    query,
    saga,
    send_signal,
    set_timer,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)
from perdure.actors._persistence import PREFIX, Table, suffix_of
from perdure.storage.keys import pack

from .ledger import Ledger

ATTEMPTS: Final = 3  # at what an account is sent and fails
STEP_SECONDS: Final = 10.0  # time-out of a step; it is kept waiting for up to four
HOST_DIED: Final = "the host died"
ROUNDED: Final = 1e-6  # seconds: a timedelta has no smaller part


class Op(NamedTuple):
    """One operation of a program, with those that it consists of; `number` is its own, `n` and `other` are what it does it with."""

    kind: str
    number: int
    n: int = 0
    other: str = ""
    parts: tuple[Op, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it takes, which no other one does."""
        return self.n + self.number / 1024


class Note(NamedTuple):
    """Who sent a message, and which of his messages to this actor in this lane it is, from 1."""

    sender: str
    number: int


def now() -> float:
    """The time of the turn, in full."""
    return asyncio.get_running_loop().time()


def ledger() -> Ledger:
    """What the world outside has seen."""
    found: Ledger = step_info().resources["ledger"]
    return found


def enter(number: int, what: str) -> int:
    """Have the world outside note that a step is carried out; returns which note that is."""
    info = step_info()
    turn, nth = map(int, info.idempotency_key.split("-")[-2:])
    row = PREFIX[Table.REQUEST] + suffix_of(info.actor) + pack((turn, nth))
    return ledger().enter(str(info.actor), number, what, info.idempotency_key, is_durable=row in info.resources["asked"])


# --- steps ---

OFTEN: Final = Retry(max_attempts=3, initial=timedelta(seconds=1))
PATIENT: Final = timedelta(seconds=STEP_SECONDS)


@step(retry=OFTEN, timeout=PATIENT)
async def call(number: int) -> int:
    return enter(number, "call")


@step(retry=OFTEN)
def compute(number: int) -> int:
    return enter(number, "compute")


@step(retry=Retry(max_attempts=4, initial=timedelta(seconds=1)), timeout=PATIENT)
async def call_again(number: int, failures: int) -> int:
    place = enter(number, "call_again")
    if step_info().attempt <= failures:
        raise ConnectionError(number)
    return place


@step(retry=Retry(max_attempts=2, initial=timedelta(seconds=1)))
def call_in_vain(number: int) -> int:
    enter(number, "call_in_vain")
    raise ConnectionError(number)


@step(retry=Retry(max_attempts=2, initial=timedelta(seconds=1)), timeout=PATIENT)
async def call_too_long(number: int) -> int:
    enter(number, "call_too_long")
    await asyncio.sleep(1e6)
    return 0


@step(retry=Retry(max_attempts=9, initial=timedelta(seconds=1)))
async def beat(number: int) -> int:
    place = enter(number, "beat")
    step_info().emit("beat", (number, place))
    if step_info().progress == number:
        return place
    step_info().heartbeat(number)
    raise ConnectionError(number)


@step(retry=OFTEN)
async def tell(number: int) -> str:
    return f"told {enter(number, 'tell')}"


@step(retry=OFTEN)
async def tell_otherwise(number: int) -> str:
    return f"told otherwise {enter(number, 'tell otherwise')}"


@step(retry=Retry(max_attempts=9, initial=timedelta(seconds=1)))
async def unbook(number: int, place: int) -> int:
    assert step_info().compensates is not None
    return enter(number, f"unbook {place}")


@step(retry=OFTEN, compensate=unbook)
async def book(number: int, place: int) -> int:
    return enter(number, f"book {place}")


# --- accounts: no code of theirs waits for long ---


@durable_actor(retry=Retry(max_attempts=ATTEMPTS, initial=timedelta(seconds=1)))
class Account:
    """Holds money, and notes each message; what has been noted is emitted too."""

    def __init__(self) -> None:
        self.balance = 0
        self.events: list[Note] = []
        self.signals: list[Note] = []
        self.sent: Counter[str] = Counter()

    def note(self, note: Note) -> int:
        self.events.append(note)
        emit("event", note)
        return len(self.events)

    def next_note(self, to: str) -> Note:
        self.sent[to] += 1
        return Note(f"account {current_actor().key}", self.sent[to])

    @on_event
    def add(self, note: Note, cents: int) -> int:
        self.balance += cents
        return self.note(note)

    @on_event
    def transfer(self, note: Note, to: str, cents: int) -> int:
        self.balance -= cents
        current_actor().ref(Account, to).send_event(Account.add, self.next_note(to), cents)
        return self.note(note)

    @on_event
    async def transfer_asking(self, note: Note, to: str, cents: int) -> int:
        self.balance -= cents
        await current_actor().ref(Account, to).ask(Account.add, self.next_note(to), cents)
        return self.note(note)

    @on_event
    async def transfer_slowly(self, note: Note, to: str, cents: int) -> int:
        self.balance -= cents
        await asyncio.sleep(note.number / 8)
        current_actor().ref(Account, to).send_event(Account.add, self.next_note(to), cents)
        return self.note(note)

    @on_event
    def fail(self, note: Note, to: str, failures: int) -> int:
        self.balance -= 1
        current_actor().ref(Account, to).send_event(Account.add, self.next_note(to), 1)
        count = self.note(note)
        if current_actor().attempt <= failures and not current_actor().resources["mended"]:
            raise LookupError(note.number)
        return count

    @on_signal
    def hurry(self, note: Note, to: str) -> None:
        self.signals.append(note)
        self.balance -= 1
        current_actor().ref(Account, to).send_event(Account.add, self.next_note(to), 1)

    @query
    def seen(self) -> tuple[int, int]:
        return len(self.events), len(self.signals)

    @query
    def everything(self) -> tuple[int, list[Note], list[Note]]:
        return self.balance, self.events, self.signals


# --- players: they play programs ---


CAREFUL: Final = OneForOne(max_restarts=9, within=timedelta(days=1), directives={ArithmeticError: "restart"}, otherwise="stop")


@durable_actor(retry=Retry(max_attempts=1), supervise=CAREFUL)
class Player:
    """Plays one program, and then in another life the next."""

    word = signal(int)
    silence = signal()

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.heard: list[int] = []
        self.pokes: list[int] = []
        self.exits: list[str] = []
        self.sent: Counter[str] = Counter()
        self.ticks = 0
        self.ticking = asyncio.Lock()
        self.lock = asyncio.Lock()
        self.queue: asyncio.Queue[int] = asyncio.Queue(1)
        self.due = 0.0

    @workflow
    async def run(self, *programs: Op) -> str:
        program, *others = programs
        answer = await self.play(program)
        if others:
            continue_as_new(*others)
        return answer

    @on_event
    async def perform(self, op: Op) -> str:
        return await self.play(op)

    async def play(self, op: Op) -> str:
        begun = now()
        try:
            answer = str(await PLAYED[op.kind](self, op))
        except Exception as error:
            self.facts.append(f"{op.number} {op.kind} raises {type(error).__name__}")
            raise
        if op.kind in TAKES_ITS_TIME and now() < begun + op.seconds - ROUNDED:
            answer = "came too early"
        self.facts.append(f"{op.number} {op.kind} {answer}")
        return answer

    def next_note(self, to: str) -> Note:
        self.sent[to] += 1
        return Note(f"player {current_actor().key}", self.sent[to])

    @on_signal
    def poke(self, number: int) -> None:
        self.pokes.append(number)

    @on_timer
    def tick(self) -> None:
        self.ticks += 1

    @on_timer
    async def ring(self) -> None:
        self.due = 0.0 if now() >= self.due - ROUNDED else -1.0

    @on_child_exit
    def gone(self, exit: ChildExit) -> None:  # noqa: A002  as the documentation has it
        self.exits.append(f"{exit.id.key} {exit.status}")

    @query
    def diary(self) -> tuple[list[str], list[int], list[int], list[str]]:
        return self.facts, self.heard, self.pokes, self.exits


@durable_actor(name="Player", version=2, replays=(1,), retry=Retry(max_attempts=1), supervise=CAREFUL)
class NextPlayer(Player):
    """Plays the same, in a state that has an attribute more."""

    def __init__(self) -> None:
        super().__init__()
        self.is_next = True

    @migrate(1)
    @staticmethod
    def next(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "is_next": True}


@durable_actor(retry=Retry(max_attempts=1))
class Clumsy:
    """A child that fails in its first lives, and leaves that to be counted by somebody else."""

    @workflow
    async def run(self, number: int, failures: int) -> str:
        key = current_actor().key
        life = await current_actor().ref(Tally, key).ask(Tally.count)
        if life <= failures:
            raise ArithmeticError(life)
        return str(life)


@durable_actor
class Lodger:
    """Lives several lives, each with a state of its own."""

    def __init__(self) -> None:
        self.notes: list[int] = []

    @workflow
    async def run(self, life: int) -> str:
        await asyncio.sleep(life % 4)
        return f"life {life}"

    @on_event
    def note(self, number: int) -> list[int]:
        self.notes.append(number)
        return self.notes

    @query
    def noted(self) -> list[int]:
        return self.notes


@durable_actor(on_poison="quarantine", retry=Retry(max_attempts=2, initial=timedelta(seconds=1)))
class Delicate:
    """Stands still at what it cannot do, until the world outside is mended."""

    def __init__(self) -> None:
        self.notes: list[int] = []

    @on_event
    def note(self, number: int) -> None:
        if number in current_actor().resources["poison"]:
            raise LookupError(number)
        self.notes.append(number)

    @query
    def noted(self) -> list[int]:
        return self.notes


def strays() -> bool:
    """Whether the code is to ask for something else: only on replay, so that it can be mended."""
    resources = current_actor().resources
    if resources["strays"] and current_actor()._turn.is_replay:
        resources["strayed"].add(resources["disk"].recoveries)
        return True
    return False


@durable_actor
class Fickle:
    """Asks for something else on replay when the world outside says so, which is found."""

    @workflow
    async def run(self, number: int) -> str:
        answers = []
        for place in range(number, number + 4):
            what = tell_otherwise if strays() else tell
            answers.append(await as_often_as_the_host_dies(partial(what, place)))
        return " ".join(answer.rpartition(" ")[0] for answer in answers)


@durable_actor
class Deaf:
    """Takes its time to answer."""

    @on_event
    async def listen(self) -> None:
        await asyncio.sleep(500)


@durable_actor
class Tally:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    @on_event
    def count(self) -> int:
        self.total += 1
        return self.total

    @query
    def so_far(self) -> int:
        return self.total


# --- what players play ---


async def as_often_as_the_host_dies(ask: Callable[[], Awaitable[Any]]) -> Any:
    while True:
        try:
            return await ask()
        except StepFailed as failed:
            if HOST_DIED not in str(failed):
                raise


async def in_turn(player: Player, op: Op) -> str:
    answer = ""
    for part in op.parts:
        answer = await player.play(part)
    return answer


async def sleep(_: Player, op: Op) -> str:
    await asyncio.sleep(op.seconds)
    return "slept"


async def step_called(player: Player, op: Op) -> str:
    player.facts.append(f"outcome {op.number} {await as_often_as_the_host_dies(lambda: call(op.number))}")
    return "called"


async def step_computed(player: Player, op: Op) -> str:
    player.facts.append(f"outcome {op.number} {await as_often_as_the_host_dies(lambda: compute(op.number))}")
    return "computed"


async def step_called_again(player: Player, op: Op) -> str:
    player.facts.append(f"outcome {op.number} {await as_often_as_the_host_dies(lambda: call_again(op.number, op.n))}")
    return "called again"


async def step_beats(player: Player, op: Op) -> str:
    player.facts.append(f"outcome {op.number} {await as_often_as_the_host_dies(lambda: beat(op.number))}")
    return "beaten"


async def step_fails(_: Player, op: Op) -> str:
    return str(await as_often_as_the_host_dies(lambda: call_in_vain(op.number)))


async def step_hangs(_: Player, op: Op) -> str:
    return str(await as_often_as_the_host_dies(lambda: call_too_long(op.number)))


async def hear(player: Player, op: Op) -> str:
    player.heard.append(await wait_for_signal(Player.word))
    return "heard"


async def hear_nothing(_: Player, op: Op) -> str:
    with suppress(SignalTimeout):
        await wait_for_signal(Player.silence, timeout=timedelta(seconds=op.seconds))
        return "something"
    return "nothing"


async def until(player: Player, op: Op) -> str:
    await wait_until(lambda: len(player.pokes) >= op.n)
    return "poked"


async def tick(player: Player, op: Op) -> str:
    async with player.ticking:
        before, begun = player.ticks, now()
        set_timer(Player.tick, every=timedelta(seconds=op.n), catch_up=bool(op.number % 2))
        await wait_until(lambda: player.ticks >= before + 2)
        cancel_timer(Player.tick)
        return "ticked" if player.ticks - before <= (now() - begun) / op.n + ROUNDED else "ticked too often"


async def ring(player: Player, op: Op) -> str:
    async with player.ticking:
        player.due = now() + op.seconds
        set_timer(Player.ring, after=timedelta(seconds=op.seconds))
        await wait_until(lambda: player.due <= 0)
    return "rung" if player.due == 0 else "rung too early"


async def item(_: Player, op: Op) -> str:
    emit("item", op.number)
    return "emitted"


async def draw(player: Player, op: Op) -> str:
    drawn = [current_actor().uuid4().hex, current_actor().random.random()]
    player.facts.append(f"drawn {op.number} {drawn}")
    await asyncio.sleep(op.seconds)
    return "drawn" if f"drawn {op.number} {drawn}" in player.facts else "drawn otherwise"


async def patch(_: Player, op: Op) -> str:
    return str(patched(f"change {op.number}"))


async def send(player: Player, op: Op) -> str:
    current_actor().ref(Account, op.other).send_event(Account.add, player.next_note(op.other), op.n)
    return "sent"


async def ask(player: Player, op: Op) -> str:
    await current_actor().ref(Account, op.other).ask(Account.add, player.next_note(op.other), op.n)
    return "asked"


async def look(_: Player, op: Op) -> str:
    await current_actor().ref(Account, op.other).query(Account.seen)
    return "looked"


async def inform(_: Player, op: Op) -> str:
    me = current_actor()
    return (await me.ref(Player.run, me.key).info()).status


async def poke_oneself(_: Player, op: Op) -> str:
    me = current_actor()
    send_signal(me.ref(Player.run, me.key), Player.poke, -op.number)
    return "sent"


async def fail(_: Player, op: Op) -> str:
    raise LookupError(op.number)


async def catch(player: Player, op: Op) -> str:
    try:
        return await in_turn(player, op)
    except Exception as error:  # noqa: BLE001  whatever the parts raise
        return type(error).__name__


async def gather(player: Player, op: Op) -> str:
    answers = await asyncio.gather(*map(player.play, op.parts), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return " ".join(map(str, answers))


async def group(player: Player, op: Op) -> str:
    async with asyncio.TaskGroup() as tasks:
        begun = [tasks.create_task(player.play(part)) for part in op.parts]
    return " ".join(task.result() for task in begun)


async def group_fails(player: Player, op: Op) -> str:
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(op.n):
                tasks.create_task(asyncio.Event().wait())
            await asyncio.sleep(op.seconds)
            raise LookupError(op.number)
    except ExceptionGroup as errors:
        return f"{len(errors.exceptions)} failed"


async def time_out(player: Player, op: Op) -> str:
    try:
        async with asyncio.timeout(op.seconds):
            return await gather(player, op)
    except TimeoutError:
        return "timed out"


async def wait_for(player: Player, op: Op) -> str:
    try:
        return await asyncio.wait_for(gather(player, op), op.seconds)
    except TimeoutError:
        return "timed out"


async def hold(player: Player, op: Op) -> str:
    async with player.lock:
        await player.queue.put(op.number)
        await asyncio.sleep(op.seconds)
        return "held" if await player.queue.get() == op.number else "mixed up"


async def task(player: Player, op: Op) -> str:
    begun = asyncio.create_task(in_turn(player, op))
    return await begun


async def undo(player: Player, op: Op) -> str:
    """Two bookings with parts between them; undone if the parts fail, or as the operation says."""
    try:
        async with saga():
            await book_surely(op.number, 1)
            await in_turn(player, op)
            await book_surely(op.number, 2)
            if op.n % 2:
                raise ValueError(op.number)
    except ValueError:
        return "undone"
    return "booked"


async def book_surely(number: int, place: int) -> None:
    await as_often_as_the_host_dies(lambda: book(number, place))


async def child(_: Player, op: Op) -> str:
    return await spawn(Player.run, f"{current_actor().key}.{op.number}", *op.parts).result()


async def child_left(_: Player, op: Op) -> str:
    spawn.options(on_parent_close="abandon")(Player.run, f"{current_actor().key}.{op.number}", *op.parts)
    return "left"


async def child_cut(_: Player, op: Op) -> str:
    how: Any = "cancel" if op.n % 2 else "terminate"
    spawn.options(on_parent_close=how)(Player.run, f"{current_actor().key}.{op.number}", *op.parts)
    return "left"


async def child_cancelled(_: Player, op: Op) -> str:
    ref = spawn(Player.run, f"{current_actor().key}.{op.number}", Op("sleep", op.number, 5_000))
    await asyncio.sleep(op.seconds)
    if op.n % 2:
        ref.cancel("enough")
    else:
        ref.terminate("enough")
    try:
        return await ref.result()
    except ActorCancelled as cancelled:
        return cancelled.reason


async def ask_in_vain(_: Player, op: Op) -> str:
    deaf = current_actor().ref(Deaf, f"{current_actor().key}.{op.number}").options(timeout=timedelta(seconds=op.seconds))
    try:
        await deaf.ask(Deaf.listen)
    except AskTimeout:
        return "timed out"
    return "heard"


async def move_on(player: Player, op: Op) -> str:
    with anyio.move_on_after(op.seconds):
        return await group_of_anyio(player, op)
    return "timed out"


async def group_of_anyio(player: Player, op: Op) -> str:
    answers: dict[int, str] = {}

    async def one(part: Op) -> None:
        answers[part.number] = await player.play(part)

    async with anyio.create_task_group() as tasks:
        for part in op.parts:
            tasks.start_soon(one, part)
    return " ".join(answers[part.number] for part in op.parts)


async def pipe(player: Player, op: Op) -> str:
    send, receive = anyio.create_memory_object_stream[int]()
    received: list[int] = []

    async def send_all() -> None:
        async with send:
            for part in op.parts:
                await player.play(part)
                await send.send(part.number)

    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(send_all)
        received += [number async for number in receive]
    return "piped" if received == [part.number for part in op.parts] else "mixed up"


async def clumsy(_: Player, op: Op) -> str:
    return await spawn(Clumsy.run, f"{current_actor().key}.{op.number}", op.number, op.n).result()


PLAYED: Final[dict[str, Callable[[Player, Op], Awaitable[str]]]] = {
    played.__name__: played
    for played in (
        *(sleep, step_called, step_computed, step_called_again, step_beats, step_fails, step_hangs),
        *(hear, hear_nothing, until, tick, ring, item, draw, patch, send, ask, look, inform, poke_oneself, fail, hold, group_fails),
        *(in_turn, catch, gather, group, time_out, wait_for, task, undo, child, child_left, clumsy),
        *(child_cut, child_cancelled, ask_in_vain, move_on, group_of_anyio, pipe),
    )
}
TAKES_ITS_TIME: Final = {"sleep", "hear_nothing", "group_fails", "hold", "ring"}
CAST: Final = Account, Player, Clumsy, Tally, Lodger, Delicate, Fickle, Deaf
NEXT_CAST: Final = Account, NextPlayer, Clumsy, Tally, Lodger, Delicate, Fickle, Deaf


def player_of(runtime: Runtime, key: str) -> ActorRef[Player]:
    """A player, of whichever version is hosted."""
    hosted: type[Player] = runtime.registry.require("Player").cls
    return runtime.ref(hosted, key)

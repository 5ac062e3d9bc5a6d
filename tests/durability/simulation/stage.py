"""One simulation: hosts that come and go on one disk, clients that insist, and at the end the comparison with what must have come of it.

All of it runs on a simulated loop, so a seed is all that there is to know of a run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any, Final, NamedTuple, TypeVar, final

from perdure.actors import (
    ActorCancelled,
    ActorCompleted,
    ActorFailed,
    ActorNotFound,
    ActorRef,
    IdempotencyMismatch,
    Runtime,
    RuntimeNotRunning,
    send_signal,
)
from perdure.actors._persistence import PREFIX, Table
from perdure.actors._registry import Registry
from perdure.actors._settings import Settings
from perdure.actors.testing import Faults, LoopClock, SimulatedDisk, SimulatedStore
from perdure.actors.testing._dice import Dice
from perdure.storage import Batch, CommitUncertain, StoreFull

from .cast import CAST, NEXT_CAST, Account, Note, Player, player_of
from .guests import GUESTS
from .ledger import Ledger
from .plot import ACCOUNTS, Plot, Trouble, Verb
from .verdict import Collected, Verdict

T = TypeVar("T")

CALM: Final = Trouble(0.0, False, 10_000, 1_000, Faults(latency=0.0))
ALONE: Final = CALM._replace(max_active=0)  # each turn is replayed
LONG_ENOUGH: Final = 40_000.0  # seconds of simulated time within which everything must have come to rest
LOST: Final = CommitUncertain, RuntimeNotRunning, StoreFull  # what a client that insists sends again after


@final
class Trace:
    """Everything that can be seen of a run, as one hash; as lines too, if they are wanted."""

    def __init__(self, *, keeps_lines: bool = False) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self._keeps_lines = keeps_lines
        self.lines: list[str] = []

    def __call__(self, what: str, *more: object) -> None:
        line = f"{asyncio.get_running_loop().time():.6f} {what} {' '.join(map(str, more))}"
        self._hash.update(line.encode())
        if self._keeps_lines:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class Done(NamedTuple):
    """A verb to an account that was acknowledged, or may have been done nevertheless."""

    verb: Verb
    is_known: bool
    answer: object = None


@final
class Stage:
    """The world of one plot."""

    def __init__(self, seed: int, plot: Plot, trace: Trace, problems: list[str]) -> None:
        self.plot = plot
        self.trace = trace
        self.ledger = Ledger()
        self.disk = SimulatedDisk(seed, self._commit_seen)
        self.resources: dict[str, Any] = {"ledger": self.ledger, "disk": self.disk, "mended": False}
        self._requests: set[bytes] = set()  # rows of the steps that were ever asked for, once that is durable
        self.resources |= {"asked": self._requests, "poison": set(), "strays": False, "strayed": set()}
        self.random = Random(f"stage {seed}")
        self.problems = problems
        self.verbs: dict[Note, Done] = {}
        self.results: dict[str, str] = {}
        self.answers: dict[tuple[str, int], str] = {}  # of workers, to which program
        self.refused: Counter[tuple[str, str]] = Counter()  # words and pokes that came too late, by player
        self.known: Counter[str] = Counter()  # events of accounts that somebody was told of
        self.played = 0
        self.streams: dict[str, list[tuple[int, Note]]] = defaultdict(list)
        self.operations = self.hosts = 0
        dice = Dice(seed)
        self._settings = Settings(
            registry=Registry.of_classes(CAST),
            resources=self.resources,
            clock=LoopClock(dice.rounds),
            entropy=dice.entropy,
            check_queries=1,
            stopwatch=dice.stopwatch,
            queue=dice.queue,
            around_steps=dice.around_steps,
        )
        self._runtime: Runtime | None = None
        self._up = asyncio.Event()
        self._notes: Counter[tuple[str, str, str]] = Counter()

    def _commit_seen(self, what: str, batch: Batch) -> None:
        self._requests.update(key for key in batch.puts if key.startswith(PREFIX[Table.REQUEST]))
        self.trace(what, len(batch.puts), len(batch.ranges), batch.size)

    def wrong(self, what: str) -> None:
        """Note something that must not be."""
        self.problems.append(what)
        self.trace("WRONG", what)

    # --- hosts ---

    async def host(self, trouble: Trouble, end: asyncio.Event, seconds: float | None = None) -> None:
        """Host until the end, or for so long; or until it ends by its disk."""
        self.hosts += 1
        self.disk.faults = trouble.faults
        registry = Registry.of_classes(NEXT_CAST if trouble.is_next else CAST)
        settings = replace(self._settings, registry=registry, max_active=trouble.max_active, max_steps=trouble.max_steps)
        runtime = Runtime.with_settings(SimulatedStore(self.disk), settings)
        self.trace("host", trouble)
        try:
            async with runtime:
                self._runtime = runtime
                self._up.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(end.wait(), seconds)
                self.trace("kill")
                runtime.abort()
        except CommitUncertain as error:
            self.trace("end", error)
        finally:
            self._up.clear()

    async def hosts_with_troubles(self, end: asyncio.Event) -> None:
        """One host after the other, until all clients are served; the last one has no troubles."""
        for trouble in self.plot.troubles:
            if not end.is_set():
                await self.host(trouble, end, trouble.seconds)
                await asyncio.sleep(self.random.random() * 3)
        await self.host(CALM._replace(is_next=self.plot.ends_as_next), end)

    async def insist(self, act: Callable[[Runtime], Awaitable[T]]) -> T:
        """Do it again and again until it is known to be done."""
        while True:
            await self._up.wait()
            assert self._runtime is not None
            try:
                return await act(self._runtime)
            except LOST as error:
                self.trace("again", type(error).__name__)
                await asyncio.sleep(self.random.random() / 10)

    # --- clients ---

    async def client(self, name: str, verbs: list[Verb]) -> None:
        """Do what the plot says, one after the other."""
        asked: dict[str, tuple[str, Note, Verb, object]] = {}
        guest = GUESTS[verbs[0].key](self) if verbs[0].key in GUESTS else None
        for verb in verbs:
            await asyncio.sleep(verb.after)
            self.operations += 1
            if guest is not None:
                await guest.do(verb)
            elif verb.key in self.plot.players:
                await self._to_player(verb)
            elif verb.key in self.plot.workers:
                await self._perform(verb)
            else:
                await self._to_account(name, verb, asked)
            self.trace("done", name, verb.kind, verb.key, verb.number)
        if verbs[-1].key in self.plot.players:
            await self._result(verbs[-1].key)
        if guest is not None:
            await guest.end()

    def _next_note(self, sender: str, key: str, lane: str) -> Note:
        self._notes[sender, key, lane] += 1
        return Note(f"{sender} {key} {lane}", self._notes[sender, key, lane])

    async def _to_account(self, name: str, verb: Verb, asked: dict[str, tuple[str, Note, Verb, object]]) -> None:
        match verb.kind:
            case "look":
                await self._look(verb.key)
            case "inform":
                await self._inform(verb.key)
            case "again":
                if verb.key in asked:
                    await self._again(asked[verb.key], verb)
            case "loose":
                await self._loose(verb)
            case _:
                await self._tell(name, verb, asked)

    async def _tell(self, name: str, verb: Verb, asked: dict[str, tuple[str, Note, Verb, object]]) -> None:
        """Have the account do something, under a key."""
        handler, _, how = verb.kind.partition("_")
        note = self._next_note(name, verb.key, "signals" if handler == "hurry" else "events")
        self.verbs[note] = Done(verb, is_known=True)
        key = f"verb {verb.number}"
        if handler == "hurry":
            await self.insist(lambda runtime: send_signal(self._account(runtime, verb.key, key), Account.hurry, note, verb.other))
            return
        is_asked = how == "asked" or (how != "sent" and verb.number % 2)
        method, *args = self._call(verb)
        if not is_asked:
            await self.insist(lambda runtime: self._account(runtime, verb.key, key).send_event(method, note, *args))
            return
        answer = await self.insist(lambda runtime: self._asked(self._account(runtime, verb.key, key), method, note, *args))
        fails = handler == "fail" and verb.n > 0
        if fails != (answer == "LookupError"):
            self.wrong(f"verb {verb.number}: {verb.kind} {verb.n} answered {answer}")
        if not fails:
            self._told(verb.key, answer, 0)
        self.verbs[note] = Done(verb, is_known=True, answer=answer)
        asked[verb.key] = key, note, verb, answer

    async def _asked(self, account: ActorRef[Account], method: Any, *args: object) -> object:
        try:
            return await account.ask(method, *args)
        except LookupError as error:
            return type(error).__name__

    @staticmethod
    def _call(verb: Verb) -> tuple[Any, ...]:
        match verb.kind:
            case "add_asked" | "add_sent":
                return Account.add, verb.n
            case "transfer":
                return Account.transfer, verb.other, verb.n
            case "transfer_asking":
                return Account.transfer_asking, verb.other, verb.n
            case "transfer_slowly":
                return Account.transfer_slowly, verb.other, verb.n
            case _:
                return Account.fail, verb.other, verb.n

    def _account(self, runtime: Runtime, key: str, idempotency_key: str | None = None) -> ActorRef[Account]:
        account = runtime.ref(Account, key)
        return account if idempotency_key is None else account.options(idempotency_key=idempotency_key)

    async def _again(self, before: tuple[str, Note, Verb, object], verb: Verb) -> None:
        """Repeat an ask under its key: the same answer; with other arguments it is refused."""
        key, note, first, answer = before
        method, *args = self._call(first)
        if verb.n % 3 == 0:
            other = note._replace(number=note.number + 1000)
            try:
                found = await self.insist(lambda runtime: self._asked(self._account(runtime, first.key, key), method, other, *args))
            except IdempotencyMismatch:
                return
            self.wrong(f"verb {verb.number}: another call under the key of verb {first.number} answered {found}")
            return
        found = await self.insist(lambda runtime: self._asked(self._account(runtime, first.key, key), method, note, *args))
        if found != answer:
            self.wrong(f"verb {verb.number}: verb {first.number} answered {answer}, and when repeated {found}")

    async def _loose(self, verb: Verb) -> None:
        """Send without a key, once: it is done at most once, and surely if that was acknowledged."""
        note = Note(f"loose {verb.number}", 1)
        await self._up.wait()
        assert self._runtime is not None
        self.verbs[note] = Done(verb, is_known=False)
        with suppress(*LOST):
            await self._account(self._runtime, verb.key).send_event(Account.add, note, verb.n)
            self.verbs[note] = Done(verb, is_known=True)

    async def _look(self, key: str) -> None:
        known = self.known[key]
        events, _ = await self.insist(lambda runtime: self._account(runtime, key).query(Account.seen))
        self._told(key, events, known)

    def _told(self, key: str, events: object, known: int) -> None:
        """Whatever somebody was told of stays."""
        assert isinstance(events, int)
        self.trace("told", key, events)
        if events < known:
            self.wrong(f"account {key} had {known} events, as somebody was told, and later {events}")
        self.known[key] = max(self.known[key], events)

    async def _inform(self, key: str) -> None:
        with suppress(ActorNotFound):
            info = await self.insist(lambda runtime: self._account(runtime, key).info())
            self.trace("info", info.status, info.turn, info.events, info.interrupts, info.cursor)
            if info.status not in {"idle", "suspended"}:
                self.wrong(f"account {key} is {info.status}: {info.error}")

    async def _to_player(self, verb: Verb) -> None:
        key = f"verb {verb.number}"

        async def act(runtime: Runtime) -> None:
            player = player_of(runtime, verb.key).options(idempotency_key=key)
            match verb.kind:
                case "start":
                    await runtime.start(Player.run, verb.key, *self.plot.players[verb.key])
                case "poke":
                    await send_signal(player, Player.poke, verb.number)
                case "word":
                    await send_signal(player, Player.word, verb.number)
                case "cancel":
                    await player.cancel("enough")
                case _:
                    await player.terminate("enough")

        try:
            await self.insist(act)
        except ActorCompleted:
            self.refused[verb.key, verb.kind] += 1

    async def _perform(self, verb: Verb) -> None:
        """Have a worker play a program as an event."""
        program, key = self.plot.workers[verb.key][verb.n], f"verb {verb.number}"

        async def act(runtime: Runtime) -> str:
            worker = player_of(runtime, verb.key).options(idempotency_key=key)
            if verb.number % 2:
                await worker.send_event(Player.perform, program)
                return ""
            return await worker.ask(Player.perform, program)

        try:
            answer = await self.insist(act)
        except LOST:
            raise
        except Exception as error:  # noqa: BLE001  whatever the program raises
            answer = f"raises {type(error).__name__}"
        if verb.number % 2 == 0:
            self.answers[verb.key, verb.n] = answer

    async def _result(self, key: str) -> None:
        try:
            answer = await self.insist(lambda runtime: runtime.ref(Player.run, key).result())
        except ActorFailed as failed:
            answer = f"failed by {type(failed.__cause__).__name__}"
        except ActorCancelled as cancelled:
            answer = f"cancelled: {cancelled.reason}"
        self.results[key] = answer
        self.trace("result", key, answer)

    async def reader(self, key: str) -> None:
        """Read the account's stream on and on, through whatever befalls its host."""
        items = self.streams[key]

        async def read(runtime: Runtime) -> None:
            async for item in self._account(runtime, key).stream(after=items[-1][0] if items else 0):
                self.trace("item", key, item.position, item.payload)
                items.append((item.position, item.payload))

        while True:
            with suppress(ActorNotFound):
                await self.insist(read)
            await asyncio.sleep(1)

    # --- the whole ---

    async def play(self) -> None:
        """All of it, up to the check of what has come of it."""
        async with asyncio.timeout(LONG_ENOUGH):
            end = asyncio.Event()
            hosts = asyncio.create_task(self.hosts_with_troubles(end))
            readers = [asyncio.create_task(self.reader(key)) for key in ACCOUNTS]
            clients = [asyncio.create_task(self.client(f"client {place}", verbs)) for place, verbs in enumerate(self.plot.clients)]
            try:
                await self._first_of(hosts, asyncio.gather(*clients))
                self.disk.heal()
                await self.insist(self._rest)
                verdict = Verdict(self)
                first = await self.insist(verdict.collect)
                end.set()
                await hosts
                await self._compare_after_restart(verdict, first)
            finally:
                for task in (hosts, *readers, *clients):
                    task.cancel()
                await asyncio.gather(hosts, *readers, *clients, return_exceptions=True)

    async def _first_of(self, hosts: asyncio.Task[None], clients: asyncio.Future[Any]) -> None:
        await asyncio.wait([hosts, clients], return_when=asyncio.FIRST_COMPLETED)
        await (clients if clients.done() else hosts)

    async def _compare_after_restart(self, verdict: Verdict, first: Collected) -> None:
        end = asyncio.Event()
        host = asyncio.create_task(self.host(ALONE._replace(is_next=self.plot.ends_as_next), end))
        try:
            again = await self.insist(verdict.collect)
            if again != first:
                self.wrong(f"after a restart it is not what it was: {first} and now {again}")
            verdict.judge(again)
            self.resources["mended"] = True
            await self.insist(verdict.redrive)
        finally:
            end.set()
            await host

    async def _rest(self, runtime: Runtime) -> None:
        """Wait until no actor waits for anything."""
        while True:
            await asyncio.sleep(30)
            await runtime.settled()
            infos = [info async for info in runtime.actors()]
            if not any(info.status == "suspended" or info.events or info.interrupts for info in infos):
                return
            self.trace("rest", [(str(info.id), info.status, info.waits) for info in infos if info.waits])

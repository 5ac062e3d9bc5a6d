"""Group commit: turns collect in the open batch while the one before it is on its way to the disk.

Batches are a linear sequence, numbered from 1 in each epoch, one under way at a time: none becomes durable before those before it. What may
leave the host only when a batch is durable waits at that batch's gate, and a gate never opens before the commit has returned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, TypeAlias, final

from ._errors import CommitUncertain, PerdureError, StoreFull
from ._overlay import Overlay
from ._protocol import Batch, Fence, Store
from .keys import pack

Passage: TypeAlias = Callable[[BaseException | None], None]

RETRY_WHEN_FULL: Final = 0.25  # seconds between attempts while the disk is full; sends are refused meanwhile

# Messages between actors of one host wait for nobody: while no caller waits, a chain of a thousand needs a few commits, not hundreds.
LINGER: Final = 0.01  # seconds

# A commit that has returned needs the GIL back. A loop that lets go of it often, but never for long, could keep it for ever.
GIL_SLICE: Final = 0.005  # seconds


class Limits(NamedTuple):
    """How much may be uncommitted before new work waits."""

    turns: int = 20_000
    size: int = 64 << 20  # bytes staged


LIMITS: Final = Limits()


class CommitStatistics(NamedTuple):
    """What a group commit has done so far in this epoch."""

    batches: int
    turns: int
    size: int  # bytes
    under_way: bool
    waiting_turns: int


class Committed(NamedTuple):
    """A batch that has become durable: its number in its epoch, how many turns and bytes it has, and the seconds that it was under way."""

    number: int
    turns: int
    size: int
    seconds: float


class Observer(Protocol):
    """Who is told of commits: on the event loop, between two steps of it, so it had better be quick."""

    def begun(self) -> None:
        """A batch is on its way to the disk; the loop has little to do until it is there."""
        ...

    def committed(self, committed: Committed) -> None:
        """A batch is durable, and its gate open."""
        ...


@final
class Gate:
    """Opens once, when its batch is durable, or is told the error that the batch failed with."""

    __module__ = "perdure.storage"

    __slots__ = ("_passages", "_wanted", "error", "number", "open")

    def __init__(self, number: int, wanted: Callable[[], None] | None = None) -> None:
        self.number = number
        self.open = False
        self.error: BaseException | None = None
        self._passages: list[Passage] = []
        self._wanted = wanted  # called when somebody begins to wait here

    def __repr__(self) -> str:
        state = "open" if self.open else f"failed: {self.error!r}" if self.error else f"{len(self._passages)} waiting"
        return f"<Gate {self.number} {state}>"

    def when_open(self, passage: Passage) -> None:
        """Call `passage(None)` once the batch is durable, or `passage(error)` if it failed; at once if that is known."""
        if self.open or self.error is not None:
            passage(self.error)
            return
        self._passages.append(passage)
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted()

    @property
    def awaited(self) -> bool:
        """Whether anybody waits here."""
        return bool(self._passages)

    async def wait(self) -> None:
        """Return once the batch is durable; raises what it failed with."""
        if self.open:
            return
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_open(lambda error: settle(passed, error))
        await passed

    def let_pass(self, error: BaseException | None) -> None:
        """Decide the batch: for the group commit alone."""
        self.open, self.error = error is None, error
        passages, self._passages = self._passages, []
        for passage in passages:
            passage(error)


def settle(waiter: asyncio.Future[None], error: BaseException | None) -> None:
    """End a waiting future unless its waiter has gone."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(fresh(error))


def fresh(error: BaseException) -> BaseException:
    """An equal error for one more waiter: one object that is raised in several tasks collects all their tracebacks."""
    return type(error)(*error.args) if isinstance(error, PerdureError) else error


@final
class GroupCommit:
    """The open batch of one fence, and the loop that makes batches durable.

    A batch is closed as soon as the store is free and somebody waits at its gate; one that nobody waits for may fill for `linger` seconds.

    `seal(batch)` is called right before a batch closes, so that its owner can put in the latest record of whatever changed since
    the last one: an actor that took ten messages writes one snapshot.
    """

    __module__ = "perdure.storage"

    def __init__(
        self, store: Store, fence: Fence, *, seal: Callable[[Batch], None], limits: Limits = LIMITS, linger: float = LINGER
    ) -> None:
        self.overlay = Overlay(store)
        self.batch = Batch()
        self.gate = Gate(1, self._wake)
        self.full: StoreFull | None = None  # why no new work is taken in
        self.failed = False  # whether this epoch has ended: nothing staged from now on becomes durable
        self.observer: Observer | None = None
        self._store = store
        self._fence = fence
        self._seal = seal
        self._limits = limits
        self._marker = marker_key(fence.partition)
        self._turns = self._size = 0  # in the open batch
        self._turns_under_way = self._size_under_way = 0
        self._turns_done = self._size_done = 0
        self._gate_under_way: Gate | None = None
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Future[None] | None = None  # the committer sleeps on it
        self._lingers_for = linger
        self._linger: asyncio.TimerHandle | None = None  # wakes it when nobody waits for the batch
        self._space: list[asyncio.Future[None]] = []
        self._yielded = 0.0
        self.overlay.layers.append(self.batch)

    def __repr__(self) -> str:
        return f"<GroupCommit of {self._fence}: {self.statistics()}>"

    def statistics(self) -> CommitStatistics:
        """Counts for tools."""
        done = self.gate.number - 1 - bool(self._gate_under_way)
        return CommitStatistics(done, self._turns_done, self._size_done, self.under_way, self._turns)

    @property
    def under_way(self) -> bool:
        """Whether a batch is on its way to the disk."""
        return self._gate_under_way is not None

    @property
    def idle(self) -> bool:
        """Whether everything staged is durable."""
        return not self._turns and self._gate_under_way is None

    @property
    def saturated(self) -> bool:
        """Whether new work must wait: see `space`."""
        turns, size = self._limits
        return self._turns + self._turns_under_way >= turns or self._size + self._size_under_way >= size

    def stage(self, size: int = 0) -> Gate:
        """Count one turn of about `size` bytes into the open batch, whose content is in `batch` or comes with `seal`; returns its gate."""
        self._turns += 1
        self._size += size
        if self._linger is None:
            self._linger = self._loop.call_later(self._lingers_for, self._stop_lingering)
        return self.gate

    def breathe(self) -> None:
        """Let the committing thread have the GIL, if one waits for it: call often from a busy loop."""
        if self._gate_under_way is not None:
            now = time.perf_counter()
            if now - self._yielded > GIL_SLICE:
                self._yielded = now
                time.sleep(0)

    def when_space(self, callback: Callable[[], None]) -> None:
        """Call back once less is uncommitted than the limits say, if this epoch gets there."""
        assert self._gate_under_way is not None or self._turns
        (self._gate_under_way or self.gate).when_open(lambda error: None if error else callback())

    async def space(self) -> None:
        """Wait until less is uncommitted than the limits say; raises StoreFull, and what has ended this epoch."""
        while self.saturated and not self.failed:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._space.append(room)
            await room
        if self.failed:  # perhaps while this waiter, told of room, had not come to its turn yet
            await self.gate.wait()

    @property
    def newest(self) -> Gate | None:
        """The gate behind which everything staged up to now is durable; None if it is already."""
        return self.gate if self._turns else self._gate_under_way

    async def settled(self) -> None:
        """Return once everything staged up to now is durable; raises what its batch failed with."""
        newest = self.newest
        if newest is not None:
            await newest.wait()

    async def run(self) -> None:
        """Commit batch after batch, until cancelled or abandoned. Raises what ends this epoch, after telling all gates."""
        try:
            while True:
                await self._due()
                if self.failed:
                    return
                await self._commit_next()
        except Exception as error:
            self._fail(error)
            raise

    def abandon(self) -> None:
        """Commit nothing more, and tell whoever waits that this epoch is over, and nobody knows what became of its last batches."""
        if not self.failed:
            self._fail(CommitUncertain(str(self._store), "its host ended first", recoverable=True))

    async def _due(self) -> None:
        """Return when the open batch is to be closed."""
        while not (self._turns and (self.gate.awaited or self._linger is None)):
            self._work = self._loop.create_future()
            if self.full is None:
                await self._work
            else:
                await asyncio.wait([self._work], timeout=RETRY_WHEN_FULL)
                return  # an empty batch asks the store for room

    def expect(self) -> None:
        """Say that somebody will wait at the open batch's gate once this round of the loop is over.

        The committer looks right then; waking it when the waiter is there would cost a round more, a twentieth of a commit.
        """
        self._wake()

    def _wake(self) -> None:
        if self._work is not None and self._turns:
            settle(self._work, None)

    def _stop_lingering(self) -> None:
        # By now it may be another batch than the timer was set for: one for each would cost more than a commit that comes early.
        self._linger = None
        self._wake()

    async def _commit_next(self) -> None:
        batch, gate = self._close_batch()
        observer, begin = self.observer, self._yielded
        if observer is not None:
            observer.begun()
        await self._commit(batch)
        # One that failed stays: whoever has not heard yet that the epoch is over reads what fits together.
        self.overlay.layers.remove(batch)
        committed = Committed(gate.number, self._turns_under_way, self._size_under_way, time.perf_counter() - begin)
        self._turns_done += self._turns_under_way
        self._size_done += self._size_under_way
        self._turns_under_way = self._size_under_way = 0
        self._gate_under_way = None
        gate.let_pass(None)
        self._make_space(None)
        if observer is not None:
            observer.committed(committed)

    def _close_batch(self) -> tuple[Batch, Gate]:
        self._seal(self.batch)
        self.batch.put(self._marker, pack((self._fence.epoch, self.gate.number)))
        closed = self.batch, self.gate
        self._work = None
        self._turns_under_way, self._turns = self._turns, 0
        self._size_under_way, self._size = self.batch.size, 0
        self._gate_under_way = self.gate
        self._yielded = time.perf_counter()
        self.batch, self.gate = Batch(), Gate(self.gate.number + 1, self._wake)
        self.overlay.layers.append(self.batch)
        return closed

    async def _commit(self, batch: Batch) -> None:
        while True:
            try:
                roomy = await self._store.commit(batch, self._fence)
            except StoreFull as full:
                self.full = full
                self._make_space(full)
                await asyncio.sleep(RETRY_WHEN_FULL)
            else:
                self.full = None if roomy else self.full or StoreFull(str(self._store), "only the reserve is left")
                return

    def _fail(self, error: Exception) -> None:
        self.failed = True
        for gate in (self._gate_under_way, self.gate):
            if gate is not None:
                gate.let_pass(error)
        self._make_space(error)

    def _make_space(self, error: Exception | None) -> None:
        waiters, self._space = self._space, []
        for waiter in waiters:
            settle(waiter, error)


def marker_key(partition: int) -> bytes:
    """Where the (epoch, number) of the partition's last durable batch stands: a backup is a prefix up to it."""
    return pack((partition, "batch"))


for _public in (Limits, CommitStatistics, Committed):
    _public.__module__ = "perdure.storage"  # a named tuple takes none in its body

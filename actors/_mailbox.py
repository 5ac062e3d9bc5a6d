"""An actor's mailbox: one sequence of messages, served in two lanes, each in order.

Only a window of a long lane is in memory; the rest are rows of the store. A message taken before its row was ever staged never touches the
disk. Whoever handles a message looks at the head first and takes it only when its turn has ended: a turn that is rolled back changes
nothing here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from ._envelope import Envelope
from ._records import Lane

WINDOW: Final = 256  # messages of a lane in memory, beyond those of the open batch


@final
class Item(NamedTuple):
    """A message with its number in the mailbox and its place in its lane."""

    seq: int
    place: int
    envelope: Envelope


@final
class LaneQueue:
    """One lane. `stored` is the highest seq that has a row; `spilled` messages behind the ones in memory are rows only."""

    __slots__ = ("cursor", "fresh", "next_place", "ready", "spilled", "stored", "taken")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.ready: deque[Item] | None = None  # an empty deque costs 600 bytes, and most lanes are empty
        self.fresh: list[Item] | None = None  # arrived behind spilled ones, and not staged yet
        self.spilled = 0
        self.stored = cursor
        self.next_place = 0
        self.taken: list[int] | None = None  # rows to delete with the next batch

    def __len__(self) -> int:
        return len(self.ready or ()) + self.spilled + len(self.fresh or ())

    def head(self) -> Item | None:
        """The oldest message in memory."""
        return self.ready[0] if self.ready else None

    @property
    def starved(self) -> bool:
        """Whether only the store has the next message."""
        return not self.ready and self.spilled > 0

    def append(self, seq: int, envelope: Envelope) -> None:
        """Add the newest message."""
        item = Item(seq, self.next_place, envelope)
        self.next_place += 1
        if self.spilled or self.fresh:
            self.fresh = self.fresh or []
            self.fresh.append(item)
        elif self.ready is None:
            self.ready = deque((item,))
        else:
            self.ready.append(item)

    def take(self) -> None:
        """Remove the head for good."""
        assert self.ready
        seq = self.ready.popleft().seq
        self.cursor = seq
        if seq <= self.stored:
            self.taken = self.taken or []
            self.taken.append(seq)
        if not self.ready:
            self.ready = None
            self._use_fresh()

    def refill(self, rows: list[Item], beyond: int, last: int) -> None:
        """Set what was read from the store: the first rows, how many more are behind them, and the seq of the last one."""
        self.ready = deque(rows) if rows else None
        self.spilled = beyond
        self.stored = max(self.stored, last)
        if rows:
            self.next_place = max(self.next_place, rows[-1].place + beyond + 1)
        else:
            self._use_fresh()

    def staged(self) -> tuple[list[Item], list[int]]:
        """(messages that need a row, seqs whose rows go) since the last call; what exceeds the window is let go from memory."""
        put = self._unstored()
        gone, self.taken = self.taken or [], None
        if put:
            self.stored = put[-1].seq
            self._spill()
        return put, gone

    def _use_fresh(self) -> None:
        if self.fresh is not None and not self.spilled:
            self.ready, self.fresh = deque(self.fresh), None

    def _unstored(self) -> list[Item]:
        if self.fresh is not None:
            return self.fresh
        put: list[Item] = []
        for item in reversed(self.ready or ()):
            if item.seq <= self.stored:
                break
            put.append(item)
        put.reverse()
        return put

    def _spill(self) -> None:
        if self.fresh is not None:
            self.spilled += len(self.fresh)
            self.fresh = None
        while self.ready is not None and len(self.ready) > WINDOW:
            self.ready.pop()
            self.spilled += 1


@final
class Mailbox:
    """Both lanes of one actor."""

    __slots__ = ("events", "interrupts", "next_seq")

    def __init__(self, event: int, interrupt: int) -> None:
        self.events = LaneQueue(event)
        self.interrupts = LaneQueue(interrupt)
        self.next_seq = max(event, interrupt) + 1

    def __repr__(self) -> str:
        return f"<Mailbox {len(self.interrupts)} interrupts, {len(self.events)} events, next seq {self.next_seq}>"

    def __len__(self) -> int:
        interrupts, events = self.interrupts, self.events
        if interrupts.ready is events.ready is None and not (interrupts.spilled or events.spilled):
            return 0  # as most mailboxes are after most turns
        return len(interrupts) + len(events)

    def lane(self, lane: Lane) -> LaneQueue:
        """One of the lanes."""
        return self.events if lane is Lane.EVENTS else self.interrupts

    def lanes(self) -> Iterator[tuple[Lane, LaneQueue]]:
        """Both, interrupts first."""
        yield Lane.INTERRUPTS, self.interrupts
        yield Lane.EVENTS, self.events

    def append(self, envelope: Envelope) -> int:
        """Number a message and put it into its lane; returns its seq."""
        seq = self.next_seq
        self.next_seq = seq + 1
        (self.events if envelope.is_event else self.interrupts).append(seq, envelope)
        return seq

    def waiting(self) -> Iterator[Item]:
        """The messages in memory, in the order of their lanes."""
        for _, lane in self.lanes():
            yield from lane.ready or ()
            yield from lane.fresh or ()

"""A mailbox is two queues of one sequence, however much of it is in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._ids import MessageId
from perdure.actors._mailbox import WINDOW, Item, LaneQueue, Mailbox


def envelope(name: str, kind: Kind = Kind.EVENT) -> Envelope:
    return Envelope(id=MessageId(b""), kind=kind, name=name, payload=b"")


class Traffic:
    """A lane under way: messages come, are staged and taken, and the host starts again; `rows` is what its store has."""

    def __init__(self) -> None:
        self.lane = LaneQueue(0)
        self.rows: dict[int, Item] = {}
        self.sent = 0
        self.taken: list[str] = []

    def send(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            self.lane.append(self.sent, envelope(str(self.sent)))

    def stage(self, _: int = 0) -> None:
        put, gone = self.lane.staged()
        self.rows.update((item.seq, item) for item in put)
        for seq in gone:
            del self.rows[seq]
        assert self.lane.staged() == ([], [])
        places = [item.place for _, item in sorted(self.rows.items())]
        assert [place - nth for nth, place in enumerate(places)] == places[:1] * len(places)

    def restart(self, _: int) -> None:
        self.stage()
        self.lane = LaneQueue(self.lane.cursor)
        self.refill()

    def refill(self) -> None:
        rows = [item for seq, item in sorted(self.rows.items()) if seq > self.lane.cursor]
        self.lane.refill(rows[:WINDOW], len(rows[WINDOW:]), rows[-1].seq if rows else self.lane.cursor)

    def take(self, most: int) -> None:
        for _ in range(most):
            if self.lane.starved:
                self.refill()
            item = self.lane.head()
            if item is None:
                return
            self.taken.append(item.envelope.name)
            self.lane.take()


@pytest.mark.promise("order-per-sender-and-lane")
@given(st.lists(st.tuples(st.sampled_from(["send", "stage", "restart", "take"]), st.integers(1, 2 * WINDOW)), max_size=30))
def test_a_lane_gives_every_message_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    traffic = Traffic()

    for verb, count in steps:
        getattr(traffic, verb)(count)
        assert len(traffic.lane) == traffic.sent - len(traffic.taken)
    traffic.take(traffic.sent)
    traffic.stage()

    assert traffic.taken == [str(number) for number in range(1, traffic.sent + 1)]
    assert traffic.rows == {}


def test_a_message_taken_before_it_was_staged_never_becomes_a_row() -> None:
    mailbox = Mailbox(0, 0)

    mailbox.append(envelope("add"))
    mailbox.events.take()

    assert mailbox.events.staged() == ([], [])


def test_a_long_lane_keeps_only_its_window_in_memory() -> None:
    lane = LaneQueue(0)
    for seq in range(1, 10 * WINDOW):
        lane.append(seq, envelope("add"))

    lane.staged()

    assert (len(lane.ready or ()), lane.starved) == (WINDOW, False)
    assert len(lane) == 10 * WINDOW - 1
    for _ in range(WINDOW):
        lane.take()
    assert lane.starved


def test_lanes_share_one_sequence_and_go_their_own_ways() -> None:
    mailbox = Mailbox(4, 7)

    seqs = [mailbox.append(envelope("x", kind)) for kind in (Kind.EVENT, Kind.SIGNAL, Kind.EVENT)]
    mailbox.interrupts.take()

    assert seqs == [8, 9, 10]
    assert (mailbox.events.cursor, mailbox.interrupts.cursor) == (4, 9)
    assert [item.seq for item in mailbox.waiting()] == [8, 10]


def test_a_mailbox_counts_what_either_lane_has_anywhere() -> None:
    mailbox, lengths = Mailbox(0, 0), list[int]()

    lengths.append(len(mailbox))
    mailbox.events.refill([], 5, 5)
    lengths.append(len(mailbox))
    mailbox.interrupts.refill([], 2, 7)
    lengths.append(len(mailbox))
    for kind in (Kind.EVENT, Kind.SIGNAL):
        mailbox.append(envelope("x", kind))
        lengths.append(len(mailbox))

    assert lengths == [0, 5, 7, 8, 9]


def test_who_waits_is_told_in_the_order_of_the_lanes() -> None:
    mailbox = Mailbox(0, 0)
    mailbox.events.refill([Item(1, 0, envelope("first"))], 1, 2)
    for name, kind in (("third", Kind.EVENT), ("hurry", Kind.SIGNAL)):
        mailbox.append(envelope(name, kind))

    assert [item.envelope.name for item in mailbox.waiting()] == ["hurry", "first", "third"]
    assert [(mailbox.lane(lane) is queue) for lane, queue in mailbox.lanes()] == [True, True]

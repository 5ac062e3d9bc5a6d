"""On replay each request finds what it was first, in whatever order; and what finds nothing ends the replay."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import ActorId, NonDeterminismError
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._ids import MessageId
from perdure.actors._journal import Recorded, TurnStopped
from perdure.actors._records import Asked, LogEntry, RequestKind

STEP, TIMER, PATCH = KINDS = RequestKind.STEP, RequestKind.TIMER, RequestKind.PATCH
NAMES = "abc"
CLERK = ActorId("Clerk", "c")


class Wanted(NamedTuple):
    """What the code asks for."""

    kind: RequestKind
    name: str
    digest: bytes
    due: float

    def of(self, left: list[Asked]) -> Asked | None:
        """Its record: the first that is the same, else the first of its kind and name."""
        alike = [asked for asked in left if (asked.kind, asked.name) == self[:2]]
        same = [asked for asked in alike if (asked.digest, asked.due) == self[2:]]
        return next(iter(same or alike), None)


WANTED = st.builds(
    Wanted,
    st.sampled_from(KINDS),
    st.sampled_from(NAMES),
    st.sampled_from([b"1", b"2", b"3"]),
    st.sampled_from([1.0, 2.0, 3.0]),
)


def records(wanted: list[Wanted]) -> list[Asked]:
    return [Asked(kind, name, nth, digest, due) for nth, (kind, name, digest, due) in enumerate(wanted)]


def recorded(*asked: Asked) -> Recorded:
    envelope = Envelope(id=MessageId(b""), kind=Kind.EVENT, name="open", payload=b"")
    return Recorded(CLERK, LogEntry(number=1, seq=7, time=0.0, envelope=envelope, asked=[*asked]))


def match(record: Recorded, wanted: Wanted, before: list[Asked] | None = None) -> Asked | None:
    """What is found; None if the turn is stopped."""
    try:
        return record.match(*wanted, before or [])
    except TurnStopped:
        return None


@given(st.lists(WANTED, max_size=8), st.lists(WANTED, max_size=8))
def test_a_request_finds_the_same_one_else_one_of_its_kind(then: list[Wanted], now: list[Wanted]) -> None:
    left = records(then)
    record = recorded(*left)

    for wanted in now:
        expected = wanted.of(left)
        if expected is not None:
            left.remove(expected)
        assert match(record, wanted) == expected
        held = {(kind, name) for kind in KINDS for name in NAMES if record.holds(kind, name)}
        assert held == {(asked.kind, asked.name) for asked in left}


@given(st.lists(WANTED, max_size=8), st.randoms())
def test_requests_in_another_order_are_no_difference(then: list[Wanted], chance: Random) -> None:
    now = [*then]
    chance.shuffle(now)
    record = recorded(*records(then))

    found = [match(record, wanted) for wanted in now]

    record.finish([])
    assert [Wanted(each.kind, each.name, each.digest, each.due) for each in found if each] == now


@pytest.mark.parametrize(("kind", "what"), [(STEP, "step a has other arguments"), (TIMER, "timer a has another time")])
def test_it_is_said_what_differs_from_its_record(kind: RequestKind, what: str, caplog: pytest.LogCaptureFixture) -> None:
    match(recorded(Asked(kind, "a", 0, b"1", 1.0)), Wanted(kind, "a", b"2", 2.0))

    assert f"Clerk/c: on replay {what} than when it first ran" in caplog.text


def test_a_turn_that_left_something_out_is_refused() -> None:
    record = recorded(Asked(STEP, "a", 0), Asked(PATCH, "p", 1))

    with pytest.raises(NonDeterminismError, match="asked for nothing; when it first ran it asked for step a, patch p"):
        record.finish([])


def test_a_patch_may_be_left_out() -> None:
    record = recorded(Asked(PATCH, "p", 0))

    record.finish([])

    assert record.problem is None


def test_the_first_difference_of_a_turn_is_told() -> None:
    record = recorded(Asked(STEP, "a", 0))
    for name in ("b", "c"):
        assert match(record, Wanted(STEP, name, b"", 0.0), [Asked(TIMER, "", 0)]) is None

    with pytest.raises(NonDeterminismError, match="asked for timer, step b; when it first ran it asked for step a"):
        record.finish([])

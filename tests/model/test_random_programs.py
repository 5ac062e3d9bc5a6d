"""Random programs between three actors, with crashes around every commit, against a model that counts who has seen which message."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import NamedTuple, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perdure.actors import ActorRef, Retry, RuntimeNotRunning, current_actor, durable_actor, on_event, on_signal, query, send_signal
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

KEYS = "abc"
ATTEMPTS = 3


class Letter(NamedTuple):
    """A message that goes from actor to actor; at the hop `stuck` (counted from the end) it fails so often."""

    route: str
    as_event: bool
    is_keyed: bool
    stuck: int
    failures: int


class Crash(NamedTuple):
    """The host dies around its nth commit from here."""

    point: CrashPoint
    nth: int


class Restart(NamedTuple):
    """The host is killed and started."""


class Pause(NamedTuple):
    """Everything that was sent gets some time."""

    rounds: int


Step: TypeAlias = Letter | Crash | Restart | Pause


@durable_actor(retry=Retry(max_attempts=ATTEMPTS, initial=timedelta(seconds=1)))
class Post:
    """Notes each letter and sends it on."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    @on_event
    def post(self, number: int, letter: Letter, left: str) -> None:
        self.seen.append(number)
        if left:
            dispatch(current_actor().ref(Post, left[0]), number, letter, left[1:])
        if len(left) == letter.stuck and current_actor().attempt <= letter.failures:
            raise LookupError(f"letter {number} at its hop {len(left)} from the end")

    @on_signal
    def deliver(self, number: int, letter: Letter, left: str) -> None:
        self.post(number, letter, left)

    @query
    def letters(self) -> list[int]:
        return self.seen


def dispatch(post: ActorRef[Post], number: int, letter: Letter, left: str) -> Awaitable[None]:
    if letter.is_keyed:
        post = post.options(idempotency_key=f"{number}/{len(left)}")
    return post.send_event(Post.post, number, letter, left) if letter.as_event else send_signal(post, Post.deliver, number, letter, left)


def seen_by(letter: Letter) -> str:
    """The model: a letter is seen along its route, up to where it fails for good."""
    failing = len(letter.route) - 1 - letter.stuck
    return letter.route[:failing] if letter.failures >= ATTEMPTS and failing >= 0 else letter.route


async def send(world: World, number: int, letter: Letter) -> bool:
    """Whether it was acknowledged; one with a key is sent until it is."""
    while True:
        try:
            await dispatch(world.ref(Post, letter.route[0]), number, letter, letter.route[1:])
        except (CommitUncertain, RuntimeNotRunning):
            if not letter.is_keyed:
                return False
            await asyncio.sleep(0)
        else:
            return True


async def run(program: Sequence[Step], max_active: int) -> tuple[list[bool], Tally[tuple[str, int]]]:
    """(which letters were acknowledged, how often each actor has seen each letter)."""
    async with World([Post], max_active=max_active) as world:
        sent: list[asyncio.Task[bool]] = []
        for step in program:
            match step:
                case Letter():
                    sent.append(asyncio.create_task(send(world, len(sent), step)))
                case Crash(point, nth):
                    world.crash_at(point, nth)
                case Restart():
                    await world.restart()
                case Pause(rounds):
                    for _ in range(rounds):
                        await asyncio.sleep(0)
        acknowledged = await asyncio.wait_for(asyncio.gather(*sent), 10)
        await quiet(world)
        await world.restart()
        await quiet(world)
        return acknowledged, Tally([(key, number) for key in KEYS for number in await world.ref(Post, key).query(Post.letters)])


async def quiet(world: World) -> None:
    while True:
        try:
            await asyncio.wait_for(world.run_until_idle(), 10)
        except CommitUncertain:
            continue
        return


ROUTES = st.text(KEYS, min_size=1, max_size=5)
LETTERS = st.builds(Letter, ROUTES, st.booleans(), st.booleans(), st.integers(0, 4), st.sampled_from([0, 0, 1, 9]))
CRASHES = st.builds(Crash, st.sampled_from(CrashPoint), st.integers(1, 4))
STEPS = st.one_of(LETTERS, LETTERS, CRASHES, st.builds(Restart), st.builds(Pause, st.integers(0, 30)))


@pytest.mark.promise("exactly-once-state", "atomic-turns", "leaving-memory-changes-nothing", "messages-exactly-once")
@pytest.mark.slow
@settings(max_examples=600)
@given(st.lists(STEPS, max_size=20), st.sampled_from([0, 1, 100]))
def test_every_letter_is_seen_once_along_its_route_or_nowhere(program: list[Step], max_active: int) -> None:
    letters = [step for step in program if isinstance(step, Letter)]

    acknowledged, seen = asyncio.run(run(program, max_active))

    for number, letter in enumerate(letters):
        found = Tally({key: count for (key, seen_number), count in seen.items() if seen_number == number})
        expected = [Tally(seen_by(letter))] if acknowledged[number] else [Tally(seen_by(letter)), Tally()]
        assert found in expected, (number, letter)

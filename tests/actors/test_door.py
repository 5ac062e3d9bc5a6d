"""The door against those who knock: strangers, copies, clients that do not read. The host goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import PayloadTooLong, Runtime, _door, _frames, durable_actor, on_event, query
from perdure.actors._envelope import Envelope, Form, Kind
from perdure.actors._frames import (
    MAX_FRAME,
    PROTOCOL,
    Awaiting,
    BrokenFrame,
    ClientFrame,
    FrameReader,
    Hello,
    HostFrame,
    Question,
    Received,
    Refusal,
    Reply,
    Welcome,
    pack_frame,
    pack_reply,
)
from perdure.actors._ids import MessageId
from perdure.actors._persistence import PARTITION, read_host, read_reply
from perdure.actors._records import ARRIVAL_ROW, ArrivalRow, Raised, Value
from perdure.actors.testing import World
from perdure.storage import Store, open_store

pytestmark = pytest.mark.anyio

CLIENT = b"a client's own id"[:16]
LONG = 1 << 17  # bytes of an answer: more than a socket's buffers take of a few


@durable_actor(codec="msgspec")
class Parrot:
    """Repeats what it is told, at length."""

    said: int = 0

    @on_event
    def say(self) -> bytes:
        self.said += 1
        return bytes(LONG)

    @query
    def times(self) -> int:
        return self.said


@final
class Visitor:
    """One connection to a door, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames: FrameReader[HostFrame] = FrameReader(HostFrame)
        self._heard: list[HostFrame] = []

    @classmethod
    async def at(cls, door: str) -> Self:
        """Knock."""
        return cls(*await asyncio.open_unix_connection(door))

    def says(self, frame: ClientFrame | bytes) -> None:
        """Send a frame, or what is none."""
        self._writer.write(frame if isinstance(frame, bytes) else pack_frame(frame))

    async def hears(self) -> HostFrame | None:
        """The next frame; None when the connection has ended."""
        while not self._heard:
            try:
                data = await self._reader.read(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._heard += self._frames.feed(data)
        return self._heard.pop(0)

    async def leaves(self) -> None:
        """End the connection."""
        self._writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Hosts parrots in a store with a door."""
    async with World([Parrot], store=f"lmdb:{tmp_path}/store") as world:
        yield world


@pytest.fixture
async def store(world: World) -> AsyncIterator[Store]:
    """The host's store, as others see it."""
    store = open_store(str(world.store), create=False)
    yield store
    await store.close()


@pytest.fixture
async def visitor(store: Store) -> AsyncIterator[Visitor]:
    """Somebody at the door."""
    host = await read_host(store)
    assert host is not None
    visitor = await Visitor.at(host.door)
    yield visitor
    await visitor.leaves()


@pytest.fixture
async def guest(visitor: Visitor, store: Store) -> Visitor:
    """A client who was let in."""
    visitor.says(Hello(PROTOCOL, str(store), CLIENT))
    assert await visitor.hears() == Welcome()
    return visitor


async def ask(store: Store, numbers: Sequence[int]) -> None:
    """Ask a parrot to say something, as the client does."""
    for number in numbers:
        envelope = Envelope(MessageId(bytes([number]) * 16), Kind.EVENT, "say", b"\x90", ask=True, reply_to=(CLIENT, number))
        await store.offer(PARTITION, ARRIVAL_ROW.pack(ArrivalRow("Parrot", "polly", envelope)))


async def answered(world: World, times: int) -> None:
    """Return once the parrot has spoken so often, and that is durable."""
    while await world.ref(Parrot, "polly").query(Parrot.times) < times:  # noqa: ASYNC110  (the inbox is watched by the host alone)
        await asyncio.sleep(0.001)


CLIENT_FRAMES = st.one_of(
    st.builds(Hello, st.integers(0, 9), st.text(), st.binary(min_size=16, max_size=16)),
    st.builds(Awaiting, st.lists(st.integers(0, 1 << 60))),
    st.builds(Received, st.lists(st.integers(0, 1 << 60))),
    st.builds(Question, st.integers(0, 9), st.text(), st.text(), st.text(), st.binary(), st.sampled_from(Form)),
)


@given(st.lists(CLIENT_FRAMES), st.integers(1, 40))
def test_frames_are_whole_however_their_bytes_arrive(frames: list[ClientFrame], size: int) -> None:
    raw = b"".join(map(pack_frame, frames))
    reader: FrameReader[ClientFrame] = FrameReader(ClientFrame)

    arrived = [frame for start in range(0, len(raw), size) for frame in reader.feed(raw[start : start + size])]

    assert arrived == frames


@pytest.mark.promise("clients-hold-up-nobody")
@given(st.binary())
def test_bytes_that_are_no_frame_raise_nothing_else(data: bytes) -> None:
    for raw in (data, len(data).to_bytes(4, "big") + data):
        with suppress(BrokenFrame):
            FrameReader[ClientFrame](ClientFrame).feed(raw)


def test_an_answer_too_long_for_a_frame_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frames, "MAX_FRAME", 1000)

    (reply,) = FrameReader[HostFrame](HostFrame).feed(pack_reply(7, Value(bytes(1001))))

    assert isinstance(reply, Reply)
    assert isinstance(reply.outcome, Raised)
    assert reply.outcome.refused
    assert isinstance(reply.outcome.failure.revive(), PayloadTooLong)
    assert "1000 are allowed" in reply.outcome.failure.text


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", (MAX_FRAME + 1).to_bytes(4, "big"), pack_frame(Received([1])), bytes(4)])
async def test_who_does_not_say_hello_is_sent_away(world: World, visitor: Visitor, said: bytes) -> None:
    visitor.says(said)

    assert await visitor.hears() is None
    assert len(await world.ref(Parrot, "polly").ask(Parrot.say)) == LONG


async def test_another_user_is_sent_away(world: World, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "peer_user", lambda connection: 12345)
    host = await read_host(store)
    assert host is not None

    visitor = await Visitor.at(host.door)
    visitor.says(Hello(PROTOCOL, str(store), CLIENT))

    assert await visitor.hears() is None
    await visitor.leaves()


@pytest.mark.parametrize(
    ("hello", "reason"),
    [(Hello(PROTOCOL + 1, "", CLIENT), "use the same release"), (Hello(PROTOCOL, "lmdb:/a/copy", CLIENT), "was asked for lmdb:/a/copy")],
)
async def test_a_client_of_something_else_hears_why_not(visitor: Visitor, hello: Hello, reason: str) -> None:
    visitor.says(hello)

    refusal = await visitor.hears()

    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert await visitor.hears() is None


async def test_a_question_about_nothing_is_answered_with_the_mistake(guest: Visitor) -> None:
    for number, (actor_type, name) in enumerate([("Parrot", "sing"), ("Pigeon", "times")]):
        guest.says(Question(number, actor_type, "polly", name, b"\x90", Form.CODEC))

    replies = {reply.number: reply.outcome for reply in [await guest.hears(), await guest.hears()] if isinstance(reply, Reply)}

    names = [outcome.failure.type_name for _, outcome in sorted(replies.items()) if isinstance(outcome, Raised)]
    assert names == ["perdure.actors.UnknownHandler", "perdure.actors.UnknownActorType"]


async def test_more_questions_than_at_once_are_all_answered(guest: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "QUESTIONS_AT_ONCE", 2)
    for number in range(50):
        guest.says(Question(number, "Parrot", "polly", "times", b"\x90", Form.CODEC))

    replies = [await guest.hears() for _ in range(50)]

    assert {reply.number for reply in replies if isinstance(reply, Reply)} == set(range(50))


async def test_a_client_that_comes_again_replaces_itself(guest: Visitor, store: Store) -> None:
    host = await read_host(store)
    assert host is not None
    again = await Visitor.at(host.door)

    again.says(Hello(PROTOCOL, str(store), CLIENT))

    assert await again.hears() == Welcome()
    assert await guest.hears() is None
    await again.leaves()


@pytest.mark.promise("clients-hold-up-nobody")
async def test_a_client_that_does_not_read_is_shown_out_and_loses_nothing(
    world: World, guest: Visitor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_door, "STALLED_AFTER", 0.05)
    numbers = range(1, 41)
    await ask(store, numbers)
    await answered(world, 40)
    await asyncio.sleep(0.1)
    heard = [reply.number async for reply in replies_of(guest)]
    assert len(heard) < 40

    again = await Visitor.at((await read_host(store)).door)  # type: ignore[union-attr]
    again.says(Hello(PROTOCOL, str(store), CLIENT))
    again.says(Awaiting([number for number in numbers if number not in heard]))
    assert await again.hears() == Welcome()
    rest = [reply.number for reply in [await again.hears() for _ in range(40 - len(heard))] if isinstance(reply, Reply)]
    assert sorted(heard + rest) == list(numbers)
    await again.leaves()


async def replies_of(visitor: Visitor) -> AsyncIterator[Reply]:
    """What was told until the connection ended."""
    while isinstance(reply := await visitor.hears(), Reply):
        yield reply


async def test_only_what_was_told_here_can_be_confirmed(world: World, guest: Visitor, store: Store) -> None:
    await guest.leaves()
    await ask(store, [1])
    await answered(world, 1)
    other = await Visitor.at((await read_host(store)).door)  # type: ignore[union-attr]
    other.says(Hello(PROTOCOL, str(store), CLIENT))
    assert await other.hears() == Welcome()

    other.says(Received([1]))
    other.says(Question(2, "Parrot", "polly", "times", b"\x90", Form.CODEC))
    await other.hears()
    await world.ref(Parrot, "polly").ask(Parrot.say)

    assert await read_reply(store, CLIENT, 1) is not None
    await other.leaves()


async def test_a_question_that_comes_while_a_host_stops_does_not_hold_it_up(tmp_path: Path) -> None:
    async def ask_without_end(door: _door.Door) -> None:
        while True:
            door._start(asyncio.Event().wait)  # type: ignore[arg-type]  # never answered
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        async with Runtime(f"lmdb:{tmp_path}/store", []) as runtime:
            assert runtime._host is not None
            asking = asyncio.create_task(ask_without_end(runtime._host._door))
            await asyncio.sleep(0)
        asking.cancel()

"""A client's connection to whoever hosts its store: made when an answer is wanted, and made again whenever it was lost.

Nothing depends on it but time. A client that has just been welcomed says which asks it still waits for, so a reply that was told to a
connection that is gone is told again. While no host runs it looks for one, rarely; while nothing is wanted it does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from itertools import count
from typing import Final, assert_never, final

from ..storage import Store
from ._errors import HostNotRunning, PayloadTooLong, RuntimeNotRunning
from ._frames import (
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
    peer_user,
)
from ._persistence import read_host
from ._records import Outcome
from ._ref import Request

SHORTEST_PAUSE: Final = 0.05  # seconds between looks for a host, doubled each time
LONGEST_PAUSE: Final = 1.0  # seconds
LOOK_AGAIN: Final = 5.0  # seconds without an answer, after which the client looks whether its host is the store's still
PATIENCE: Final = 1.0  # seconds that a query waits for a host: as long as one needs to start again
CONFIRM_AFTER: Final = 0.05  # seconds in which the replies that arrive are confirmed together
FAREWELL: Final = 0.5  # seconds in which the host may take the last frames

logger = logging.getLogger("perdure.actors")


@final
class _Session(asyncio.Protocol):
    """One connection: from being made to being lost."""

    def __init__(self, door: str, hello: Hello, hear: Callable[[Reply], None]) -> None:
        self.door = door
        self.welcome = False
        self.greeted = asyncio.Event()  # it is known whether the client is welcome
        self.ended = asyncio.Event()
        self.trouble = "its host does not answer"  # why it was not welcomed
        self._hello = hello
        self._hear = hear
        self._reader: FrameReader[HostFrame] = FrameReader(HostFrame)
        self._transport: asyncio.Transport | None = None

    def write(self, frame: ClientFrame) -> None:
        """Write a frame, unless the connection is lost."""
        if self._transport is not None:
            self._transport.write(pack_frame(frame))

    async def close(self) -> None:
        """End the connection once the host has taken what was written, or does not take it."""
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await self.ended.wait()
        if self._transport is not None:
            self._transport.abort()
            await self.ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As in asyncio. Whoever is neither this user nor root is not talked to: answers are pickles."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        user = peer_user(transport.get_extra_info("socket"))
        if os.geteuid() and user not in {None, 0, os.geteuid()}:
            self.trouble = f"its door is held by another user ({user})"
            transport.abort()
        else:
            self.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """As in asyncio."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except BrokenFrame as broken:
            logger.warning("the host sent what cannot be read; connecting again: %s", broken)
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """As in asyncio."""
        self._transport = None
        self.welcome = False
        self.greeted.set()
        self.ended.set()

    def _take(self, frame: HostFrame) -> None:
        if isinstance(frame, Reply):
            self._hear(frame)
        elif isinstance(frame, Refusal):
            self.trouble = frame.reason
        elif isinstance(frame, Welcome):
            self.welcome = True
            self.greeted.set()
        else:
            assert_never(frame)


@final
class Link:
    """What a client waits for, and the connection by which it comes. `client` is the client's id, 16 bytes."""

    def __init__(self, store: Store, client: bytes) -> None:
        self._store = store
        self._client = client
        self._numbers = count(1)
        self._awaited: dict[int, asyncio.Future[Outcome]] = {}  # asks
        self._questions: dict[int, asyncio.Future[Outcome | None]] = {}  # None: the connection was lost
        self._seekers = 0  # questions that wait for a host
        self._session: _Session | None = None
        self._opened = asyncio.Event()
        self._wanted = asyncio.Event()
        self._sought = asyncio.Event()
        self._trouble = "no host has run yet"
        self._received: list[int] = []
        self._confirm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "connected" if self._session else "not connected"
        return f"<Link to {self._store}: {state}, {len(self._awaited)} asks and {len(self._questions)} questions wait>"

    def expect(self) -> tuple[int, asyncio.Future[Outcome]]:
        """A number for an ask, and what will hold its outcome; end with `forget`."""
        number = next(self._numbers)
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._awaited[number] = answered
        self._wanted.set()
        return number, answered

    def forget(self, number: int) -> None:
        """Wait for an outcome no more."""
        self._awaited.pop(number, None)

    async def question(self, request: Request) -> Outcome:
        """Have a query answered. Raises HostNotRunning if no host is there, or it ends meanwhile; PayloadTooLong."""
        session = self._session or await self._seek(request.name)
        number = next(self._numbers)
        frame = Question(number, *request.target, request.name, request.payload, request.form)
        if len(request.payload) + (1 << 12) > MAX_FRAME:
            raise PayloadTooLong(f"what {request.name!r} of {request.target} is given", len(request.payload), MAX_FRAME)
        answered: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._questions[number] = answered
        session.write(frame)
        try:
            outcome = await answered
        finally:
            del self._questions[number]
        if outcome is None:
            raise HostNotRunning(str(self._store), request.name, self._trouble)
        return outcome

    async def run(self) -> None:
        """Keep a connection while anything is waited for, until cancelled."""
        pause = SHORTEST_PAUSE
        while True:
            await self._wanted.wait()
            session = await self._connect()
            if session is not None:
                pause = SHORTEST_PAUSE
                await self._use(session)
            if not (self._awaited or self._seekers):
                self._wanted.clear()
            self._sought.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._sought.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def close(self) -> None:
        """Confirm what has arrived and let go; whoever still waits is told."""
        self._confirm_now()
        if self._session is not None:
            await self._session.close()
        ended = RuntimeNotRunning("an answer was still to come")
        for ask in self._awaited.values():
            if not ask.done():
                ask.set_exception(ended)
        for question in self._questions.values():
            if not question.done():
                question.set_exception(ended)

    async def _seek(self, what: str) -> _Session:
        """The connection, as soon as there is one."""
        self._seekers += 1
        self._wanted.set()
        self._sought.set()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._opened.wait()
        except TimeoutError:
            raise HostNotRunning(str(self._store), what, self._trouble) from None
        finally:
            self._seekers -= 1
        if self._session is None:
            raise HostNotRunning(str(self._store), what, self._trouble)
        return self._session

    async def _connect(self) -> _Session | None:
        host = await read_host(self._store)
        if host is None or not host.door:
            return None
        session = _Session(host.door, Hello(PROTOCOL, str(self._store), self._client), self._hear)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: session, host.door)
            self._trouble = session.trouble
            await self._wait(session, session.greeted)
            self._trouble = session.trouble
        except OSError:
            self._trouble = f"the last one, process {host.pid}, has ended"
        except BaseException:
            await session.close()
            raise
        return session if session.welcome else None

    async def _wait(self, session: _Session, event: asyncio.Event) -> None:
        """Wait for something to happen to a session; end it if the store has another host.

        The connection need not end with its host: what the host has forked holds it, too.
        """
        while not event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await event.wait()
            if not event.is_set() and (self._awaited or self._questions or self._seekers):
                host = await read_host(self._store)
                if host is None or host.door != session.door:
                    await session.close()

    async def _use(self, session: _Session) -> None:
        self._session = session
        self._opened.set()
        if self._awaited:
            session.write(Awaiting(list(self._awaited)))
        await self._wait(session, session.ended)
        self._session = None
        self._opened.clear()
        self._received.clear()
        self._trouble = "it ended before it answered"
        for answered in self._questions.values():
            if not answered.done():
                answered.set_result(None)

    def _hear(self, reply: Reply) -> None:
        question = self._questions.get(reply.number)
        if question is not None:
            if not question.done():
                question.set_result(reply.outcome)
            return
        self._received.append(reply.number)
        if self._confirm is None:
            self._confirm = asyncio.get_running_loop().call_later(CONFIRM_AFTER, self._confirm_now)
        ask = self._awaited.pop(reply.number, None)
        if ask is not None and not ask.done():
            ask.set_result(reply.outcome)

    def _confirm_now(self) -> None:
        if self._confirm is not None:
            self._confirm.cancel()
            self._confirm = None
        if self._received and self._session is not None:
            self._session.write(Received(self._received))
        self._received = []

"""The door: a Unix socket of the host, at which clients are told what became of their asks, and have their queries answered.

Messages do not come in here: they go through the inbox, so that they are durable before anybody knows of them. Nothing is told that is
not durable, and the memory that a client costs does not grow with what it leaves unread: replies that it does not take stay in the store,
and if it takes nothing for a while it is shown out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final, final

import anyio
import anyio.abc

from ..storage import Store, StoreCorrupt
from ._envelope import Kind
from ._epoch import Epoch
from ._failure import Failure
from ._frames import (
    PROTOCOL,
    Awaiting,
    BrokenFrame,
    ClientFrame,
    FrameReader,
    Hello,
    Question,
    Received,
    Refusal,
    Welcome,
    pack_frame,
    pack_reply,
    peer_user,
)
from ._ids import ActorId
from ._persistence import read_reply, reply_key
from ._records import DamagedRecord, Outcome, Raised, refusal
from ._ref import Request

PREFIX: Final = "perdure-"
DOOR: Final = "door"
BACKLOG: Final = 128  # clients that may knock while the host recovers
STALLED_AFTER: Final = 30.0  # seconds that a client may leave replies unread
UNREAD: Final = 1 << 20  # bytes that may wait in the socket's buffer before the next reply stays in the store
QUESTIONS_AT_ONCE: Final = 64  # of one client, before the host reads no more from it

logger = logging.getLogger("perdure.actors")


@final
class _Visitor(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, door: Door) -> None:
        self.client = b""  # its id, once it has said hello
        self.told: set[int] = set()  # asks whose reply it has not confirmed
        self.owed: deque[int] = deque()  # asks whose reply is to be read from the store
        self.catching_up = False
        self._door = door
        self._reader: FrameReader[ClientFrame] = FrameReader(ClientFrame)
        self._transport: asyncio.Transport | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._stall: asyncio.TimerHandle | None = None
        self._questions = 0

    def __repr__(self) -> str:
        return f"<_Visitor {self.client.hex() or 'unknown'}: {len(self.told)} told, {len(self.owed)} owed, {self._questions} questions>"

    @property
    def present(self) -> bool:
        """Whether the connection stands."""
        return self._transport is not None

    @property
    def keeps_up(self) -> bool:
        """Whether a reply may be written now."""
        return self._flowing.is_set() and not self.catching_up

    async def flow(self) -> bool:
        """Wait until there is room to write; False if it has gone."""
        await self._flowing.wait()
        return self.present

    def write(self, raw: bytes) -> None:
        """Write a frame, unless it has gone."""
        if self._transport is not None:
            self._transport.write(raw)

    def begin_question(self) -> None:
        """Count a question that is being answered; too many of them, and no more is read."""
        self._questions += 1
        if self._questions == QUESTIONS_AT_ONCE and self._transport is not None:
            self._transport.pause_reading()

    def end_question(self) -> None:
        """The answer is written."""
        self._questions -= 1
        if self._questions == QUESTIONS_AT_ONCE - 1 and self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """End the connection when what was written has been taken."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As in asyncio. Whoever is neither this user nor root is sent away: questions are pickles."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._door.came(self)
        user = peer_user(transport.get_extra_info("socket"))
        if user not in {None, 0, os.geteuid()}:
            logger.warning("user %d knocked at the door and was sent away", user)
            transport.abort()
        transport.set_write_buffer_limits(high=UNREAD)

    def data_received(self, data: bytes) -> None:
        """As in asyncio."""
        try:
            for frame in self._reader.feed(data):
                self._door.hear(self, frame)
        except BrokenFrame as broken:
            logger.warning("a client sent what cannot be read, and was sent away: %s", broken)
            self.abort()

    def pause_writing(self) -> None:
        """As in asyncio."""
        self._flowing.clear()
        self._stall = asyncio.get_running_loop().call_later(STALLED_AFTER, self.abort)

    def resume_writing(self) -> None:
        """As in asyncio."""
        self._flowing.set()
        if self._stall is not None:
            self._stall.cancel()
        self._door.catch_up(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As in asyncio."""
        self._transport = None
        self._flowing.set()
        if self._stall is not None:
            self._stall.cancel()
        self._door.left(self)


@final
class Door:
    """The door of one epoch. It can be knocked at from the start, and is opened by `run`. `query` answers a question.

    `path` is empty if no socket could be made.
    """

    def __init__(self, store: Store, epoch: Epoch, query: Callable[[Request], Awaitable[Outcome]]) -> None:
        self.path = ""
        self._store = store
        self._epoch = epoch
        self._query = query
        self._tasks: anyio.abc.TaskGroup | None = None
        self._visitors: set[_Visitor] = set()
        self._known: dict[bytes, _Visitor] = {}
        self._directory = ""
        self._socket: socket.socket | None = None
        try:
            if str(store) != "memory:":  # which nobody else can open
                self._hang()
        except OSError as error:
            logger.warning("no door could be made, so clients get no answers: %s", error)
            self.take_down()

    def __repr__(self) -> str:
        return f"<Door {self.path or 'without a socket'}: {len(self._visitors)} visitors>"

    def reply(self, reply_to: tuple[bytes, int], outcome: Outcome) -> None:
        """Tell a client the outcome of its ask, which is durable; if it is not here, or does not keep up, the store has it."""
        client, number = reply_to
        visitor = self._known.get(client)
        if visitor is None:
            return
        if visitor.keeps_up:
            visitor.told.add(number)
            visitor.write(pack_reply(number, outcome))
        else:
            visitor.owed.append(number)

    async def run(self) -> None:
        """Open, until cancelled."""
        if self._socket is None:
            return
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Visitor(self), sock=self._socket, backlog=BACKLOG)
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                try:
                    await anyio.sleep_forever()
                finally:
                    self._tasks = None  # what was begun now would not be cancelled any more, and wait for a commit that does not come
        finally:
            server.close()
            for visitor in tuple(self._visitors):
                visitor.abort()

    def take_down(self) -> None:
        """Remove the socket."""
        self.path = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._directory:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._directory, DOOR))
            with contextlib.suppress(OSError):
                os.rmdir(self._directory)

    @staticmethod
    def clear_away(path: str) -> None:
        """Remove the door that a killed host left, and its directory if nothing else is in it; not one behind which somebody is."""
        if os.path.basename(path) != DOOR or not os.path.basename(os.path.dirname(path)).startswith(PREFIX):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.setblocking(False)
            try:
                caller.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                os.rmdir(os.path.dirname(path))

    def _hang(self) -> None:
        directory = os.path.join(_runtime_directory(), PREFIX + os.urandom(4).hex())
        os.mkdir(directory, 0o700)
        self._directory = directory
        path = os.path.join(directory, DOOR)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind(path)
        self._socket.listen(BACKLOG)
        self.path = path

    # --- visitors ---

    def came(self, visitor: _Visitor) -> None:
        """Somebody is at the door."""
        self._visitors.add(visitor)

    def left(self, visitor: _Visitor) -> None:
        """Somebody has gone."""
        self._visitors.discard(visitor)
        if self._known.get(visitor.client) is visitor:
            del self._known[visitor.client]

    def hear(self, visitor: _Visitor, frame: ClientFrame) -> None:
        """Do what a frame asks for. Raises BrokenFrame for one that comes before a hello."""
        if isinstance(frame, Hello):
            self._greet(visitor, frame)
        elif not visitor.client:
            raise BrokenFrame("it did not say hello")
        elif isinstance(frame, Received):
            self._forget(visitor, frame.numbers)
        elif isinstance(frame, Awaiting):
            visitor.owed.extend(frame.numbers)
            self.catch_up(visitor)
        else:
            visitor.begin_question()
            self._start(partial(self._answer, visitor, frame))

    def _greet(self, visitor: _Visitor, hello: Hello) -> None:
        refusal = ""
        if hello.protocol != PROTOCOL:
            refusal = (
                f"the host speaks version {PROTOCOL} of the protocol, and the client {hello.protocol}: use the same release of Perdure"
            )
        elif hello.store != str(self._store):  # a copy of a store names the door of the original
            refusal = f"the host of {self._store} was asked for {hello.store}"
        if refusal:
            visitor.write(pack_frame(Refusal(refusal)))
            visitor.close()
            return
        former = self._known.get(hello.client)
        if former is not None and former is not visitor:
            former.abort()
        visitor.client = hello.client
        self._known[hello.client] = visitor
        visitor.write(pack_frame(Welcome()))

    def _forget(self, visitor: _Visitor, numbers: list[int]) -> None:
        """Delete replies that have arrived, with whatever batch comes next: if none does, they expire."""
        for number in numbers:
            if number in visitor.told:
                visitor.told.discard(number)
                self._epoch.commit.batch.delete(reply_key(visitor.client, number))

    def catch_up(self, visitor: _Visitor) -> None:
        """Tell what is owed from the store, as fast as it is taken."""
        if visitor.owed and not visitor.catching_up:
            visitor.catching_up = True
            self._start(partial(self._tell_owed, visitor))

    async def _tell_owed(self, visitor: _Visitor) -> None:
        while visitor.owed and await visitor.flow():
            await asyncio.sleep(0)  # however much is owed, turns go on
            number = visitor.owed.popleft()
            outcome = await self._stored(visitor.client, number)
            if outcome is not None:
                visitor.told.add(number)
                visitor.write(pack_reply(number, outcome))
        visitor.catching_up = False

    async def _stored(self, client: bytes, number: int) -> Outcome | None:
        """The outcome of an ask, if it is durable: read from the store itself, and not through what is on its way there."""
        try:
            row = await read_reply(self._store, client, number)
        except DamagedRecord as damage:
            return refusal(StoreCorrupt(str(self._store), f"the reply to an ask is damaged: {damage}"))
        return None if row is None else row.outcome

    async def _answer(self, visitor: _Visitor, question: Question) -> None:
        request = Request(ActorId(question.actor_type, question.key), Kind.EVENT, question.name, question.payload, question.form)
        try:
            outcome = await self._query(request)
        except Exception as error:  # noqa: BLE001  whatever stands in the way of an answer is for the client to know
            outcome = Raised(Failure.of(error))
        if await visitor.flow() and not self._epoch.commit.failed:
            visitor.write(pack_reply(question.number, outcome))
        visitor.end_question()

    def _start(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(work)


def _runtime_directory() -> str:
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = os.path.isabs(directory) and os.access(directory, os.W_OK | os.X_OK)
    room = len("/perdure-xxxxxxxx/door") < 100 - len(os.fsencode(directory))  # sockaddr_un has room for 108, on macOS 104
    return directory if usable and room else "/tmp"  # noqa: S108

"""What a client and a host say to each other at the door: frames of MessagePack, each behind its length.

The frames of either side are a closed union, and none is longer than `MAX_FRAME`. Bytes that are no frame end the connection: nothing that
follows them could be trusted. A connection that ends loses nothing: what a client waits for is in the store until the client says that it
has it.
"""

from __future__ import annotations

import socket
import struct
from typing import Annotated, Any, Final, Generic, TypeVar, final

import msgspec

from ._envelope import Form
from ._errors import PayloadTooLong
from ._records import Outcome, refusal

F = TypeVar("F")

PROTOCOL: Final = 1  # rises when an older end would misread a frame
MAX_FRAME: Final = (64 << 20) + (1 << 16)  # bytes: a payload of 64 MiB, and what is said about it

Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
ClientId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]

_LENGTH: Final = struct.Struct(">I")
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group


@final
class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A client's first frame: who it is, and the URL of the store that it means."""

    protocol: int
    store: str
    client: ClientId


@final
class Awaiting(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """The asks that the client wants answered, whose replies it may have missed."""

    numbers: list[Number]


@final
class Received(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """The replies to these asks have arrived: the store need not keep them."""

    numbers: list[Number]


@final
class Question(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """A query of an actor; the reply has its number."""

    number: Number
    actor_type: str
    key: str
    name: str
    payload: bytes
    form: Form


@final
class Welcome(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """The host knows the client: from now on it tells every reply as soon as that is durable."""


@final
class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """The host will not talk to this client; the connection ends."""

    reason: str


@final
class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """The outcome of the ask or the question of that number."""

    number: Number
    outcome: Outcome


ClientFrame = Hello | Awaiting | Received | Question
HostFrame = Welcome | Refusal | Reply

_ENCODER: Final = msgspec.msgpack.Encoder()


class BrokenFrame(Exception):
    """The other end sent what is no frame. Control flow of a connection, which ends by it."""


@final
class FrameReader(Generic[F]):
    """Makes frames of one side's union out of the bytes that arrive."""

    __slots__ = ("_arrived", "_decoder")

    def __init__(self, union: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[F] = msgspec.msgpack.Decoder(union)
        self._arrived = bytearray()

    def feed(self, data: bytes) -> list[F]:
        """The frames that are whole now. Raises BrokenFrame."""
        arrived = self._arrived
        arrived += data
        frames: list[F] = []
        start = 0
        while (begin := start + _LENGTH.size) <= len(arrived):
            end = begin + self._length(start)
            if end > len(arrived):
                break
            frames.append(self._decode(bytes(arrived[begin:end])))
            start = end
        del arrived[:start]
        return frames

    def _length(self, start: int) -> int:
        length: int = _LENGTH.unpack_from(self._arrived, start)[0]
        if length > MAX_FRAME:
            raise BrokenFrame(f"a frame of {length} bytes is announced, and {MAX_FRAME} are allowed")
        return length

    def _decode(self, raw: bytes) -> F:
        try:
            return self._decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BrokenFrame(str(error)) from error


def pack_frame(frame: ClientFrame | HostFrame) -> bytes:
    """The bytes of a frame."""
    body = _ENCODER.encode(frame)
    return _LENGTH.pack(len(body)) + body


def pack_reply(number: int, outcome: Outcome) -> bytes:
    """The bytes of a reply; of a refusal that says so, where the outcome is longer than a frame may be."""
    raw = pack_frame(Reply(number, outcome))
    if len(raw) <= MAX_FRAME:
        return raw
    return pack_frame(Reply(number, refusal(PayloadTooLong("the answer", len(raw), MAX_FRAME))))


def peer_user(connection: socket.socket) -> int | None:
    """The user id behind the other end of a Unix socket; None where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(user)

"""What stands in a store: every record is a msgspec struct behind a CRC-32, so that damage is seen and a tool needs no user code.

A record's bytes are crc32(body), little-endian, then the body: the struct as a msgpack array. Fields are only ever added at the end, with
a default.
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import Any, Final, Generic, NamedTuple, TypeVar, final

import msgspec

from ._envelope import Envelope
from ._failure import Failure
from ._ids import Incarnation, MessageId

R = TypeVar("R")


@final
class Status(IntEnum):
    """What an actor is at the end of a turn; the numbers are on disk."""

    IDLE = 1
    SUSPENDED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
    QUARANTINED = 6


def status_named(name: str) -> Status:
    """The status of a name, in lower case. Raises ValueError, saying which there are."""
    try:
        return Status[name.upper()]
    except KeyError:
        raise ValueError(f"{name!r} is no status; there are {', '.join(status.name.lower() for status in Status)}") from None


@final
class Lane(IntEnum):
    """The two lanes of a mailbox; the numbers are in its keys, so interrupts sort first."""

    INTERRUPTS = 0
    EVENTS = 1


class Cursor(NamedTuple):
    """The seq of the last message taken of each lane."""

    event: int
    interrupt: int


Cursor.__module__ = "perdure.actors"


@final
class BackOff(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The event at the head of its lane has failed `attempts` times and is tried again at `due` (seconds since the epoch)."""

    seq: int
    attempts: int
    due: float


@final
class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An actor as of the end of a turn. `turn` is that turn's handling number; times are seconds since the epoch."""

    incarnation: Incarnation
    version: int
    status: Status
    event: int
    interrupt: int
    turn: int
    created: float
    updated: float
    state: bytes
    back_off: BackOff | None = None

    @property
    def cursor(self) -> Cursor:
        """How far each lane of the mailbox is handled."""
        return Cursor(self.event, self.interrupt)


@final
class MailboxRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message that waits. `place` counts the messages of its lane, so that the ends of a lane tell its depth."""

    place: int
    envelope: Envelope


@final
class ArrivalRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message accepted for an actor that was not in memory yet, so it has no seq; it moves to the mailbox when the actor is there."""

    type: str
    key: str
    envelope: Envelope


@final
class Value(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A handler returned; its result as encoded by its type's codec."""

    payload: bytes


@final
class Raised(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A handler raised, or the message could not be handled."""

    failure: Failure


Outcome = Value | Raised


@final
class KeyRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an idempotency key was used for; `outcome` is None until the message is handled. `expires` in seconds since the epoch."""

    name: str
    arguments: bytes
    seq: int
    expires: float
    outcome: Outcome | None = None


@final
class ReplyRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The outcome of an ask by another process, kept until that process has it, or until `expires`."""

    outcome: Outcome
    expires: float


@final
class DeadLetter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message that could not be handled, and why. `failed` and `interrupted` count the attempts; `at` in seconds since the epoch."""

    envelope: Envelope
    failure: Failure
    failed: int
    interrupted: int
    at: float


@final
class Charge(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How often the host died while it worked on a message (or decoded an actor).

    `at` is the last time, in seconds since the epoch; `epoch` the last host's epoch in which it did.
    """

    subject: MessageId
    interrupted: int
    at: float
    epoch: int = 0


@final
class QuarantineRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why an actor stands still; its records stay as they are."""

    failure: Failure
    at: float


@final
class HostRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The running host.

    Where its door is (a socket's path, empty if it has none), its process, and since when (seconds since the epoch).
    """

    door: str
    pid: int
    started: float


class DamagedRecord(Exception):
    """A record's checksum or structure is wrong. Control flow of the host, which quarantines the one actor it belongs to."""


@final
class RecordFormat(Generic[R]):
    """Packs and unpacks one type of record."""

    __slots__ = ("_decoder", "_encoder")

    def __init__(self, record: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[R] = msgspec.msgpack.Decoder(record)

    def pack(self, record: R) -> bytes:
        """The bytes of a record."""
        body = self._encoder.encode(record)
        return zlib.crc32(body).to_bytes(4, "little") + body

    def unpack(self, raw: bytes) -> R:
        """The record of its bytes. Raises DamagedRecord."""
        body = raw[4:]
        if zlib.crc32(body) != int.from_bytes(raw[:4], "little"):
            raise DamagedRecord("the checksum is wrong")
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise DamagedRecord(str(error)) from error

    def read(self, raw: bytes) -> R | DamagedRecord:
        """As `unpack`, with the damage as a value: for readers of many records, of which one must not hide the others."""
        try:
            return self.unpack(raw)
        except DamagedRecord as damage:
            return damage


SNAPSHOT: Final = RecordFormat[Snapshot](Snapshot)
MAILBOX_ROW: Final = RecordFormat[MailboxRow](MailboxRow)
ARRIVAL_ROW: Final = RecordFormat[ArrivalRow](ArrivalRow)
KEY_ROW: Final = RecordFormat[KeyRow](KeyRow)
REPLY_ROW: Final = RecordFormat[ReplyRow](ReplyRow)
DEAD_LETTER: Final = RecordFormat[DeadLetter](DeadLetter)
CHARGE: Final = RecordFormat[Charge](Charge)
QUARANTINE_ROW: Final = RecordFormat[QuarantineRow](QuarantineRow)
HOST_ROW: Final = RecordFormat[HostRow](HostRow)

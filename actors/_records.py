"""What stands in a store: every record is a msgspec struct behind a CRC-32, so that damage is seen and a tool needs no user code.

A record's bytes are crc32(body), little-endian, then the body: the struct as a msgpack array. Fields are only ever added at the end, with
a default.
"""

from __future__ import annotations

import math
import zlib
from enum import IntEnum
from typing import Any, Final, Generic, NamedTuple, TypeVar, final

import msgspec

from ._envelope import Awaiter, Envelope, Form, Kind, Parent
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

    @property
    def is_end(self) -> bool:
        """Whether the actor's workflow has ended, and it with it."""
        return self in ENDS


ENDS: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


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
class RequestKind(IntEnum):
    """What an actor's code can ask for, in a turn; the numbers are on disk."""

    STEP = 1
    TIMER = 2  # of its loop: sleep, timeout, call_later
    ASK = 3
    RESULT = 4  # of a workflow
    QUERY = 5
    INFO = 6
    START = 7
    SIGNAL = 8  # to be given a declared signal
    SEND = 9
    EMIT = 10
    SET_TIMER = 11  # a named one
    CANCEL_TIMER = 12
    SPAWN = 13
    CANCEL = 14  # another actor
    TERMINATE = 15
    PATCH = 16  # whether changed code runs; answered at once


@final
class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """The nth thing that the code of a turn asked for. `digest` is of its arguments; `due` of a timer, in seconds since the epoch.

    `answer` is what it was given at once: a signal that was there already.
    """

    kind: RequestKind
    name: str
    nth: int
    digest: bytes = b""
    due: float = 0.0
    answer: Envelope | None = None


@final
class LogEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message as it was handled while something of the actor was suspended, and what its turn asked for, in order of `number`."""

    number: int
    seq: int
    time: float
    envelope: Envelope
    asked: list[Asked]
    attempt: int = 1


@final
class Wait(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """What a suspended actor waits for: `name` says which; `since` and `until` are seconds since the epoch, `until` 0.0 without an end.

    Where it is an outcome of another actor, `target` is that actor, and `request` the id that the reply will have.
    """

    kind: str
    name: str
    since: float = 0.0
    until: float = 0.0
    target: tuple[str, str] | None = None
    request: bytes = b""


@final
class BackOff(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The event at the head of its lane has failed `attempts` times and is tried again at `due` (seconds since the epoch)."""

    seq: int
    attempts: int
    due: float


@final
class Value(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A handler returned; its result as encoded by its type's codec."""

    payload: bytes


@final
class Raised(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A handler raised, or the message could not be handled.

    `refused` where it is the host that says so, and not something that the actor's code raised.
    """

    failure: Failure
    refused: bool = False


Outcome = Value | Raised


def refusal(error: BaseException) -> Raised:
    """The outcome of what the host refuses, or ends."""
    return Raised(Failure.of(error), refused=True)


@final
class Run(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """The workflow of an actor: a digest of its arguments, its outcome once it has ended, and who waits for that.

    `call` is its arguments themselves, where it may be begun again with them. It is `held` while its parent has not said what becomes of
    its failure; `again` is when it begins anew, if that has been said (seconds since the epoch).
    """

    arguments: bytes
    outcome: Outcome | None = None
    awaiters: list[Awaiter] = []
    call: tuple[bytes, Form] | None = None
    held: bool = False
    again: float | None = None


@final
class NamedTimer(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """A call of an @on_timer handler at `due` (seconds since the epoch), and every so many seconds after that (0.0: once).

    `catch_up` is whether it is called for each time that was missed, or once for all. `headers` carry the trace context of the turn that
    has set it.
    """

    name: str
    due: float
    every: float = 0.0
    catch_up: bool = False
    headers: dict[str, str] | None = None


@final
class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """What an actor has besides its state: most have nothing.

    `run` is its workflow. `wake` is when the earliest of what its coroutines wait for by the clock is due; `waits` is what they wait for,
    `holds` whether one of them is an event's handler; `logged` how many messages its log has. `kept` is how many signals wait to be
    taken, `emitted` how long its stream is, `children` how many it has. `parent` is whose child it is; `successor` the start of its next
    life, as soon as this one has ended. `past` are the versions of its type, besides the snapshot's, that took turns of its log. It is
    forgotten at `retire` (seconds since the epoch), now that it has ended. `recent` is the turn from which on its history is kept when
    older turns are dropped next. `trace` carries the trace context of what waits.
    """

    run: Run | None = None
    wake: float | None = None
    logged: int = 0
    kept: int = 0
    emitted: int = 0
    waits: list[Wait] = []
    timers: list[NamedTimer] = []
    holds: bool = False
    children: int = 0
    parent: Parent | None = None
    successor: Envelope | None = None
    past: list[int] = []
    retire: float | None = None
    recent: int = 0
    trace: dict[str, str] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether its workflow has failed, and may begin again: until then nothing but interrupts is taken."""
        return self.run is not None and (self.run.held or self.run.again is not None)

    @property
    def next_due(self) -> float:
        """When the earliest of all its timers is due; infinity if there is none."""
        due = math.inf if self.wake is None else self.wake
        if self.run is not None and self.run.again is not None:
            due = min(due, self.run.again)
        return min(due, *(timer.due for timer in self.timers)) if self.timers else due


NOTHING: Final = Standing()
NEVER: Final = (math.inf, math.inf)


@final
class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An actor as of the end of a turn. Times are seconds since the epoch.

    `version` is the one of its type that has written `state`. `turn` is that turn's handling number, which goes on over the actor's lives.
    """

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
    standing: Standing | None = None

    @property
    def cursor(self) -> Cursor:
        """How far each lane of the mailbox is handled."""
        return Cursor(self.event, self.interrupt)

    @property
    def next_due(self) -> float:
        """When the earliest of all its timers is due, in seconds since the epoch; infinity if there is none."""
        return math.inf if self.standing is None else self.standing.next_due

    @property
    def dues(self) -> tuple[float, float]:
        """When the earliest of its timers is due, and when it is forgotten; infinity for never."""
        standing = self.standing
        if standing is None:
            return NEVER
        return standing.next_due, math.inf if standing.retire is None else standing.retire


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
    """A message that could not be handled, and why. `failed` and `interrupted` count the attempts; `at` in seconds since the epoch.

    `partly` is whether some of it was done: its handler failed after it had waited.
    """

    envelope: Envelope
    failure: Failure
    failed: int
    interrupted: int
    at: float
    partly: bool = False


@final
class LetterChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is to be done about an actor's dead letters: about those of these seqs, or about all.

    An edit is of one of them: `handler` is what its message calls, `payload` the new arguments.
    """

    seqs: list[int]
    handler: str = ""
    payload: bytes = b""


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

    Where its door is (a socket's path, empty if it has none), its process, since when (seconds since the epoch), and the types that it
    serves: None of a host that did not write them down.
    """

    door: str
    pid: int
    started: float
    types: list[str] | None = None


@final
class Checkpoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A suspended actor as it was when nothing of it waited last: None if it did not exist. `python` and `anyio` are whose its log is."""

    snapshot: Snapshot | None
    python: str
    anyio: str


@final
class HistoryRow(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """A message of an actor's past, and what came of it: its `status` after that, and the `version` whose code handled it.

    `place` says, from 1 up, the how manieth it is of a stretch: of the turns from one that left something waiting to the one after which
    nothing waits any more; 0 for a turn by itself. A stretch begins with how the actor was `before`, and ends with its state `after`. It
    was for the host if `by_host`. A message whose turn did not happen has a `failure`; so has the turn in which the workflow failed.
    """

    entry: LogEntry
    status: Status
    version: int
    place: int = 0
    before: Checkpoint | None = None
    after: bytes | None = None
    by_host: bool = False
    failure: Failure | None = None


@final
class RequestRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something asked for that the host is to do, and whose outcome its actor waits for under that id.

    `payload` are the arguments; `options` those of a step where they are not its own; `target` the actor that is asked. `failed` and
    `interrupted` count a step's attempts so far. `due` is when the next one begins, `first` when the first one did (0.0: not yet), in
    seconds since the epoch. `progress` is what its last heartbeat said; `failure` of its last attempt. It is `uncertain` if an attempt
    ended without saying what it did, and `ending` if nobody wants it any more but for knowing how it ends. `compensates` is what it undoes.
    `headers` carry the trace context of the turn that asked.
    """

    kind: RequestKind
    name: str
    id: MessageId
    payload: bytes
    options: bytes = b""
    target: tuple[str, str] | None = None
    failed: int = 0
    interrupted: int = 0
    due: float = 0.0
    first: float = 0.0
    progress: bytes | None = None
    failure: Failure | None = None
    uncertain: bool = False
    ending: bool = False
    compensates: bytes | None = None
    headers: dict[str, str] | None = None

    @property
    def attempt(self) -> int:
        """The number of the attempt that runs, or is next."""
        return 1 + self.failed + self.interrupted


@final
class ChildRow(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """A child that has not ended for good: its address, the id of the request that made it, and what becomes of it when its parent ends.

    `life` counts how often it was begun again; `restarts` are the times (seconds since the epoch) at which that was for its own failure, as
    far as they count still.
    """

    type: str
    key: str
    id: MessageId
    on_close: Kind
    supervised: bool = False
    life: int = 0
    restarts: list[float] = []


@final
class StreamRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item that an actor emitted; `at` in seconds since the epoch."""

    name: str
    payload: bytes
    at: float


class DamagedRecord(Exception):
    """A record's checksum or structure is wrong. Control flow of the host, which quarantines the one actor it belongs to."""


@final
class RecordFormat(Generic[R]):
    """Packs and unpacks one type of record."""

    __slots__ = ("_decoder", "_encoder", "_record")

    def __init__(self, record: Any) -> None:
        self._record = record
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[R] | None = None  # made when it is needed: all of them would cost an import 3 ms

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
            return (self._decoder or self._make_decoder()).decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DamagedRecord(str(error)) from error

    def _make_decoder(self) -> msgspec.msgpack.Decoder[R]:
        self._decoder = made = msgspec.msgpack.Decoder(self._record)
        return made

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
LETTER_CHANGE: Final = RecordFormat[LetterChange](LetterChange)
CHARGE: Final = RecordFormat[Charge](Charge)
QUARANTINE_ROW: Final = RecordFormat[QuarantineRow](QuarantineRow)
HOST_ROW: Final = RecordFormat[HostRow](HostRow)
LOG_ENTRY: Final = RecordFormat[LogEntry](LogEntry)
CHECKPOINT: Final = RecordFormat[Checkpoint](Checkpoint)
HISTORY_ROW: Final = RecordFormat[HistoryRow](HistoryRow)
REQUEST_ROW: Final = RecordFormat[RequestRow](RequestRow)
STREAM_ROW: Final = RecordFormat[StreamRow](StreamRow)
CHILD_ROW: Final = RecordFormat[ChildRow](ChildRow)
OUTCOME: Final = RecordFormat[Outcome](Outcome)

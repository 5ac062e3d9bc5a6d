"""A message on its way and at rest: everything about it that is not the user's, so that tools read a mailbox without unpickling anything.

An envelope is made once, by the sender, and never changes; what the mailbox knows of it (seq, place, attempts) is kept beside it.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final, final

import msgspec

from ._ids import MessageId


@final
class Kind(IntEnum):
    """What a message is; the numbers are on disk."""

    EVENT = 1
    SIGNAL = 2  # the call of an @on_signal handler
    DECLARED = 3  # a declared signal, for whoever waits for it
    DELETE = 4  # forget the actor
    RETRY = 5  # let a quarantined actor go on
    START = 6  # begin the workflow, unless it has begun with the same arguments
    START_NEW = 7  # begin the workflow, which must not have begun
    RESTART = 8  # begin the workflow, in a new life if it has begun
    RESULT = 9  # tell the outcome of the workflow, now or once it has ended
    FIRING = 10  # the earliest of what the actor's coroutines wait for by the clock is due
    OUTCOME = 11  # of a step
    REPLY = 12  # to what the actor asked of another one
    TIMER = 13  # a named timer fires: the call of an @on_timer handler
    CONTINUE = 14  # begin the workflow's next life
    EMIT = 15  # append an item to the actor's stream
    SPAWN = 16  # begin the workflow of a child
    CHILD_EXIT = 17  # a child has ended
    CANCEL = 18  # ask the actor to end, and to clean up
    TERMINATE = 19  # end the actor now
    RENEW = 20  # begin the workflow again from its arguments, as its parent's supervision says
    SETTLE = 21  # a failed child stays as it is
    ORPHAN = 22  # the parent has ended, and the child goes on without it
    REDRIVE = 23  # put dead letters of the actor back into its mailbox
    DROP = 24  # forget dead letters of the actor
    EDIT = 25  # give a dead letter of the actor other arguments
    ESCALATE = 26  # a child has ended, and its failure is its parent's own
    COMPENSATION = 27  # a step that was to undo something, and failed for good: only ever a dead letter
    POISONED = 28  # a message could not be handled, and the actor is to fail with it
    RETIRE = 29  # forget the actor, whose retention has passed


STARTS: Final = frozenset({Kind.START, Kind.START_NEW, Kind.RESTART, Kind.CONTINUE, Kind.SPAWN})
FORGETS: Final = frozenset({Kind.DELETE, Kind.RETIRE})
CONTROLS: Final = FORGETS | {Kind.RETRY, Kind.TERMINATE, Kind.REDRIVE, Kind.DROP, Kind.EDIT}

_BEGUN_BY_CALLERS: Final = frozenset({Kind.START, Kind.START_NEW, Kind.RESTART})

TOKEN: Final = 16  # bytes of a client's id, and of a message's that it sends

# What comes from outside of the hosts; the others are between actors and their host, who trusts them.
SENT: Final = CONTROLS - {Kind.RETIRE} | {
    Kind.EVENT,
    Kind.SIGNAL,
    Kind.DECLARED,
    Kind.START,
    Kind.START_NEW,
    Kind.RESTART,
    Kind.RESULT,
    Kind.CANCEL,
}


@final
class Form(IntEnum):
    """How the payload is encoded; the numbers are on disk."""

    CODEC = 1  # by the codec of the actor's type
    JSON = 2  # by a caller that has no code of the actor's; converted to the handler's annotations when handled


@final
class Awaiter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who wants an outcome, beyond this process's memory.

    A client (its id, the number of its ask), or an actor (type, key, id of its request); `spawned` is the request that made the child
    whose outcome it is, if its parent asks.
    """

    reply_to: tuple[bytes, int] | None = None
    asker: tuple[str, str, bytes] | None = None
    spawned: bytes = b""


ON_PARENT_CLOSE: Final = {"cancel": Kind.CANCEL, "abandon": Kind.ORPHAN, "terminate": Kind.TERMINATE}  # what a child is then sent


@final
class Parent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whose child an actor is: of which actor, by which of its requests, and what becomes of it when that ends.

    It is `supervised` if that judges its failures; `life` counts how often it was begun again.
    """

    type: str
    key: str
    id: MessageId
    on_close: Kind
    supervised: bool = False
    life: int = 0


@final
class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """One message. `name` is the handler's or the declared signal's; `sender` the sending actor's address as text.

    `ask` is True where somebody waits for the outcome. `reply_to` is where a caller in another process wants it: (client, number).
    `asker` is the actor that wants it: (type, key, id of the request). `key` is the idempotency key and a digest of what it is used for.
    `headers` carry the trace context. `due` is when a firing was due, a workflow is to begin again, or a retention has passed. `parent` is
    that of the actor which the message is for, where its parent sends it.
    """

    id: MessageId
    kind: Kind
    name: str
    payload: bytes
    form: Form = Form.CODEC
    ask: bool = False
    key: tuple[str, bytes] | None = None
    sender: str | None = None
    reply_to: tuple[bytes, int] | None = None
    headers: dict[str, str] | None = None
    sent_at: float = 0.0
    asker: tuple[str, str, bytes] | None = None
    due: float = 0.0
    parent: Parent | None = None

    @property
    def is_control(self) -> bool:
        """Whether it is about the actor and not for its code: it waits in no lane, and reaches a quarantined actor too."""
        return self.kind in CONTROLS

    @property
    def is_of_letters(self) -> bool:
        """Whether it is about the actor's dead letters alone."""
        return Kind.REDRIVE <= self.kind <= Kind.EDIT

    @property
    def is_for_code(self) -> bool:
        """Whether the actor's code can take it; what stands for something else has a name in parentheses: "(damaged)", "(a task)"."""
        return self.kind is not Kind.COMPENSATION and not self.is_control and not self.name.startswith("(")

    @property
    def is_event(self) -> bool:
        """Whether it waits in the lane of events; everything else is an interrupt."""
        return self.kind is Kind.EVENT or self.kind is Kind.TIMER

    @property
    def awaiter(self) -> Awaiter | None:
        """Who wants its outcome, beyond this process's memory."""
        return None if self.reply_to is None and self.asker is None else Awaiter(self.reply_to, self.asker)

    @property
    def wants_outcome(self) -> bool:
        """Whether anybody is told what becomes of it, now or when its key is used again."""
        return self.ask or self.key is not None


def verb_of(kind: Kind, *, ask: bool) -> str:
    """What its sender does with such a message, as a word: "ask", "send", "signal", "start", "spawn", "cancel" and so on."""
    if kind is Kind.EVENT:
        return "ask" if ask else "send"
    if kind is Kind.SIGNAL or kind is Kind.DECLARED:
        return "signal"
    return "start" if kind in _BEGUN_BY_CALLERS else kind.name.lower()


def what_no_client_sends(envelope: Envelope) -> str | None:
    """What a message from outside has that is between actors and their host alone, who trust it: with that it is put aside.

    Nobody can be told of it: a client that does not exist has no place among those who wait for a reply.
    """
    if envelope.kind not in SENT:
        return f"it is a message of kind {envelope.kind.name.lower()}, which only a host sends"
    if envelope.sender is not None or envelope.asker is not None or envelope.parent is not None or envelope.due:
        return "it says that an actor or a host has sent it"
    if len(envelope.id) != TOKEN or not math.isfinite(envelope.sent_at):
        return "its id is none, or the time at which it was sent"
    if envelope.reply_to is not None and not (len(envelope.reply_to[0]) == TOKEN and 0 <= envelope.reply_to[1] < 1 << 64):
        return "who wants its outcome is no client"
    return None


def damaged_envelope(raw: bytes) -> Envelope:
    """What stands for a message that cannot be read: its bytes as they were."""
    return Envelope(id=MessageId(b""), kind=Kind.EVENT, name="(damaged)", payload=raw)

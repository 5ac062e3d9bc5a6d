"""A message on its way and at rest: everything about it that is not the user's, so that tools read a mailbox without unpickling anything.

An envelope is made once, by the sender, and never changes; what the mailbox knows of it (seq, place, attempts) is kept beside it.
"""

from __future__ import annotations

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


STARTS: Final = frozenset({Kind.START, Kind.START_NEW, Kind.RESTART, Kind.CONTINUE})


@final
class Form(IntEnum):
    """How the payload is encoded; the numbers are on disk."""

    CODEC = 1  # by the codec of the actor's type
    JSON = 2  # by a caller that has no code of the actor's; converted to the handler's annotations when handled


@final
class Awaiter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who wants an outcome, beyond this process's memory.

    A client (its id, the number of its ask), or an actor (type, key, id of its request).
    """

    reply_to: tuple[bytes, int] | None = None
    asker: tuple[str, str, bytes] | None = None


@final
class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """One message. `name` is the handler's or the declared signal's; `sender` the sending actor's address as text, for people.

    `ask` is True where somebody waits for the outcome. `reply_to` is where a caller in another process wants it: (client, number).
    `asker` is the actor that wants it: (type, key, id of the request). `key` is the idempotency key and a digest of what it is used for.
    `headers` carry the trace context. `due` is when a firing was due.
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

    @property
    def is_control(self) -> bool:
        """Whether it is about the actor and not for its code: it waits in no lane, and reaches a quarantined actor too."""
        return self.kind is Kind.DELETE or self.kind is Kind.RETRY

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


def damaged_envelope(raw: bytes) -> Envelope:
    """What stands for a message that cannot be read: its bytes as they were."""
    return Envelope(id=MessageId(b""), kind=Kind.EVENT, name="(damaged)", payload=raw)

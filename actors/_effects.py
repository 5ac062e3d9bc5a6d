"""What a turn may ask for, as a closed union: nothing of it happens unless the whole turn does."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, final

from ._envelope import Envelope
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._records import ChildRow, NamedTimer, RequestRow


@final
class Send(NamedTuple):
    """Put a message into an actor's mailbox."""

    target: ActorId
    envelope: Envelope


@final
class Begin(NamedTuple):
    """Do something outside, and send the outcome under the row's id."""

    row: RequestRow


@final
class GiveUp(NamedTuple):
    """Nobody waits for that outcome any more: end what is being done for it."""

    id: MessageId


@final
class EndStep(NamedTuple):
    """Nobody wants that step any more, but somebody waits to hear how it has ended."""

    id: MessageId


@final
class Spawn(NamedTuple):
    """Begin a child; it is the actor's from then on."""

    row: ChildRow
    envelope: Envelope


@final
class PutAside(NamedTuple):
    """A step that was to undo something has failed for good: somebody has to look at it."""

    envelope: Envelope
    failure: Failure
    failed: int
    interrupted: int


@final
class TakeSignal(NamedTuple):
    """A declared signal that was kept has been given to a waiter."""

    seq: int


@final
class KeepSignal(NamedTuple):
    """A declared signal is kept until somebody waits for it."""

    seq: int
    envelope: Envelope


@final
class SetTimer(NamedTuple):
    """Let a named timer fire; it replaces one of its name."""

    timer: NamedTimer


@final
class CancelTimer(NamedTuple):
    """Forget a named timer."""

    name: str


@final
class Emit(NamedTuple):
    """Append an item to the actor's stream."""

    name: str
    payload: bytes


Effect: TypeAlias = Send | Begin | GiveUp | EndStep | Spawn | PutAside | TakeSignal | KeepSignal | SetTimer | CancelTimer | Emit

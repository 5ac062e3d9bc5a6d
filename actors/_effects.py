"""What a turn may ask for, as a closed union: nothing of it happens unless the whole turn does."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, final

from ._envelope import Envelope
from ._ids import ActorId, MessageId
from ._records import NamedTimer, RequestRow


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


Effect: TypeAlias = Send | Begin | GiveUp | TakeSignal | KeepSignal | SetTimer | CancelTimer | Emit

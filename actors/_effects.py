"""What a turn may ask for, as a closed union: nothing of it happens unless the whole turn does."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, final

from ._envelope import Envelope
from ._ids import ActorId


@final
class Send(NamedTuple):
    """Put a message into an actor's mailbox."""

    target: ActorId
    envelope: Envelope


Effect: TypeAlias = Send

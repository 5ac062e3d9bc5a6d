"""Reading what an actor's code has waited for: outcomes, replies, signals, whose classes may be gone by then.

That code never gets an error for what another deploy can cure: its turn fails, and nothing of it has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ._coroutines import AMBIENT
from ._errors import NotDeserializable
from ._journal import TurnStopped

T = TypeVar("T")


def readable(decode: Callable[[bytes], T], data: bytes) -> T:
    """What the bytes hold. Raises what `decode` does; in an actor, where a class of it is gone, TurnStopped, whatever the code catches."""
    try:
        return decode(data)
    except NotDeserializable as error:
        coroutines = AMBIENT.get(None)
        if coroutines is None or not error.gone:
            raise
        coroutines.require_turn("what it has waited for").unreadable = error
        raise TurnStopped from error

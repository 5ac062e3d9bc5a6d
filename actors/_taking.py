"""Taking a turn: an instance, its coroutines and a message in; a state, endings and effects out. No I/O, no clock.

A turn ends by encoding its state. If anything of it fails, nothing of it counts, and the instance and its coroutines are to be thrown away:
they may be half-way through.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple, final

import msgspec

from ._coroutines import Coroutines
from ._define import Definition
from ._effects import Effect
from ._endings import Ending, LifeEnd
from ._envelope import Envelope
from ._handlers import Handler
from ._ids import ActorId
from ._journal import TurnStopped
from ._records import Asked, LogEntry, Snapshot
from ._turn import Surroundings, Turn
from ._version_errors import MigrationFailed


@final
class Taken(NamedTuple):
    """What a turn came to: the state at its end, which handlers ended, whether the actor's life did, what it asked for; what waits on."""

    state: bytes
    endings: list[Ending]
    end: LifeEnd | None
    effects: list[Effect]
    asked: list[Asked]
    suspended: bool


def take_turn(definition: Definition, instance: object, seq: int, envelope: Envelope, turn: Turn, coroutines: Coroutines) -> Taken:
    """Handle a message. Raises whatever its handler raises within the turn, TurnDidNotEnd, or NotSerializable; NotDeserializable."""
    try:
        endings = coroutines.handle(definition, instance, seq, envelope, turn)
    except BaseException:
        _check_was_readable(turn)
        raise
    _check_was_readable(turn)
    state = definition.encode_state(instance)
    return Taken(state, endings, coroutines.end, turn.effects, turn.asked, not coroutines.at_rest)


def replay_turn(definition: Definition, instance: object, entry: LogEntry, turn: Turn, coroutines: Coroutines) -> None:
    """Handle a message once more, as it was handled first.

    Raises NonDeterminismError, NotDeserializable, and whatever its handler did not raise then.
    """
    assert turn.recorded is not None
    with suppress(TurnStopped):
        coroutines.handle(definition, instance, entry.seq, entry.envelope, turn)
    _check_was_readable(turn)
    turn.recorded.finish(turn.asked)


def revive(definition: Definition, state: bytes, turn: Turn, coroutines: Coroutines) -> object:
    """An instance with a state, or a new one where it is empty, its activation hooks called: the user's code, run as actor code.

    Raises what that code raises.
    """
    return coroutines.call(turn, _revived, definition, state)


def migrate(definition: Definition, actor: ActorId, snapshot: Snapshot, surroundings: Surroundings, coroutines: Coroutines) -> Snapshot:
    """The snapshot with its state as one of that version: the user's code, run as actor code that may ask for nothing.

    Raises MigrationFailed, from whatever that code raises, an exit among it.
    """
    turn = Turn(definition, actor, snapshot.incarnation, 0, snapshot.updated, surroundings, read_only=True)
    try:
        state = coroutines.call(turn, definition.migrate_state, snapshot.state, snapshot.version)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        raise MigrationFailed(actor, snapshot.version, definition.version, said) from error
    return msgspec.structs.replace(snapshot, version=definition.version, state=state)


def run_query(handler: Handler, instance: object, arguments: Any, keywords: Any, turn: Turn, coroutines: Coroutines) -> Any:
    """Call a query as actor code; returns or raises as it does."""
    return coroutines.call(turn, handler.function, instance, *arguments, **keywords)


def _check_was_readable(turn: Turn) -> None:
    if turn.unreadable is not None:
        raise turn.unreadable


def _revived(definition: Definition, state: bytes) -> object:
    instance: object = definition.decode_state(state) if state else definition.create()
    definition.activate(instance)
    return instance

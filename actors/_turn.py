"""One turn: an instance and a message in, a state and effects out. No I/O, no clock: everything it needs is handed in.

Nothing that the code asked for has happened when a turn returns; if it raises, nothing of it will, and the instance is to be thrown away.
"""

from __future__ import annotations

import contextvars
import random
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol, final

from ._define import Definition
from ._effects import Effect, Send
from ._envelope import Envelope, Form, Kind
from ._errors import NotInActor
from ._handlers import Handler
from ._ids import ActorId, Incarnation, sent_id
from ._records import Value
from ._registry import Registry
from ._turnloop import TurnLoop

AMBIENT: Final[contextvars.ContextVar[Turn]] = contextvars.ContextVar("perdure_turn")


class Surroundings(Protocol):
    """What a host lends to its turns: the types that messages may be sent to, and the resources that its user gave it."""

    @property
    def registry(self) -> Registry:
        """The actor types of the host."""
        ...

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the host was given as `resources`."""
        ...


@final
class Turn:
    """What the code of one turn may know and ask for. The object ends with the turn."""

    __slots__ = (
        "_random",
        "actor",
        "attempt",
        "effects",
        "headers",
        "incarnation",
        "number",
        "over",
        "read_only",
        "seq",
        "surroundings",
        "time",
    )

    def __init__(
        self,
        actor: ActorId,
        incarnation: Incarnation,
        number: int,
        time: float,
        surroundings: Surroundings,
        seq: int = 0,
        headers: dict[str, str] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.actor = actor
        self.incarnation = incarnation
        self.number = number
        self.time = time  # seconds since the epoch, the same during the whole turn
        self.surroundings = surroundings
        self.seq = seq
        self.headers = headers
        self.read_only = read_only  # a query: it may ask for nothing
        self.over = False  # its code has ended: what asks for something in its name now comes too late
        self.attempt = 1
        self.effects: list[Effect] = []
        self._random: random.Random | None = None

    def start_again(self) -> None:
        """Forget what was asked for, for another attempt at the same message."""
        self.attempt += 1
        self.over = False
        self.effects = []
        self._random = None

    @property
    def random(self) -> random.Random:
        """Seeded by the incarnation and the message, so that a turn that is run again draws the same."""
        if self._random is None:
            self._random = random.Random(self.incarnation + self.number.to_bytes(8, "big"))
        return self._random

    def send(self, target: ActorId, kind: Kind, name: str, payload: bytes, key: tuple[str, bytes] | None) -> None:
        """Record a message; it goes into the target's mailbox together with everything else this turn does."""
        number = len(self.effects)
        envelope = Envelope(
            id=sent_id(self.incarnation, self.number, number),
            kind=kind,
            name=name,
            payload=payload,
            key=key,
            sender=str(self.actor),
            headers=self.headers,
            sent_at=self.time,
        )
        self.effects.append(Send(target, envelope))


def current_turn(asked: str) -> Turn:
    """The turn whose code is running. Raises NotInActor, saying what was asked for."""
    turn = AMBIENT.get(None)
    if turn is None:
        raise NotInActor(asked)
    return turn


class Taken(NamedTuple):
    """What a turn came to: the state at its end, the handler's result if anybody wants it, and what it asked for."""

    state: bytes
    result: Value | None
    effects: list[Effect]


def take_turn(definition: Definition, instance: object, envelope: Envelope, turn: Turn, loop: TurnLoop) -> Taken:
    """Let the handler of a message run to its end, and encode the state. Raises whatever the handler raises, or NotSerializable.

    After an error the instance may be half changed: make another from the last state.
    """
    handler = definition.event(envelope.name) if envelope.kind is Kind.EVENT else definition.signal_handler(envelope.name)
    arguments, keywords = _arguments(handler, envelope)
    try:
        answer = run(handler, instance, arguments, keywords, turn, loop)
    finally:
        turn.over = True
    wanted = envelope.ask or envelope.key is not None
    return Taken(definition.encode_state(instance), Value(handler.encode_result(answer, envelope.form)) if wanted else None, turn.effects)


def run(handler: Handler, instance: object, arguments: Any, keywords: Any, turn: Turn, loop: TurnLoop) -> Any:
    """Call a handler as actor code: on the turn's loop, in an empty context whose only variable is the turn.

    Returns or raises as it does.
    """
    context = contextvars.Context()
    context.run(AMBIENT.set, turn)
    with loop.at(turn.time):
        if handler.is_async:
            return loop.run_turn(context.run(handler.function, instance, *arguments, **keywords), context)
        return context.run(handler.function, instance, *arguments, **keywords)


def revive(definition: Definition, state: bytes, turn: Turn, loop: TurnLoop) -> object:
    """An instance with a state, or a new one where it is empty, its activation hooks called: the user's code, run as actor code.

    Raises what that code raises.
    """
    context = contextvars.Context()
    context.run(AMBIENT.set, turn)
    with loop.at(turn.time):
        instance: object = context.run(definition.decode_state, state) if state else context.run(definition.create)
        context.run(definition.activate, instance)
        return instance


def _arguments(handler: Handler, envelope: Envelope) -> tuple[Any, Any]:
    if envelope.form is Form.JSON:
        return handler.decode_json(envelope.payload)
    return handler.decode_call(envelope.payload)

"""One turn, as the code that runs in it sees it: what it may know, and what it asks for.

Nothing that is asked for has happened when a turn ends; if it fails, nothing of it will. No I/O, no clock: everything is handed in.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, final

from ._define import Definition
from ._effects import Begin, Effect, EndStep, GiveUp, KeepSignal, PutAside, Send, Spawn, TakeSignal
from ._envelope import Envelope, Kind, Parent
from ._errors import NotDeserializable, NotDurable
from ._failure import Failure
from ._handlers import Handler
from ._ids import ActorId, Incarnation, MessageId, child_key, request_id, sent_id
from ._journal import Recorded
from ._records import Asked, ChildRow, RequestKind, RequestRow
from ._registry import Registry


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


class TurnTrace(Protocol):
    """The span of a turn, while it is taken: what it asks for is caused by it."""

    @property
    def is_root(self) -> bool:
        """Whether a trace begins with it."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether anything says that it was caused by it."""
        ...

    @property
    def headers(self) -> dict[str, str]:
        """The trace context of what it asks for."""
        ...

    def sends(self, kind: Kind, name: str, target: ActorId, *, ask: bool) -> dict[str, str]:
        """The trace context of a message that it sends."""
        ...

    def takes(self, headers: dict[str, str] | None) -> None:
        """It takes a signal that was kept until now, and that came with this trace context."""
        ...

    def start_again(self) -> None:
        """Forget what it has sent, for another attempt."""
        ...


@final
class KeptSignal(NamedTuple):
    """A declared signal that nobody has taken yet, or the call of a signal handler, put off until the workflow begins again."""

    seq: int
    envelope: Envelope


_SENT: Final = {Kind.CANCEL: RequestKind.CANCEL, Kind.TERMINATE: RequestKind.TERMINATE}
_ASKED: Final = {Kind.EVENT: RequestKind.ASK, Kind.RESULT: RequestKind.RESULT}
NO_SIGNALS: Final[Mapping[str, Sequence[KeptSignal]]] = {}


@final
class Turn:
    """What the code of one turn may know and ask for. The object ends with the turn.

    `signals` are the declared signals that are kept, by name, the oldest first. `recorded` is what the turn asked for when it first ran, if
    this is a replay.
    """

    __slots__ = (
        "_random",
        "_returned",
        "_taken",
        "actor",
        "asked",
        "attempt",
        "definition",
        "effects",
        "headers",
        "incarnation",
        "number",
        "read_only",
        "recorded",
        "seq",
        "signals",
        "surroundings",
        "time",
        "trace",
        "unreadable",
    )

    def __init__(
        self,
        definition: Definition,
        actor: ActorId,
        incarnation: Incarnation,
        number: int,
        time: float,
        surroundings: Surroundings,
        seq: int = 0,
        headers: dict[str, str] | None = None,
        *,
        read_only: bool = False,
        recorded: Recorded | None = None,
    ) -> None:
        self.definition = definition  # the version of the actor's type whose code runs
        self.actor = actor
        self.incarnation = incarnation
        self.number = number
        self.time = time  # seconds since the epoch, the same during the whole turn
        self.surroundings = surroundings
        self.seq = seq
        self.headers = headers  # the trace context that it was caused in
        self.trace: TurnTrace | None = None  # where somebody listens
        self.read_only = read_only  # a query: it may ask for nothing
        self.recorded = recorded
        self.attempt = 1
        self.unreadable: NotDeserializable | None = None  # why its code could not go on with what it had waited for
        self.signals = NO_SIGNALS
        self.effects: list[Effect] = []
        self.asked: list[Asked] = []
        self._taken: set[int] | None = None
        self._returned: list[KeptSignal] | None = None
        self._random: random.Random | None = None

    def start_again(self) -> None:
        """Forget what was asked for, for another attempt at the same message."""
        self.attempt += 1
        self.effects = []
        self.asked = []
        self._taken = self._returned = None
        self._random = None
        self.unreadable = None
        if self.trace is not None:
            self.trace.start_again()

    @property
    def onward(self) -> dict[str, str] | None:
        """The trace context of what it asks for."""
        return self.headers if self.trace is None else self.trace.headers

    @property
    def is_replay(self) -> bool:
        """Whether it has run before: nothing that it asks for happens again."""
        return self.recorded is not None

    @property
    def random(self) -> random.Random:
        """Seeded by the incarnation and the turn, so that a turn that is run again draws the same."""
        if self._random is None:
            self._random = random.Random(self.incarnation + self.number.to_bytes(8, "big"))
        return self._random

    def ask_for(self, kind: RequestKind, name: str, digest: bytes = b"", due: float = 0.0) -> Asked:
        """Write down what the code asks for; on replay, find what was written down then. Raises NotDurable in a query."""
        if self.read_only:
            raise NotDurable(
                f"a query of {self.actor} asks for something ({kind.name.lower()} {name})", "ask from an event, a signal or the workflow"
            )
        if self.recorded is not None:
            asked = self.recorded.match(kind, name, digest, due, self.asked)
        else:
            asked = Asked(kind, name, len(self.asked), digest, due)
        self.asked.append(asked)
        return asked

    def patched(self, change: str, decided: dict[str, bool]) -> bool:
        """Whether changed code runs, or that of before; `decided` is what was said of other changes since the actor's log began.

        Code that runs first is the new one, and it is recorded that it ran; where a replay finds no such record, the old one ran.
        """
        found = None if self.read_only else decided.get(change)  # of what reads, it would say what another's turn has left
        if found is None:
            found = self.recorded is None or self.recorded.holds(RequestKind.PATCH, change)
            if found:
                self.ask_for(RequestKind.PATCH, change)
            decided[change] = found
        return found

    def begin(
        self,
        kind: RequestKind,
        name: str,
        payload: bytes,
        digest: bytes,
        *,
        options: bytes = b"",
        target: ActorId | None = None,
        compensates: bytes | None = None,
    ) -> MessageId:
        """Ask for something outside, whose outcome will come as a message with the id that is returned."""
        asked = self.ask_for(kind, name, digest)
        found = request_id(self.incarnation, self.number, asked.nth)
        row = RequestRow(kind, name, found, payload, options, target, compensates=compensates, headers=self.onward)
        self.effects.append(Begin(row))
        return found

    def end_step(self, request: MessageId) -> None:
        """Nobody wants that step any more; how it ends is still to be heard of."""
        self.effects.append(EndStep(request))

    def spawn(
        self, run: Handler, type_name: str, key: str | None, payload: bytes, digest: bytes, on_close: Kind
    ) -> tuple[ActorId, MessageId]:
        """Begin a child with the turn; returns its address and the request's id. Without a key it gets one that no other ever has."""
        asked = self.ask_for(RequestKind.SPAWN, type_name if key is None else f"{type_name}/{key}", digest)
        found = request_id(self.incarnation, self.number, asked.nth)
        child = ActorId(type_name, child_key(self.actor.key, self.incarnation, self.number, asked.nth) if key is None else key)
        supervised = self.definition.supervise is not None
        parent = Parent(self.actor.type, self.actor.key, found, on_close, supervised)
        row = ChildRow(child.type, child.key, found, on_close, supervised)
        self.effects.append(Spawn(row, self._envelope(child, Kind.SPAWN, run.name, payload, None, parent=parent)))
        return child, found

    def put_aside(self, name: str, payload: bytes, failure: Failure, failed: int, interrupted: int) -> None:
        """A step that was to undo something has failed for good: it goes into the dead letters."""
        self.effects.append(PutAside(self._envelope(None, Kind.COMPENSATION, name, payload, None), failure, failed, interrupted))

    def give_up(self, request: MessageId) -> None:
        """Nobody waits for that outcome any more."""
        self.effects.append(GiveUp(request))

    def send(self, target: ActorId, kind: Kind, name: str, payload: bytes, key: tuple[str, bytes] | None) -> None:
        """Record a message; it goes into the target's mailbox together with everything else this turn does."""
        self.ask_for(_SENT.get(kind, RequestKind.SEND), f"{name} to {target}")
        self.effects.append(Send(target, self._envelope(target, kind, name, payload, key)))

    def ask(
        self, target: ActorId, kind: Kind, name: str, payload: bytes, key: tuple[str, bytes] | None, digest: bytes
    ) -> tuple[MessageId, Asked]:
        """Record a message whose outcome comes as a reply with the id that is returned; also returns what was asked for."""
        asked = self.ask_for(_ASKED.get(kind, RequestKind.START), f"{name} of {target}", digest)
        found = request_id(self.incarnation, self.number, asked.nth)
        envelope = self._envelope(target, kind, name, payload, key, asker=(self.actor.type, self.actor.key, found))
        self.effects.append(Send(target, envelope))
        return found, asked

    def _envelope(
        self,
        target: ActorId | None,
        kind: Kind,
        name: str,
        payload: bytes,
        key: tuple[str, bytes] | None,
        *,
        asker: tuple[str, str, bytes] | None = None,
        parent: Parent | None = None,
    ) -> Envelope:
        return Envelope(
            id=sent_id(self.incarnation, self.number, len(self.effects)),
            kind=kind,
            name=name,
            payload=payload,
            key=key,
            ask=asker is not None,
            sender=str(self.actor),
            headers=self.onward if target is None or self.trace is None else self.trace.sends(kind, name, target, ask=asker is not None),
            sent_at=self.time,
            asker=asker,
            parent=parent,
        )

    def take_signal(self, name: str) -> KeptSignal | None:
        """The oldest declared signal of that name that is kept, which then is not kept any more."""
        for place, signal in enumerate(self._returned or ()):
            if signal.envelope.name == name:
                assert self._returned is not None
                self.effects.append(TakeSignal(signal.seq))
                return self._returned.pop(place)
        for signal in self.signals.get(name, ()):
            if self._taken is None or signal.seq not in self._taken:
                self._taken = self._taken or set()
                self._taken.add(signal.seq)
                self.effects.append(TakeSignal(signal.seq))
                if self.trace is not None:
                    self.trace.takes(signal.envelope.headers)
                return signal
        return None

    def keep_signal(self, signal: KeptSignal, *, returned: bool = False) -> None:
        """Keep a declared signal: one that nobody waits for, or one whose waiter was cancelled before it heard of it."""
        if returned:
            self._returned = self._returned or []
            self._returned.append(signal)
        self.effects.append(KeepSignal(*signal))

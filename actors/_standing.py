"""What of an actor outlives a turn besides its state: its log while something waits, its timers, kept signals, stream and workflow.

All rows of it go into the open batch together with the turn that changed them.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from typing import Final, final

from ..storage import Batch
from ._activation import Activation
from ._effects import Begin, CancelTimer, Emit, EndStep, GiveUp, KeepSignal, PutAside, Send, SetTimer, Spawn, TakeSignal
from ._envelope import Envelope, Kind, Parent
from ._errors import ActorQuarantined
from ._ids import MessageId
from ._mailbox import Item
from ._persistence import (
    delete_child,
    delete_log,
    delete_request,
    delete_signal,
    delete_stream_item,
    put_checkpoint,
    put_child,
    put_log_entry,
    put_request,
    put_signal,
    put_stream_item,
)
from ._records import NOTHING, Checkpoint, ChildRow, LogEntry, NamedTimer, RequestRow, Run, Standing, StreamRow, Wait
from ._taking import Taken
from ._turn import KeptSignal, Turn

fields_of: Final = attrgetter(*Standing.__struct_fields__)
NO_WAITS: Final[list[Wait]] = []


@final
class StandingDraft:
    """An actor's standing in the making: its fields, and what a turn changes of them.

    `begun`, `ended` and `given_up` are requests: for the host to begin, to end or to forget, once the turn is durable.
    """

    __slots__ = ("_activation", "_batch", "begun", "ended", "given_up", "size", *Standing.__struct_fields__)

    run: Run | None
    wake: float | None
    logged: int
    kept: int
    emitted: int
    waits: list[Wait]
    timers: list[NamedTimer]
    holds: bool
    children: int
    parent: Parent | None
    successor: Envelope | None
    past: list[int]
    retire: float | None
    recent: int
    trace: dict[str, str] | None

    def __init__(self, activation: Activation, batch: Batch) -> None:
        self._activation = activation
        self._batch = batch
        # In one go, and in their order: this is done in every turn of an actor that waits.
        before = fields_of(activation.standing)
        self.run, self.wake, self.logged, self.kept, self.emitted, self.waits, self.timers, self.holds, *family = before
        self.children, self.parent, self.successor, self.past, self.retire, self.recent, self.trace = family
        self.begun: list[RequestRow] = []
        self.ended: list[MessageId] = []
        self.given_up: list[MessageId] = []
        self.size = 0  # bytes staged

    def record(self) -> Standing | None:
        """The standing as it is stored; None where it is nothing."""
        made = Standing(*fields_of(self))
        return None if made == NOTHING else made

    def apply(self, taken: Taken, turn: Turn) -> None:  # noqa: C901, PLR0912  one line for each kind of effect
        """Stage what the turn asked for, messages apart."""
        given_up = {effect.id for effect in taken.effects if type(effect) is GiveUp}
        for effect in taken.effects:
            match effect:
                case Begin(row):
                    if row.id not in given_up:
                        self._begin(row)
                case GiveUp(request):
                    self.give_up(request)
                case SetTimer(timer):
                    self.timers = [*(each for each in self.timers if each.name != timer.name), timer]
                case CancelTimer(name):
                    self.timers = [each for each in self.timers if each.name != name]
                case Emit(name, payload):
                    self.emit(name, payload, turn)
                case KeepSignal(seq, envelope):
                    self.keep(KeptSignal(seq, envelope))
                case TakeSignal(seq):
                    self._drop_signal(seq)
                case EndStep(request):
                    if request not in given_up:
                        self.ended.append(request)
                case Spawn(row):
                    self._add_child(row)
                case Send() | PutAside():
                    pass

    def _add_child(self, row: ChildRow) -> None:
        self.put_child(row)
        self.children += 1

    def put_child(self, row: ChildRow) -> None:
        """Write down a child, or what has changed of it."""
        put_child(self._batch, self._activation.suffix, row)
        self._activation.children = self._activation.children or {}
        self._activation.children[row.id] = row
        self.size += 200

    def drop_child(self, request: MessageId) -> None:
        """A child has ended for good, or is its actor's no more."""
        delete_child(self._batch, self._activation.suffix, request)
        if self._activation.children is not None and self._activation.children.pop(request, None) is not None:
            self.children -= 1
        self._activation.children = self._activation.children or None

    def _begin(self, row: RequestRow) -> None:
        put_request(self._batch, self._activation.suffix, row)
        self.begun.append(row)
        self.size += len(row.payload) + 200

    def give_up(self, request: MessageId) -> None:
        """Nobody waits for that outcome any more."""
        delete_request(self._batch, self._activation.suffix, request)
        self.given_up.append(request)

    def emit(self, name: str, payload: bytes, turn: Turn) -> None:
        """Append an item to the stream."""
        self.emitted += 1
        put_stream_item(self._batch, self._activation.suffix, self.emitted, StreamRow(name, payload, turn.time))
        limit = self._activation.definition.stream_limit
        if limit is not None and self.emitted > limit:
            delete_stream_item(self._batch, self._activation.suffix, self.emitted - limit)
        self.size += len(payload)

    def keep(self, signal: KeptSignal) -> None:
        """Keep a signal until somebody waits for it, in the order of the seqs."""
        activation = self._activation
        put_signal(self._batch, activation.suffix, signal.seq, signal.envelope)
        activation.signals = activation.signals or {}
        kept = activation.signals.setdefault(signal.envelope.name, [])
        kept.append(signal)
        kept.sort(key=lambda each: each.seq)
        self.kept += 1
        self.size += len(signal.envelope.payload)

    def _drop_signal(self, seq: int) -> None:
        activation = self._activation
        delete_signal(self._batch, activation.suffix, seq)
        for name, kept in (activation.signals or {}).items():
            for place, signal in enumerate(kept):
                if signal.seq == seq:
                    del kept[place]
                    if not kept and activation.signals is not None:
                        del activation.signals[name]
                    self.kept -= 1
                    return

    def log(self, item: Item, taken: Taken, turn: Turn) -> None:
        """Something of the actor waits: its log goes on, or begins with how the actor was before."""
        suffix, batch = self._activation.suffix, self._batch
        self._note_version()
        if not self.logged:
            put_checkpoint(batch, suffix, Checkpoint(self._activation.snapshot, python_version(), anyio_version()))
        is_its_own = turn.headers is self.trace  # a message that brings its own has it for itself
        if not self.logged or (is_its_own and turn.trace is not None and turn.trace.is_root):
            self.trace = turn.onward
        entry = LogEntry(turn.number, item.seq, turn.time, item.envelope, taken.asked, turn.attempt)
        self.size += put_log_entry(batch, suffix, self.logged, entry)
        self.logged += 1
        assert self._activation.coroutines is not None
        self.wake = self._activation.coroutines.loop.next_due()
        self.waits = self._activation.coroutines.waits()
        self.holds = not self._activation.coroutines.takes_events

    def _note_version(self) -> None:
        """Another version may have taken the log's turns before this one."""
        before = self._activation.snapshot
        if self.logged and before is not None and before.version not in {self._activation.definition.version, *self.past}:
            self.past = [before.version, *self.past]

    def drop_signals(self) -> list[KeptSignal]:
        """Keep no signal any more; returns those that were kept, in their order."""
        kept = sorted((signal for signals in self._activation.kept_signals.values() for signal in signals), key=lambda each: each.seq)
        for signal in kept:
            self._drop_signal(signal.seq)
        return kept

    def take_deferred(self) -> list[KeptSignal]:
        """The calls of signal handlers that were put off, in their order; they are kept no more."""
        deferred = [each for signals in self._activation.kept_signals.values() for each in signals if each.envelope.kind is Kind.SIGNAL]
        for signal in deferred:
            self._drop_signal(signal.seq)
        return sorted(deferred, key=lambda each: each.seq)

    def forget_log(self) -> None:
        """Nothing waits any more: the snapshot is everything."""
        if self.logged:
            delete_log(self._batch, self._activation.suffix, self.logged)
        self.logged = 0
        self.past = []
        self.trace = None
        self.wake = None
        self.waits = NO_WAITS
        self.holds = False


def log_too_long(activation: Activation) -> ActorQuarantined | None:
    """Why an actor with such a log is not brought back any more, if it is too long."""
    logged, limit = activation.standing.logged, activation.definition.max_replay
    if logged <= limit:
        return None
    cure = "raise max_replay to let it go on, and bound its log by continue_as_new()"
    return ActorQuarantined(activation.actor, f"its log has {logged:,} messages, and {limit:,} may be replayed: {cure}")


@cache
def python_version() -> str:
    """The minor version of Python: logs are replayed across them, and checked."""
    return ".".join(platform.python_version_tuple()[:2])


@cache
def anyio_version() -> str:
    """The minor version of anyio."""
    return ".".join(version("anyio").split(".")[:2])

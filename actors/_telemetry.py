"""Telemetry: what the host tells of turns, attempts and commits, in the words of traces.

It is only there where an SDK listens. Nothing is told before it is durable, nothing twice, and nothing of a replay.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from functools import lru_cache, partial
from typing import Any, Final, final

from opentelemetry.context import Context, attach
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, set_span_in_context

from ..storage import Committed, marker_key, unpack
from ..tracing import (
    AmbientSpan,
    Draft,
    Headers,
    Sending,
    Spans,
    began_at,
    context_of,
    headers_of,
    linked,
    message_draft,
    names,
    surroundings_of,
)
from ._activation import Activation
from ._calls import Call
from ._coroutines import AMBIENT, BEGINNING
from ._define import Definition
from ._envelope import STARTS, Envelope, Form, Kind, verb_of
from ._epoch import TELL_AFTER, Epoch
from ._ids import ActorId
from ._mailbox import Item
from ._outstanding import Outstanding
from ._records import DeadLetter, Status
from ._ref import Request
from ._settings import Settings
from ._step import idempotency_key_of
from ._turn import Turn

logger = logging.getLogger("perdure.tracing")

_UNSEEN: Final = NonRecordingSpan(SpanContext(1, 1, is_remote=False))
MAX_LINKS: Final = 32  # of a commit, to its turns
NAP: Final = 0.0005  # seconds between two slices
SLICE: Final = 0.001  # seconds of making spans before others get the loop
SLICE_IN_A_CROWD: Final = 0.004  # likewise, while so many wait that they might become more and more: turns have slices of 2 ms
CROWD: Final = 10_000
MOST: Final = 100_000  # some 100 MB of drafts: who takes so long over spans that more would wait does not get these

_RESUMING: Final = frozenset({Kind.OUTCOME, Kind.REPLY})
_TIMERS: Final = frozenset({Kind.FIRING, Kind.TIMER})
_OPERATIONS: Final = {**dict.fromkeys(_RESUMING, names.RESUME), **dict.fromkeys(_TIMERS, names.TIMER)}
# By number, since this is asked of every turn: an enumeration's own hash and name are Python code, and take longer than all else that is.
_OPERATION: Final = [names.HANDLE if number == 0 else _OPERATIONS.get(Kind(number), names.HANDLE) for number in range(max(Kind) + 1)]
_KIND: Final = ["" if number == 0 else Kind(number).name.lower() for number in range(max(Kind) + 1)]
_STATUS: Final = ["" if number == 0 else Status(number).name.lower() for number in range(max(Status) + 1)]
_CALLS: Final = STARTS | {Kind.EVENT, Kind.SIGNAL, Kind.DECLARED}
_NAMED: Final = _CALLS | {Kind.OUTCOME, Kind.TIMER}


@final
class TurnSpan:
    """As `TurnTrace`. `headers_in` are those by which the turn was caused; `began` is when its trace did, in seconds since the epoch."""

    __slots__ = ("_began", "_headers", "_headers_in", "_spans", "draft", "is_root", "sent")

    def __init__(self, spans: Spans, draft: Draft, headers_in: Headers | None, began: float) -> None:
        self._spans: Final = spans
        self._headers_in: Final = headers_in
        self._began: Final = began
        self._headers: Headers | None = None
        self.draft: Final = draft
        self.is_root: Final = draft.parent is None
        self.sent: list[Draft] = []

    @property
    def is_known(self) -> bool:
        """As `TurnTrace.is_known`."""
        return self.draft.span is not None

    @property
    def span(self) -> Span:
        """Its span, which has begun."""
        return self._spans.begin(self.draft)

    @property
    def headers(self) -> Headers:
        """As `TurnTrace.headers`."""
        if self._headers is None:
            self._headers = headers_of(self.span.get_span_context(), self._headers_in, self._began)
        return self._headers

    def sends(self, kind: Kind, name: str, target: ActorId, *, ask: bool) -> Headers:
        """As `TurnTrace.sends`."""
        if kind is Kind.RESULT or not self.span.is_recording():  # no code of the target runs to tell an outcome
            return self.headers
        draft = message_draft(verb_of(kind, ask=ask), target.type, target.key, name, self.draft.start, self.span.get_span_context())
        self.sent.append(draft)
        return headers_of(self._spans.begin(draft).get_span_context(), self._headers_in, self._began)

    def takes(self, headers: Headers | None) -> None:
        """As `TurnTrace.takes`."""
        context = context_of(headers)
        if context is not None:
            self._spans.link(self.draft, context)

    def start_again(self) -> None:
        """As `TurnTrace.start_again`."""
        self.sent.clear()


@final
class Telemetry:
    """What one epoch tells; it observes its commits. Times are the host's clock's."""

    def __init__(self, epoch: Epoch, settings: Settings, spans: Spans) -> None:
        after = settings.tracing.link_after
        self._spans: Final = spans
        self._epoch: Final = epoch
        self._number: Final = epoch.fence.epoch
        self._settings: Final = settings.tracing
        self._pending: Final = settings.pending
        self._link_after: Final = math.inf if after is None else after.total_seconds()
        self._began: Final = epoch.clock.now()
        self._told: Final[deque[Draft | tuple[Committed, float]]] = deque()  # what is durable and to be seen; behind a batch's, its commit
        self._dropped = 0
        self._seen: list[SpanContext] = []  # of the batch that is being told of
        self._loop: Final = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None
        BEGINNING.run(attach, set_span_in_context(AmbientSpan(_of_this_turn), Context()))
        epoch.renew_spare()  # which began before

    def __repr__(self) -> str:
        return f"<Telemetry of {self._epoch.fence}: {self._pending!r}, {len(self._told)} to be seen, {self._dropped} dropped>"

    def sending(self, request: Request, *, ask: bool) -> Sending | None:
        """A message that a caller sends from within a trace; None where there is none."""
        return self._spans.sending(verb_of(request.kind, ask=ask), *request.target, request.name, self._epoch.clock.now)

    # --- turns ---

    def begin_turn(self, activation: Activation, item: Item, turn: Turn) -> None:
        """As `Listener.begin_turn`; its headers are those of the trace that the turn belongs to."""
        headers, envelope = turn.headers, item.envelope
        parent, now = context_of(headers), self._epoch.clock.now()
        began, is_over = now, False
        if parent is not None:
            began = began_at(headers, envelope.sent_at or now)
            is_over = envelope.kind is Kind.CONTINUE or now - began > self._link_after
            if not (parent.trace_flags.sampled or is_over):
                return
        trace, activation.trace = activation.trace, None
        if trace is not None and activation.failed[0] == item.seq:
            trace.start_again()
            turn.trace = trace
            return
        other = None
        if activation.snapshot is not None and activation.snapshot.standing is not None:
            own = activation.snapshot.standing.trace
            other = context_of(envelope.headers if headers is own else own)
        before = parent if is_over else None
        parent = None if is_over else parent
        links = None if other is None and before is None else linked(before, other, parent=parent)
        draft = Draft(_name_of(activation, envelope), SpanKind.CONSUMER, now, {}, parent, links)
        if self._has_more_to_say(envelope):
            self._say_more(activation, envelope, draft)
        turn.trace = TurnSpan(self._spans, draft, headers, now if parent is None else began)

    def _has_more_to_say(self, envelope: Envelope) -> bool:
        return bool(_OPERATION[envelope.kind] is names.TIMER or self._epoch.charges or self._settings.capture_payloads is not False)

    def _say_more(self, activation: Activation, envelope: Envelope, draft: Draft) -> None:
        """What has to be looked up before the turn, of those few turns that have it."""
        if _OPERATION[envelope.kind] is names.TIMER:
            draft.kind = SpanKind.INTERNAL
            draft.attributes[names.TIMER_DUE] = envelope.due
            draft.attributes[names.TIMER_LATE] = draft.start - envelope.due
        charge = self._epoch.charges.get(envelope.id)
        if charge is not None:
            draft.attributes[names.INTERRUPTED] = charge.interrupted
        if self._settings.capture_payloads is not False:
            self._capture(draft.attributes, envelope.name, _arguments(activation.definition, envelope))

    def end_turn(
        self, activation: Activation, item: Item, turn: Turn, error: BaseException | None, *, kept: bool = False, by_host: bool = False
    ) -> None:
        """As `Listener.end_turn`."""
        trace, turn.trace = turn.trace, None
        if not isinstance(trace, TurnSpan):
            return
        draft, batch = trace.draft, activation.gate.number
        draft.end = self._epoch.clock.now()
        draft.details = partial(self._details, activation.actor, item, turn.number, turn.attempt, activation.status, batch)
        self._park(draft, batch)
        if kept:
            draft.attributes[names.KEPT] = True
        if error is None:
            for sent in trace.sent:
                self._park(sent, batch)
        else:
            draft.error = type(error).__name__
            if _is_put_aside(activation, item):
                draft.attributes[names.DEAD_LETTER] = True

    def _details(self, actor: ActorId, item: Item, number: int, attempt: int, status: Status, batch: int) -> dict[str, Any]:
        envelope = item.envelope
        kind = envelope.kind
        details: dict[str, Any] = {
            names.MESSAGING_SYSTEM: names.SYSTEM,
            names.OPERATION_TYPE: names.PROCESS,
            names.OPERATION_NAME: _OPERATION[kind],
            names.DESTINATION: actor.type,
            names.MESSAGE_ID: envelope.id.hex(),
            names.ACTOR_TYPE: actor.type,
            names.ACTOR_KEY: actor.key,
            names.MESSAGE_KIND: _KIND[kind],
            names.MESSAGE_SEQ: item.seq,
            names.TURN: number,
            names.STATUS: _STATUS[status],
            names.EPOCH: self._number,
            names.BATCH: batch,
        }
        if attempt > 1:
            details[names.ATTEMPT] = attempt
        if 0.0 < envelope.sent_at < self._began:
            details[names.RECOVERED] = True
        return details

    # --- attempts at steps ---

    def begin_attempt(self, work: Outstanding) -> None:
        """As `Listener.begin_attempt`; code that the task runs from now on finds the attempt as the current span."""
        row, step = work.row, work.step
        assert step is not None
        surroundings, parent = surroundings_of(row.headers), context_of(row.headers)
        work.span = None
        if parent is not None and not parent.trace_flags.sampled:
            attach(set_span_in_context(NonRecordingSpan(parent), surroundings))
            return
        operation = names.ATTEMPT_AT if row.compensates is None else names.COMPENSATE
        attributes: dict[str, Any] = {
            names.ACTOR_TYPE: work.actor.type,
            names.ACTOR_KEY: work.actor.key,
            names.STEP: row.name,
            names.STEP_KEY: idempotency_key_of(work.actor, row.id),
            names.EPOCH: self._number,
        }
        marks = ((names.ATTEMPT, work.attempt, 1), (names.INTERRUPTED, row.interrupted, 0), (names.RECOVERED, work.is_recovered, False))
        attributes.update((name, value) for name, value, unless in marks if value != unless)
        if self._settings.capture_payloads is not False:
            self._capture(attributes, row.name, _decoded(step.call, row.payload, Form.CODEC))
        work.span = Draft(f"{operation} {row.name}", SpanKind.INTERNAL, work.started, attributes, parent)
        attach(set_span_in_context(self._spans.begin(work.span), surroundings))

    def end_attempt(self, work: Outstanding) -> None:
        """As `Listener.end_attempt`."""
        draft, work.span = work.span, None
        if draft is None:
            return
        draft.end = self._epoch.clock.now()
        draft.error = work.error
        gate = self._epoch.commit.newest
        if gate is None:  # nothing came of it, and that nobody waits for it, if so, is durable
            self._told.append(draft)
            self._wake()
        else:
            draft.attributes[names.BATCH] = gate.number
            self._park(draft, gate.number)

    # --- what has no span of its own: it is counted, or told by the turn that it is part of ---

    def fired(self, activation: Activation, late: float) -> None:
        """As `Listener.fired`."""

    def replayed(self, activation: Activation, messages: int, *, failed: bool) -> None:
        """As `Listener.replayed`."""

    def put_aside(self, actor: ActorId, letter: DeadLetter) -> None:
        """As `Listener.put_aside`."""

    def quarantined(self, actor: ActorId, *, ended: bool = False) -> None:
        """As `Listener.quarantined`."""

    # --- commits ---

    def begun(self) -> None:
        """As `Observer.begun`: the loop has time for what was durable before, as soon as the batch is with the disk."""
        if self._told:
            self._sleep_no_more()
            self._next = self._loop.call_soon(self._see_some)

    def committed(self, committed: Committed) -> None:
        """As `Observer.committed`."""
        drafts = self._pending.release((self._number, committed.number))
        if len(self._told) + len(drafts) > MOST:
            self._drop(len(drafts))
        elif drafts:
            self._told.extend(drafts)
            self._told.append((committed, self._epoch.clock.now()))
            self._wake()

    def _wake(self) -> None:
        if self._next is None:
            self._next = self._loop.call_later(TELL_AFTER, self._see_some)

    def _drop(self, count: int) -> None:
        if not self._dropped:
            logger.error("spans are dropped: their processors take longer than the turns that they tell of; export them in batches")
        self._dropped += count

    def drain(self) -> None:
        """Have everything seen that is durable."""
        self._see(math.inf)

    def _see_some(self) -> None:
        """Have some of it seen, and go on while the loop has time for that. A span costs some 20 µs, mostly the SDK's."""
        is_crowded, commit = len(self._told) > CROWD, self._epoch.commit
        self._see(self._epoch.stopwatch() + (SLICE_IN_A_CROWD if is_crowded else SLICE))
        if self._told:
            # The committing thread wants the GIL back several times, and gets it from a loop that sleeps; from one at work after 5 ms.
            self._next = self._loop.call_later(NAP if is_crowded or commit.under_way else TELL_AFTER, self._see_some)

    def _sleep_no_more(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _see(self, end: float) -> None:
        self._sleep_no_more()
        told, stopwatch = self._told, self._epoch.stopwatch
        while told and stopwatch() < end:
            item = told.popleft()
            if isinstance(item, Draft):
                context = self._spans.finish(item)
                if context is not None and len(self._seen) < MAX_LINKS:
                    self._seen.append(context)
            elif self._seen:
                seen, self._seen = self._seen, []
                self._tell_commit(*item, seen)

    def _tell_commit(self, committed: Committed, now: float, contexts: list[SpanContext]) -> None:
        attributes = {
            names.BATCH: committed.number,
            names.BATCH_CHANGES: committed.turns,
            names.BATCH_BYTES: committed.size,
            names.EPOCH: self._number,
        }
        draft = Draft(names.COMMIT, SpanKind.INTERNAL, now - committed.seconds, attributes, None, contexts)
        draft.end = now
        self._spans.finish(draft)

    # --- beginnings ---

    async def recover(self) -> None:
        """Find out what became of the batches that an earlier epoch of this process has left."""
        (marker,) = await self._epoch.commit.overlay.read([marker_key(self._epoch.fence.partition)])
        epoch, number = (0, 0) if marker is None else unpack(marker)
        for draft in self._pending.settle((int(epoch), int(number))):
            self._spans.finish(draft)

    def recovered(self, interrupted: int) -> None:
        """The host has taken over from an earlier one, in which so many turns and attempts at steps were under way when it died."""
        attributes = {names.EPOCH: self._number, names.INTERRUPTED: interrupted}
        draft = Draft(names.RECOVER, SpanKind.INTERNAL, self._began, attributes)
        draft.end = self._epoch.clock.now()
        self._spans.finish(draft)

    def _park(self, draft: Draft, batch: int) -> None:
        self._pending.park((self._number, batch), draft)

    def _capture(self, attributes: dict[str, Any], name: str, arguments: tuple[Any, Any] | None) -> None:
        told = None if arguments is None else self._settings.payload(name, *arguments)
        if told is not None:
            attributes[names.PAYLOAD] = told


def _of_this_turn() -> Span:
    """The span of the turn whose code is running; what it makes of that in a replay is made again, and is not to be seen."""
    coroutines = AMBIENT.get(None)
    turn = None if coroutines is None else coroutines.turn
    if turn is None:
        return INVALID_SPAN
    if turn.is_replay:
        return _UNSEEN
    if isinstance(turn.trace, TurnSpan):
        return turn.trace.span
    context = context_of(turn.headers)  # a trace that is not sampled
    return INVALID_SPAN if context is None else NonRecordingSpan(context)


def _name_of(activation: Activation, envelope: Envelope) -> str:
    known = _call_of(activation.definition, envelope) is not None or envelope.kind not in _CALLS
    # What a sender calls what is not there may be anything.
    return _span_name(activation.actor.type, int(envelope.kind), envelope.name if known else names.UNKNOWN)


@lru_cache(1024)
def _span_name(type_name: str, kind: int, name: str) -> str:
    if kind == Kind.FIRING:
        return f"{names.TIMER} {type_name}"
    return f"{_OPERATION[kind]} {type_name}{': ' if kind in _RESUMING else '.'}{name if kind in _NAMED else _KIND[kind]}"


def _is_put_aside(activation: Activation, item: Item) -> bool:
    """Whether a message that has failed is not tried again."""
    back_off = None if activation.snapshot is None else activation.snapshot.back_off
    is_again = back_off is not None and back_off.seq == item.seq
    is_told = item.envelope.ask or item.envelope.kind is Kind.SPAWN  # its sender, or the parent
    return not is_told and not is_again and activation.failure is None


def _arguments(definition: Definition, envelope: Envelope) -> tuple[Any, Any] | None:
    call = _call_of(definition, envelope)
    return None if call is None or envelope.kind not in _CALLS else _decoded(call, envelope.payload, envelope.form)


def _call_of(definition: Definition, envelope: Envelope) -> Call | None:
    return definition.handlers.get(envelope.name) or definition.waits.get(envelope.name)


def _decoded(call: Call, payload: bytes, form: Form) -> tuple[Any, Any] | None:
    try:
        return call.decode(payload, form)
    except Exception:  # noqa: BLE001  decoding runs the user's code; the turn itself will say what is wrong
        return None

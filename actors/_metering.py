"""Metering: what the host tells of an epoch by figures.

It is only there where somebody reads them. What happened is counted once it is durable; what is, is looked at when it is asked for, from
another thread, in which nothing is changed. Of an epoch that has ended nothing is shown.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeVar, final

from ..storage import Committed, MeasuredStore, Store
from ..tracing import Instruments, Labels, names
from ._activation import Activation
from ._define import Definition
from ._dispatch import Dispatcher
from ._envelope import Envelope
from ._epoch import TELL_AFTER, Epoch
from ._ids import ActorId
from ._mailbox import Item
from ._outstanding import Outstanding
from ._records import DeadLetter, RequestKind
from ._steps import Steps
from ._turn import Turn

T = TypeVar("T")

MEASURED: Final = 8  # values of a batch that go into one histogram: the SDK takes 12 µs for each, a turn 20 µs in all

_TurnKey = tuple[str, str, str | None]  # actor type, handler, the class of what was raised


@final
class _Batch:
    """What happened in one batch."""

    __slots__ = ("counts", "measured", "turns")

    def __init__(self) -> None:
        self.turns: list[tuple[float, _TurnKey]] = []
        self.counts: dict[str, Counter[Labels]] = {}
        self.measured: dict[str, list[tuple[float, Labels]]] = {}

    def count(self, name: str, labels: Labels) -> None:
        self.counts.setdefault(name, Counter())[labels] += 1

    def measure(self, name: str, value: float, labels: Labels) -> None:
        self.measured.setdefault(name, []).append((value, labels))


@final
class Metering:
    """The figures of one epoch; it observes its commits."""

    def __init__(self, epoch: Epoch, dispatcher: Dispatcher, steps: Steps, store: Store, instruments: Instruments) -> None:
        self._epoch: Final = epoch
        self._dispatcher: Final = dispatcher
        self._steps: Final = steps
        self._store: Final = store
        self._instruments: Final = instruments
        self._began = 0.0  # the turn
        self._open, self._under_way = _Batch(), _Batch()
        self._durable: list[tuple[Committed, _Batch]] = []  # and not told yet
        self._told = 0, 0  # activations and passivations
        self._quarantined: set[ActorId] = set()
        self._types: Final = {definition.name for definition in epoch.registry}  # of which figures are shown, be they 0
        self._loop: Final = asyncio.get_running_loop()
        self._idle: asyncio.TimerHandle | None = None
        self._ages: dict[Labels, float] | None = None  # found with the depths, and asked for next
        instruments.watch(self)

    def __repr__(self) -> str:
        return f"<Metering of {self._epoch.fence}: {self._instruments!r}>"

    # --- turns ---

    def begin_turn(self, activation: Activation, item: Item, turn: Turn) -> None:
        """As `Listener.begin_turn`."""
        self._began = time.perf_counter()

    def end_turn(
        self, activation: Activation, item: Item, turn: Turn, error: BaseException | None, *, kept: bool = False, by_host: bool = False
    ) -> None:
        """As `Listener.end_turn`; what the host has done by itself is no turn of an actor's code."""
        if kept or by_host:
            return
        what = activation.actor.type, _handler_of(activation.definition, item.envelope), None if error is None else type(error).__name__
        self._open.turns.append((time.perf_counter() - self._began, what))

    # --- attempts at steps ---

    def begin_attempt(self, work: Outstanding) -> None:
        """As `Listener.begin_attempt`."""

    def end_attempt(self, work: Outstanding) -> None:
        """As `Listener.end_attempt`; what was only asked about another actor is no step, and one that never began no attempt."""
        began, work.began = work.began, 0.0
        if not began or work.row.kind is not RequestKind.STEP:
            return
        step = (names.STEP, work.row.name)
        is_cancelled = work.error == asyncio.CancelledError.__name__
        outcome = names.CANCELLED if is_cancelled else names.COMPLETED if work.error is None else names.FAILED
        self._open.measure(names.STEP_DURATION, self._epoch.clock.now() - began, (step, (names.OUTCOME, outcome)))
        if work.error is not None and not is_cancelled:
            self._open.count(names.STEPS_FAILED, (step, (names.ERROR_TYPE, work.error.rpartition(".")[2])))

    # --- other events ---

    def fired(self, activation: Activation, late: float) -> None:
        """As `Listener.fired`."""
        labels = _of_type(activation.actor)
        self._open.count(names.TIMERS_FIRED, labels)
        self._open.measure(names.TIMER_LATENESS, late, labels)

    def replayed(self, activation: Activation, messages: int, *, failed: bool) -> None:
        """As `Listener.replayed`; it is part of no batch, and counts at once."""
        labels = (*_of_type(activation.actor), (names.OUTCOME, names.FAILED if failed else names.COMPLETED))
        self._instruments.count(names.REPLAYS, {labels: 1})
        self._instruments.measure(names.REPLAY_LENGTH, [(messages, labels)])

    def put_aside(self, actor: ActorId, letter: DeadLetter) -> None:
        """As `Listener.put_aside`; of a type that is not served, since that may be any text, only that it is so."""
        type_name = actor.type if self._epoch.registry.serves(actor.type) else names.OTHER
        self._open.count(names.DEAD_LETTERS, ((names.ACTOR_TYPE, type_name), (names.ERROR_TYPE, _error_of(letter))))

    def quarantined(self, actor: ActorId, *, ended: bool = False) -> None:
        """As `Listener.quarantined`."""
        if ended:
            self._quarantined.discard(actor)
        else:
            self._quarantined.add(actor)

    # --- commits ---

    def begun(self) -> None:
        """As `Observer.begun`: the loop has time for what was durable before."""
        self._under_way, self._open = self._open, _Batch()
        if self._durable:
            self._loop.call_soon(self.drain)

    def committed(self, committed: Committed) -> None:
        """As `Observer.committed`."""
        self._durable.append((committed, self._under_way))
        if self._idle is None:
            self._idle = self._loop.call_later(TELL_AFTER, self.drain)

    def drain(self) -> None:
        """Count everything that is durable."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        durable, self._durable = self._durable, []
        for committed, batch in durable:
            self._tell(committed, batch)
        self._tell_activations()

    def close(self) -> None:
        """The epoch has ended: count what is durable of it, and show nothing more."""
        self._instruments.forget(self)
        self.drain()

    def _tell(self, committed: Committed, batch: _Batch) -> None:
        instruments = self._instruments
        instruments.measure(names.COMMIT_DURATION, [(committed.seconds, ())])
        instruments.measure(names.COMMIT_TURNS, [(committed.turns, ())])
        instruments.measure(names.COMMIT_SIZE, [(committed.size, ())])
        counts = Counter([what for _, what in batch.turns])
        turns: Counter[Labels] = Counter()
        for what, count in counts.items():
            turns[_labels_of(what)] += count
        instruments.count(names.TURNS, turns)
        instruments.count(names.TURNS_FAILED, {_failure_of(what): count for what, count in counts.items() if what[2] is not None})
        took = ((seconds, _labels_of(what)) for seconds, what in _some(batch.turns, committed.number))
        instruments.measure(names.TURN_DURATION, took)
        for name, counted in batch.counts.items():
            instruments.count(name, counted)
        for name, measured in batch.measured.items():
            instruments.measure(name, _some(measured, committed.number))

    def _tell_activations(self) -> None:
        now, before = self._dispatcher.statistics(), self._told
        self._told = now.activations, now.passivations
        self._instruments.count(names.ACTIVATIONS, {(): now.activations - before[0]})
        self._instruments.count(names.PASSIVATIONS, {(): now.passivations - before[1]})

    # --- states, looked at from the thread that collects ---

    def observe(self, name: str) -> dict[Labels, float]:
        """As `Observed.observe`."""
        match name:
            case names.MAILBOX_DEPTH:
                depths, self._ages = self._mailboxes()
                return depths
            case names.MAILBOX_HEAD_AGE:
                ages, self._ages = self._ages, None
                return self._mailboxes()[1] if ages is None else ages
            case names.ACTORS_QUARANTINED:
                return _totals({**dict.fromkeys(self._types, 0), **Counter(actor.type for actor in self._quarantined.copy())})
            case names.STORE_SIZE:
                return self._size()
            case _:
                return {(): self._statistic(name)}

    def _statistic(self, name: str) -> int:
        if name in (names.STEPS_RUNNING, names.STEPS_WAITING):
            steps = self._steps.statistics()
            return steps.running if name == names.STEPS_RUNNING else steps.waiting
        actors = self._dispatcher.statistics()
        return {names.ACTORS_ACTIVE: actors.active, names.ACTORS_READY: actors.ready, names.ACTORS_BACKLOG: actors.backlog}[name]

    def _mailboxes(self) -> tuple[dict[Labels, float], dict[Labels, float]]:
        """The depths of all mailboxes in memory, and the ages of the oldest of their heads, by type."""
        now = self._epoch.clock.now()
        depths: dict[str, int] = dict.fromkeys(self._types, 0)
        oldest: dict[str, float] = {}
        for activation in self._dispatcher.activations():
            mailbox, arrivals = activation.mailbox, activation.arrivals
            depth = (0 if mailbox is None else len(mailbox)) + (0 if arrivals is None else len(arrivals))
            if depth:
                type_name = activation.actor.type
                depths[type_name] = depths.get(type_name, 0) + depth
                oldest[type_name] = min(oldest.get(type_name, math.inf), _head_of(activation))
        ages = {type_name: max(0.0, now - sent_at) for type_name, sent_at in oldest.items() if sent_at != math.inf}
        return _totals(depths), _totals({**dict.fromkeys(depths, 0.0), **ages})

    def _size(self) -> dict[Labels, float]:
        try:
            return {(): self._store.size()} if isinstance(self._store, MeasuredStore) else {}
        except OSError:  # it is being moved away, or its disk is
            return {}


def _handler_of(definition: Definition, envelope: Envelope) -> str:
    """What is handled, in few words: a name that the type does not have may be any text."""
    name = envelope.name
    return name if name in definition.handlers or name in definition.waits else envelope.kind.name.lower()


@lru_cache(1024)
def _labels_of(what: _TurnKey) -> Labels:
    # The same names for all points of an instrument: an exporter for Prometheus (0.46b0) writes a metric twice otherwise, which none takes.
    type_name, handler, error = what
    outcome = names.COMPLETED if error is None else names.FAILED
    return ((names.ACTOR_TYPE, type_name), (names.HANDLER, handler), (names.OUTCOME, outcome))


def _failure_of(what: _TurnKey) -> Labels:
    type_name, handler, error = what
    return ((names.ACTOR_TYPE, type_name), (names.HANDLER, handler), (names.ERROR_TYPE, error or ""))


def _of_type(actor: ActorId) -> Labels:
    return ((names.ACTOR_TYPE, actor.type),)


def _totals(by_type: Mapping[str, float]) -> dict[Labels, float]:
    return {((names.ACTOR_TYPE, type_name),): value for type_name, value in by_type.items()}


def _error_of(letter: DeadLetter) -> str:
    return letter.failure.type_name.rpartition(".")[2]


def _head_of(activation: Activation) -> float:
    """When the oldest message was sent that is next in a lane; its loop may take it meanwhile. Of one that stands still nobody waits."""
    mailbox = activation.mailbox
    if mailbox is None or activation.failure is not None:
        return math.inf
    heads = (mailbox.interrupts.ready, mailbox.events.ready)
    try:
        return min((queue[0].envelope.sent_at or math.inf for queue in heads if queue), default=math.inf)
    except IndexError:
        return math.inf


def _some(measured: list[T], number: int) -> list[T]:
    """A few of many, evenly, beginning elsewhere in each batch, so that none is preferred for where it stands."""
    stride = -(-len(measured) // MEASURED)
    return measured if stride <= 1 else measured[number % stride :: stride]

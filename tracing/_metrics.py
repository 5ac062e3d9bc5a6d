"""Instruments: what is counted, measured and observed of all hosts that report to one meter.

Each is made once for its meter, however many hosts there are: their counts go into one total, and what they observe is added up, so that
nothing is told twice. A host that has ended is not observed, nor kept alive; what it has counted stays counted.
"""

from __future__ import annotations

import logging
import operator
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, final

from opentelemetry.metrics import Observation

from . import _names as names

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter

logger: Final = logging.getLogger("perdure.tracing")

Labels: TypeAlias = tuple[tuple[str, str], ...]  # the attributes of a figure, as pairs; never a key


class Observed(Protocol):
    """Something that is looked at when figures are collected: in another thread than its own, so it had better be quick."""

    def observe(self, name: str) -> Mapping[Labels, float]:
        """What an instrument shows of it now."""
        ...


class _Spec(NamedTuple):
    """An instrument; its unit is written as UCUM has it."""

    name: str
    unit: str
    description: str


# From 20 µs, which a turn of a small actor takes, to the 10 s after which one is interrupted.
_OF_TURNS: Final = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_OF_COMMITS: Final = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_OF_STEPS: Final = (1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)
_OF_LATENESS: Final = (1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0, 604800.0)
_COUNTS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4)
_SIZES: Final = tuple(float(1 << power) for power in range(8, 28, 2))

_COUNTERS: Final = (
    _Spec(names.TURNS, "{turn}", "Turns of actors' code that are durable, by what became of them"),
    _Spec(names.TURNS_FAILED, "{turn}", "Those of them that have failed, and were rolled back, by what was raised"),
    _Spec(names.STEPS_FAILED, "{attempt}", "Attempts at steps that have failed; most are tried again"),
    _Spec(names.TIMERS_FIRED, "{timer}", "Timers that have fired"),
    _Spec(names.ACTIVATIONS, "{actor}", "Actors brought into memory"),
    _Spec(names.PASSIVATIONS, "{actor}", "Actors that left memory to make room"),
    _Spec(names.REPLAYS, "{replay}", "Replays of what waits of an actor, when it comes back into memory"),
    _Spec(names.DEAD_LETTERS, "{message}", "Messages put into the dead letters"),
)

_HISTOGRAMS: Final = (
    (_Spec(names.TURN_DURATION, "s", "How long turns took, commits apart; of a crowded batch only some are measured"), _OF_TURNS),
    (_Spec(names.COMMIT_DURATION, "s", "How long a batch took to become durable, from its closing"), _OF_COMMITS),
    (_Spec(names.COMMIT_TURNS, "{turn}", "Changes that became durable together, most of them turns"), _COUNTS),
    (_Spec(names.COMMIT_SIZE, "By", "The size of a batch's rows"), _SIZES),
    (_Spec(names.STEP_DURATION, "s", "How long attempts at steps took"), _OF_STEPS),
    (
        _Spec(names.TIMER_LATENESS, "s", "How long after they were due timers have fired; of a crowded batch only some are measured"),
        _OF_LATENESS,
    ),
    (_Spec(names.REPLAY_LENGTH, "{message}", "The messages of a replay"), _COUNTS),
)

# What is observed is the sum over all hosts, or the greatest: the age of the oldest message is no sum.
_STATES: Final = (
    _Spec(names.MAILBOX_DEPTH, "{message}", "Messages in the mailboxes of actors in memory"),
    _Spec(names.STEPS_RUNNING, "{step}", "Steps at work, and questions to other actors"),
    _Spec(names.STEPS_WAITING, "{step}", "Steps that wait for their next attempt, or for a place"),
    _Spec(names.ACTORS_ACTIVE, "{actor}", "Actors in memory"),
    _Spec(names.ACTORS_READY, "{actor}", "Actors in memory that wait for their turn"),
    _Spec(names.ACTORS_BACKLOG, "{actor}", "Actors with messages that wait to come into memory"),
    _Spec(names.ACTORS_QUARANTINED, "{actor}", "Actors that stand still, and need somebody to look at them"),
    _Spec(names.STORE_SIZE, "By", "The size of the store's files"),
)
_EXTREMES: Final = (
    _Spec(names.MAILBOX_HEAD_AGE, "s", "The age of the oldest message that is next in a mailbox; of quarantined actors none"),
)


@final
class Instruments:
    """The instruments of one meter."""

    __module__ = "perdure.tracing"

    def __init__(self, meter: Meter) -> None:
        self._lock: Final = threading.Lock()  # hosts count in their threads, collecting has its own
        self._totals: Final[dict[str, dict[Labels, int]]] = {spec.name: {} for spec in _COUNTERS}
        self._observed: tuple[weakref.ref[Observed], ...] = ()
        self._has_complained = False
        self._histograms: Final = {spec.name: _histogram(meter, spec, bounds) for spec, bounds in _HISTOGRAMS}
        for name, unit, description in _COUNTERS:
            meter.create_observable_counter(name, [partial(self._counted, name)], unit, description)
        for name, unit, description in _STATES:
            meter.create_observable_up_down_counter(name, [partial(self._seen, name, operator.add)], unit, description)
        for name, unit, description in _EXTREMES:
            meter.create_observable_gauge(name, [partial(self._seen, name, max)], unit, description)

    def __repr__(self) -> str:
        return f"<Instruments of {len(self._observed)} hosts>"

    @classmethod
    def of(cls, meter: Meter) -> Instruments | None:
        """Those of a meter: always the same ones. None if it fails to make them."""
        with _making:
            try:
                found = _made.get(meter)
                if found is None:
                    found = _made[meter] = cls(meter)
            except Exception:  # the program's meter provider may be anything
                logger.exception("no figures are told, since the instruments for them cannot be made")
                return None
            return found

    # --- events ---

    def count(self, name: str, counts: Mapping[Labels, int]) -> None:
        """Add to a counter."""
        totals = self._totals[name]
        with self._lock:
            for labels, count in counts.items():
                totals[labels] = totals.get(labels, 0) + count

    def measure(self, name: str, values: Iterable[tuple[float, Labels]]) -> None:
        """Add to a histogram: some 12 µs each, where a turn costs 20. What it fails to take is lost, and its error is told once."""
        record = self._histograms[name].record
        for value, labels in values:
            try:
                record(value, dict(labels))
            except Exception:  # views and what they measure by are the program's
                if not self._has_complained:
                    logger.exception("figures are lost, since they cannot be measured by %s", name)
                self._has_complained = True

    # --- states ---

    def watch(self, observed: Observed) -> None:
        """Look at it from now on, for as long as it lives."""
        with self._lock:
            self._observed = (*(ref for ref in self._observed if ref() is not None), weakref.ref(observed))

    def forget(self, observed: Observed) -> None:
        """Look at it no more."""
        with self._lock:
            self._observed = tuple(ref for ref in self._observed if ref() not in {None, observed})

    def _counted(self, name: str, _: CallbackOptions) -> list[Observation]:
        with self._lock:
            totals = self._totals[name].copy()
        return [Observation(count, dict(labels)) for labels, count in totals.items()]

    def _seen(self, name: str, join: Callable[[float, float], float], _: CallbackOptions) -> list[Observation]:
        found: dict[Labels, float] = {}
        for reference in self._observed:
            observed = reference()
            for labels, value in () if observed is None else observed.observe(name).items():
                found[labels] = join(found[labels], value) if labels in found else value
        return [Observation(value, dict(labels)) for labels, value in found.items()]


_made: Final[weakref.WeakKeyDictionary[Meter, Instruments]] = weakref.WeakKeyDictionary()
_making: Final = threading.Lock()


def _histogram(meter: Meter, spec: _Spec, boundaries: Sequence[float]) -> Histogram:
    name, unit, description = spec
    try:
        return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=boundaries)
    except TypeError:  # an API of before 1.30: there the boundaries are a view's, which is the program's
        return meter.create_histogram(name, unit, description)

"""One message, one turn: what is done around the sans-IO core.

A handler that fails, hangs or kills its host costs no other actor anything but time, and its own actor no more than that message.
"""

from __future__ import annotations

from functools import partial
from typing import Final, final

from ._activation import MAX_INTERRUPTED, Activation, refuse_deadly
from ._breadcrumb import Phase
from ._coroutines import Coroutines
from ._envelope import STARTS, Envelope, Kind
from ._epoch import Epoch
from ._errors import HandlerInterrupted, UnknownHandler, WrongArguments
from ._ids import Incarnation, continued, first_incarnation, life_of, renewed
from ._mailbox import Item
from ._records import Standing, Status, Value
from ._settlement import Settlement
from ._taking import Taken, take_turn
from ._turn import Turn

SIGNAL_ATTEMPTS: Final = 3  # a signal is retried at once, so that it does not overtake itself

_AT_ANY_TIME: Final = frozenset({Kind.RESULT, Kind.EMIT, Kind.CANCEL, Kind.TERMINATE})
_OF_FAMILIES: Final = frozenset({Kind.CHILD_EXIT, Kind.RENEW, Kind.SETTLE, Kind.ORPHAN})

# What cannot be put aside, since a workflow would wait for it for ever.
_INDISPENSABLE: Final = STARTS | {
    Kind.DECLARED,
    Kind.OUTCOME,
    Kind.REPLY,
    Kind.FIRING,
    Kind.CHILD_EXIT,
    Kind.ESCALATE,
    Kind.CANCEL,
    Kind.RENEW,
    Kind.POISONED,
}


OF_ITS_SENDER: Final = STARTS - {Kind.CONTINUE} | {Kind.EVENT, Kind.SIGNAL}  # code of their own runs with them


def stops_its_actor(kind: Kind, error: BaseException) -> bool:
    """Whether an actor stands still at a message that has failed so; any other is put aside, as is what its sender got wrong."""
    is_told = isinstance(error, WrongArguments | UnknownHandler) and kind is not Kind.CONTINUE  # to its sender
    return kind in _INDISPENSABLE and not is_told


@final
class Performer:
    """Takes turns, one at a time."""

    __slots__ = ("_epoch", "_settlement")

    def __init__(self, epoch: Epoch, settlement: Settlement) -> None:
        self._epoch = epoch
        self._settlement = settlement

    def may_run(self, activation: Activation, item: Item) -> bool:
        """Whether the turn may be taken now: a message that a host has died in waits until everything it builds upon is durable."""
        return not self._epoch.charges or item.envelope.id not in self._epoch.charges or activation.gate.open

    def perform(self, activation: Activation, item: Item) -> None:
        """Handle the message: for good, or until its next attempt."""
        turn = self._new_turn(activation, item)
        kind, snapshot = item.envelope.kind, activation.snapshot
        if (kind is Kind.EVENT or kind is Kind.SIGNAL) and (snapshot is None or (snapshot.standing is None and not snapshot.status.is_end)):
            self._handle(activation, item, turn)  # as most are
            return
        for_code = self._for_code(activation, item, turn)
        if for_code is not None:
            self._handle(activation, for_code, self._new_turn(activation, item) if activation.snapshot is not snapshot else turn)
        elif turn.trace is not None and turn.trace.is_known:
            self._tell(activation, item, turn, by_host=True)

    def _new_turn(self, activation: Activation, item: Item) -> Turn:
        snapshot, envelope = activation.snapshot, item.envelope
        now = self._epoch.clock.now()
        if envelope.due > now and envelope.parent is None:  # what a parent says is due is yet to come
            now = envelope.due
        if snapshot is None:
            life = first_incarnation(activation.actor, envelope.id)
            turn = Turn(activation.definition, activation.actor, life, 1, now, self._epoch, item.seq, envelope.headers)
        else:
            time = max(now, snapshot.updated)  # the clock of another machine, or of before a restart, may have been ahead
            turn = Turn(
                activation.definition,
                activation.actor,
                snapshot.incarnation,
                snapshot.turn + 1,
                time,
                self._epoch,
                item.seq,
                envelope.headers if snapshot.standing is None else _headers_of(envelope, snapshot.standing),
            )
            if activation.signals is not None:
                turn.signals = activation.signals
            if snapshot.back_off is not None and snapshot.back_off.seq == item.seq:
                turn.attempt += snapshot.back_off.attempts
        if self._epoch.charges:
            turn.attempt += self._settlement.books.interrupted(item)
        if self._epoch.listener is not None:
            self._epoch.listener.begin_turn(activation, item, turn)
        return turn

    def _for_code(self, activation: Activation, item: Item, turn: Turn) -> Item | None:
        """The message as it is for the actor's code; None if it was for the host, which has dealt with it, or means nothing any more."""
        kind, settlement = item.envelope.kind, self._settlement
        if kind in _AT_ANY_TIME:
            return self._at_any_time(activation, item, turn)
        if activation.status.is_end and kind not in STARTS:
            settlement.turn_away(activation, item, turn)
        elif self._is_stale(activation, item):
            settlement.books.drop(activation, item, turn)
        elif kind in _OF_FAMILIES:
            return self._in_the_family(activation, item, turn)
        elif kind in STARTS:
            return item if self._begins(activation, item, turn) else None
        elif kind is Kind.DECLARED:
            return None if self._keeps_signal(activation, item, turn) else item
        elif kind is Kind.SIGNAL and activation.standing.is_waiting:
            settlement.keep_signal(activation, item, turn)
        elif kind is Kind.POISONED and activation.status is not Status.SUSPENDED:
            settlement.end_poisoned(activation, item, turn)
        else:
            return item
        return None

    def _at_any_time(self, activation: Activation, item: Item, turn: Turn) -> Item | None:
        """The same for what is heard by an actor that has ended, too."""
        settlement, lives = self._settlement, self._settlement.lives
        match item.envelope.kind:
            case Kind.RESULT:
                lives.await_result(activation, item, turn)
            case Kind.EMIT:
                settlement.append(activation, item, turn)
            case Kind.CANCEL:
                return None if lives.cancel(activation, item, turn) else item
            case _:  # a termination that had to wait for what it ends
                settlement.books.skip(activation, item, turn)
                lives.terminate(activation, item.envelope)
                settlement.books.telling.conclude(activation, item.seq, item.envelope, Value(b""))
        return None

    def _in_the_family(self, activation: Activation, item: Item, turn: Turn) -> Item | None:
        """The same for what parents and children tell each other."""
        lives = self._settlement.lives
        if item.envelope.kind is Kind.CHILD_EXIT:
            return lives.families.hear(activation, item, turn)
        if item.envelope.kind is Kind.RENEW:
            return None if lives.renew(activation, item, turn) else item
        self._settlement.books.skip(activation, item, turn)
        if item.envelope.kind is Kind.ORPHAN:
            lives.orphan(activation, item.envelope, turn.time)
        else:
            lives.be_settled(activation, item.envelope, turn.time)
        return None

    def _begins(self, activation: Activation, item: Item, turn: Turn) -> bool:
        try:
            return self._settlement.lives.begins(activation, item, turn)
        except Exception as error:  # noqa: BLE001  decoding runs the user's code
            self._settlement.fail(activation, item, error, turn, 0)
            self._tell(activation, item, turn, error)
            return False

    def _keeps_signal(self, activation: Activation, item: Item, turn: Turn) -> bool:
        definition, name = activation.definition, item.envelope.name
        if name not in definition.waits:
            error = UnknownHandler(definition.name, name, "signal", definition.waits)
            self._settlement.fail(activation, item, error, turn, 0)
            self._tell(activation, item, turn, error)
        elif activation.coroutines is None or not activation.coroutines.awaits_signal(name):
            self._settlement.keep_signal(activation, item, turn)
            self._tell(activation, item, turn, kept=True)
        else:
            return False
        return True

    def _is_stale(self, activation: Activation, item: Item) -> bool:
        """Whether it was meant for what is not waited for any more."""
        envelope = item.envelope
        if envelope.kind is Kind.FIRING:
            return activation.standing.wake != envelope.due
        if envelope.kind is Kind.OUTCOME or envelope.kind is Kind.REPLY:
            return activation.coroutines is None or not activation.coroutines.outcomes.awaits(envelope.id)
        if envelope.kind is Kind.CONTINUE:  # perhaps it was restarted before it could go on
            return _goes_on_no_more(activation, life_of(envelope.id))
        return False

    def _handle(self, activation: Activation, item: Item, turn: Turn) -> None:
        interrupted = self._settlement.books.interrupted(item) if self._epoch.charges else 0
        if interrupted >= MAX_INTERRUPTED:
            self._fail(activation, item, HandlerInterrupted(activation.actor, item.envelope.name, interrupted), turn, 0)
            return
        if activation.failed[0] == item.seq:
            turn.attempt += activation.failed[1]
        allowed = SIGNAL_ATTEMPTS if item.envelope.kind is Kind.SIGNAL else 1
        while (instance := self._instance(activation, item, turn)) is not None:
            was_suspended = activation.status is Status.SUSPENDED
            taken = self._attempt(activation, instance, item, turn)
            if isinstance(taken, Taken):
                self._settlement.succeed(activation, item, taken, turn)
                if self._epoch.listener is not None:
                    self._epoch.listener.end_turn(activation, item, turn, None)
                return
            activation.forget_instance()
            attempts = activation.failed[1] + 1 if activation.failed[0] == item.seq else 1
            activation.failed = item.seq, attempts
            if attempts >= allowed:
                self._fail(activation, item, taken, turn, attempts)
                return
            if was_suspended:  # what waits has to be replayed before the next attempt
                activation.trace = turn.trace
                return
            turn.start_again()

    def _fail(self, activation: Activation, item: Item, error: BaseException, turn: Turn, attempts: int) -> None:
        activation.failed = (0, 0)
        if stops_its_actor(item.envelope.kind, error):
            self._settlement.stand_still(activation, item, error, turn)
        else:
            self._settlement.fail(activation, item, error, turn, attempts)
        self._tell(activation, item, turn, error)

    def _tell(
        self,
        activation: Activation,
        item: Item,
        turn: Turn,
        error: BaseException | None = None,
        *,
        kept: bool = False,
        by_host: bool = False,
    ) -> None:
        if self._epoch.listener is not None:
            self._epoch.listener.end_turn(activation, item, turn, error, kept=kept, by_host=by_host)

    def _attempt(self, activation: Activation, instance: object, item: Item, turn: Turn) -> Taken | BaseException:
        breadcrumbs, coroutines = self._epoch.breadcrumbs, activation.coroutines or self._epoch.spare
        work = partial(take_turn, activation.definition, instance, item.seq, item.envelope, turn, coroutines)
        breadcrumbs.enter(Phase.TURN, item.envelope.id)
        try:
            taken = self._epoch.watchdog.guard((activation.actor, item.envelope.name), work)
        except KeyboardInterrupt:  # the only one that ends the host; the crumb stays, since it may be the message's and end the next one
            self._throw_away(activation, coroutines)
            raise
        except BaseException as error:  # noqa: BLE001  handlers raise whatever they like
            breadcrumbs.leave()
            self._throw_away(activation, coroutines)
            return error
        breadcrumbs.leave()
        if coroutines.evicted:
            self._throw_away(activation, coroutines)
        elif activation.coroutines is None and (taken.suspended or coroutines.loop.has_made_futures):
            # Something of the actor waits; or a lock, an event, a queue in its state has been waited for, and belongs to this loop now.
            activation.coroutines = self._epoch.renew_spare()
        return taken

    def _throw_away(self, activation: Activation, coroutines: Coroutines) -> None:
        if coroutines is self._epoch.spare:
            self._epoch.renew_spare().evict()
        activation.forget_instance()

    def _instance(self, activation: Activation, item: Item, turn: Turn) -> object | None:
        """The actor's instance, or None if it cannot be had; then the actor is quarantined."""
        try:
            if self._epoch.charges:
                refuse_deadly(self._epoch, activation)
            instance = activation.instance(self._epoch, turn)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  decoding and activation hooks run the user's code
            activation.forget_instance()
            self._settlement.quarantine(activation, error)
            self._tell(activation, item, turn, error)
            return None
        if self._epoch.charges:
            self._settlement.books.discharge(activation.decoding)
        return instance


def _headers_of(envelope: Envelope, standing: Standing) -> dict[str, str] | None:
    """The trace context of a turn: its sender's, or of who has set a timer, but where what waits goes on with it, that of what waits."""
    if standing.trace is None or (envelope.headers is not None and (envelope.kind in OF_ITS_SENDER or envelope.kind is Kind.TIMER)):
        return envelope.headers
    return standing.trace


def _goes_on_no_more(activation: Activation, life: Incarnation) -> bool:
    """Whether an actor does not go on from a life any more: it was ended or begun anew meanwhile, or its parent has yet to speak."""
    snapshot, is_over = activation.snapshot, activation.status.is_end or activation.standing.is_waiting
    return is_over or snapshot is None or snapshot.incarnation not in {continued(life), renewed(life)}

"""One message, one turn: what is done around the sans-IO core.

A handler that fails, hangs or kills its host costs no other actor anything but time, and its own actor no more than that message.
"""

from __future__ import annotations

from functools import partial
from typing import Final, final

from ._activation import Activation
from ._breadcrumb import Phase
from ._envelope import Kind
from ._epoch import Epoch
from ._errors import ActorQuarantined, HandlerInterrupted, UnknownHandler
from ._ids import first_incarnation
from ._mailbox import Item
from ._settlement import Settlement
from ._turn import Taken, Turn, take_turn

MAX_INTERRUPTED: Final = 3  # attempts at one message in which the host died, before the message is put aside
SIGNAL_ATTEMPTS: Final = 3  # a signal is retried at once, so that it does not overtake itself


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
        if item.envelope.kind is Kind.DECLARED:
            self._keep_signal(activation, item, turn)
        else:
            self._handle(activation, item, turn)

    def _new_turn(self, activation: Activation, item: Item) -> Turn:
        snapshot, envelope = activation.snapshot, item.envelope
        now = self._epoch.clock.now()
        if snapshot is None:
            return Turn(activation.actor, first_incarnation(activation.actor, envelope.id), 1, now, self._epoch, item.seq, envelope.headers)
        time = max(now, snapshot.updated)  # the clock of another machine, or of before a restart, may have been ahead
        turn = Turn(activation.actor, snapshot.incarnation, snapshot.turn + 1, time, self._epoch, item.seq, envelope.headers)
        if snapshot.back_off is not None and snapshot.back_off.seq == item.seq:
            turn.attempt += snapshot.back_off.attempts
        if self._epoch.charges:
            turn.attempt += self._settlement.interrupted(item)
        return turn

    def _keep_signal(self, activation: Activation, item: Item, turn: Turn) -> None:
        definition = activation.definition
        if item.envelope.name in definition.waits:
            self._settlement.keep_signal(activation, item, turn)
        else:
            error = UnknownHandler(definition.name, item.envelope.name, "signal", definition.waits)
            self._settlement.fail(activation, item, error, turn, 0)

    def _handle(self, activation: Activation, item: Item, turn: Turn) -> None:
        interrupted = self._settlement.interrupted(item) if self._epoch.charges else 0
        if interrupted >= MAX_INTERRUPTED:
            error = HandlerInterrupted(activation.actor, item.envelope.name, interrupted)
            self._settlement.fail(activation, item, error, turn, 0)
            return
        allowed = SIGNAL_ATTEMPTS if item.envelope.kind is Kind.SIGNAL else 1
        attempts = 0
        while (instance := self._instance(activation)) is not None:
            taken = self._attempt(activation, instance, item, turn)
            if isinstance(taken, Taken):
                self._settlement.succeed(activation, item, taken, turn)
                return
            activation.forget_instance()
            attempts += 1
            if attempts == allowed:
                self._settlement.fail(activation, item, taken, turn, attempts)
                return
            turn.start_again()

    def _attempt(self, activation: Activation, instance: object, item: Item, turn: Turn) -> Taken | BaseException:
        breadcrumbs = self._epoch.breadcrumbs
        work = partial(take_turn, activation.definition, instance, item.envelope, turn, self._epoch.loop)
        breadcrumbs.enter(Phase.TURN, item.envelope.id)
        try:
            return self._epoch.watchdog.guard((activation.actor, item.envelope.name), work)
        except KeyboardInterrupt:  # the only one that is for the host
            activation.forget_instance()
            raise
        except BaseException as error:  # noqa: BLE001  handlers raise whatever they like
            return error
        finally:
            breadcrumbs.leave()

    def _instance(self, activation: Activation) -> object | None:
        """The actor's instance, or None if it cannot be had; then the actor is quarantined."""
        charge = self._epoch.charges.get(activation.decoding) if self._epoch.charges else None
        try:
            if charge is not None and charge.interrupted >= MAX_INTERRUPTED:
                times = f"the host died {charge.interrupted} times while it read the actor's state"
                raise ActorQuarantined(activation.actor, times)
            instance = activation.instance(self._epoch)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  decoding and activation hooks run the user's code
            activation.forget_instance()
            self._settlement.quarantine(activation, error)
            return None
        if charge is not None:
            self._settlement.discharge(activation.decoding)
        return instance

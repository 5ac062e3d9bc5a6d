"""Firing: what is due is put into an actor's mailbox, as messages of the host's own.

A named timer that has fired is set for its next time, or gone, in the same batch. What the coroutines wait for, and a new beginning, stay
as they are until that is handled: so one that has been set anew meanwhile is dropped.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from ._activation import Activation
from ._books import Books
from ._envelope import Kind
from ._records import NamedTimer


@final
class Firing:
    """Fires the timers of actors in memory."""

    __slots__ = ("_books",)

    def __init__(self, books: Books) -> None:
        self._books: Final = books

    def fire(self, activation: Activation, now: float) -> None:
        """Put what is due by now into the mailbox: calls of named timers, one firing for what the coroutines wait for, a new beginning."""
        standing = activation.standing
        self._post_once(activation, Kind.FIRING, standing.wake, now)
        self._post_once(activation, Kind.RENEW, None if standing.run is None else standing.run.again, now)
        due = [timer for timer in standing.timers if timer.due <= now]
        if not due:
            return
        for timer in due:
            payload = activation.definition.codec.encode(())
            self._books.post(activation, Kind.TIMER, timer.name, now, payload=payload, due=timer.due, headers=timer.headers)
            self._tell(activation, now - timer.due)
        timers = [timer for timer in standing.timers if timer.due > now]
        timers += [_next(timer, now) for timer in due if timer.every]
        activation.rearm(msgspec.structs.replace(standing, timers=timers))
        self._books.touch(activation, 100)
        self._books.set_alarm(activation)

    def _post_once(self, activation: Activation, kind: Kind, due: float | None, now: float) -> None:
        if due is not None and due <= now and activation.fired != due:
            activation.fired = due
            self._books.post(activation, kind, "", now, due=due)
            if kind is Kind.FIRING:
                self._tell(activation, now - due)

    def _tell(self, activation: Activation, late: float) -> None:
        listener = self._books.epoch.listener
        if listener is not None:
            listener.fired(activation, late)


def _next(timer: NamedTimer, now: float) -> NamedTimer:
    """A periodic timer's next time, in step with its first one: the next of all if it catches up, else the next that is to come."""
    if timer.catch_up:
        return msgspec.structs.replace(timer, due=timer.due + timer.every)
    periods = 1 + int(max(0.0, now - timer.due) // timer.every)
    due = timer.due + periods * timer.every
    return msgspec.structs.replace(timer, due=due if due > now else due + timer.every)

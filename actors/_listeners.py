"""Listeners: traces and figures at once, so that whoever tells of something looks at one place.

What spans cost is no part of what is measured of a turn: that begins last, and ends first.
"""

from __future__ import annotations

from typing import Final, final

from ..storage import Committed
from ._activation import Activation
from ._ids import ActorId
from ._mailbox import Item
from ._metering import Metering
from ._outstanding import Outstanding
from ._records import DeadLetter
from ._telemetry import Telemetry
from ._turn import Turn


@final
class Listeners:
    """Traces and figures both: what is told to this is told to either."""

    def __init__(self, telemetry: Telemetry, metering: Metering) -> None:
        self._telemetry: Final = telemetry
        self._metering: Final = metering

    def __repr__(self) -> str:
        return f"<Listeners {self._telemetry!r}, {self._metering!r}>"

    def begin_turn(self, activation: Activation, item: Item, turn: Turn) -> None:
        """As `Listener.begin_turn`."""
        self._telemetry.begin_turn(activation, item, turn)
        self._metering.begin_turn(activation, item, turn)

    def end_turn(
        self, activation: Activation, item: Item, turn: Turn, error: BaseException | None, *, kept: bool = False, by_host: bool = False
    ) -> None:
        """As `Listener.end_turn`."""
        self._metering.end_turn(activation, item, turn, error, kept=kept, by_host=by_host)
        self._telemetry.end_turn(activation, item, turn, error, kept=kept, by_host=by_host)

    def begin_attempt(self, work: Outstanding) -> None:
        """As `Listener.begin_attempt`."""
        self._telemetry.begin_attempt(work)

    def end_attempt(self, work: Outstanding) -> None:
        """As `Listener.end_attempt`."""
        self._metering.end_attempt(work)
        self._telemetry.end_attempt(work)

    def fired(self, activation: Activation, late: float) -> None:
        """As `Listener.fired`."""
        self._metering.fired(activation, late)

    def replayed(self, activation: Activation, messages: int, *, failed: bool) -> None:
        """As `Listener.replayed`."""
        self._metering.replayed(activation, messages, failed=failed)

    def put_aside(self, actor: ActorId, letter: DeadLetter) -> None:
        """As `Listener.put_aside`."""
        self._metering.put_aside(actor, letter)

    def quarantined(self, actor: ActorId, *, ended: bool = False) -> None:
        """As `Listener.quarantined`."""
        self._metering.quarantined(actor, ended=ended)

    def begun(self) -> None:
        """As `Observer.begun`."""
        self._metering.begun()
        self._telemetry.begun()

    def committed(self, committed: Committed) -> None:
        """As `Observer.committed`."""
        self._metering.committed(committed)
        self._telemetry.committed(committed)

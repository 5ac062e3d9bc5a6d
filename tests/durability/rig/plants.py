"""Planted bugs: each breaks one promise of the product from outside, to show that the rig would see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from perdure.actors._activation import Activation
from perdure.actors._dispatch import Dispatcher
from perdure.actors._mailbox import LaneQueue
from perdure.storage import Batch, Gate, _lmdb


def acknowledge_before_the_commit() -> None:
    """Gates let everybody through at once."""

    def when_open(self: Gate, passage: Callable[[BaseException | None], None]) -> None:
        passage(self.error)

    Gate.when_open = when_open  # type: ignore[method-assign]


def forget_which_offers_were_accepted() -> None:
    """The position in the inbox is not part of the batch."""
    Batch.accept = lambda self, number: None  # type: ignore[method-assign]


def leave_arrivals_in_memory() -> None:
    """A message for an actor that is not in memory yet gets no row."""
    Activation._stage_arrival = lambda self, batch, epoch, delivery: None  # type: ignore[method-assign]


def keep_handled_messages() -> None:
    """The row of a handled message stays."""
    staged = LaneQueue.staged

    def without_gone(self: LaneQueue) -> Any:
        return staged(self)[0], []

    LaneQueue.staged = without_gone  # type: ignore[method-assign]


def passivate_without_writing() -> None:
    """What an actor learned since its last commit goes with it when it leaves memory."""

    def passivate(self: Dispatcher, activation: Activation) -> None:
        activation.dirty = False

    Dispatcher._passivate = passivate  # type: ignore[method-assign]


def tear_batches() -> None:
    """A batch is written in two transactions."""
    apply = _lmdb._apply

    def half(transaction: Any, batch: Batch, fence: Any, store: str) -> int:
        puts = dict(batch.puts)
        batch.puts = {key: value for place, (key, value) in enumerate(puts.items()) if place % 2}
        result = apply(transaction, batch, fence, store)
        batch.puts = {key: value for place, (key, value) in enumerate(puts.items()) if not place % 2}
        return result

    def commit(self: Any, batch: Batch, fence: Any, staged: Any) -> bool:
        self._main.write(lambda transaction: half(transaction, batch, fence, str(self)), lambda: None)
        self._main.write(lambda transaction: apply(transaction, batch, fence, str(self)), staged)
        return True

    _lmdb.LmdbStore._commit = commit  # type: ignore[method-assign]


PLANTS: Final = {
    function.__name__: function
    for function in (
        acknowledge_before_the_commit,
        forget_which_offers_were_accepted,
        leave_arrivals_in_memory,
        keep_handled_messages,
        passivate_without_writing,
        tear_batches,
    )
}


def plant(name: str) -> None:
    """Break the product in this process, if a name is given."""
    if name:
        PLANTS[name]()

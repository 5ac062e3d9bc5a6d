"""Planted bugs that a simulation must find: those of the rig that do not need a real disk, and some of its own."""

from __future__ import annotations

from typing import Final

from perdure.actors import Supervision
from perdure.actors._activation import Activation
from perdure.actors._dispatch import Dispatcher
from perdure.actors._journal import Recorded
from perdure.actors._records import Asked, RequestKind
from perdure.actors._telling import Telling
from perdure.actors.testing import SimulatedDisk
from perdure.storage import Batch

from tests.durability.rig.plants import AT_ERRORS, AT_KILLS, AT_POWER_FAILURES


def ignore_checksums() -> None:
    """What is found on the disk is taken for what was written."""
    SimulatedDisk.is_whole = lambda self, record, checksum: bool(record)  # type: ignore[method-assign]


def acknowledge_before_the_sync() -> None:
    """A commit returns while what it has written may still be lost."""
    sync = SimulatedDisk.sync

    def too_early(self: SimulatedDisk) -> None:
        synced = self.synced
        sync(self)
        self.synced = synced

    SimulatedDisk.sync = too_early  # type: ignore[method-assign]


def fire_timers_early() -> None:
    """A timer that is due within a second counts as due."""

    def see_to_timers(self: Dispatcher, activation: Activation, now: float) -> None:
        if self.fires and activation.failure is None and activation.snapshot is not None and activation.snapshot.next_due <= now + 1:
            self.settlement.firing.fire(activation, now + 1)

    Dispatcher._see_to_timers = see_to_timers  # type: ignore[method-assign]


def forget_who_has_mail() -> None:
    """An actor that leaves memory with messages in its mailbox is not looked after."""
    passivate = Dispatcher._passivate

    def forgetting(self: Dispatcher, activation: Activation) -> None:
        passivate(self, activation)
        self._has_rows.discard(activation.actor)

    Dispatcher._passivate = forgetting  # type: ignore[method-assign]


def replay_without_comparing() -> None:
    """What a replay asks for is not held against what was asked for."""

    def first(self: Recorded, kind: RequestKind, name: str, digest: bytes, due: float, now: list[Asked]) -> Asked:
        for nth, asked in self._asked.items():
            if asked.kind is kind:
                return self._asked.pop(nth)
        return Asked(kind, name, -1)

    Recorded.match = first  # type: ignore[method-assign]
    Recorded.finish = lambda self, now: None  # type: ignore[method-assign]


def keep_deleted_actors() -> None:
    """The rows of an actor that is deleted stay."""
    Batch.delete_range = lambda self, range_: None  # type: ignore[method-assign]


def restart_failed_children_no_more() -> None:
    """A child that fails stays as it is, whatever its parent's supervision says."""
    Supervision.directive = lambda self, error: "stop"  # type: ignore[method-assign]


def drop_what_fails() -> None:
    """A message that cannot be handled is gone."""
    Telling.put_dead_letter = lambda self, actor, seq, letter: None  # type: ignore[method-assign]


OF_REAL_DISKS: Final = {"leave_out_syncs", "leave_the_header_unsynced", "try_failed_commits_again", "tear_batches"}
OF_OTHER_PROCESSES: Final = {"forget_which_offers_were_accepted", "take_offers_backwards"}
OF_THE_RIG: Final = AT_POWER_FAILURES | AT_ERRORS | AT_KILLS
PLANTS: Final = {name: plant for name, plant in OF_THE_RIG.items() if name not in OF_REAL_DISKS | OF_OTHER_PROCESSES} | {
    function.__name__: function
    for function in (
        ignore_checksums,
        acknowledge_before_the_sync,
        fire_timers_early,
        forget_who_has_mail,
        drop_what_fails,
        replay_without_comparing,
        keep_deleted_actors,
        restart_failed_children_no_more,
    )
}

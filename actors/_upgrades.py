"""Upgrades: an actor that comes into memory gets the version of its type that goes on with it, and a state that this can hold.

What was migrated is staged at once, and the actor takes no turn before; a failed migration changes nothing.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final, final

from ._activation import MAX_INTERRUPTED, Activation
from ._breadcrumb import Phase
from ._define import Definition
from ._epoch import Epoch
from ._errors import ActorQuarantined, TurnDidNotEnd, shell_form
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._persistence import key_digest
from ._records import Outcome, Snapshot, Status, Value, refusal
from ._settlement import Settlement
from ._taking import migrate
from ._version_errors import MigrationFailed, VersionMismatch
from ._versions import is_outdated, version_for

# An actor that stands still because of one of these goes on whenever a host has what was missing.
ENDS_BY_ITSELF: Final = frozenset({f"{cls.__module__}.{cls.__qualname__}" for cls in (VersionMismatch, MigrationFailed)})

logger = logging.getLogger("perdure.actors")


def is_of_versions(failure: Failure) -> bool:
    """Whether an actor stands still because of the versions that were hosted."""
    return failure.type_name in ENDS_BY_ITSELF


def seen_today(epoch: Epoch, actor: ActorId, snapshot: Snapshot | None) -> tuple[Definition, Snapshot | None]:
    """The version that goes on with an actor, and its snapshot as that would have it. Raises VersionMismatch, MigrationFailed."""
    definition = version_for(epoch.registry, actor, snapshot)
    if snapshot is None or not is_outdated(snapshot, definition):
        return definition, snapshot
    with epoch.spared() as coroutines:
        work = partial(migrate, definition, actor, snapshot, epoch, coroutines)
        try:
            return definition, epoch.watchdog.guard((actor, "the migration of its state"), work)
        except TurnDidNotEnd as error:
            raise MigrationFailed(actor, snapshot.version, definition.version, f"TurnDidNotEnd: {error}") from error


def _migrating(actor: ActorId, snapshot: Snapshot, definition: Definition) -> MessageId:
    """What is charged if the host dies while the actor is migrated: these migrations alone, so that mended ones are tried anew."""
    return MessageId(key_digest(f"{actor} {definition.migrations.fingerprint(snapshot.version).hex()}"))


@final
class Upgrades:
    """Finds the version for each actor of one epoch."""

    __slots__ = ("_epoch", "_settlement")

    def __init__(self, epoch: Epoch, settlement: Settlement) -> None:
        self._epoch = epoch
        self._settlement = settlement

    def fit(self, activation: Activation) -> None:
        """Give the actor its version, and its state the form of that; if that cannot be, it stands still.

        One that has ended only cannot be queried: what it has ended with is told all the same.
        """
        if activation.damaged or (activation.failure is not None and not is_of_versions(activation.failure)):
            return
        snapshot = activation.snapshot
        waits = snapshot is not None and snapshot.status is Status.SUSPENDED
        try:
            activation.definition = version_for(self._epoch.registry, activation.actor, snapshot)
            is_old = snapshot is not None and is_outdated(snapshot, activation.definition)
            if is_old and not waits:
                self._migrate(activation)
        except ActorQuarantined as error:
            activation.fitted = True  # no message brings it a version that is not here
            self._refuse(activation, error)
            return
        activation.unfit = None
        if activation.failure is not None:
            logger.warning("%s goes on with version %d", activation.actor, activation.definition.version)
            self._settlement.release(activation)
        is_current = activation.definition is self._epoch.registry.require(activation.actor.type)
        activation.fitted = not waits or (is_current and not is_old)  # what is replayed is migrated only for that

    def retry(self, activation: Activation) -> Outcome:
        """Let a quarantined actor go on with the message that it stood still at, if a version can."""
        self._settlement.release(activation)
        if activation.snapshot is not None:
            for definition in self._epoch.registry.versions(activation.actor.type):
                self._settlement.books.discharge(_migrating(activation.actor, activation.snapshot, definition))
        self.fit(activation)
        refused = activation.refusal()
        return Value(b"") if refused is None else refusal(refused)

    def _refuse(self, activation: Activation, error: ActorQuarantined) -> None:
        if activation.status.is_end or activation.standing.is_waiting:
            activation.unfit = error
        elif activation.failure is None or activation.failure.text != Failure.of(error).text:  # it may be another reason than yesterday
            self._settlement.quarantine(activation, error)

    def _migrate(self, activation: Activation) -> None:
        before, definition = activation.snapshot, activation.definition
        assert before is not None
        subject = _migrating(activation.actor, before, definition)
        self._refuse_deadly(activation, before, subject)
        self._epoch.breadcrumbs.enter(Phase.DECODE, subject)
        try:
            _, migrated = seen_today(self._epoch, activation.actor, before)
        finally:
            self._epoch.breadcrumbs.leave()
        activation.forget_instance()
        activation.snapshot = migrated
        activation.changed = True
        self._settlement.books.discharge(subject)
        self._settlement.books.touch(activation, len(activation.state) + 100)
        logger.info("%s was migrated from version %d to version %d", activation.actor, before.version, definition.version)

    def _refuse_deadly(self, activation: Activation, snapshot: Snapshot, subject: MessageId) -> None:
        charge = self._epoch.charges.get(subject) if self._epoch.charges else None
        if charge is not None and charge.interrupted >= MAX_INTERRUPTED:
            died = (
                f"the host died {charge.interrupted} times while it was migrated. Once that is mended elsewhere than in a migration,"
                f" say so: await ref.retry(), or perdure retry {shell_form(str(activation.actor))}"
            )
            raise MigrationFailed(activation.actor, snapshot.version, activation.definition.version, died)

"""What a host does first: find out who was interrupted and who has work; nothing else is read.

Recovery is the same after a clean stop, a crash, and a commit with an unknown outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from ..storage import Batch
from ._activation import Delivery
from ._breadcrumb import Crumb, Phase
from ._dispatch import Dispatcher
from ._envelope import damaged_envelope
from ._epoch import Epoch
from ._errors import NotDeserializable, UnknownActorType
from ._ids import ActorId, MessageId
from ._persistence import (
    Reads,
    delete_quarantine,
    delete_registry_entry,
    has_actors,
    put_charge,
    put_registry_entry,
    put_request,
    read_charges,
    read_registered,
    scan_arrivals,
    scan_quarantined,
    scan_requests,
    scan_work,
    suffix_of,
)
from ._records import Charge, DamagedRecord, RequestKind, RequestRow
from ._upgrades import is_of_versions

FORGET_CHARGES_AFTER = 7 * 86400.0  # seconds: the message of such a charge was never durable, so it never comes again

_UNREADABLE: Final = f"{NotDeserializable.__module__}.{NotDeserializable.__qualname__}"

logger = logging.getLogger("perdure.actors")


async def read_and_charge(reads: Reads, batch: Batch, crumb: Crumb | None, now: float) -> dict[MessageId, Charge]:
    """Remember what the last host died in, if it did; returns all interrupted attempts by their subject."""
    charges = {charge.subject: charge for charge in await read_charges(reads)}
    if crumb is not None:
        subject = MessageId(crumb.subject)
        before = charges.get(subject)
        if before is None or before.epoch != crumb.epoch:  # else a host charged it, and was killed before it could take the crumb away
            charge = Charge(subject, (before.interrupted if before else 0) + 1, now, crumb.epoch)
            charges[subject] = charge
            put_charge(batch, charge)
            what = "a turn" if crumb.phase is Phase.TURN else "decoding an actor"
            logger.warning("the last host died in %s (%s), for the %d. time", what, subject.hex(), charge.interrupted)
    return {subject: charge for subject, charge in charges.items() if charge.at > now - FORGET_CHARGES_AFTER}


async def read_and_charge_requests(
    reads: Reads, batch: Batch, steps: Mapping[bytes, Phase], *, is_lost: bool = False
) -> list[tuple[ActorId, RequestRow]]:
    """Everything that actors have asked for and that is not done; what ran when the last host died counts one more interrupted attempt.

    Of what had ended, and is not known to have, it is uncertain what it did; of all steps, if `is_lost` which ones ran.
    """
    outstanding: list[tuple[ActorId, RequestRow]] = []
    async for actor, row in scan_requests(reads):
        if isinstance(row, DamagedRecord):
            logger.error("%s waits for something whose record is damaged: %s", actor, row)
            continue
        if row.id in steps:
            outstanding.append((actor, _charged(batch, actor, row, steps[row.id])))
        elif is_lost and row.kind is RequestKind.STEP and not row.uncertain:
            outstanding.append((actor, _doubted(batch, actor, row)))
        else:
            outstanding.append((actor, row))
    return outstanding


def _doubted(batch: Batch, actor: ActorId, row: RequestRow) -> RequestRow:
    doubted = msgspec.structs.replace(row, uncertain=True)
    put_request(batch, suffix_of(actor), doubted)
    return doubted


def _charged(batch: Batch, actor: ActorId, row: RequestRow, phase: Phase) -> RequestRow:
    charged = msgspec.structs.replace(row, interrupted=row.interrupted + (phase is Phase.STEP), uncertain=True)
    put_request(batch, suffix_of(actor), charged)
    if phase is Phase.ENDED:
        return charged
    logger.warning("the last host died while the step %s of %s ran, for the %d. time", row.name, actor, charged.interrupted)
    return charged


async def put_registry(epoch: Epoch) -> None:
    """Write down which types are hosted, so that tools and clients need no user code; of those, other versions are hosted no more."""
    for name, version, _ in await read_registered(epoch.commit.overlay):
        hosted = [each.version for each in epoch.registry.versions(name)]
        if not hosted:
            await _warn_of_unserved(epoch, name)
        elif version not in hosted:
            delete_registry_entry(epoch.commit.batch, name, version)
    for entry in epoch.registry.describe():
        put_registry_entry(epoch.commit.batch, entry.name, entry.version, msgspec.msgpack.encode(entry))


async def _warn_of_unserved(epoch: Epoch, name: str) -> None:
    """Say that actors are there whose type is not: another host may serve it, or it was renamed."""
    if await has_actors(epoch.commit.overlay, name):
        logger.warning(
            "the store has actors of type %s, which is not served here: their messages and timers wait. If its class has another name now,"
            ' it keeps the stored one so: @durable_actor(name="%s")',
            name,
            name,
        )


async def find_work(epoch: Epoch, dispatcher: Dispatcher) -> None:
    """Hand every message that waits in the store to the dispatcher: arrivals in their order, mailboxes when there is room.

    What stood still for want of its version is looked at again, whether it has messages or not; so is, once, what could not be read: what
    was missing may be there today.
    """
    async for actor, quarantine in scan_quarantined(epoch.commit.overlay):
        if epoch.listener is not None:
            epoch.listener.quarantined(actor)
        if isinstance(quarantine, DamagedRecord) or not epoch.registry.serves(actor.type):
            continue
        if quarantine.failure.type_name == _UNREADABLE:
            delete_quarantine(epoch.commit.batch, suffix_of(actor))
            if epoch.listener is not None:
                epoch.listener.quarantined(actor, ended=True)
        elif not is_of_versions(quarantine.failure):
            continue
        dispatcher.found_with_work(actor)
    async for actor in scan_work(epoch.commit.overlay):
        dispatcher.found_with_work(actor)
    async for entry, row in scan_arrivals(epoch.commit.overlay):
        if isinstance(row, DamagedRecord):
            epoch.commit.batch.delete(entry.key)
            dispatcher.settlement.books.telling.bury(ActorId("(arrivals)", entry.key.hex()), damaged_envelope(entry.value), row)
        else:
            deliver_or_bury(epoch, dispatcher, ActorId(row.type, row.key), Delivery(row.envelope, row=entry.key))


def deliver_or_bury(epoch: Epoch, dispatcher: Dispatcher, actor: ActorId, delivery: Delivery) -> None:
    """Deliver a message whose sender cannot be told of a mistake any more."""
    try:
        dispatcher.deliver(actor, delivery)
    except UnknownActorType as unknown:
        if delivery.row is not None:
            epoch.commit.batch.delete(delivery.row)
        dispatcher.settlement.books.telling.bury(actor, delivery.envelope, unknown)

"""Versions: which of the hosted versions of a type goes on with an actor that another one may have left.

No code ever runs an actor whose past it did not write, unless it says that it can: by a migration of its state where nothing of it waits,
by `replays` where something does.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._define import Definition
from ._ids import ActorId
from ._records import NOTHING, Snapshot, Status
from ._registry import Registry
from ._version_errors import VersionMismatch


def is_outdated(snapshot: Snapshot, definition: Definition) -> bool:
    """Whether the state is another version's, and to be migrated: of a suspended actor only where there is a path for it.

    Without one, whoever replays another version's past holds the same state.
    """
    if snapshot.version == definition.version or not snapshot.state:
        return False
    return snapshot.status is not Status.SUSPENDED or definition.migrations.lead_from(snapshot.version)


def version_for(registry: Registry, actor: ActorId, snapshot: Snapshot | None) -> Definition:
    """The version that goes on with an actor: the highest for one that begins. Raises UnknownActorType, VersionMismatch.

    Of a suspended actor: its own, else the highest that replays all versions that wrote its past. Of any other: the highest if it is its
    own or has a migration from there, else its own, else the highest that has one.
    """
    current = registry.require(actor.type)
    if snapshot is None or (snapshot.version == current.version and snapshot.status is not Status.SUSPENDED):
        return current
    if snapshot.status is Status.SUSPENDED:
        return _replaying(registry, actor, snapshot)
    if not snapshot.state:
        return current
    versions = registry.versions(actor.type)
    candidates = [current, *(each for each in versions if each.version == snapshot.version), *versions]
    for definition in candidates:
        if definition.version == snapshot.version or definition.migrations.lead_from(snapshot.version):
            return definition
    raise VersionMismatch(actor, [snapshot.version], _numbers(versions))


def _replaying(registry: Registry, actor: ActorId, snapshot: Snapshot) -> Definition:
    wrote = [snapshot.version, *(snapshot.standing or NOTHING).past]
    versions = registry.versions(actor.type)
    own = [each for each in versions if each.version == snapshot.version]
    for definition in (*own, *versions):
        if {definition.version, *definition.replays}.issuperset(wrote):
            return definition
    raise VersionMismatch(actor, wrote, _numbers(versions), waits=True)


def _numbers(versions: Iterable[Definition]) -> list[int]:
    return [definition.version for definition in versions]

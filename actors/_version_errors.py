"""What is wrong where the code of today does not fit what that of yesterday has left. Their place in the tree is drawn in `_errors`.

They end by themselves: whenever a host reads the actor and has what was missing, it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from ._errors import ActorQuarantined

GOES_ON: Final = "Nothing of it is lost, and it goes on as soon as a host has that; `perdure check-upgrade` tells beforehand."


@final
class VersionMismatch(ActorQuarantined):
    """Versions `wrote` of its type wrote the actor's past, the newest first, and none of the `hosted` ones can go on from there.

    `waits` is whether some of its code waits: then it is not its state that would have to be migrated, but that code to be replayed.
    """

    __module__ = "perdure.actors"

    def __init__(self, actor: object, wrote: Iterable[int], hosted: Iterable[int], waits: bool = False) -> None:
        self.wrote = tuple(wrote)
        self.hosted = tuple(hosted)
        self.waits = waits
        what = "it waits in code" if waits else "its state is"
        ActorQuarantined.__init__(
            self, actor, f"{what} of version {_listed(self.wrote)} of its type, and this host runs version {_listed(self.hosted)}"
        )
        self.args = (self.actor, self.wrote, self.hosted, waits)

    def __str__(self) -> str:
        return f"{self.actor} is quarantined: {self.cause}.\n{self._cure}\n{GOES_ON}"

    @property
    def _cure(self) -> str:
        newest, wrote = max(self.hosted), self.wrote[0]
        beside = f"Host version {wrote} beside it, which goes on where it left off: Runtime(…, actors=[…, its class])."
        if wrote > newest:
            return f"Host version {wrote} again, or a newer one."
        if self.waits:
            replays = "".join(f"{version}, " for version in sorted(self.wrote)).rstrip()
            return (
                f"{beside}\n"
                f"Or, if version {newest} would ask for the same things up to there, say so:\n"
                f"    @durable_actor(version={newest}, replays=({replays}))"
            )
        return (
            f"Say in the class of version {newest} how the state has changed since:\n"
            f"    @migrate({wrote})\n"
            f"    @staticmethod\n"
            f"    def from_version_{wrote}(state: dict[str, Any]) -> dict[str, Any]: ...\n"
            f"{beside}"
        )


@final
class MigrationFailed(ActorQuarantined):
    """The state of version `version` could not be made one of version `target`: a migration raised, or made what the class cannot hold."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, version: int, target: int, error: str) -> None:
        self.version = version
        self.target = target
        self.error = error
        ActorQuarantined.__init__(self, actor, f"its state of version {version} could not be migrated to version {target}: {error}")
        self.args = (self.actor, version, target, error)

    def __str__(self) -> str:
        return (
            f"{self.actor} is quarantined: {self.cause}.\n"
            f"Mend what is marked @migrate({self.version}) in the class of version {self.target}, or a later one.\n{GOES_ON}"
        )


def _listed(versions: tuple[int, ...]) -> str:
    return " and ".join(map(str, versions))

"""What a turn asked for when it first ran, and how a replay finds it again.

A replayed turn gets the ids, due times and answers of the first time, never new ones; and if it asks for something else, or for less, the
replay is at an end: code that no longer fits its past is not run on.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Final, final

from ._errors import NonDeterminismError
from ._ids import ActorId
from ._records import Asked, LogEntry, RequestKind

ASKED_OTHERWISE: Final = "%s: on replay %s has %s than when it first ran; what was recorded counts"

logger = logging.getLogger("perdure.actors")


class TurnStopped(BaseException):
    """Ends the code of a turn that cannot go on: it asks, on replay, for what it did not ask for then; or what it has got cannot be read.

    Control flow, and no Exception, so that the code's own handlers do not stop it.
    """


@final
class Recorded:
    """What one turn asked for, to be matched in whatever order it is asked for now.

    By kind, name and digest (a timer by its due time) first, so two like-named requests in another order each find their own; what has no
    such match takes the first of its kind and name.
    """

    __slots__ = ("_actor", "_asked", "_entry", "_exact", "problem")

    def __init__(self, actor: ActorId, entry: LogEntry) -> None:
        self._actor: Final = actor
        self._entry: Final = entry
        self._asked: dict[int, Asked] = {asked.nth: asked for asked in entry.asked}
        self._exact: dict[tuple[object, ...], deque[Asked]] | None = None
        self.problem: NonDeterminismError | None = None

    def match(self, kind: RequestKind, name: str, digest: bytes, due: float, now: list[Asked]) -> Asked:
        """The record of what is asked for; `now` is what was asked for before it in this turn. Raises TurnStopped if there is none."""
        if not self._asked:
            self._stop(now, kind, name)
        nth, first = next(iter(self._asked.items()))
        if first.kind is kind and first.name == name and first.digest == digest and first.due == due:  # as nearly always
            del self._asked[nth]
            return first
        return self._find(kind, name, digest, due) or self._nearest(kind, name, now)

    def holds(self, kind: RequestKind, name: str) -> bool:
        """Whether there is a record of that kind and name, not yet matched."""
        return any(asked.kind is kind and asked.name == name for asked in self._asked.values())

    def finish(self, now: list[Asked]) -> None:
        """The turn has ended. Raises NonDeterminismError if it asked for anything that it did not ask for then, or left something out.

        A patch may be left out: once only the new code is there, nobody asks for it any more.
        """
        if self.problem is None and any(asked.kind is not RequestKind.PATCH for asked in self._asked.values()):
            self.problem = self._difference(now)
        if self.problem is not None:
            raise self.problem

    def _find(self, kind: RequestKind, name: str, digest: bytes, due: float) -> Asked | None:
        if self._exact is None:
            self._exact = defaultdict(deque)
            for asked in self._asked.values():
                self._exact[asked.kind, asked.name, asked.digest, asked.due].append(asked)
        candidates = self._exact.get((kind, name, digest, due), ())
        while candidates:
            asked = candidates.popleft()
            if self._asked.pop(asked.nth, None) is not None:
                return asked
        return None

    def _nearest(self, kind: RequestKind, name: str, now: list[Asked]) -> Asked:
        for asked in self._asked.values():
            if asked.kind is kind and asked.name == name:
                what = "another time" if kind is RequestKind.TIMER else "other arguments"
                logger.warning(ASKED_OTHERWISE, self._actor, shown(asked), what)
                return self._asked.pop(asked.nth)
        self._stop(now, kind, name)
        raise AssertionError("not reached")

    def _stop(self, now: list[Asked], kind: RequestKind, name: str) -> None:
        self.problem = self.problem or self._difference([*now, Asked(kind, name, -1)])
        raise TurnStopped

    def _difference(self, now: Iterable[Asked]) -> NonDeterminismError:
        then = [shown(asked) for asked in self._entry.asked]
        return NonDeterminismError(self._actor, self._entry.seq, self._entry.envelope.name, [shown(asked) for asked in now], then)


def shown(asked: Asked) -> str:
    """What was asked for, in a few words."""
    return f"{asked.kind.name.lower().replace('_', ' ')} {asked.name}".strip()

"""Supervision: what becomes of a child that has failed, and of the others. Pure: rows and a time in, a verdict out.

A child's restarts are kept in its row, so they are counted over every crash of the host; only those within the policy's time count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import msgspec

from ._policy import Directive, OneForAll, OneForOne, Supervision
from ._records import ChildRow


@final
class Verdict(NamedTuple):
    """What to do about a failed child: `renewed` are the rows of all that begin again at `due` (seconds since the epoch)."""

    directive: Directive
    renewed: list[ChildRow]
    due: float = 0.0


def judge(policy: Supervision, children: Sequence[ChildRow], failed: ChildRow, error: BaseException, now: float) -> Verdict:
    """The verdict over a child whose workflow raised; `children` are all that have not ended, in the order in which they were spawned."""
    directive = policy.directive(error)
    if directive != "restart":
        return Verdict("stop" if directive == "resume" else directive, [])
    counted = [failed] if isinstance(policy, OneForOne) else children
    since = now - policy.within.total_seconds()
    restarts = sum(at > since for child in counted for at in child.restarts)
    if restarts >= policy.max_restarts:
        return Verdict("escalate", [])
    again = msgspec.structs.replace(failed, restarts=[*(at for at in failed.restarts if at > since), now])
    others = [child for child in _concerned(policy, children, failed) if child.id != failed.id]
    renewed = [msgspec.structs.replace(child, life=child.life + 1) for child in (again, *others)]
    return Verdict("restart", renewed, now + policy.backoff.delay(restarts))


def _concerned(policy: Supervision, children: Sequence[ChildRow], failed: ChildRow) -> Sequence[ChildRow]:
    if isinstance(policy, OneForOne):
        return ()
    if isinstance(policy, OneForAll):
        return children
    place = next((place for place, child in enumerate(children) if child.id == failed.id), len(children))
    return children[place + 1 :]

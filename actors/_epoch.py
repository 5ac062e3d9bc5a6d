"""What everything in one epoch of a host works with: from owning the store until it is given back, or lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from ..storage import Fence, GroupCommit
from ._breadcrumb import Breadcrumbs
from ._clock import Clock, Entropy
from ._ids import MessageId
from ._info import DeadLetterInfo
from ._records import Charge, Outcome
from ._registry import Registry
from ._turnloop import TurnLoop
from ._watchdog import Watchdog


@final
@dataclass(slots=True)
class Epoch:
    """The parts that the modules of a host share; each is made once, by the host.

    `charges` are the interrupted attempts of messages not handled yet. `reply` tells a client an outcome that is durable. `check_queries`
    is how often a query is checked for changing state: every nth.
    """

    fence: Fence
    commit: GroupCommit
    clock: Clock
    entropy: Entropy
    registry: Registry
    loop: TurnLoop
    breadcrumbs: Breadcrumbs
    watchdog: Watchdog
    resources: Mapping[str, Any]
    charges: dict[MessageId, Charge]
    max_active: int
    check_queries: int
    on_dead_letter: Callable[[DeadLetterInfo], None] | None = None
    reply: Callable[[tuple[bytes, int], Outcome], None] = lambda reply_to, outcome: None
    arrivals: int = field(default=0)  # how many were given a row in this epoch

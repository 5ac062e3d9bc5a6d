"""What a host is made from, as values; so that a runtime can be described without anything of the host being loaded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from ..storage import Limits, StoreError
from ..tracing import PendingSpans, Tracing
from ._breadcrumb import PassingBreadcrumbs
from ._clock import Clock, Entropy, SystemClock, SystemEntropy
from ._info import DeadLetterInfo
from ._registry import Registry
from ._step import Step


class AroundSteps(Protocol):
    """What stands around each attempt at a step."""

    async def __call__(
        self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Awaitable[Any]], /
    ) -> Any:
        """What the attempt returns, or raises: `run()` calls the step's function once."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose of a host, and what the test kit puts in its place.

    `stopwatch` tells how long turns have taken, in seconds from any beginning; `queue` makes what the actors that are ready stand in;
    `linger` is how long a batch may fill that nobody waits for.
    """

    registry: Registry
    resources: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
    max_active: int = 10_000
    limits: Limits = field(default_factory=Limits)
    on_dead_letter: Callable[[DeadLetterInfo], None] | None = None
    check_queries: int = 64
    turn_limit: float = 10.0  # seconds
    max_steps: int = 1_000
    stopwatch: Callable[[], float] = time.perf_counter
    linger: float = 0.01  # seconds
    queue: Callable[[], deque[Any]] = deque
    around_steps: AroundSteps | None = None
    keep_history: int = 0  # messages of every actor's past, at least; its type may keep more
    tracing: Tracing = field(default_factory=Tracing)
    # Over the epochs of all that is made from this:
    breadcrumbs: PassingBreadcrumbs = field(default_factory=PassingBreadcrumbs)
    pending: PendingSpans = field(default_factory=PendingSpans)


def only(error: BaseException) -> BaseException:
    """What a group of exceptions comes down to: its only one, or the store's error that the others follow from; else the group itself."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if len(leaves) == 1 or isinstance(leaf, StoreError):
            return leaf
    return error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error

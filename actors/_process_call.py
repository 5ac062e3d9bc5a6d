"""A step in a process of its own: what the worker process calls, and what a step may not do there."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final, final

from ..tracing import enter
from ._errors import NotDurable
from ._ids import ActorId, MessageId
from ._step import STEP, Compensated, StepInfo

CURE: Final = "leave out executor='process'; or let several steps do the work, whose outcomes tell how far it is"


@final
class _NoHost:
    """What a step in a process of its own may do of what the others may: nothing that needs the host."""

    def heartbeat(self, progress: object) -> None:
        """Refused."""
        raise NotDurable("a heartbeat from another process", CURE)

    def emit(self, name: str, payload: object) -> None:
        """Refused."""
        raise NotDurable("an item emitted from another process", CURE)


def in_a_process(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    about: tuple[ActorId, int, MessageId, Any],
    compensates: Compensated | None,
    headers: dict[str, str] | None,
) -> Any:
    """Call a step's function in the worker; `about` is its actor, attempt, request and progress, `headers` the trace that it is part of."""
    return copy_context().run(_call, function, args, kwargs, StepInfo(_NoHost(), *about, {}, compensates), headers)


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], info: StepInfo, headers: dict[str, str] | None
) -> Any:
    if headers is not None:
        enter(headers)
    STEP.set(info)
    return function(*args, **kwargs)

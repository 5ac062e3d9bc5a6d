"""Primitives of asyncio and anyio in an actor's state: what of each is stored, and how it is made again.

Flag, items and count are stored; the loop, which belongs to a process, and waiters, which replay rebuilds, are not. Making one again needs
no event loop. The stored form names the functions of this module that begin with `restored_` and gives them plain values: neither these
names, nor this module's, nor the meaning of an argument may ever change.

Whoever holds an asyncio lock may release it, and may still do so afterwards. A lock or token of anyio's belongs to a task: one that is held
comes back as held by a task that has gone, since the actor that still has that task never decodes its own state.
"""

from __future__ import annotations

import asyncio
import copyreg
import math
import sys
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias, final

Reduced: TypeAlias = tuple[Callable[..., object], tuple[Any, ...]]


@final
class FormerTask:
    """Stands where anyio keeps the task that holds a lock or token: one that ended, or ran in an earlier activation."""

    __slots__ = ("__weakref__",)

    name: Final = "a task that has gone"

    def get_name(self) -> str:
        """What `statistics()` shows as the name of the owner."""
        return self.name

    def get_coro(self) -> FormerTask:
        """Itself: anyio wants one that is not None."""
        return self


def restored_event(is_set: bool) -> asyncio.Event:
    """An asyncio.Event."""
    event = asyncio.Event()
    if is_set:
        event.set()
    return event


def restored_lock(is_held: bool) -> asyncio.Lock:
    """An asyncio.Lock."""
    lock: Any = asyncio.Lock()
    lock._locked = is_held
    return lock  # type: ignore[no-any-return]


def restored_condition(lock: asyncio.Lock) -> asyncio.Condition:
    """An asyncio.Condition on a lock, which others may share."""
    return asyncio.Condition(lock)


def restored_semaphore(value: int) -> asyncio.Semaphore:
    """An asyncio.Semaphore."""
    return asyncio.Semaphore(value)


def restored_bounded_semaphore(value: int, bound: int) -> asyncio.BoundedSemaphore:
    """An asyncio.BoundedSemaphore, of which some may be taken."""
    semaphore = asyncio.BoundedSemaphore(bound)
    semaphore._value = value
    return semaphore


def restored_barrier(parties: int, state: str, count: int) -> asyncio.Barrier:
    """An asyncio.Barrier; `count` are waiting there."""
    barrier: Any = asyncio.Barrier(parties)
    barrier._state = type(barrier._state)(state)
    barrier._count = count
    return barrier  # type: ignore[no-any-return]


def restored_queue(items: deque[Any], maxsize: int, unfinished: int, is_shut_down: bool = False) -> asyncio.Queue[Any]:
    """An asyncio.Queue of these very items: they may refer back to it."""
    return _filled(asyncio.Queue(maxsize), items, unfinished, is_shut_down)


def restored_priority_queue(items: list[Any], maxsize: int, unfinished: int, is_shut_down: bool = False) -> asyncio.Queue[Any]:
    """An asyncio.PriorityQueue of a heap of items."""
    return _filled(asyncio.PriorityQueue(maxsize), items, unfinished, is_shut_down)


def restored_lifo_queue(items: list[Any], maxsize: int, unfinished: int, is_shut_down: bool = False) -> asyncio.Queue[Any]:
    """An asyncio.LifoQueue, the last item the first out."""
    return _filled(asyncio.LifoQueue(maxsize), items, unfinished, is_shut_down)


def _filled(queue: Any, items: deque[Any] | list[Any], unfinished: int, is_shut_down: bool) -> asyncio.Queue[Any]:
    queue._queue = items
    if unfinished:
        queue._unfinished_tasks = unfinished
        queue._finished.clear()
    if is_shut_down:
        if not hasattr(queue, "shutdown"):
            raise RuntimeError("it holds a queue that was shut down, which Python knows since 3.13: run it on that or a later one")
        queue._is_shutdown = True
    return queue  # type: ignore[no-any-return]


def restored_anyio_event(is_set: bool) -> Any:
    """An anyio.Event."""
    event = _anyio("Event")()
    if is_set:
        event.set()
    return event


def restored_anyio_lock(is_held: bool, fast_acquire: bool = False) -> Any:
    """An anyio.Lock; if held, by a task that has gone."""
    lock = _anyio("Lock")(**_speed(fast_acquire))
    if is_held:
        lock._owner_task = FormerTask()
    return lock


def restored_anyio_condition(lock: Any) -> Any:
    """An anyio.Condition on a lock, which others may share."""
    return import_module("anyio").Condition(lock)


def restored_anyio_semaphore(value: int, max_value: int | None, fast_acquire: bool = False) -> Any:
    """An anyio.Semaphore."""
    return _anyio("Semaphore")(value, max_value=max_value, **_speed(fast_acquire))


def restored_capacity_limiter(total_tokens: float, tasks: int, others: frozenset[Any] = frozenset()) -> Any:
    """An anyio.CapacityLimiter; so many tokens were borrowed by tasks, which have gone, and one each by other borrowers."""
    limiter = _anyio("CapacityLimiter")(math.inf)
    for borrower in (*(FormerTask() for _ in range(tasks)), *others):
        limiter.acquire_on_behalf_of_nowait(borrower)
    limiter.total_tokens = total_tokens  # set last: it may have been lowered below what was borrowed
    return limiter


def restored_stream_state(items: deque[Any], max_buffer_size: float, senders: int, receivers: int) -> Any:
    """What both ends of an anyio memory object stream share; senders and receivers are the ends that are open, clones too."""
    state = _stream_state_class()(max_buffer_size)
    state.buffer, state.open_send_channels, state.open_receive_channels = items, senders, receivers
    return state


def restored_send_stream(state: Any, is_closed: bool) -> Any:
    """The sending end of a memory object stream, or a clone of it."""
    stream = import_module("anyio.streams.memory").MemoryObjectSendStream(state)
    state.open_send_channels -= 1  # it counted itself, and was counted when it was stored
    stream._closed = is_closed
    return stream


def restored_receive_stream(state: Any, is_closed: bool) -> Any:
    """The receiving end of a memory object stream, or a clone of it."""
    stream = import_module("anyio.streams.memory").MemoryObjectReceiveStream(state)
    state.open_receive_channels -= 1
    stream._closed = is_closed
    return stream


def _anyio(name: str) -> Any:
    """The class that works on asyncio, whether or not a loop runs now; before 4.5, anyio had locks and semaphores for all back-ends."""
    return getattr(import_module("anyio._backends._asyncio"), name, None) or getattr(import_module("anyio"), name)


def _speed(fast_acquire: bool) -> dict[str, bool]:
    return {"fast_acquire": True} if fast_acquire else {}  # not known to every anyio


def _stream_state_class() -> Any:
    memory = import_module("anyio.streams.memory")
    return getattr(memory, "_MemoryObjectStreamState", None) or memory.MemoryObjectStreamState


def _reduced_queue(restored: Callable[..., object]) -> Callable[[Any], Reduced]:
    def reduced(queue: Any) -> Reduced:
        shut_down = (True,) if getattr(queue, "_is_shutdown", False) else ()
        return restored, (queue._queue, queue.maxsize, queue._unfinished_tasks, *shut_down)

    return reduced


def _reduced_anyio_lock(lock: Any) -> Reduced:
    return restored_anyio_lock, (lock.locked(), *_speed(_is_fast(lock)).values())


def _reduced_anyio_semaphore(semaphore: Any) -> Reduced:
    return restored_anyio_semaphore, (semaphore.value, semaphore.max_value, *_speed(_is_fast(semaphore)).values())


def _is_fast(primitive: Any) -> bool:
    return getattr(primitive, "_fast_acquire", False)


def _reduced_capacity_limiter(limiter: Any) -> Reduced:
    borrowers = limiter.statistics().borrowers
    others = frozenset(borrower for borrower in borrowers if not isinstance(borrower, asyncio.Task | FormerTask))
    return restored_capacity_limiter, (limiter.total_tokens, len(borrowers) - len(others), *((others,) if others else ()))


def _reduced_stream_state(state: Any) -> Reduced:
    return restored_stream_state, (state.buffer, state.max_buffer_size, state.open_send_channels, state.open_receive_channels)


def _reduced_anyio_event(event: Any) -> Reduced:
    return restored_anyio_event, (event.is_set(),)


_OF_ASYNCIO: Final[dict[type, Callable[[Any], Reduced]]] = {
    asyncio.Event: lambda event: (restored_event, (event.is_set(),)),
    asyncio.Lock: lambda lock: (restored_lock, (lock.locked(),)),
    asyncio.Condition: lambda condition: (restored_condition, (condition._lock,)),
    asyncio.Semaphore: lambda semaphore: (restored_semaphore, (semaphore._value,)),
    asyncio.BoundedSemaphore: lambda semaphore: (restored_bounded_semaphore, (semaphore._value, semaphore._bound_value)),
    asyncio.Barrier: lambda barrier: (restored_barrier, (barrier.parties, barrier._state.value, barrier._count)),
    asyncio.Queue: _reduced_queue(restored_queue),
    asyncio.PriorityQueue: _reduced_queue(restored_priority_queue),
    asyncio.LifoQueue: _reduced_queue(restored_lifo_queue),
}

_OF_ANYIO: Final[dict[str, dict[str, Callable[[Any], Reduced]]]] = {
    "anyio._core._synchronization": {
        "EventAdapter": _reduced_anyio_event,
        "Lock": _reduced_anyio_lock,
        "LockAdapter": _reduced_anyio_lock,
        "Condition": lambda condition: (restored_anyio_condition, (condition._lock,)),
        "Semaphore": _reduced_anyio_semaphore,
        "SemaphoreAdapter": _reduced_anyio_semaphore,
        "CapacityLimiterAdapter": _reduced_capacity_limiter,
    },
    "anyio._backends._asyncio": {
        "Event": _reduced_anyio_event,
        "Lock": _reduced_anyio_lock,
        "Semaphore": _reduced_anyio_semaphore,
        "CapacityLimiter": _reduced_capacity_limiter,
    },
    "anyio.streams.memory": {
        "MemoryObjectSendStream": lambda stream: (restored_send_stream, (stream._state, stream._closed)),
        "MemoryObjectReceiveStream": lambda stream: (restored_receive_stream, (stream._state, stream._closed)),
        "MemoryObjectStreamState": _reduced_stream_state,
        "_MemoryObjectStreamState": _reduced_stream_state,
    },
}

_awaited: Final = set(_OF_ANYIO)  # what this process has not loaded yet


def register_loaded() -> None:
    """Let pickle know the primitives of those modules of anyio that are loaded by now; called before a state is encoded.

    Loading them here would cost every program 25 ms. Once a host runs all are known, and this costs 0.05 µs.
    """
    if not _awaited:
        return
    for name in _awaited & sys.modules.keys():
        for class_name, reduced in _OF_ANYIO[name].items():
            cls = getattr(sys.modules[name], class_name, None)
            if cls is not None:
                copyreg.pickle(cls, reduced)
        _awaited.discard(name)


for _cls, _reduced in _OF_ASYNCIO.items():
    copyreg.pickle(_cls, _reduced)

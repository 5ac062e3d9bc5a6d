"""Primitives of asyncio and anyio in a state: flag, items and count are kept, whoever waits is not."""

from __future__ import annotations

import asyncio
import copyreg
import pickletools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from perdure.actors import NotDeserializable, NotSerializable, durable_actor
from perdure.actors._define import definition_of

HOME = "perdure.actors._primitives"


@durable_actor
class Workshop:
    """Keeps whatever a test gives it."""

    def __init__(self) -> None:
        self.it: Any = None


def stored(it: object) -> bytes:
    """The state of an actor that keeps it."""
    definition = definition_of(Workshop)
    workshop = definition.create()
    workshop.it = it
    return definition.encode_state(workshop)


def again(it: object) -> Any:
    """What the actor has after a restart."""
    return definition_of(Workshop).decode_state(stored(it)).it


def form(it: object) -> str:
    """The call that is stored for a primitive."""
    if isinstance(it, tuple):
        return ", ".join(map(form, it))
    if type(it) not in copyreg.dispatch_table:
        return repr(it)
    reducer: Any = copyreg.dispatch_table[type(it)]
    make, arguments = reducer(it)
    assert make.__module__ == HOME
    return f"{make.__name__}({form(arguments)})"


def filled(queue: asyncio.Queue[Any], *items: object) -> asyncio.Queue[Any]:
    """The queue with items in it, the first of them taken out."""
    for item in items:
        queue.put_nowait(item)
    queue.get_nowait()
    return queue


def event_set(event: Any) -> Any:
    """The event, set."""
    event.set()
    return event


def taken(primitive: Any) -> Any:
    """The lock, semaphore or limiter, acquired once, in a task where it asks for one."""

    async def acquire() -> Any:
        await primitive.acquire()
        return primitive

    return asyncio.run(acquire())


def inside(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What anyio makes where a loop runs."""

    async def made() -> Any:
        return make(*args, **options)

    return asyncio.run(made())


OF_ASYNCIO: list[tuple[Callable[[], Any], str]] = [
    (asyncio.Event, "restored_event(False)"),
    (lambda: event_set(asyncio.Event()), "restored_event(True)"),
    (asyncio.Lock, "restored_lock(False)"),
    (lambda: taken(asyncio.Lock()), "restored_lock(True)"),
    (lambda: taken(asyncio.Condition()), "restored_condition(restored_lock(True))"),
    (lambda: taken(asyncio.Semaphore(3)), "restored_semaphore(2)"),
    (lambda: taken(asyncio.BoundedSemaphore(3)), "restored_bounded_semaphore(2, 3)"),
    (lambda: asyncio.Barrier(2), "restored_barrier(2, 'filling', 0)"),
    (lambda: filled(asyncio.Queue(4), 3, 1, 2), "restored_queue(deque([1, 2]), 4, 3)"),
    (lambda: filled(asyncio.PriorityQueue(), 3, 1, 2), "restored_priority_queue([2, 3], 0, 3)"),
    (lambda: filled(asyncio.LifoQueue(), 3, 1, 2), "restored_lifo_queue([3, 1], 0, 3)"),
]

OF_ANYIO: list[tuple[Callable[[], Any], str]] = [
    (anyio.Event, "restored_anyio_event(False)"),
    (lambda: event_set(anyio.Event()), "restored_anyio_event(True)"),
    (lambda: event_set(inside(anyio.Event)), "restored_anyio_event(True)"),
    (anyio.Lock, "restored_anyio_lock(False)"),
    (lambda: taken(anyio.Lock()), "restored_anyio_lock(True)"),
    (lambda: taken(inside(anyio.Lock, fast_acquire=True)), "restored_anyio_lock(True, True)"),
    (lambda: taken(anyio.Condition()), "restored_anyio_condition(restored_anyio_lock(True))"),
    (lambda: anyio.Semaphore(2, max_value=3), "restored_anyio_semaphore(2, 3)"),
    (lambda: taken(anyio.Semaphore(2)), "restored_anyio_semaphore(1, None)"),
    (lambda: taken(inside(anyio.Semaphore, 2, fast_acquire=True)), "restored_anyio_semaphore(1, None, True)"),
    (lambda: anyio.CapacityLimiter(2), "restored_capacity_limiter(2, 0)"),
    (lambda: taken(inside(anyio.CapacityLimiter, 2)), "restored_capacity_limiter(2, 1)"),
]

MAKERS = [make for make, _ in OF_ASYNCIO + OF_ANYIO]


@pytest.fixture
async def tasks() -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Tasks that end with the test."""
    started: list[asyncio.Task[Any]] = []
    yield started
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)


@pytest.fixture
def handles() -> Iterator[ExitStack]:
    """What has to be closed at the end of the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(("make", "call"), OF_ASYNCIO + OF_ANYIO)
def test_a_primitive_is_stored_as_a_call_that_never_changes(make: Callable[[], Any], call: str) -> None:
    primitive = make()

    stored(primitive)

    assert form(primitive) == call


@pytest.mark.parametrize(("make", "call"), OF_ASYNCIO + OF_ANYIO)
def test_a_primitive_comes_back_without_a_loop(make: Callable[[], Any], call: str) -> None:
    restored = again(make())

    assert form(restored) == call
    assert form(again(restored)) == call


@pytest.mark.parametrize("make", MAKERS)
def test_equal_primitives_are_equal_bytes(make: Callable[[], Any]) -> None:
    primitive = make()

    assert stored(make()) == stored(primitive) == stored(again(primitive))


@pytest.mark.parametrize("make", MAKERS)
def test_neither_asyncio_nor_anyio_is_named_on_disk(make: Callable[[], Any]) -> None:
    words = {argument for _, argument, _ in pickletools.genops(stored(make())) if isinstance(argument, str)}

    assert HOME in words
    assert [word for word in words if word.startswith(("asyncio", "anyio"))] == []


@pytest.mark.promise("primitives-may-be-kept")
@pytest.mark.anyio
@pytest.mark.parametrize("make", [asyncio.Queue, asyncio.Event, lambda: asyncio.Semaphore(0), lambda: anyio.Semaphore(0), anyio.Event])
async def test_waiters_are_all_that_is_lost(make: Callable[[], Any], tasks: list[asyncio.Task[Any]]) -> None:
    primitive = make()
    before = stored(primitive)

    wait = next(getattr(primitive, name) for name in ("get", "wait", "acquire") if hasattr(primitive, name))
    tasks.append(asyncio.create_task(wait()))
    await asyncio.sleep(0)

    assert stored(primitive) == before


@pytest.mark.anyio
async def test_a_full_queue_loses_only_who_waits_to_put(tasks: list[asyncio.Task[Any]]) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    await queue.put(1)
    tasks.append(asyncio.create_task(queue.put(2)))
    await asyncio.sleep(0)

    restored = again(queue)

    assert (restored.get_nowait(), restored.empty(), restored.maxsize) == (1, True, 1)


@pytest.mark.anyio
async def test_a_restored_queue_is_joined_when_its_items_are_done() -> None:
    restored = again(filled(asyncio.Queue(), 1))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(restored.join(), 0)
    restored.task_done()

    await asyncio.wait_for(restored.join(), 1)


@pytest.mark.anyio
async def test_a_primitive_that_waited_on_one_loop_waits_on_another() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)

    restored = await asyncio.to_thread(lambda: asyncio.run(contended(again(lock))))
    lock.release()

    assert await waiting
    assert restored


async def contended(lock: asyncio.Lock) -> bool:
    """Release a held lock to a task that waits for it."""
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    lock.release()
    return await waiting


def test_a_condition_still_shares_its_lock() -> None:
    lock, anyio_lock = asyncio.Lock(), anyio.Lock()

    restored = again([lock, asyncio.Condition(lock), asyncio.Condition(lock), anyio_lock, anyio.Condition(anyio_lock)])

    assert restored[1]._lock is restored[2]._lock is restored[0]
    assert restored[4]._lock is restored[3]


def test_an_item_may_refer_back_to_its_queue() -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    queue.put_nowait([queue])

    restored = again(queue)

    assert restored.get_nowait()[0] is restored


def test_a_bounded_semaphore_still_refuses_what_nobody_took() -> None:
    restored = again(taken(asyncio.BoundedSemaphore(1)))

    restored.release()

    with pytest.raises(ValueError, match="too many"):
        restored.release()


@pytest.mark.anyio
async def test_a_broken_barrier_stays_broken() -> None:
    barrier = asyncio.Barrier(2)
    await barrier.abort()

    with pytest.raises(asyncio.BrokenBarrierError):
        await again(barrier).wait()


@pytest.mark.anyio
async def test_a_barrier_tells_how_many_wait_there(tasks: list[asyncio.Task[Any]]) -> None:
    barrier = asyncio.Barrier(2)
    tasks.append(asyncio.create_task(barrier.wait()))
    await asyncio.sleep(0)

    assert again(barrier).n_waiting == 1


@pytest.fixture
def shut_down() -> asyncio.Queue[int]:
    """A queue that was shut down with one item left."""
    queue: Any = filled(asyncio.Queue(), 1, 2)
    queue._is_shutdown = True  # as `shutdown()` does, since Python 3.13
    return queue  # type: ignore[no-any-return]


def test_a_queue_that_was_shut_down_stays_so(shut_down: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.Queue, "shutdown", None, raising=False)

    restored = again(shut_down)

    assert form(restored) == "restored_queue(deque([2]), 0, 2, True)"


def test_a_python_that_would_open_the_queue_again_refuses_it(shut_down: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncio.Queue, "shutdown", raising=False)

    with pytest.raises(NotDeserializable, match=r"since 3\.13"):
        again(shut_down)


@pytest.mark.anyio
async def test_an_anyio_lock_is_held_by_a_task_that_has_gone() -> None:
    restored = again(await held_here(anyio.Lock()))

    assert restored.statistics().owner.name == "a task that has gone"
    with pytest.raises(anyio.WouldBlock):
        restored.acquire_nowait()
    with pytest.raises(RuntimeError, match="not holding"):
        restored.release()


async def held_here(lock: anyio.Lock) -> anyio.Lock:
    """The lock, held by the task of the test."""
    await lock.acquire()
    return lock


def test_tokens_of_a_limiter_stay_borrowed() -> None:
    limiter = taken(inside(anyio.CapacityLimiter, 3))
    limiter.acquire_on_behalf_of_nowait("press")
    limiter.total_tokens = 1

    restored = again(limiter)
    restored.release_on_behalf_of("press")

    assert (limiter.borrowed_tokens, restored.borrowed_tokens, restored.total_tokens) == (2, 1, 1)


@pytest.fixture
def own(handles: ExitStack) -> Callable[..., tuple[Any, ...]]:
    """Takes streams that are to be closed at the end of the test: anyio warns of one that is left open, at some later time."""

    def owned(*streams: Any) -> tuple[Any, ...]:
        for stream in streams:
            handles.callback(stream.close)
        return streams

    return owned


def test_both_ends_of_a_memory_stream_stay_connected(own: Callable[..., Any]) -> None:
    send, receive = own(*anyio.create_memory_object_stream[int](3))
    send.send_nowait(1)

    again_send, again_receive = own(*again({"send": send, "receive": receive}).values())
    again_send.send_nowait(2)

    assert (again_receive.receive_nowait(), again_receive.receive_nowait()) == (1, 2)
    assert again_send.statistics() == send.statistics()._replace(current_buffer_used=0)


def test_a_memory_stream_is_stored_as_a_call_that_never_changes(own: Callable[..., Any]) -> None:
    send, receive = own(*anyio.create_memory_object_stream[int](3))
    send.send_nowait(1)
    receive.close()

    stored([send, receive])

    assert form(send) == "restored_send_stream(restored_stream_state(deque([1]), 3, 1, 0), False)"
    assert form(receive) == "restored_receive_stream(restored_stream_state(deque([1]), 3, 1, 0), True)"


def test_a_memory_stream_counts_its_clones_once(own: Callable[..., Any]) -> None:
    send, receive = own(*anyio.create_memory_object_stream[int](3))
    (clone,) = own(send.clone())
    send.close()

    closed, opened, end = own(*again([send, clone, receive]))
    opened.close()

    with pytest.raises(anyio.ClosedResourceError):
        closed.send_nowait(1)
    with pytest.raises(anyio.EndOfStream):
        end.receive_nowait()


@pytest.mark.promise("primitives-may-be-kept")
@pytest.mark.anyio
async def test_a_memory_stream_loses_only_who_waits(own: Callable[..., Any], tasks: list[asyncio.Task[Any]]) -> None:
    send, receive = own(*anyio.create_memory_object_stream[int](0))
    before = stored([send, receive])

    tasks.append(asyncio.create_task(send.send(1)))
    await anyio.wait_all_tasks_blocked()

    assert send.statistics().tasks_waiting_send == 1
    assert stored([send, receive]) == before


@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")  # pickle makes one end too many, and drops it
def test_an_item_may_refer_back_to_its_stream(own: Callable[..., Any]) -> None:
    send, receive = own(*anyio.create_memory_object_stream[Any](1))
    send.send_nowait([receive])

    (restored,) = own(again(receive))

    assert restored.receive_nowait()[0] is restored


async def agen() -> AsyncIterator[int]:
    yield 1


async def work() -> None:
    """Nothing."""


class OwnTask(asyncio.Task[Any]):
    """A task with an attribute of its own, which cannot be stored either."""

    def __init__(self, coroutine: Any) -> None:
        super().__init__(coroutine)
        self.more = threading.Lock()


@pytest.mark.promise("not-durable-is-refused")
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: asyncio.create_task(work()), "the task in a local variable"),
        (lambda: OwnTask(work()), "the task in a local variable"),
        (lambda: asyncio.get_running_loop().create_future(), "an asyncio.Event in self"),
        (asyncio.get_running_loop, "not subclasses of them"),
        (agen, "the generator in a local variable"),
        (lambda: (each for each in [1]), "the generator in a local variable"),
        (threading.Lock, "or use asyncio.Lock"),
        (threading.RLock, "or use asyncio.Lock"),
    ],
)
async def test_what_only_the_process_has_is_refused_with_a_cure(make: Callable[[], Any], cure: str) -> None:
    it = make()

    with pytest.raises(NotSerializable, match=cure) as refused:
        stored({"a": [it]})

    assert refused.value.path == "self.it['a'][0]"
    if isinstance(it, asyncio.Task):
        await it


def test_a_coroutine_is_refused_with_a_cure(handles: ExitStack) -> None:
    coroutine = work()
    handles.callback(coroutine.close)

    with pytest.raises(NotSerializable, match=r"self\.it is a coroutine.*await the coroutine where it is made"):
        stored(coroutine)


@pytest.mark.parametrize("mode", ["r", "rb", "wb", "r+b"])
def test_an_open_file_is_refused_with_a_cure(mode: str, handles: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("1")
    file = handles.enter_context((tmp_path / "ledger").open(mode))

    with pytest.raises(NotSerializable, match="keep its path, and open it in a @step"):
        stored([file, lambda: None])


def test_a_socket_is_refused_with_a_cure(handles: ExitStack) -> None:
    connection = handles.enter_context(socket.socket())

    with pytest.raises(NotSerializable, match="keep the address, and connect in a @step"):
        stored(connection)

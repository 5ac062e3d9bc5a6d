"""Worker threads: each call gets its outcome, and a call that hangs takes nothing from the others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial

import pytest
from perdure.actors import RemoteError, RuntimeNotRunning
from perdure.actors import _threads as module
from perdure.actors._threads import Threads, ThreadStatistics

from .conftest import eventually

pytestmark = pytest.mark.anyio

language: ContextVar[str] = ContextVar("language", default="none")

OUTLIVED = """
import asyncio, threading
from perdure.actors._threads import Threads

async def main():
    try:
        await asyncio.wait_for(Threads(1).run(threading.Event().wait), 0.01)
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""


class Hang:
    """A call that does not return until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._released = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self._released.wait(30)
        return "late"

    def release(self) -> None:
        """Let it return."""
        self._released.set()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """A pool of one thread."""
    pool = Threads(limit=1)
    yield pool
    await pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("perdure-thread")]


@pytest.fixture
async def hang(threads: Threads) -> AsyncIterator[Hang]:
    """A call that hangs, at most until the end of the test, before which the pool is not closed."""
    call = Hang()
    yield call
    call.release()


async def given_up(threads: Threads, hang: Hang) -> None:
    """Begin the call, and stop waiting for it."""
    task = asyncio.ensure_future(threads.run(hang))
    await eventually(hang.begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_runs_in_another_thread_that_is_kept(threads: Threads) -> None:
    idents = [await threads.run(threading.get_ident) for _ in range(3)]

    assert len(set(idents)) == 1
    assert threading.get_ident() not in idents
    assert threads.statistics() == ThreadStatistics(running=0, idle=1, abandoned=0, waiting=0)


async def test_a_call_sees_the_callers_context_and_cannot_change_it(threads: Threads) -> None:
    language.set("fr")

    seen = await threads.run(language.get)
    await threads.run(partial(language.set, "de"))

    assert (seen, language.get()) == ("fr", "fr")


async def test_an_exception_arrives_itself(threads: Threads) -> None:
    error = LookupError("no such order")

    def look_up() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        await threads.run(look_up)

    assert raised.value is error


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_what_would_end_the_host_or_its_task_is_an_error(threads: Threads, error: BaseException) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(RemoteError, match=type(error).__name__):
        await threads.run(leave)


async def test_a_call_that_hangs_does_not_use_up_the_pool(threads: Threads, hang: Hang) -> None:
    await given_up(threads, hang)

    assert await threads.run(lambda: "next") == "next"
    assert threads.statistics() == ThreadStatistics(running=0, idle=1, abandoned=1, waiting=0)


async def test_a_warning_names_the_abandoned_call(threads: Threads, hang: Hang, caplog: pytest.LogCaptureFixture) -> None:
    await given_up(threads, hang)

    assert f"{__name__}.Hang is not waited for any longer" in caplog.text


async def test_an_abandoned_thread_ends_with_its_call(threads: Threads, hang: Hang) -> None:
    await given_up(threads, hang)

    hang.release()
    await eventually(lambda: threads.statistics().abandoned == 0)

    assert threads.statistics().idle == 0


async def test_whoever_waits_is_served_in_the_order_of_coming(threads: Threads, hang: Hang) -> None:
    order: list[int] = []
    first = asyncio.ensure_future(threads.run(hang))
    await eventually(hang.begun.is_set)
    others = [asyncio.ensure_future(threads.run(partial(order.append, number))) for number in range(5)]
    await eventually(lambda: threads.statistics() == ThreadStatistics(running=1, idle=0, abandoned=0, waiting=5))

    hang.release()
    await asyncio.gather(*others)

    assert (await first, order) == ("late", [0, 1, 2, 3, 4])


async def test_one_who_waits_and_goes_takes_no_thread(threads: Threads, hang: Hang) -> None:
    first = asyncio.ensure_future(threads.run(hang))
    waiting = asyncio.ensure_future(threads.run(partial(pytest.fail, "it was given up")))
    await eventually(lambda: threads.statistics().waiting == 1)

    waiting.cancel()
    await asyncio.wait({waiting})
    hang.release()

    assert waiting.cancelled()
    assert (await first, await threads.run(lambda: "next")) == ("late", "next")


async def test_closing_waits_for_a_call_that_runs(threads: Threads, hang: Hang) -> None:
    running = asyncio.ensure_future(threads.run(hang))
    await eventually(hang.begun.is_set)

    threading.Timer(0.01, hang.release).start()
    await threads.close()

    assert running.done()
    assert threads.statistics() == ThreadStatistics(0, 0, 0, 0)


async def test_closing_does_not_wait_long_for_a_call_that_hangs(threads: Threads, hang: Hang, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSES_WITHIN", 0.01)
    await given_up(threads, hang)

    await threads.close()

    assert threads.statistics().abandoned == 1


async def test_a_closed_pool_takes_no_calls(threads: Threads) -> None:
    await threads.close()

    with pytest.raises(RuntimeNotRunning, match="the host has ended its threads"):
        await threads.run(threading.get_ident)


def test_an_abandoned_thread_does_not_keep_the_process_alive() -> None:
    done = subprocess.run([sys.executable, "-c", OUTLIVED], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "given up\n"

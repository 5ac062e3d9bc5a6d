"""Worker processes: each call gets its outcome, a worker that dies takes nothing from the others, and none outlives its host."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from perdure.actors import NotSerializable, RemoteError, RuntimeNotRunning, WorkerDied
from perdure.actors._processes import Processes, ProcessStatistics

pytestmark = pytest.mark.anyio

MAIN = """
import asyncio
from perdure.actors._processes import Processes

class Order:
    def __init__(self, cents):
        self.cents = cents

class Declined(Exception):
    pass

def charge(order):
    if order.cents > 5:
        raise Declined(order.cents)
    return Order(order.cents * RATE)

RATE = 3

async def main():
    pool = Processes(1)
    charged = await pool.run(lambda: charge(Order(2)))
    print(type(charged) is Order, charged.cents)
    try:
        await pool.run(lambda: charge(Order(7)))
    except Declined as declined:
        print("declined", *declined.args)
    await pool.close()

if __name__ == "__main__":
    asyncio.run(main())
"""

HOST = """
import asyncio, os, re, subprocess, sys
from perdure.actors._processes import Processes

def hang():
    subprocess.Popen(["sleep", "600"])
    print("hanging", flush=True)
    re.match("(a+)+$", "a" * 64 + "b")  # keeps the GIL for ages

async def main():
    pool = Processes(1)
    await pool.run(os.getpid)
    if os.fork() == 0:
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    await pool.run(hang)

asyncio.run(main())
"""


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    """A pool of two, which leaves nothing behind."""
    before = descriptors()
    pool = Processes(limit=2)
    yield pool
    await pool.close()
    assert pool.statistics() == ProcessStatistics(running=0, idle=0, waiting=0)
    assert descriptors() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("perdure-process")]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A pipe with a name, through which calls meet: whoever opens it waits for the other side."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def test_two_calls_at_once_use_two_processes(processes: Processes, fifo: Path) -> None:
    tell = processes.run(lambda: fifo.write_text(str(os.getpid())))
    hear = processes.run(lambda: (int(fifo.read_text()), os.getpid()))

    _, (heard, own) = await asyncio.gather(tell, hear)

    assert len({heard, own, os.getpid()}) == 3
    assert processes.statistics() == ProcessStatistics(running=0, idle=2, waiting=0)


async def test_a_worker_is_kept_for_the_next_call(processes: Processes) -> None:
    pids = {await processes.run(os.getpid) for _ in range(3)}

    assert len(pids) == 1


async def test_calls_beyond_the_limit_are_all_served(processes: Processes) -> None:
    results = await asyncio.gather(*(processes.run(partial(divmod, number, 3)) for number in range(20)))

    assert results == [divmod(number, 3) for number in range(20)]


def test_what_the_main_program_defines_goes_there_and_back(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MAIN)

    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "True 6\ndeclined 7\n"


async def test_a_worker_imports_what_its_host_can(processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corner_shop.py").write_text("PRICE = 42")
    monkeypatch.syspath_prepend(tmp_path)

    assert await processes.run(lambda: __import__("corner_shop").PRICE) == 42


async def test_fifty_mebibytes_go_there_and_back(processes: Processes) -> None:
    data = b"perdure " * (50 << 17)

    assert await processes.run(partial(bytes.lower, data)) == data


async def test_an_exception_arrives_as_its_own_class(processes: Processes) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        await processes.run(partial(divmod, 1, 0))

    assert "in _answer" in raised.value.__notes__[0]


async def test_a_call_that_exits_is_an_error_and_no_death(processes: Processes) -> None:
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        await processes.run(partial(sys.exit, 3))

    assert processes.statistics().idle == 1


@pytest.mark.parametrize("call", [threading.Lock, partial(id, threading.Lock())])
async def test_what_cannot_be_pickled_is_refused_by_name(processes: Processes, call: partial[int]) -> None:
    with pytest.raises(NotSerializable, match=r"cannot pickle '_thread\.lock' object"):
        await processes.run(call)

    assert await processes.run(lambda: "next") == "next"


async def test_a_worker_that_is_killed_fails_its_own_call_only(processes: Processes, fifo: Path) -> None:
    other = asyncio.ensure_future(processes.run(fifo.read_text))

    with pytest.raises(WorkerDied, match="<lambda>' was killed by SIGKILL"):
        await processes.run(lambda: os.kill(os.getpid(), signal.SIGKILL))

    await asyncio.to_thread(fifo.write_text, "goes on")
    assert await other == "goes on"


async def test_a_worker_that_exits_gets_a_successor(processes: Processes) -> None:
    with pytest.raises(WorkerDied, match="exited with status 7"):
        await processes.run(partial(os._exit, 7))

    assert await processes.run(lambda: "next") == "next"


async def test_a_worker_that_died_between_calls_costs_none(processes: Processes) -> None:
    pid = await processes.run(os.getpid)

    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert await processes.run(os.getpid) != pid


async def test_the_death_of_a_worker_with_forks_is_noticed(processes: Processes) -> None:
    def fork_and_die() -> None:
        if os.fork():
            os._exit(7)
        signal.pause()

    with pytest.raises(WorkerDied, match="exited with status 7"):
        await processes.run(fork_and_die)


async def test_a_call_that_is_given_up_is_killed_with_its_process(processes: Processes, fifo: Path) -> None:
    def hang() -> None:
        fifo.write_text(str(os.getpid()))
        time.sleep(600)

    task = asyncio.ensure_future(processes.run(hang))
    pid = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    await asyncio.wait({task})
    await processes.close()

    assert task.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_place_given_up_is_free_for_the_next(fifo: Path) -> None:
    single = Processes(limit=1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(single.run(fifo.read_text), 0.01)

    pids = await asyncio.gather(*(single.run(os.getpid) for _ in range(3)))
    await single.close()

    assert len(set(pids)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_to_the_whole_service_leave_workers_alone(processes: Processes, number: signal.Signals) -> None:
    await processes.run(lambda: os.kill(os.getpid(), number))

    assert await processes.run(lambda: os.getpgrp() == os.getpid())


def test_a_worker_and_what_it_started_end_with_a_killed_host() -> None:
    command = [sys.executable, "-W", "ignore", "-c", HOST]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"hanging\n"

        host.kill()

        assert host.stdout.read() == b""  # ends when nobody holds it any longer


async def test_closing_kills_a_call_that_runs(processes: Processes, fifo: Path) -> None:
    running = asyncio.ensure_future(processes.run(fifo.read_text))
    await asyncio.sleep(0)

    await processes.close()

    with pytest.raises(WorkerDied, match="was killed by SIGKILL"):
        await running


async def test_a_closed_pool_takes_no_calls(processes: Processes) -> None:
    await processes.close()

    with pytest.raises(RuntimeNotRunning, match="the host has ended its worker processes"):
        await processes.run(os.getpid)

"""A client that is stopped in the middle of a send holds up other clients, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import AskTimeout, Client, Runtime, durable_actor, on_event, query
from perdure.storage import _inbox

pytestmark = [pytest.mark.anyio, pytest.mark.promise("clients-hold-up-nobody")]

# What a client's send does, as far as its transaction, which is begun and never ended.
STOPPED = """
import lmdb, os, signal, sys
inbox = lmdb.open(sys.argv[1], create=False, max_readers=1024, lib_version=0)
transaction = inbox.begin(write=True)
os.kill(os.getpid(), signal.SIGSTOP)
transaction.abort()
"""


@durable_actor
class Turnstile:
    """Counts who passes."""

    count: int = 0

    @on_event
    def add(self, by: int) -> int:
        self.count += by
        return self.count

    @query
    def value(self) -> int:
        return self.count


@pytest.fixture
async def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    """Hosts a store that has taken in a client's messages."""
    monkeypatch.setattr(_inbox, "TRIM_DELAY", 0.01)
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Turnstile]) as runtime:
        async with Client(url) as client:
            await client.ref(Turnstile, "a").ask(Turnstile.add, 1)
        yield runtime


@pytest.fixture
def stopped(runtime: Runtime, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A client that holds the inbox's write lock, and stands still."""
    with subprocess.Popen([sys.executable, "-c", STOPPED, f"{tmp_path}/store/inbox"]) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield process
        process.kill()


async def test_the_host_serves_its_own_callers_while_a_client_is_stopped(runtime: Runtime, stopped: object) -> None:
    counter = runtime.ref(Turnstile, "a")

    for number in range(2, 50):
        assert await counter.ask(Turnstile.add, 1) == number
    await counter.send_event(Turnstile.add, 1)

    assert await counter.query(Turnstile.value) >= 49


async def test_other_clients_are_served_when_it_goes_on(runtime: Runtime, stopped: subprocess.Popen[bytes], tmp_path: Path) -> None:
    async with Client(f"lmdb:{tmp_path}/store") as client:
        counter = client.ref(Turnstile, "a")
        assert await counter.query(Turnstile.value) == 1
        with pytest.raises(AskTimeout):
            await counter.options(timeout=timedelta(seconds=0.05), idempotency_key="k").ask(Turnstile.add, 1)

        stopped.send_signal(signal.SIGCONT)

        assert await counter.options(idempotency_key="k").ask(Turnstile.add, 1) == 2

"""An ask outlives whoever asked: killed, its caller's key gets the recorded reply in any other process, and the handler ran once.

    python -m tests.durability.test_asked_again URL

asks under the key, and waits until it is killed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from perdure.actors import ActorRef, Client, Runtime, durable_actor, on_event, query, send_signal, signal, wait_for_signal


@durable_actor
class Till:
    """Takes money once somebody has counted it."""

    counted = signal(str)
    begun: int = 0

    @on_event
    async def take(self, cents: int) -> str:
        self.begun += 1
        counter = await wait_for_signal(Till.counted)
        return f"{cents} counted by {counter}"

    @query
    def how_often(self) -> int:
        return self.begun


def begin_asking(url: str, root: Path) -> subprocess.Popen[bytes]:
    """A caller in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", __spec__.name, url], cwd=root)


def once(client: Client) -> ActorRef[Till]:
    return client.ref(Till, "t").options(idempotency_key="k")


@pytest.mark.promise("keys-happen-once")
@pytest.mark.anyio
@pytest.mark.parametrize("is_done", [False, True])
async def test_a_killed_callers_key_gets_the_recorded_reply_elsewhere(tmp_path: Path, pytestconfig: pytest.Config, is_done: bool) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Till]) as runtime:
        with begin_asking(url, pytestconfig.rootpath) as caller:
            while not await runtime.ref(Till, "t").query(Till.how_often):  # noqa: ASYNC110  another process makes it true
                await asyncio.sleep(0.01)
            caller.kill()
        if is_done:
            await send_signal(runtime.ref(Till, "t"), Till.counted, "ada")
            await runtime.settled()

    async with Runtime(url, [Till]) as runtime, Client(url) as client, Client(url) as other:
        again = [asyncio.ensure_future(once(each).ask(Till.take, 42)) for each in (client, other)]
        await send_signal(runtime.ref(Till, "t"), Till.counted, "bob")

        assert await asyncio.gather(*again) == [f"42 counted by {'ada' if is_done else 'bob'}"] * 2
        assert await runtime.ref(Till, "t").query(Till.how_often) == 1


async def ask(url: str) -> None:
    """Ask, and wait for ever."""
    async with Client(url) as client:
        await once(client).ask(Till.take, 42)


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[1]))
